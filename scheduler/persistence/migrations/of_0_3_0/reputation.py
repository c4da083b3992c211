"""Tables of caller ids by day, of migration 0035, and who may use them."""

TABLES = """
CREATE TABLE caller_days (
    company_id uuid, phone_number_id uuid, day date,
    calls integer NOT NULL, answered integer NOT NULL, declined integer NOT NULL, blocked integer NOT NULL,
    is_blocked_reported boolean NOT NULL DEFAULT false, is_rate_reported boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_caller_days PRIMARY KEY (company_id, phone_number_id, day),
    CONSTRAINT ck_caller_days_parts_of_the_calls CHECK (answered + declined + blocked <= calls),
    CONSTRAINT fk_caller_days_company_id_phone_number_id FOREIGN KEY (company_id, phone_number_id)
        -- Release 0.2.0 erases a company's numbers without knowing this table.
        REFERENCES phone_numbers (company_id, id) ON DELETE CASCADE
);
CREATE INDEX ix_caller_days_day ON caller_days (day);
-- Each transaction appends the ends of its calls, so that no two processes change the same row.
CREATE TABLE caller_results (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_caller_results PRIMARY KEY,
    phone_number_id uuid NOT NULL, day date NOT NULL,
    calls integer NOT NULL, answered integer NOT NULL, declined integer NOT NULL, blocked integer NOT NULL
)
"""

RIGHTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON caller_days, caller_results TO duecall_worker;
GRANT SELECT ON caller_days TO duecall_counter;
GRANT SELECT ON caller_days TO duecall_operator;
ALTER TABLE caller_days ENABLE ROW LEVEL SECURITY;
ALTER TABLE caller_days FORCE ROW LEVEL SECURITY;
ALTER TABLE caller_results ENABLE ROW LEVEL SECURITY;
ALTER TABLE caller_results FORCE ROW LEVEL SECURITY;
CREATE POLICY everything ON caller_days TO duecall_worker, CURRENT_USER USING (true);
CREATE POLICY everything ON caller_results TO duecall_worker, CURRENT_USER USING (true);
CREATE POLICY counted ON caller_days FOR SELECT TO duecall_counter USING (true);
CREATE POLICY operator_seen ON caller_days FOR SELECT TO duecall_operator USING (true)
"""
