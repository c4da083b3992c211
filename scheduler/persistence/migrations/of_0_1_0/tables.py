"""Tables of migration 0013."""

TABLES = r"""
CREATE TABLE arrows (
    event text NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    reason text NOT NULL,
    CONSTRAINT pk_arrows PRIMARY KEY (event, from_state, to_state, reason)
);
CREATE TABLE carrier_accounts (
    id smallserial CONSTRAINT pk_carrier_accounts PRIMARY KEY,
    account_sid text NOT NULL,
    calls_per_second numeric(8, 3) NOT NULL,
    max_calls integer NOT NULL,
    next_slot_at timestamptz NOT NULL,
    paused_at timestamptz,
    pause_reason text,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    down_until timestamptz,
    down_cause text,
    answered_at timestamptz,
    claimed_on text,
    claimed_copy text,
    trials integer DEFAULT 0 NOT NULL,
    CONSTRAINT uq_carrier_accounts_account_sid UNIQUE (account_sid),
    CONSTRAINT ck_carrier_accounts_a_pause_has_a_reason CHECK ((paused_at IS NULL) = (pause_reason IS NULL)),
    CONSTRAINT ck_carrier_accounts_limits_are_positive CHECK (calls_per_second > 0 AND max_calls >= 0)
);
CREATE TABLE carrier_events (
    id uuid CONSTRAINT pk_carrier_events PRIMARY KEY,
    token text NOT NULL,
    fingerprint bytea NOT NULL,
    raw jsonb NOT NULL,
    received_at timestamptz NOT NULL,
    rung_at timestamptz NOT NULL,
    heard_at timestamptz,
    failures integer DEFAULT 0 NOT NULL,
    quarantined_at timestamptz,
    CONSTRAINT uq_carrier_events_fingerprint UNIQUE (fingerprint)
);
CREATE TABLE companies (
    id uuid CONSTRAINT pk_companies PRIMARY KEY,
    name text NOT NULL,
    settings jsonb NOT NULL,
    ats_principal_id uuid,
    calls_per_second numeric(8, 3) NOT NULL,
    concurrent_calls integer NOT NULL,
    next_slot_at timestamptz NOT NULL,
    paused_at timestamptz,
    pause_reason text,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    profile jsonb DEFAULT '{}' NOT NULL,
    metadata jsonb DEFAULT '{}' NOT NULL,
    billing_system text DEFAULT 'minutes' NOT NULL,
    prices jsonb DEFAULT '{}' NOT NULL,
    resumed_at timestamptz,
    CONSTRAINT ck_companies_a_pause_has_a_reason CHECK ((paused_at IS NULL) = (pause_reason IS NULL)),
    CONSTRAINT ck_companies_billing_system CHECK (billing_system IN ('minutes', 'credits')),
    CONSTRAINT ck_companies_limits_are_positive CHECK (calls_per_second > 0 AND concurrent_calls >= 0)
);
CREATE TABLE erasures (
    company_id uuid CONSTRAINT pk_erasures PRIMARY KEY,
    ats_principal_id uuid,
    asked_at timestamptz NOT NULL,
    rung_at timestamptz NOT NULL,
    finished_at timestamptz,
    erased jsonb NOT NULL
);
CREATE TABLE usage (
    attempt_id uuid CONSTRAINT pk_usage PRIMARY KEY,
    company_id uuid NOT NULL,
    ats_principal_id uuid,
    interview_id uuid NOT NULL,
    booked_at timestamptz NOT NULL,
    billing_system text NOT NULL,
    cost_key text NOT NULL,
    talked interval NOT NULL,
    credits numeric(14, 6),
    CONSTRAINT ck_usage_billing_system CHECK (billing_system IN ('minutes', 'credits')),
    CONSTRAINT ck_usage_credits_by_unit CHECK ((billing_system = 'credits') = (credits IS NOT NULL))
);
CREATE TABLE users (
    id uuid CONSTRAINT pk_users PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT uq_users_email UNIQUE (email),
    CONSTRAINT ck_users_email_in_lower_case CHECK (email = lower(email))
);
CREATE TABLE api_keys (
    id uuid CONSTRAINT pk_api_keys PRIMARY KEY,
    principal_id uuid NOT NULL,
    kind text NOT NULL,
    company_id uuid,
    name text NOT NULL,
    key_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    per_minute integer NOT NULL,
    per_hour integer NOT NULL,
    expires_at timestamptz,
    suspended_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    last_used_at timestamptz,
    suspend_reason text,
    CONSTRAINT uq_api_keys_key_hash UNIQUE (key_hash),
    CONSTRAINT fk_api_keys_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT ck_api_keys_a_reason_of_a_suspension CHECK (suspend_reason IS NULL OR suspended_at IS NOT NULL),
    CONSTRAINT ck_api_keys_a_regular_key_has_one_company CHECK ((kind = 'REGULAR') = (company_id IS NOT NULL)),
    CONSTRAINT ck_api_keys_kind CHECK (kind IN ('REGULAR', 'ATS'))
);
CREATE TABLE candidates (
    id uuid CONSTRAINT pk_candidates PRIMARY KEY,
    company_id uuid NOT NULL,
    first_name text,
    last_name text,
    email text,
    phone_number text,
    timezone text,
    gdpr_expiry_date date NOT NULL,
    metadata jsonb DEFAULT '{}' NOT NULL,
    erased_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    status text DEFAULT 'APPLIED' NOT NULL,
    CONSTRAINT uq_candidates_company_id_id UNIQUE (company_id, id),
    CONSTRAINT fk_candidates_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT ck_candidates_e164 CHECK (phone_number ~ '^\+[1-9][0-9]{6,14}$'),
    CONSTRAINT ck_candidates_somebody_or_nobody CHECK (
        CASE WHEN erased_at IS NULL THEN
            first_name IS NOT NULL AND last_name IS NOT NULL AND (email IS NOT NULL OR phone_number IS NOT NULL)
        ELSE num_nonnulls(first_name, last_name, email, phone_number) = 0 END
    ),
    CONSTRAINT ck_candidates_status CHECK (status IN ('APPLIED', 'IN_PROCESS', 'REJECTED', 'ACCEPTED'))
);
CREATE TABLE carrier_backoffs (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_carrier_backoffs PRIMARY KEY,
    account_id smallint NOT NULL,
    company_id uuid,
    caller text,
    country text,
    failures integer NOT NULL,
    trials integer NOT NULL,
    down_until timestamptz,
    answered_at timestamptz,
    cause text NOT NULL,
    is_asked boolean NOT NULL,
    others_work boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT uq_carrier_backoffs_company_id_caller_account_id UNIQUE (company_id, caller, account_id),
    CONSTRAINT uq_carrier_backoffs_country_account_id UNIQUE (country, account_id),
    CONSTRAINT fk_carrier_backoffs_account_id FOREIGN KEY (account_id) REFERENCES carrier_accounts (id),
    CONSTRAINT fk_carrier_backoffs_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT ck_carrier_backoffs_a_country_or_a_caller
        CHECK (num_nonnulls(country, caller) = 1 AND num_nonnulls(company_id, caller) <> 1)
);
CREATE TABLE inbox (
    id uuid CONSTRAINT pk_inbox PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    principal_id uuid NOT NULL,
    company_id uuid,
    idempotency_key text,
    request_hash bytea NOT NULL,
    kind text NOT NULL,
    body jsonb,
    interview_id uuid,
    received_at timestamptz NOT NULL,
    rung_at timestamptz NOT NULL,
    applied_at timestamptz,
    answer jsonb,
    failures integer NOT NULL,
    quarantined_at timestamptz,
    key_id uuid,
    CONSTRAINT fk_inbox_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT ck_inbox_a_body_until_applied CHECK ((applied_at IS NULL) = (body IS NOT NULL)),
    CONSTRAINT ck_inbox_applied_is_answered CHECK ((applied_at IS NULL) = (answer IS NULL))
);
CREATE TABLE invitations (
    id uuid CONSTRAINT pk_invitations PRIMARY KEY,
    company_id uuid NOT NULL,
    email text NOT NULL,
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    revoked_at timestamptz,
    sent_at timestamptz,
    tries integer NOT NULL,
    send_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT fk_invitations_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT ck_invitations_email_in_lower_case CHECK (email = lower(email)),
    CONSTRAINT ck_invitations_one_end CHECK (num_nonnulls(accepted_at, revoked_at) < 2)
);
CREATE TABLE jobs (
    id uuid CONSTRAINT pk_jobs PRIMARY KEY,
    company_id uuid NOT NULL,
    title text,
    description text,
    status text NOT NULL,
    details jsonb DEFAULT '{}' NOT NULL,
    metadata jsonb DEFAULT '{}' NOT NULL,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT uq_jobs_company_id_id UNIQUE (company_id, id),
    CONSTRAINT fk_jobs_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT ck_jobs_status CHECK (status IN ('OPEN', 'CLOSED')),
    CONSTRAINT ck_jobs_texts CHECK (num_nulls(title, description) = CASE WHEN deleted_at IS NULL THEN 0 ELSE 2 END)
);
CREATE TABLE memberships (
    company_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT pk_memberships PRIMARY KEY (company_id, user_id),
    CONSTRAINT fk_memberships_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT fk_memberships_user_id FOREIGN KEY (user_id) REFERENCES users (id),
    CONSTRAINT ck_memberships_role CHECK (role IN ('OWNER', 'ADMIN'))
);
CREATE TABLE phone_numbers (
    id uuid CONSTRAINT pk_phone_numbers PRIMARY KEY,
    company_id uuid NOT NULL,
    number text NOT NULL,
    number_type text DEFAULT 'LOCAL' NOT NULL,
    provider text DEFAULT 'TWILIO' NOT NULL,
    status text DEFAULT 'AVAILABLE' NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    capabilities text DEFAULT 'OUTBOUND' NOT NULL,
    custom boolean DEFAULT false NOT NULL,
    location text,
    CONSTRAINT uq_phone_numbers_company_id_id UNIQUE (company_id, id),
    CONSTRAINT uq_phone_numbers_company_id_number UNIQUE (company_id, number),
    CONSTRAINT fk_phone_numbers_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT ck_phone_numbers_e164 CHECK (number ~ '^\+[1-9][0-9]{6,14}$')
);
CREATE TABLE reresolutions (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_reresolutions PRIMARY KEY,
    company_id uuid NOT NULL,
    candidate_id uuid,
    after_id uuid,
    is_last_pass boolean NOT NULL,
    not_before timestamptz NOT NULL,
    asked_at timestamptz NOT NULL,
    rung_at timestamptz NOT NULL,
    CONSTRAINT fk_reresolutions_company_id FOREIGN KEY (company_id) REFERENCES companies (id)
);
CREATE TABLE agents (
    id uuid CONSTRAINT pk_agents PRIMARY KEY,
    company_id uuid NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    focus text NOT NULL,
    language text NOT NULL,
    duration interval NOT NULL,
    phone_number_id uuid,
    metadata jsonb DEFAULT '{}' NOT NULL,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    details jsonb DEFAULT '{}' NOT NULL,
    CONSTRAINT uq_agents_company_id_id UNIQUE (company_id, id),
    CONSTRAINT fk_agents_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT fk_agents_company_id_phone_number_id FOREIGN KEY (company_id, phone_number_id)
        REFERENCES phone_numbers (company_id, id),
    CONSTRAINT ck_agents_a_phone_agent_has_a_caller_id CHECK (type <> 'PHONE' OR phone_number_id IS NOT NULL),
    CONSTRAINT ck_agents_focus CHECK (focus IN ('GENERIC', 'SCREENING', 'OUTREACH', 'LANGUAGE_TEST')),
    CONSTRAINT ck_agents_type CHECK (type IN ('PHONE', 'ONLINE'))
);
CREATE TABLE assignments (
    candidate_id uuid NOT NULL,
    job_id uuid NOT NULL,
    company_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_assignments PRIMARY KEY (candidate_id, job_id),
    CONSTRAINT fk_assignments_company_id_candidate_id FOREIGN KEY (company_id, candidate_id)
        REFERENCES candidates (company_id, id),
    CONSTRAINT fk_assignments_company_id_job_id FOREIGN KEY (company_id, job_id) REFERENCES jobs (company_id, id)
);
CREATE TABLE invitation_tokens (
    token_hash bytea CONSTRAINT pk_invitation_tokens PRIMARY KEY,
    invitation_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT fk_invitation_tokens_invitation_id FOREIGN KEY (invitation_id)
        REFERENCES invitations (id) ON DELETE CASCADE
);
CREATE TABLE interviews (
    id uuid CONSTRAINT pk_interviews PRIMARY KEY,
    company_id uuid NOT NULL,
    candidate_id uuid NOT NULL,
    agent_id uuid NOT NULL,
    type text NOT NULL,
    focus text NOT NULL,
    duration interval NOT NULL,
    caller_number text,
    status text NOT NULL,
    is_test boolean NOT NULL,
    metadata jsonb NOT NULL,
    expires_at timestamptz NOT NULL,
    finished_at timestamptz,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_by_default boolean DEFAULT true NOT NULL,
    scheduled_at timestamptz,
    job_id uuid,
    CONSTRAINT uq_interviews_company_id_id UNIQUE (company_id, id),
    CONSTRAINT fk_interviews_company_id FOREIGN KEY (company_id) REFERENCES companies (id),
    CONSTRAINT fk_interviews_company_id_agent_id FOREIGN KEY (company_id, agent_id)
        REFERENCES agents (company_id, id),
    CONSTRAINT fk_interviews_company_id_candidate_id FOREIGN KEY (company_id, candidate_id)
        REFERENCES candidates (company_id, id),
    CONSTRAINT fk_interviews_company_id_job_id FOREIGN KEY (company_id, job_id) REFERENCES jobs (company_id, id),
    CONSTRAINT ck_interviews_a_phone_interview_has_a_caller_id CHECK (type <> 'PHONE' OR caller_number IS NOT NULL),
    CONSTRAINT ck_interviews_finished_when_over CHECK ((status = 'SCHEDULED') = (finished_at IS NULL)),
    CONSTRAINT ck_interviews_status CHECK (status IN ('SCHEDULED', 'COMPLETED', 'FAILED', 'CANCELLED')),
    CONSTRAINT ck_interviews_type CHECK (type IN ('PHONE', 'ONLINE'))
);
CREATE TABLE attempts (
    id uuid CONSTRAINT pk_attempts PRIMARY KEY,
    interview_id uuid NOT NULL,
    company_id uuid NOT NULL,
    chain_id uuid NOT NULL,
    retry_number integer NOT NULL,
    manual boolean NOT NULL,
    state text NOT NULL,
    phase text,
    reason text,
    due_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    released_until timestamptz,
    schedule jsonb NOT NULL,
    warnings text[] NOT NULL,
    number_hash bytea,
    epoch integer NOT NULL,
    token text,
    account_id smallint,
    claimed_at timestamptz,
    lease_until timestamptz,
    call_sid text,
    heard_rank smallint NOT NULL,
    unknown_at timestamptz,
    look_at timestamptz,
    looks integer NOT NULL,
    not_placed integer NOT NULL,
    answered_by text,
    duration interval,
    ended_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    called_number text,
    hang_up text,
    deleted_at timestamptz,
    listed_at timestamptz,
    search_at timestamptz,
    cause_is_lost boolean,
    CONSTRAINT uq_attempts_company_id_id UNIQUE (company_id, id),
    CONSTRAINT fk_attempts_account_id FOREIGN KEY (account_id) REFERENCES carrier_accounts (id),
    CONSTRAINT fk_attempts_company_id_interview_id FOREIGN KEY (company_id, interview_id)
        REFERENCES interviews (company_id, id),
    CONSTRAINT ck_attempts_a_call_has_a_line CHECK (reason IS NOT DISTINCT FROM 'TEST' OR number_hash IS NOT NULL),
    CONSTRAINT ck_attempts_a_live_leg_has_a_name CHECK (
        look_at IS NULL OR state = 'IN_PROGRESS'
        OR (reason IS NOT DISTINCT FROM 'OUTCOME_UNKNOWN' AND call_sid IS NOT NULL)
    ),
    CONSTRAINT ck_attempts_a_phase_in_progress_only CHECK ((state = 'IN_PROGRESS') = (phase IS NOT NULL)),
    CONSTRAINT ck_attempts_deleted_is_over CHECK (deleted_at IS NULL OR state NOT IN ('PENDING', 'IN_PROGRESS')),
    CONSTRAINT ck_attempts_dialling_has_a_lease
        CHECK ((phase IS NOT DISTINCT FROM 'DIALLING') = (lease_until IS NOT NULL)),
    CONSTRAINT ck_attempts_ended_when_over CHECK ((state IN ('PENDING', 'IN_PROGRESS')) = (ended_at IS NULL)),
    CONSTRAINT ck_attempts_hang_up CHECK (hang_up IN ('QUEUED_PAST_CLOSING', 'COMPANY_DELETED')),
    CONSTRAINT ck_attempts_in_progress_is_claimed
        CHECK (state <> 'IN_PROGRESS' OR num_nulls(token, claimed_at, account_id, number_hash) = 0),
    CONSTRAINT ck_attempts_pending_is_not_called
        CHECK (state <> 'PENDING' OR num_nonnulls(claimed_at, lease_until, call_sid, unknown_at, look_at) = 0),
    CONSTRAINT ck_attempts_phase CHECK (phase IN ('DIALLING', 'PLACED', 'UNKNOWN')),
    CONSTRAINT ck_attempts_placed_is_named CHECK (phase <> 'PLACED' OR call_sid IS NOT NULL),
    CONSTRAINT ck_attempts_somebody_looks_for_its_end
        CHECK (phase IS NULL OR phase = 'DIALLING' OR look_at IS NOT NULL),
    CONSTRAINT ck_attempts_state_and_reason CHECK (
        ((state IN ('PENDING', 'IN_PROGRESS') AND reason IS NULL)
        OR (state = 'COMPLETED' AND reason IN ('ANSWERED', 'TEST'))
        OR (state = 'FAILED' AND reason IN ('BUSY', 'NO_ANSWER', 'VOICEMAIL', 'DECLINED', 'INVALID_NUMBER',
            'CARRIER_ERROR', 'CANCELLED_AT_CARRIER', 'OUTCOME_UNKNOWN', 'EXPIRED', 'CONSENT_EXPIRED'))
        OR (state = 'CANCELLED' AND reason IN ('CANCELLED_BY_USER', 'REPLACED', 'INTERVIEW_DELETED',
            'CANDIDATE_DELETED', 'COMPANY_DELETED'))) IS TRUE
    ),
    CONSTRAINT ck_attempts_unknown_since CHECK (phase <> 'UNKNOWN' OR unknown_at IS NOT NULL)
);
CREATE TABLE attempt_history (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_attempt_history PRIMARY KEY,
    attempt_id uuid NOT NULL,
    at timestamptz NOT NULL,
    event text NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    reason text NOT NULL,
    epoch integer NOT NULL,
    actor text NOT NULL,
    detail jsonb NOT NULL,
    CONSTRAINT fk_attempt_history_attempt_id FOREIGN KEY (attempt_id) REFERENCES attempts (id),
    CONSTRAINT fk_attempt_history_event_from_state_to_state_reason FOREIGN KEY (event, from_state, to_state, reason)
        REFERENCES arrows (event, from_state, to_state, reason)
);
CREATE TABLE attempt_tokens (
    token text CONSTRAINT pk_attempt_tokens PRIMARY KEY,
    attempt_id uuid NOT NULL,
    claimed_at timestamptz NOT NULL,
    closed_sid text,
    CONSTRAINT fk_attempt_tokens_attempt_id FOREIGN KEY (attempt_id) REFERENCES attempts (id)
);
CREATE TABLE lines (
    number_hash bytea CONSTRAINT pk_lines PRIMARY KEY,
    attempt_id uuid,
    interview_id uuid,
    free_at timestamptz NOT NULL,
    country text,
    CONSTRAINT fk_lines_attempt_id FOREIGN KEY (attempt_id) REFERENCES attempts (id)
);
CREATE TABLE stray_calls (
    call_sid text CONSTRAINT pk_stray_calls PRIMARY KEY,
    attempt_id uuid NOT NULL,
    seen_at timestamptz NOT NULL,
    look_at timestamptz,
    CONSTRAINT fk_stray_calls_attempt_id FOREIGN KEY (attempt_id) REFERENCES attempts (id)
)
"""
