"""Tables and conditions of migration 0035. Statements are separated by semicolons."""

CHANGES = """
ALTER TABLE attempts DROP CONSTRAINT ck_attempts_state_and_reason;
ALTER TABLE attempts ADD CONSTRAINT ck_attempts_state_and_reason CHECK (
    ((state IN ('PENDING', 'IN_PROGRESS') AND reason IS NULL)
    OR (state = 'COMPLETED' AND reason IN ('ANSWERED', 'TEST'))
    OR (state = 'FAILED' AND reason IN ('BUSY', 'NO_ANSWER', 'VOICEMAIL', 'DECLINED', 'INVALID_NUMBER',
        'CARRIER_ERROR', 'CANCELLED_AT_CARRIER', 'BLOCKED_BY_NETWORK', 'UNREACHABLE', 'INSTRUCTIONS_FAILED',
        'OUTCOME_UNKNOWN', 'EXPIRED', 'CONSENT_EXPIRED'))
    OR (state = 'CANCELLED' AND reason IN ('CANCELLED_BY_USER', 'REPLACED', 'INTERVIEW_DELETED',
        'CANDIDATE_DELETED', 'COMPANY_DELETED'))) IS TRUE
);
ALTER TABLE attempts ADD COLUMN instructions_failed boolean;
ALTER TABLE lines ADD COLUMN refused_at timestamptz;
CREATE INDEX ix_lines_refused_at ON lines (refused_at, country) WHERE refused_at IS NOT NULL;
CREATE INDEX ix_attempts_without_instructions ON attempts (claimed_at) WHERE instructions_failed;
CREATE INDEX ix_attempts_without_instructions_of_company ON attempts (company_id, claimed_at) WHERE instructions_failed;
CREATE INDEX ix_attempts_of_machines ON attempts (claimed_at) WHERE reason = 'VOICEMAIL';
ALTER TABLE attempts ADD COLUMN machine_detection text;
ALTER TABLE attempts ADD CONSTRAINT ck_attempts_machine_detection
    CHECK (machine_detection IN ('OFF', 'SYNC', 'ASYNC'));
ALTER TABLE attempts ADD COLUMN hung_up_at timestamptz;
ALTER TABLE attempts ADD COLUMN sip_code smallint;
GRANT SELECT (instructions_failed, machine_detection, hung_up_at, sip_code) ON attempts TO duecall_operator
"""

OUTCOMES = """
ALTER TABLE attempts
    ADD COLUMN outcome text,
    ADD COLUMN outcome_at timestamptz,
    ADD COLUMN outcome_note text,
    ADD COLUMN outcome_until timestamptz,
    ADD COLUMN call_back jsonb,
    ADD COLUMN call_backs smallint DEFAULT 0 NOT NULL,
    ADD CONSTRAINT ck_attempts_reported_at_an_instant CHECK ((outcome IS NULL) = (outcome_at IS NULL)),
    ADD CONSTRAINT ck_attempts_a_note_is_of_an_outcome CHECK (outcome_note IS NULL OR outcome IS NOT NULL),
    ADD CONSTRAINT ck_attempts_only_an_answered_call_is_awaited
        CHECK (outcome_until IS NULL OR (outcome IS NULL AND reason IS NOT DISTINCT FROM 'ANSWERED')),
    ADD CONSTRAINT ck_attempts_a_call_back_has_a_time
        CHECK ((call_back IS NOT NULL) = (outcome IS NOT DISTINCT FROM 'CALL_BACK'));
CREATE INDEX ix_attempts_refused ON attempts (number_hash) WHERE outcome IN ('OPTED_OUT', 'WRONG_PERSON');
CREATE INDEX ix_attempts_outcome ON attempts (outcome_until) WHERE outcome_until IS NOT NULL;
GRANT SELECT (outcome, outcome_at, outcome_until, call_back, call_backs) ON attempts TO duecall_operator
"""

REFUSALS = """
ALTER TABLE inbox
    ADD COLUMN number_hash bytea,
    ADD CONSTRAINT ck_inbox_a_number_until_applied CHECK (number_hash IS NULL OR applied_at IS NULL);
CREATE INDEX ix_inbox_refusals ON inbox (number_hash) WHERE number_hash IS NOT NULL;
GRANT SELECT (number_hash) ON inbox TO duecall_operator;
CREATE OR REPLACE FUNCTION drop_quarantined(commands uuid[], dropped_at timestamptz, dropped_with jsonb) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        UPDATE inbox SET applied_at = dropped_at, body = NULL, answer = dropped_with, number_hash = NULL
        WHERE id = ANY (commands) AND quarantined_at IS NOT NULL AND applied_at IS NULL; END
"""

_CALL_ENDS = ("BLOCKED_BY_NETWORK", "UNREACHABLE", "INSTRUCTIONS_FAILED")
_VERDICTS = ("verdict_heard", "verdict_awaited")
"""Also of a call that was found after its outcome was given up."""
ARROWS = (
    # event, from, to, reason; "" stands for none
    *(("ended", "IN_PROGRESS", "FAILED", reason) for reason in _CALL_ENDS),
    *((event, "IN_PROGRESS", "IN_PROGRESS", "") for event in _VERDICTS),
    *((event, "FAILED", "FAILED", "OUTCOME_UNKNOWN") for event in _VERDICTS),
    ("cause_awaited", "IN_PROGRESS", "IN_PROGRESS", ""),
    *((event, "FAILED", "FAILED", reason) for event in ("proven", "deleted") for reason in _CALL_ENDS),
    ("reported", "IN_PROGRESS", "IN_PROGRESS", ""),
    *(("reported", "FAILED", "FAILED", reason) for reason in ("VOICEMAIL", "INSTRUCTIONS_FAILED", "OUTCOME_UNKNOWN")),
    *((event, "COMPLETED", "COMPLETED", "ANSWERED") for event in ("reported", "outcome_awaited", "not_reported")),
)
