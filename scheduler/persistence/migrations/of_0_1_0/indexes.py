"""Indexes of migration 0013, and the rows of its table `arrows`."""

INDEXES = """
CREATE INDEX ix_agents_company_id_created_at_id ON agents (company_id, created_at, id);
CREATE INDEX ix_api_keys_company_id ON api_keys (company_id);
CREATE INDEX ix_api_keys_principal_id ON api_keys (principal_id);
CREATE INDEX ix_assignments_job_id ON assignments (job_id);
CREATE INDEX ix_attempt_history_attempt_id_id ON attempt_history (attempt_id, id);
CREATE INDEX ix_attempt_tokens_attempt_id ON attempt_tokens (attempt_id);
CREATE INDEX ix_attempts_cause_lost ON attempts (company_id) WHERE cause_is_lost;
CREATE INDEX ix_attempts_chain_id ON attempts (chain_id);
CREATE INDEX ix_attempts_due ON attempts (due_at) WHERE state = 'PENDING';
CREATE INDEX ix_attempts_due_by_company ON attempts (company_id, due_at) WHERE state = 'PENDING';
CREATE INDEX ix_attempts_expiry ON attempts (expires_at) WHERE state = 'PENDING';
CREATE INDEX ix_attempts_in_progress ON attempts (company_id) WHERE state = 'IN_PROGRESS';
CREATE INDEX ix_attempts_interview_id_created_at ON attempts (interview_id, created_at);
CREATE INDEX ix_attempts_lease ON attempts (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX ix_attempts_look ON attempts (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX ix_attempts_pending_updated_at ON attempts (updated_at) WHERE state = 'PENDING';
CREATE INDEX ix_attempts_released ON attempts (company_id, released_until)
    WHERE state = 'PENDING' AND released_until IS NOT NULL;
CREATE INDEX ix_attempts_search ON attempts (search_at) WHERE search_at IS NOT NULL;
CREATE INDEX ix_attempts_waiting_by_number ON attempts (number_hash) WHERE state = 'PENDING';
CREATE INDEX ix_attempts_zone_data ON attempts ((schedule ->> 'tzdata_version')) WHERE state = 'PENDING';
CREATE UNIQUE INDEX uq_attempts_call_sid ON attempts (call_sid) WHERE call_sid IS NOT NULL;
CREATE UNIQUE INDEX uq_attempts_one_call_per_number ON attempts (number_hash) WHERE state = 'IN_PROGRESS';
CREATE UNIQUE INDEX uq_attempts_one_open_per_interview ON attempts (interview_id)
    WHERE state IN ('PENDING', 'IN_PROGRESS');
CREATE INDEX ix_candidates_company_id_created_at_id ON candidates (company_id, created_at, id);
CREATE INDEX ix_carrier_events_heard ON carrier_events (heard_at) WHERE heard_at IS NOT NULL;
CREATE INDEX ix_carrier_events_token ON carrier_events (token);
CREATE INDEX ix_carrier_events_unheard ON carrier_events (rung_at) WHERE heard_at IS NULL;
CREATE INDEX ix_companies_ats_principal_id_created_at_id ON companies (ats_principal_id, created_at, id);
CREATE INDEX ix_erasures_open ON erasures (rung_at) WHERE finished_at IS NULL;
CREATE INDEX ix_inbox_answered ON inbox (applied_at) WHERE applied_at IS NOT NULL;
CREATE INDEX ix_inbox_company_id ON inbox (company_id);
CREATE INDEX ix_inbox_waiting ON inbox (rung_at) WHERE applied_at IS NULL;
CREATE INDEX ix_inbox_waiting_by_interview ON inbox (interview_id, seq) WHERE applied_at IS NULL;
CREATE UNIQUE INDEX uq_inbox_idempotency_key ON inbox (principal_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX ix_interviews_agent_id ON interviews (agent_id);
CREATE INDEX ix_interviews_candidate_id ON interviews (candidate_id);
CREATE INDEX ix_interviews_company_id_created_at_id ON interviews (company_id, created_at, id);
CREATE INDEX ix_interviews_job_id ON interviews (job_id);
CREATE INDEX ix_invitation_tokens_invitation_id ON invitation_tokens (invitation_id);
CREATE INDEX ix_invitations_company_id ON invitations (company_id);
CREATE INDEX ix_invitations_to_send ON invitations (send_at) WHERE send_at IS NOT NULL;
CREATE UNIQUE INDEX uq_invitations_one_open_per_company ON invitations (company_id)
    WHERE accepted_at IS NULL AND revoked_at IS NULL;
CREATE INDEX ix_jobs_company_id_created_at_id ON jobs (company_id, created_at, id);
CREATE INDEX ix_lines_free_at ON lines (free_at);
CREATE UNIQUE INDEX uq_lines_attempt_id ON lines (attempt_id) WHERE attempt_id IS NOT NULL;
CREATE INDEX ix_memberships_user_id ON memberships (user_id);
CREATE UNIQUE INDEX uq_memberships_one_owner ON memberships (company_id) WHERE role = 'OWNER';
CREATE INDEX ix_reresolutions_company_id ON reresolutions (company_id);
CREATE INDEX ix_reresolutions_rung_at ON reresolutions (rung_at);
CREATE INDEX ix_stray_calls_attempt_id ON stray_calls (attempt_id);
CREATE INDEX ix_stray_calls_look ON stray_calls (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX ix_usage_ats_principal_id_booked_at ON usage (ats_principal_id, booked_at);
CREATE INDEX ix_usage_company_id_booked_at ON usage (company_id, booked_at)
"""

_ENDS = {
    "COMPLETED": ("ANSWERED", "TEST"),
    "FAILED": (
        *("BUSY", "NO_ANSWER", "VOICEMAIL", "DECLINED", "INVALID_NUMBER", "CARRIER_ERROR", "CANCELLED_AT_CARRIER"),
        *("OUTCOME_UNKNOWN", "EXPIRED", "CONSENT_EXPIRED"),
    ),
    "CANCELLED": ("CANCELLED_BY_USER", "REPLACED", "INTERVIEW_DELETED", "CANDIDATE_DELETED", "COMPANY_DELETED"),
}
_BY_CARRIER = (("COMPLETED", "ANSWERED"), *(("FAILED", reason) for reason in _ENDS["FAILED"][:7]))
ARROWS = (
    # event, from, to, reason; "" stands for none
    ("created", "", "PENDING", ""),
    ("created_as_test", "", "COMPLETED", "TEST"),
    ("claimed", "PENDING", "IN_PROGRESS", ""),
    *((event, "IN_PROGRESS", "PENDING", "") for event in ("deferred", "not_placed", "never_dialled")),
    *((event, "IN_PROGRESS", "IN_PROGRESS", "") for event in ("placed", "answer_lost", "progressed", "hang_up_wanted")),
    *(("ended", "IN_PROGRESS", state, reason) for state, reason in _BY_CARRIER),
    *(("proven", "FAILED", state, reason) for state, reason in _BY_CARRIER),
    ("proof_missing", "IN_PROGRESS", "FAILED", "OUTCOME_UNKNOWN"),
    *((event, "FAILED", "FAILED", "OUTCOME_UNKNOWN") for event in ("proof_missing", "leg_seen", "hang_up_wanted")),
    ("expired", "PENDING", "FAILED", "EXPIRED"),
    ("consent_ended", "PENDING", "FAILED", "CONSENT_EXPIRED"),
    *(("cancelled", "PENDING", "CANCELLED", reason) for reason in _ENDS["CANCELLED"]),
    ("cancelled", "IN_PROGRESS", "CANCELLED", "COMPANY_DELETED"),
    *((event, "PENDING", "PENDING", "") for event in ("rescheduled", "moved_by_settings", "expiry_moved")),
    *(("deleted", state, state, reason) for state, reasons in _ENDS.items() for reason in reasons),
)
