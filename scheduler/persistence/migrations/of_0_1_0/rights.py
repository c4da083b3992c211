"""Functions, grants and policies of migration 0013: what each role may see, as the second wall between tenants.

duecall_api      sees and changes what the principal of its transaction reaches, and nothing without one
duecall_worker   sees and changes everything, and so does the owner, by a policy and not as the owner
duecall_counter  counts over all companies, in columns without personal data; the others turn into it for that
"""

from collections.abc import Iterator

ROLES = ("duecall_api", "duecall_worker", "duecall_counter")

# Evaluated once a statement, not once a row. A setting is empty after the transaction that set it.
_PRINCIPAL = "(SELECT nullif(current_setting('duecall.principal_id', true), '')::uuid)"
_COMPANY = "(SELECT nullif(current_setting('duecall.company_id', true), '')::uuid)"
_BY_ANY_PRINCIPAL = f"num_nonnulls({_PRINCIPAL}, {_COMPANY}) > 0"


def _reached(table: str) -> str:
    """Build the condition of rows of a reached company: a regular key's at a glance, an ATS key's by `companies`."""
    return f"({table}.company_id = {_COMPANY} OR EXISTS (SELECT FROM companies c WHERE c.id = {table}.company_id))"


_OWN_BY_ITSELF = f"(company_id = {_COMPANY} OR ats_principal_id = {_PRINCIPAL})"
"""Of rows that outlive their company."""

_OWN = {
    "companies": f"(id = {_COMPANY} OR ats_principal_id = {_PRINCIPAL})",
    "api_keys": f"(principal_id = {_PRINCIPAL} OR {_reached('api_keys')})",
    **{
        table: _reached(table)
        for table in (
            *("phone_numbers", "agents", "jobs", "candidates", "assignments", "interviews", "attempts"),
            *("reresolutions", "memberships", "invitations"),
        )
    },
    "attempt_history": "EXISTS (SELECT FROM attempts a WHERE a.id = attempt_history.attempt_id)",
    "attempt_tokens": "EXISTS (SELECT FROM attempts a WHERE a.id = attempt_tokens.attempt_id)",
    "stray_calls": "false",
    "carrier_events": "EXISTS (SELECT FROM attempt_tokens t WHERE t.token = carrier_events.token)",
    "inbox": f"(principal_id = {_PRINCIPAL} OR {_reached('inbox')})",
    "invitation_tokens": "EXISTS (SELECT FROM invitations i WHERE i.id = invitation_tokens.invitation_id)",
    "users": "EXISTS (SELECT FROM memberships m WHERE m.user_id = users.id)",
    "usage": _OWN_BY_ITSELF,
    "erasures": _OWN_BY_ITSELF,
    # A person's line is no tenant's: each principal may see whether a number is free.
    "lines": _BY_ANY_PRINCIPAL,
}
"""The rows that a principal reaches in each table of the tenants."""

_NEW = {
    "inbox": f"(principal_id = {_PRINCIPAL} AND (company_id IS NULL OR {_reached('inbox')}))",
    "users": _BY_ANY_PRINCIPAL,
    # A carrier has no principal. It must know the token of a claim of ours.
    "carrier_events": "token_is_known(token)",
}
"""The rows that a principal may insert, where that is not simply what it reaches."""

# Each principal may know that a country cannot be called.
_OWN_BACKOFFS = (
    f"(company_id = {_COMPANY} OR EXISTS (SELECT FROM companies c WHERE c.id = carrier_backoffs.company_id)"
    f" OR company_id IS NULL AND {_BY_ANY_PRINCIPAL})"
)

_API = {
    **dict.fromkeys(
        ("alembic_version", "carrier_accounts", "lines", "attempt_tokens", "invitation_tokens", "usage"), "SELECT"
    ),
    **dict.fromkeys(("phone_numbers", "attempt_history", "users", "erasures"), "SELECT, INSERT"),
    **dict.fromkeys(("interviews", "attempts"), "SELECT, UPDATE"),
    **dict.fromkeys(("agents", "jobs", "candidates", "inbox", "invitations"), "SELECT, INSERT, UPDATE"),
    "carrier_backoffs": "SELECT",
    "companies": "SELECT, INSERT, UPDATE (name, settings, profile, metadata, calls_per_second, concurrent_calls,"
    " deleted_at, updated_at)",
    "api_keys": "SELECT (id, principal_id, kind, company_id, name, scopes, per_minute, per_hour, expires_at,"
    " suspended_at, suspend_reason, revoked_at, last_used_at, created_at, updated_at),"
    " UPDATE (last_used_at, revoked_at, updated_at)",
    "assignments": "SELECT, INSERT, DELETE",
    "carrier_events": "INSERT, SELECT (id, token, heard_at, quarantined_at, raw), UPDATE (raw)",
    "reresolutions": "SELECT, INSERT, UPDATE (is_last_pass, not_before, asked_at, rung_at)",
    "memberships": "SELECT, INSERT, UPDATE, DELETE",
}
"""What the API may do at all, within these walls."""

_COUNTED = {
    "carrier_accounts": "SELECT",
    "carrier_backoffs": "SELECT (id, account_id, company_id, country, failures, trials, down_until, answered_at, cause,"
    " is_asked, others_work, updated_at)",
    "companies": "SELECT (id, pause_reason, paused_at, resumed_at, next_slot_at, calls_per_second, concurrent_calls,"
    " deleted_at)",
    "attempts": "SELECT (id, company_id, interview_id, account_id, state, phase, reason, due_at, expires_at,"
    " number_hash, look_at, unknown_at, cause_is_lost, created_at)",
    "inbox": "SELECT (company_id, interview_id, received_at, applied_at, quarantined_at)",
    "erasures": "SELECT (asked_at, finished_at)",
    "lines": "SELECT",
}
"""What is counted over all companies: no number, name, address, text or token is among it."""


def statements() -> Iterator[str]:
    """Yield the statements of all grants, then those of all policies."""
    for table in ("alembic_version", "arrows"):
        yield f"GRANT SELECT ON {table} TO duecall_worker"
    for table in (*_OWN, "carrier_accounts", "carrier_backoffs"):
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO duecall_worker"
    for role, rights in (("duecall_api", _API), ("duecall_counter", _COUNTED)):
        for table, what in rights.items():
            yield f"GRANT {what} ON {table} TO {role}"
    for table, own in (*_OWN.items(), ("carrier_backoffs", _OWN_BACKOFFS)):
        yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
        # For the owner too: the next line says that it sees everything, and can be taken back.
        yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"
        yield f"CREATE POLICY everything ON {table} TO duecall_worker, CURRENT_USER USING (true)"
        yield f"CREATE POLICY own_seen ON {table} FOR SELECT TO duecall_api USING ({own})"
        if table in _COUNTED:
            yield f"CREATE POLICY counted ON {table} FOR SELECT TO duecall_counter USING (true)"
    for table, own in _OWN.items():
        yield f"CREATE POLICY own_made ON {table} FOR INSERT TO duecall_api WITH CHECK ({_NEW.get(table, own)})"
        yield f"CREATE POLICY own_changed ON {table} FOR UPDATE TO duecall_api USING ({own})"
        yield f"CREATE POLICY own_removed ON {table} FOR DELETE TO duecall_api USING ({own})"


def _function(head: str, body: str) -> tuple[str, str]:
    made = f"""
        CREATE FUNCTION {head}
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            {body};
        END
    """
    return "duecall_api, duecall_worker", made


FUNCTIONS = {
    "key_of_hash(bytea)": _function(
        "key_of_hash(hash bytea) RETURNS TABLE (key api_keys, company_deleted boolean)",
        """SELECT k, c.deleted_at IS NOT NULL
            FROM api_keys k LEFT JOIN companies c ON c.id = k.company_id
            WHERE k.key_hash = hash""",
    ),
    "token_is_known(text)": _function(
        "token_is_known(known text) RETURNS boolean",
        "SELECT EXISTS (SELECT FROM attempt_tokens t WHERE t.token = known)",
    ),
    "company_of_invitation(bytea)": _function(
        "company_of_invitation(hash bytea) RETURNS uuid",
        """SELECT i.company_id
            FROM invitation_tokens t JOIN invitations i ON i.id = t.invitation_id
            WHERE t.token_hash = hash""",
    ),
    "user_of_email(text)": _function(
        "user_of_email(address text) RETURNS uuid", "SELECT u.id FROM users u WHERE u.email = address"
    ),
    # An API process looks at once for the answers of all its requests that wait. They belong to several principals, and
    # its role sees the rows of one at a time. It gets ids that it has named, and nothing else about a command.
    "answered_commands(uuid[])": _function(
        "answered_commands(waiting uuid[]) RETURNS SETOF uuid",
        """SELECT i.id FROM inbox i
            WHERE i.id = ANY(waiting) AND (i.applied_at IS NOT NULL OR i.quarantined_at IS NOT NULL)""",
    ),
}
"""What may be asked without a principal, each for the one row whose secret or address is known.

Names are looked up when a function is made, so that no other table can replace the one that is meant.
"""
