"""Grants and policies of migration 0034.

The role of the console reads all companies, in columns without names, numbers, addresses, texts of clients or hashes
of keys. It writes only the columns that an operator's acts change. A login of this role cannot read a person's data,
whatever the code of a page asks for.
"""

from collections.abc import Iterator

_OPERATOR = "duecall_operator"
_OPERATORS = "00000000-0000-0000-0000-000000000000"
"""The principal of operators' commands."""
_PRINCIPAL = "(SELECT nullif(current_setting('duecall.principal_id', true), '')::uuid)"
_COMPANY = "(SELECT nullif(current_setting('duecall.company_id', true), '')::uuid)"
_TIMES = "created_at, updated_at"

_WORKED = {
    **dict.fromkeys(
        (
            *("tallies", "tally_entries", "alarms", "console_sessions", "sign_in_links", "console_acts", "events"),
            *("interview_sequences", "webhook_endpoints", "webhook_deliveries", "batches", "batch_items"),
        ),
        "SELECT, INSERT, UPDATE, DELETE",
    ),
    "audit": "SELECT, INSERT",  # only the owner may change or delete its entries
}
"""New tables with row-level security, and the rights of the workers."""

_EVENT = "id, company_id, ats_principal_id, interview_id, attempt_id, type, occurred_at, data"
_GRANTS = (
    ("duecall_worker", "SELECT, INSERT, UPDATE", "installation_marks"),
    # Numbering raises it to the clock, because a restored database has forgotten the places after its backup.
    ("duecall_worker", "SELECT, USAGE, UPDATE", "SEQUENCE event_places"),
    ("duecall_api", "SELECT", "installation_marks"),
    ("duecall_api", "UPDATE (after_in_last_pass)", "reresolutions"),
    # An API process adds what it has counted itself, and reads the totals only as the counting role.
    ("duecall_api", "INSERT", "tally_entries"),
    ("duecall_api", "INSERT", "audit"),
    # The API numbers only pings by itself: the request that tests an endpoint waits for its delivery.
    ("duecall_api", "USAGE", "SEQUENCE event_places"),
    ("duecall_api", f"SELECT, INSERT ({_EVENT}, place)", "events"),
    ("duecall_api", "SELECT, INSERT, UPDATE", "webhook_endpoints"),
    ("duecall_api", "SELECT, INSERT, UPDATE", "webhook_deliveries"),
    ("duecall_api", "SELECT, INSERT, UPDATE", "batches"),
    ("duecall_api", "SELECT, INSERT, UPDATE", "batch_items"),
    ("duecall_counter", "SELECT", "tallies"),
    ("duecall_counter", "SELECT", "tally_entries"),
    ("duecall_counter", "SELECT (kind, acknowledged_at)", "alarms"),
    ("duecall_counter", "SELECT (heard_at, quarantined_at)", "carrier_events"),
    ("duecall_counter", "SELECT (decided_at, claimed_at, ended_at, schedule)", "attempts"),
    ("duecall_counter", "SELECT (settings)", "companies"),
    ("duecall_counter", "SELECT (id, attempt_id, from_state, to_state)", "attempt_history"),
    ("duecall_counter", "SELECT (endpoint_id, state, is_replay, send_at)", "webhook_deliveries"),
    ("duecall_counter", "SELECT (id, is_active, disabled_at, circuit_opened_at)", "webhook_endpoints"),
    (
        "duecall_counter",
        f"SELECT (company_id, state, total, applied, refused, cancelled, finished_at, {_TIMES})",
        "batches",
    ),
)

_READ_WHOLE = (
    *("alembic_version", "arrows", "carrier_accounts", "lines", "stray_calls", "reresolutions", "usage", "erasures"),
    *("attempt_history", "alarms", "audit", "tallies", "tally_entries", "console_sessions", "sign_in_links"),
    *("console_acts", "events", "interview_sequences", "webhook_deliveries", "installation_marks"),
)
"""Tables that operators read, without personal data."""

_READ_IN_PART = {
    "companies": "id, name, settings, ats_principal_id, billing_system, calls_per_second, concurrent_calls,"
    " next_slot_at, paused_at, pause_reason, resumed_at, deleted_at, calls_per_second_ceiling,"
    f" concurrent_calls_ceiling, {_TIMES}",
    "api_keys": "id, principal_id, kind, company_id, name, scopes, per_minute, per_hour, expires_at, suspended_at,"
    f" suspend_reason, revoked_at, last_used_at, {_TIMES}",
    "phone_numbers": f"id, company_id, number_type, provider, status, capabilities, custom, {_TIMES}",
    "agents": f"id, company_id, type, focus, language, duration, phone_number_id, deleted_at, {_TIMES}",
    "jobs": f"id, company_id, status, deleted_at, {_TIMES}",
    "candidates": f"id, company_id, timezone, gdpr_expiry_date, status, erased_at, leaving_at, {_TIMES}",
    "interviews": "id, company_id, candidate_id, agent_id, job_id, type, focus, duration, status, is_test, expires_at,"
    f" expires_by_default, scheduled_at, finished_at, deleted_at, {_TIMES}",
    # Not the number, and no token: it names a call to the carrier's callbacks.
    "attempts": "id, interview_id, company_id, chain_id, retry_number, manual, state, phase, reason, due_at,"
    " expires_at, released_until, schedule, warnings, number_hash, epoch, account_id, claimed_at, lease_until,"
    " call_sid, heard_rank, unknown_at, look_at, looks, not_placed, answered_by, duration, ended_at, hang_up,"
    " deleted_at, listed_at, search_at, cause_is_lost, decision, decided_at, held_until, unreadable_until,"
    f" {_TIMES}",
    "invitations": f"id, company_id, expires_at, accepted_at, revoked_at, sent_at, tries, send_at, {_TIMES}",
    "inbox": "id, seq, principal_id, key_id, company_id, kind, interview_id, received_at, rung_at, applied_at,"
    " failures, quarantined_at, first_failed_at, failed_with, awaited_until",
    "carrier_events": "id, received_at, rung_at, heard_at, failures, quarantined_at, first_failed_at, failed_with",
    "carrier_backoffs": "id, account_id, company_id, country, failures, trials, down_until, answered_at, cause,"
    f" is_asked, others_work, {_TIMES}",
    # No secret. An address may contain a password.
    "webhook_endpoints": "id, principal_id, api_key_id, company_id, events, is_active, max_retries, timeout_ms,"
    " old_secret_until, consecutive_failures, failing_since, circuit_opened_at, probe_at, disabled_at, disabled_cause,"
    f" notice_at, notice_tries, claimed_at, is_slow, {_TIMES}",
    # Not the name, which is a client's text.
    "batches": "id, company_id, principal_id, key_id, state, total, applied, existing, refused, cancelled,"
    f" first_due_at, work_at, cancelled_to, started_at, finished_at, {_TIMES}",
    # Not the body, which is personal data, nor texts that quote it.
    "batch_items": "batch_id, index, company_id, state, error_code, interview_id, existed, failures",
}

_WRITTEN = {
    "companies": "UPDATE (paused_at, pause_reason, resumed_at, updated_at)",
    "carrier_accounts": "UPDATE (paused_at, pause_reason, claimed_on, claimed_copy, updated_at)",
    # Cancellations and decisions are commands.
    "inbox": "UPDATE (failures, quarantined_at, first_failed_at, failed_with, rung_at), INSERT (id, principal_id,"
    " key_id, company_id, idempotency_key, request_hash, kind, body, interview_id, received_at, rung_at, applied_at,"
    " answer, failures)",
    "carrier_events": "UPDATE (failures, quarantined_at, first_failed_at, failed_with, rung_at, heard_at, raw)",
    "api_keys": "UPDATE (revoked_at, suspended_at, suspend_reason, updated_at)",
    "alarms": "UPDATE (acknowledged_at, acknowledged_by, note, post_at)",
    "audit": "INSERT",
    "console_sessions": "INSERT, UPDATE (last_used_at, revoked_at)",
    "sign_in_links": "UPDATE (used_at)",
    "console_acts": "INSERT",
    # Acts of operators are events, too: they pause companies, drop commands from the quarantine and disable endpoints.
    "events": f"INSERT ({_EVENT})",
    "webhook_endpoints": "UPDATE (consecutive_failures, failing_since, circuit_opened_at, probe_at, disabled_at,"
    " disabled_cause, is_slow, notice_at, notice_tries, updated_at)",
    # A replay, which ends the hold.
    "webhook_deliveries": "UPDATE (state, is_replay, tries, send_at, claim, lease_until, first_failed_at, finished_at,"
    " held_until)",
    # An act locks their rows and never changes them. A lock needs the right to update a column; a policy forbids it.
    "interviews": "UPDATE (updated_at)",
    "attempts": "UPDATE (updated_at)",
}
"""Rights of operators to write."""

_COUNTED = (
    *("tallies", "tally_entries", "alarms", "carrier_events", "attempt_history", "webhook_deliveries"),
    *("webhook_endpoints", "batches"),
)
"""Tables whose rows the counting role sees all."""
_WITHOUT_POLICIES = {"alembic_version", "arrows", "carrier_accounts", "installation_marks"}
_SEEN_BY_OPERATORS = (
    *(each for each in _READ_WHOLE if each not in _WITHOUT_POLICIES),
    *_READ_IN_PART,
    "attempt_tokens",
)
"""Tables with row-level security whose rows operators see all. Of the last one they may read no column."""


def _reached(table: str) -> str:
    return f"({table}.company_id = {_COMPANY} OR EXISTS (SELECT FROM companies c WHERE c.id = {table}.company_id))"


_OWN_KEY = f"EXISTS (SELECT FROM api_keys k WHERE k.principal_id = {_PRINCIPAL} AND audit.actor = 'key:' || k.id)"
_OWN_ENDPOINT = f"principal_id = {_PRINCIPAL}"
_SHARED_ENDPOINT = f"""(
    {_OWN_ENDPOINT} OR EXISTS (
        SELECT FROM companies c WHERE c.id = webhook_endpoints.company_id AND (
            c.ats_principal_id = {_PRINCIPAL}
            OR (c.id = {_COMPANY} AND c.ats_principal_id IS DISTINCT FROM webhook_endpoints.principal_id)
        )
    )
)"""  # noqa: S608 - of constants
"""Also those of the company's other keys, and for its ATS those of the company's keys. Not those of the ATS for it."""
_OWN_TARGET = f"{_OWN_ENDPOINT} AND (company_id IS NULL OR {_reached('webhook_endpoints')})"
_OWN_DELIVERY = "EXISTS (SELECT FROM webhook_endpoints w WHERE w.id = webhook_deliveries.endpoint_id)"
"""The policies of the endpoints decide which of them the role sees."""

_OF_THE_API = f"""
CREATE POLICY added ON tally_entries FOR INSERT TO duecall_api WITH CHECK (true);
CREATE POLICY own_made ON audit FOR INSERT TO duecall_api WITH CHECK ({_reached("audit")} AND {_OWN_KEY});
-- An act upon an endpoint for all companies of an ATS key.
CREATE POLICY own_webhook_made ON audit FOR INSERT TO duecall_api
    WITH CHECK (company_id IS NULL AND target_kind = 'webhook' AND {_OWN_KEY});
-- The events of a deleted company outlive the company. Events about a webhook are for its principal only.
CREATE POLICY own_seen ON events FOR SELECT TO duecall_api USING (
    ats_principal_id = {_PRINCIPAL} OR company_id = {_COMPANY} AND type NOT IN ('ping', 'endpoint.disabled')
);
CREATE POLICY own_made ON events FOR INSERT TO duecall_api WITH CHECK (
    ({_reached("events")} OR (type = 'ping' AND company_id IS NULL AND ats_principal_id = {_PRINCIPAL}))
    AND (place IS NULL OR type = 'ping')
);
CREATE POLICY own_seen ON webhook_endpoints FOR SELECT TO duecall_api USING ({_SHARED_ENDPOINT});
CREATE POLICY own_made ON webhook_endpoints FOR INSERT TO duecall_api WITH CHECK ({_OWN_TARGET});
-- Other keys may only delete.
CREATE POLICY own_changed ON webhook_endpoints FOR UPDATE TO duecall_api
    USING ({_SHARED_ENDPOINT}) WITH CHECK ({_OWN_TARGET} OR disabled_cause = 'DELETED' AND {_SHARED_ENDPOINT});
CREATE POLICY own_seen ON webhook_deliveries FOR SELECT TO duecall_api USING ({_OWN_DELIVERY});
CREATE POLICY own_made ON webhook_deliveries FOR INSERT TO duecall_api WITH CHECK ({_OWN_DELIVERY});
CREATE POLICY own_changed ON webhook_deliveries FOR UPDATE TO duecall_api USING ({_OWN_DELIVERY});
CREATE POLICY own_seen ON batches FOR SELECT TO duecall_api USING ({_reached("batches")});
CREATE POLICY own_made ON batches FOR INSERT TO duecall_api WITH CHECK ({_reached("batches")});
CREATE POLICY own_changed ON batches FOR UPDATE TO duecall_api USING ({_reached("batches")});
CREATE POLICY own_seen ON batch_items FOR SELECT TO duecall_api USING ({_reached("batch_items")});
CREATE POLICY own_made ON batch_items FOR INSERT TO duecall_api WITH CHECK ({_reached("batch_items")});
CREATE POLICY own_changed ON batch_items FOR UPDATE TO duecall_api USING ({_reached("batch_items")})
"""

_OF_OPERATORS = f"""
CREATE POLICY operator_made ON inbox FOR INSERT TO {_OPERATOR}
    WITH CHECK (kind IN ('decide_outcome', 'cancel_attempt') AND principal_id = '{_OPERATORS}');
-- Only the command line has other actors.
CREATE POLICY operator_made ON audit FOR INSERT TO {_OPERATOR} WITH CHECK (EXISTS (
    SELECT FROM console_sessions s WHERE s.actor = audit.actor AND s.revoked_at IS NULL AND s.expires_at > audit.at
));
-- A session of a link has the role of the link, which is used by then.
CREATE POLICY operator_made ON console_sessions FOR INSERT TO {_OPERATOR} WITH CHECK (actor LIKE 'oidc:%' OR EXISTS (
    SELECT FROM sign_in_links l
    WHERE console_sessions.actor = 'link:' || l.id AND l.used_at IS NOT NULL AND l.role = console_sessions.role
));
CREATE POLICY operator_made ON console_acts FOR INSERT TO {_OPERATOR} WITH CHECK (true);
CREATE POLICY operator_made ON events FOR INSERT TO {_OPERATOR} WITH CHECK (
    type IN ('company.paused', 'company.resumed')
    OR (type = 'command.applied' AND data ->> 'reasonCode' = 'COMMAND_DROPPED')
    OR (type = 'endpoint.disabled' AND data ->> 'reasonCode' = 'OPERATOR')
);
CREATE POLICY operator_locked ON interviews FOR UPDATE TO {_OPERATOR} USING (true) WITH CHECK (false);
CREATE POLICY operator_locked ON attempts FOR UPDATE TO {_OPERATOR} USING (true) WITH CHECK (false);
CREATE POLICY operator_changed ON companies FOR UPDATE TO {_OPERATOR} USING (true) WITH CHECK (true);
CREATE POLICY operator_changed ON alarms FOR UPDATE TO {_OPERATOR} USING (true) WITH CHECK (true);
CREATE POLICY operator_changed ON console_acts FOR UPDATE TO {_OPERATOR} USING (true) WITH CHECK (true);
-- Without these conditions the role could write a command of a client, or use a key, session or link that has ended.
CREATE POLICY operator_changed ON inbox FOR UPDATE TO {_OPERATOR}
    USING (quarantined_at IS NOT NULL AND applied_at IS NULL) WITH CHECK (applied_at IS NULL);
CREATE POLICY operator_changed ON carrier_events FOR UPDATE TO {_OPERATOR}
    USING (quarantined_at IS NOT NULL AND heard_at IS NULL) WITH CHECK (true);
CREATE POLICY operator_changed ON api_keys FOR UPDATE TO {_OPERATOR} USING (revoked_at IS NULL) WITH CHECK (true);
CREATE POLICY operator_changed ON console_sessions FOR UPDATE TO {_OPERATOR}
    USING (revoked_at IS NULL) WITH CHECK (true);
CREATE POLICY operator_changed ON sign_in_links FOR UPDATE TO {_OPERATOR}
    USING (used_at IS NULL) WITH CHECK (used_at IS NOT NULL);
-- The endpoints of a revoked key are disabled for good.
CREATE POLICY operator_changed ON webhook_endpoints FOR UPDATE TO {_OPERATOR}
    USING (disabled_cause IS NULL OR disabled_cause NOT IN ('KEY_REVOKED', 'DELETED'))
    WITH CHECK (disabled_cause IS NULL OR disabled_cause IN ('KEY_REVOKED', 'OPERATOR'));
CREATE POLICY operator_replayed ON webhook_deliveries FOR UPDATE TO {_OPERATOR}
    USING (state = 'FAILED') WITH CHECK (state = 'WAITING' AND is_replay AND tries = 0 AND claim IS NULL);
-- The waiting deliveries of a webhook that is enabled again are sent then.
CREATE POLICY operator_advanced ON webhook_deliveries FOR UPDATE TO {_OPERATOR}
    USING (state = 'WAITING' AND claim IS NULL)
    WITH CHECK (state = 'WAITING' AND claim IS NULL AND first_failed_at IS NULL AND tries < 10)
"""  # noqa: S608 - of constants


def statements() -> Iterator[str]:
    """Yield the statements of all grants, then those of all policies."""
    grants = [
        *(("duecall_worker", rights, table) for table, rights in _WORKED.items()),
        *_GRANTS,
        *((_OPERATOR, "SELECT", table) for table in _READ_WHOLE),
        *((_OPERATOR, f"SELECT ({columns})", table) for table, columns in _READ_IN_PART.items()),
        *((_OPERATOR, rights, table) for table, rights in _WRITTEN.items()),
    ]
    for role, rights, table in grants:
        yield f"GRANT {rights} ON {table} TO {role}"
    for table in _WORKED:
        yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
        yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"
        yield f"CREATE POLICY everything ON {table} TO duecall_worker, CURRENT_USER USING (true)"
    for table in _COUNTED:
        yield f"CREATE POLICY counted ON {table} FOR SELECT TO duecall_counter USING (true)"
    for table in _SEEN_BY_OPERATORS:
        yield f"CREATE POLICY operator_seen ON {table} FOR SELECT TO {_OPERATOR} USING (true)"
    yield from _OF_THE_API.split(";\n")
    yield from _OF_OPERATORS.split(";\n")
