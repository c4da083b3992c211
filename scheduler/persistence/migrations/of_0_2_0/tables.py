"""Indexes and tables of migration 0034. Statements are separated by semicolons."""

LISTS = """
CREATE INDEX ix_interviews_company_id_created_at ON interviews (company_id, created_at);
CREATE INDEX ix_interviews_company_id_status_created_at ON interviews (company_id, status, created_at);
CREATE INDEX ix_interviews_company_id_updated_at ON interviews (company_id, updated_at);
CREATE INDEX ix_interviews_company_id_scheduled_at ON interviews (company_id, scheduled_at)
    WHERE scheduled_at IS NOT NULL;
CREATE INDEX ix_candidates_company_id_created_at ON candidates (company_id, created_at);
CREATE INDEX ix_candidates_company_id_status_created_at ON candidates (company_id, status, created_at);
CREATE INDEX ix_candidates_company_id_updated_at ON candidates (company_id, updated_at);
CREATE INDEX ix_candidates_phone_number ON candidates USING hash (phone_number);
-- The list of pending entries would be read in full by each search, and has the entries of all companies.
CREATE INDEX ix_candidates_search ON candidates USING gin (
    candidate_search_keys(company_id, (first_name || ' ') || last_name), candidate_search_keys(company_id, email)
) WITH (fastupdate = false);
CREATE INDEX ix_attempts_ended_by_company ON attempts (company_id, due_at) WHERE ended_at IS NOT NULL;
CREATE INDEX ix_attempts_retries ON attempts (chain_id) WHERE retry_number > 0;
-- An update is HOT if it changes no indexed column. A summary (BRIN) does not count, from PostgreSQL 16 on.
CREATE INDEX ix_attempts_updated_at ON attempts USING brin (updated_at)
    WITH (pages_per_range = 32, autosummarize = true)
"""
"""Indexes of candidates, interviews and attempts that can be built while these are read, and take most of the time.

Rows that were created at the same instant are sorted by their ids when they are read.
"""

CHANGES = """
DROP INDEX ix_interviews_company_id_created_at_id, ix_candidates_company_id_created_at_id, ix_attempts_chain_id,
    ix_attempts_pending_updated_at, ix_attempts_waiting_by_number, uq_attempts_one_open_per_interview,
    ix_attempt_history_attempt_id_id, ix_carrier_events_token;
-- A foreign key needs an index with both columns. If it is the primary key's, rows have one entry instead of two.
ALTER TABLE assignments DROP CONSTRAINT fk_assignments_company_id_candidate_id;
ALTER TABLE interviews DROP CONSTRAINT fk_interviews_company_id_candidate_id;
ALTER TABLE attempts
    DROP CONSTRAINT fk_attempts_company_id_interview_id,
    DROP CONSTRAINT uq_attempts_company_id_id,
    ADD COLUMN decision text,
    ADD COLUMN decided_at timestamptz,
    ADD COLUMN held_until timestamptz,
    ADD COLUMN unreadable_until timestamptz,
    ADD CONSTRAINT ck_attempts_decision CHECK (decision IN ('RANG', 'DID_NOT_RING', 'LEFT')),
    ADD CONSTRAINT ck_attempts_decided_at_an_instant CHECK ((decision IS NULL) = (decided_at IS NULL)),
    ADD CONSTRAINT ck_attempts_decided_is_over CHECK (decision IS NULL OR state NOT IN ('PENDING', 'IN_PROGRESS'));
ALTER TABLE candidates
    DROP CONSTRAINT uq_candidates_company_id_id,
    DROP CONSTRAINT pk_candidates,
    ADD CONSTRAINT pk_candidates PRIMARY KEY (id, company_id),
    ADD COLUMN external_id text,
    ADD COLUMN content_hash bytea,
    ADD COLUMN leaving_at timestamptz;
ALTER TABLE interviews
    DROP CONSTRAINT uq_interviews_company_id_id,
    DROP CONSTRAINT pk_interviews,
    ADD CONSTRAINT pk_interviews PRIMARY KEY (id, company_id),
    ADD COLUMN external_id text,
    ADD COLUMN content_hash bytea;
ALTER TABLE assignments ADD CONSTRAINT fk_assignments_company_id_candidate_id
    FOREIGN KEY (company_id, candidate_id) REFERENCES candidates (company_id, id);
ALTER TABLE interviews ADD CONSTRAINT fk_interviews_company_id_candidate_id
    FOREIGN KEY (company_id, candidate_id) REFERENCES candidates (company_id, id);
ALTER TABLE attempts ADD CONSTRAINT fk_attempts_company_id_interview_id
    FOREIGN KEY (company_id, interview_id) REFERENCES interviews (company_id, id);
ALTER TABLE jobs ADD COLUMN external_id text, ADD COLUMN content_hash bytea;
ALTER TABLE carrier_events
    DROP CONSTRAINT uq_carrier_events_fingerprint,
    ADD CONSTRAINT uq_carrier_events_token_fingerprint UNIQUE (token, fingerprint),
    ADD COLUMN first_failed_at timestamptz,
    ADD COLUMN failed_with text;
ALTER TABLE inbox
    ADD COLUMN first_failed_at timestamptz,
    ADD COLUMN failed_with text,
    ADD COLUMN awaited_until timestamptz;
ALTER TABLE reresolutions ADD COLUMN after_interview_id uuid, ADD COLUMN after_in_last_pass boolean;
ALTER TABLE companies
    ADD COLUMN calls_per_second_ceiling numeric(8, 3),
    ADD COLUMN concurrent_calls_ceiling integer,
    ADD CONSTRAINT ck_companies_limits_within_the_ceiling
        CHECK (concurrent_calls <= concurrent_calls_ceiling AND calls_per_second <= calls_per_second_ceiling);
ALTER TABLE lines ADD COLUMN is_awaited boolean DEFAULT false NOT NULL;
INSERT INTO arrows (event, from_state, to_state, reason) VALUES ('decided', 'FAILED', 'FAILED', 'OUTCOME_UNKNOWN');
CREATE INDEX ix_attempt_history_attempt_id ON attempt_history (attempt_id);
CREATE INDEX ix_attempts_waiting_by_number ON attempts USING hash (number_hash) WHERE state = 'PENDING';
CREATE UNIQUE INDEX uq_attempts_one_open_per_interview ON attempts (interview_id) INCLUDE (company_id)
    WHERE state IN ('PENDING', 'IN_PROGRESS');
CREATE INDEX ix_attempts_unknown ON attempts (company_id) WHERE reason = 'OUTCOME_UNKNOWN' AND decided_at IS NULL;
CREATE INDEX ix_attempts_releasable ON attempts (company_id, manual, greatest(due_at, held_until))
    WHERE state = 'PENDING' AND held_until IS NULL;
CREATE INDEX ix_attempts_held_by_number ON attempts (number_hash, company_id, due_at)
    WHERE state = 'PENDING' AND held_until IS NOT NULL;
-- Only for ranges of time: its condition must not follow from that of the index before.
CREATE INDEX ix_attempts_held ON attempts (company_id, held_until)
    WHERE state = 'PENDING' AND held_until > '-infinity';
CREATE INDEX ix_lines_awaited ON lines (free_at, number_hash) WHERE is_awaited AND attempt_id IS NULL;
CREATE INDEX ix_candidates_leaving_at ON candidates (leaving_at) WHERE leaving_at IS NOT NULL;
CREATE UNIQUE INDEX uq_candidates_external_id ON candidates (company_id, external_id)
    WHERE external_id IS NOT NULL AND erased_at IS NULL;
CREATE UNIQUE INDEX uq_interviews_external_id ON interviews (company_id, external_id)
    WHERE external_id IS NOT NULL AND deleted_at IS NULL;
CREATE UNIQUE INDEX uq_jobs_external_id ON jobs (company_id, external_id)
    WHERE external_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX ix_jobs_company_id_updated_at ON jobs (company_id, updated_at);
CREATE INDEX ix_erasures_asked_at_company_id ON erasures (asked_at, company_id);
-- Refusals that a request has not returned: commands as usual do not change it.
CREATE INDEX ix_inbox_owed ON inbox (awaited_until)
    WHERE applied_at < awaited_until AND answer ? 'refusal' AND quarantined_at IS NULL
"""
"""Changes of the tables of 0.1.0. Every column is nullable or has a default, because workers of 0.1.0 write, too."""

NEW = """
-- Each transaction appends its amounts, so that no two processes change the same row. The clock folds them into totals.
CREATE TABLE tallies (
    name text, label text, n bigint NOT NULL, sum double precision NOT NULL, buckets bigint[] NOT NULL,
    CONSTRAINT pk_tallies PRIMARY KEY (name, label)
);
CREATE TABLE tally_entries (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_tally_entries PRIMARY KEY,
    entries jsonb NOT NULL
);
CREATE TABLE alarms (
    id uuid CONSTRAINT pk_alarms PRIMARY KEY,
    kind text NOT NULL CONSTRAINT ck_alarms_kind CHECK (kind ~ '^[A-Z0-9_]{1,80}$'),
    subjects jsonb NOT NULL CONSTRAINT ck_alarms_few_subjects
        CHECK (jsonb_typeof(subjects) = 'object' AND length(subjects::text) <= 800),
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    count bigint NOT NULL,
    acknowledged_at timestamptz,
    acknowledged_by text,
    note text,
    tries integer NOT NULL,
    post_at timestamptz,
    posted_at timestamptz,
    CONSTRAINT ck_alarms_acknowledged_by_an_actor CHECK (num_nonnulls(acknowledged_at, acknowledged_by) IN (0, 2)),
    CONSTRAINT ck_alarms_acknowledged_is_not_posted CHECK (acknowledged_at IS NULL OR post_at IS NULL)
);
CREATE UNIQUE INDEX uq_alarms_open ON alarms (kind, subjects) WHERE acknowledged_at IS NULL;
CREATE INDEX ix_alarms_to_post ON alarms (post_at) WHERE post_at IS NOT NULL;
CREATE INDEX ix_alarms_kind_id ON alarms (kind, id);
CREATE INDEX ix_alarms_company ON alarms ((subjects ->> 'company_id'), id);
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_audit PRIMARY KEY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    verb text NOT NULL,
    target_kind text NOT NULL,
    target_id text,
    company_id uuid,
    reason text,
    before jsonb NOT NULL,
    after jsonb NOT NULL,
    trace_id text
);
CREATE INDEX ix_audit_actor_id ON audit (actor, id);
CREATE INDEX ix_audit_verb_id ON audit (verb, id);
CREATE INDEX ix_audit_target_id_id ON audit (target_id, id);
CREATE INDEX ix_audit_company_id_id ON audit (company_id, id);
CREATE TABLE console_sessions (
    id uuid CONSTRAINT pk_console_sessions PRIMARY KEY,
    token_hash bytea NOT NULL CONSTRAINT uq_console_sessions_token_hash UNIQUE,
    actor text NOT NULL,
    role text NOT NULL CONSTRAINT ck_console_sessions_role CHECK (role IN ('viewer', 'operator', 'admin')),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX ix_console_sessions_expires_at ON console_sessions (expires_at);
CREATE TABLE sign_in_links (
    id uuid CONSTRAINT pk_sign_in_links PRIMARY KEY,
    token_hash bytea NOT NULL CONSTRAINT uq_sign_in_links_token_hash UNIQUE,
    role text NOT NULL CONSTRAINT ck_sign_in_links_role CHECK (role IN ('viewer', 'operator', 'admin')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX ix_sign_in_links_expires_at ON sign_in_links (expires_at);
CREATE TABLE console_acts (token text CONSTRAINT pk_console_acts PRIMARY KEY, sent_at timestamptz NOT NULL);
CREATE INDEX ix_console_acts_sent_at ON console_acts (sent_at);
CREATE TABLE events (
    id uuid CONSTRAINT pk_events PRIMARY KEY,
    company_id uuid,
    ats_principal_id uuid,
    interview_id uuid,
    attempt_id uuid,
    type text NOT NULL,
    occurred_at timestamptz NOT NULL,
    data jsonb NOT NULL CONSTRAINT ck_events_thin_data
        CHECK (jsonb_typeof(data) = 'object' AND length(data::text) <= 4000),
    entry bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    place bigint,
    sequence integer,
    CONSTRAINT ck_events_numbered_at_once
        CHECK (sequence IS NULL OR (place IS NOT NULL AND interview_id IS NOT NULL)),
    CONSTRAINT ck_events_of_a_company_or_an_ats
        CHECK (company_id IS NOT NULL OR (ats_principal_id IS NOT NULL AND interview_id IS NULL))
);
CREATE UNIQUE INDEX uq_events_place ON events (place) WHERE place IS NOT NULL;
CREATE INDEX ix_events_unnumbered ON events (entry) WHERE place IS NULL;
CREATE INDEX ix_events_company_id_place ON events (company_id, place);
CREATE INDEX ix_events_ats_principal_id_place ON events (ats_principal_id, place) WHERE ats_principal_id IS NOT NULL;
CREATE SEQUENCE event_places;
CREATE TABLE interview_sequences (
    interview_id uuid CONSTRAINT pk_interview_sequences PRIMARY KEY,
    last integer NOT NULL
);
CREATE TABLE webhook_endpoints (
    id uuid CONSTRAINT pk_webhook_endpoints PRIMARY KEY,
    principal_id uuid NOT NULL,
    api_key_id uuid NOT NULL,
    company_id uuid CONSTRAINT fk_webhook_endpoints_company_id REFERENCES companies (id),
    url text NOT NULL,
    name text,
    description text,
    headers bytea,
    header_names text[] DEFAULT '{}' NOT NULL,
    events text[] NOT NULL,
    is_active boolean DEFAULT true NOT NULL,
    max_retries integer NOT NULL,
    timeout_ms integer NOT NULL,
    secret bytea NOT NULL,
    old_secret bytea,
    old_secret_until timestamptz,
    consecutive_failures integer DEFAULT 0 NOT NULL,
    failing_since timestamptz,
    circuit_opened_at timestamptz,
    probe_at timestamptz,
    disabled_at timestamptz,
    disabled_cause text,
    notice_at timestamptz,
    notice_tries smallint DEFAULT 0 NOT NULL,
    claimed_at timestamptz,
    is_slow boolean DEFAULT false NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT ck_webhook_endpoints_disabled_for_a_cause CHECK ((disabled_at IS NULL) = (disabled_cause IS NULL)),
    CONSTRAINT ck_webhook_endpoints_an_old_secret_ends CHECK ((old_secret IS NULL) = (old_secret_until IS NULL))
);
CREATE INDEX ix_webhook_endpoints_principal_id ON webhook_endpoints (principal_id);
CREATE INDEX ix_webhook_endpoints_company_id ON webhook_endpoints (company_id);
CREATE INDEX ix_webhook_endpoints_notices ON webhook_endpoints (notice_at) WHERE notice_at IS NOT NULL;
CREATE TABLE webhook_deliveries (
    event_id uuid CONSTRAINT fk_webhook_deliveries_event_id REFERENCES events (id) ON DELETE CASCADE,
    endpoint_id uuid CONSTRAINT fk_webhook_deliveries_endpoint_id REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    place bigint NOT NULL,
    interview_id uuid,
    sequence integer,
    state text NOT NULL CONSTRAINT ck_webhook_deliveries_state CHECK (state IN ('WAITING', 'DELIVERED', 'FAILED')),
    is_replay boolean DEFAULT false NOT NULL,
    tries smallint DEFAULT 0 NOT NULL,
    send_at timestamptz NOT NULL,
    claim uuid,
    lease_until timestamptz,
    first_failed_at timestamptz,
    last_tried_at timestamptz,
    last_status smallint,
    last_error_kind text,
    last_ms integer,
    finished_at timestamptz,
    created_at timestamptz NOT NULL,
    held_until timestamptz,
    history jsonb DEFAULT '[]' NOT NULL,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (event_id, endpoint_id),
    CONSTRAINT ck_webhook_deliveries_finished_if_not_waiting CHECK ((state = 'WAITING') = (finished_at IS NULL)),
    CONSTRAINT ck_webhook_deliveries_a_claim_has_a_lease CHECK ((claim IS NULL) = (lease_until IS NULL))
);
CREATE INDEX ix_webhook_deliveries_endpoint_id_place ON webhook_deliveries (endpoint_id, place);
CREATE INDEX ix_webhook_deliveries_waiting ON webhook_deliveries (endpoint_id, is_replay, send_at, place)
    WHERE state = 'WAITING';
CREATE INDEX ix_webhook_deliveries_undelivered ON webhook_deliveries (endpoint_id, place) WHERE state <> 'DELIVERED';
CREATE INDEX ix_webhook_deliveries_in_flight ON webhook_deliveries (endpoint_id) WHERE claim IS NOT NULL;
-- The condition is the same as WAITING, but in words that no other index has.
CREATE INDEX ix_webhook_deliveries_sendable
    ON webhook_deliveries (endpoint_id, is_replay, greatest(send_at, held_until), place)
    WHERE finished_at IS NULL AND held_until IS NULL;
CREATE INDEX ix_webhook_deliveries_held ON webhook_deliveries (endpoint_id, interview_id, sequence)
    WHERE state = 'WAITING' AND held_until IS NOT NULL;
-- Only for ranges of time: its condition must not follow from that of the index before.
CREATE INDEX ix_webhook_deliveries_held_until ON webhook_deliveries (endpoint_id, held_until)
    WHERE finished_at IS NULL AND held_until > '-infinity';
CREATE INDEX ix_webhook_deliveries_blocking
    ON webhook_deliveries (endpoint_id, interview_id, first_failed_at, sequence)
    WHERE state = 'WAITING' AND NOT is_replay;
CREATE TABLE batches (
    id uuid CONSTRAINT pk_batches PRIMARY KEY,
    company_id uuid NOT NULL CONSTRAINT fk_batches_company_id REFERENCES companies (id),
    principal_id uuid NOT NULL,
    key_id uuid NOT NULL,
    name text,
    state text NOT NULL CONSTRAINT ck_batches_state
        CHECK (state IN ('ACCEPTED', 'RUNNING', 'PAUSED', 'COMPLETED', 'CANCELLED')),
    total integer NOT NULL,
    applied integer DEFAULT 0 NOT NULL,
    existing integer DEFAULT 0 NOT NULL,
    refused integer DEFAULT 0 NOT NULL,
    cancelled integer DEFAULT 0 NOT NULL,
    first_due_at timestamptz,
    work_at timestamptz NOT NULL,
    cancelled_to integer DEFAULT -1 NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT ck_batches_no_item_counts_twice CHECK (applied + refused + cancelled <= total),
    CONSTRAINT ck_batches_existing_items_are_applied CHECK (existing <= applied),
    CONSTRAINT ck_batches_no_item_waits_at_the_end
        CHECK (state NOT IN ('COMPLETED', 'CANCELLED') OR applied + refused + cancelled = total),
    CONSTRAINT ck_batches_finished_at_its_end CHECK (
        (state = 'COMPLETED' AND finished_at IS NOT NULL) OR state = 'CANCELLED'
        OR (state NOT IN ('COMPLETED', 'CANCELLED') AND finished_at IS NULL)
    )
);
CREATE INDEX ix_batches_company_id_created_at ON batches (company_id, created_at);
CREATE INDEX ix_batches_created_at ON batches (created_at);
CREATE INDEX ix_batches_unfinished ON batches (work_at) WHERE finished_at IS NULL;
CREATE INDEX ix_batches_finished_at ON batches (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE batch_items (
    batch_id uuid CONSTRAINT fk_batch_items_batch_id REFERENCES batches (id),
    index integer,
    company_id uuid NOT NULL,
    state text NOT NULL CONSTRAINT ck_batch_items_state
        CHECK (state IN ('WAITING', 'APPLIED', 'REFUSED', 'CANCELLED')),
    body jsonb,
    external_id text,
    error_code text,
    error jsonb,
    interview_id uuid,
    existed boolean DEFAULT false NOT NULL,
    failures smallint DEFAULT 0 NOT NULL,
    CONSTRAINT pk_batch_items PRIMARY KEY (batch_id, index),
    CONSTRAINT ck_batch_items_a_body_while_it_waits CHECK ((state = 'WAITING') = (body IS NOT NULL)),
    CONSTRAINT ck_batch_items_an_interview_if_applied CHECK ((state = 'APPLIED') = (interview_id IS NOT NULL)),
    CONSTRAINT ck_batch_items_an_error_if_refused CHECK ((state = 'REFUSED') = (error_code IS NOT NULL))
);
CREATE INDEX ix_batch_items_company_id ON batch_items (company_id);
CREATE INDEX ix_batch_items_by_state ON batch_items (batch_id, state, index);
CREATE INDEX ix_batch_items_failed ON batch_items (batch_id, failures, index)
    WHERE state = 'WAITING' AND failures > 0;
-- Settings that belong to this database, as keyed hashes: another installation notices it.
CREATE TABLE installation_marks (
    setting text CONSTRAINT pk_installation_marks PRIMARY KEY,
    mark bytea NOT NULL,
    since timestamptz NOT NULL
)
"""
