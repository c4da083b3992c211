"""The second wall between tenants: what each role of the database may see, kept by PostgreSQL itself.

Three roles nobody logs in as; whoever logs in is made a member of one of the first two:

    duecall_api      sees and changes what the principal of its transaction reaches, and nothing without one
    duecall_worker   sees and changes everything; and so does the owner, by a policy and not for being the owner
    duecall_counter  counts over all companies, in columns that tell of nobody; the others turn into it for that
"""

from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from scheduler.persistence.errors import SchemaNotMade

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None

_ROLES = ('duecall_api', 'duecall_worker', 'duecall_counter')
_IS_THERE = '42710'

# Asked once a statement, not once a row. Empty is what a setting is after the transaction that set it.
_PRINCIPAL = "(SELECT nullif(current_setting('duecall.principal_id', true), '')::uuid)"
_COMPANY = "(SELECT nullif(current_setting('duecall.company_id', true), '')::uuid)"


def _reached(table):
    """A regular key's company at a glance; an ATS key's by asking `companies`, which shows no others."""
    return (
        f"({table}.company_id = {_COMPANY}"
        f" OR EXISTS (SELECT FROM companies c WHERE c.id = {table}.company_id))"
    )


_OWN_BY_ITSELF = f"(company_id = {_COMPANY} OR ats_principal_id = {_PRINCIPAL})"
"""Of rows that outlive their company."""

# What a principal reaches in each table of the tenants.
_OWN = {
    'companies': f"(id = {_COMPANY} OR ats_principal_id = {_PRINCIPAL})",
    'api_keys': f"(principal_id = {_PRINCIPAL} OR {_reached('api_keys')})",
    'phone_numbers': _reached('phone_numbers'),
    'agents': _reached('agents'),
    'jobs': _reached('jobs'),
    'candidates': _reached('candidates'),
    'assignments': _reached('assignments'),
    'interviews': _reached('interviews'),
    'attempts': _reached('attempts'),
    'attempt_history': "EXISTS (SELECT FROM attempts a WHERE a.id = attempt_history.attempt_id)",
    'attempt_tokens': "EXISTS (SELECT FROM attempts a WHERE a.id = attempt_tokens.attempt_id)",
    'stray_calls': "false",
    'carrier_events': "EXISTS (SELECT FROM attempt_tokens t WHERE t.token = carrier_events.token)",
    'reresolutions': _reached('reresolutions'),
    'inbox': f"(principal_id = {_PRINCIPAL} OR {_reached('inbox')})",
    'memberships': _reached('memberships'),
    'invitations': _reached('invitations'),
    'invitation_tokens': "EXISTS (SELECT FROM invitations i WHERE i.id = invitation_tokens.invitation_id)",
    'users': "EXISTS (SELECT FROM memberships m WHERE m.user_id = users.id)",
    'usage': _OWN_BY_ITSELF,
    'erasures': _OWN_BY_ITSELF,
    # A person's line is no tenant's: whoever asks on somebody's behalf may see whether a number is free.
    'lines': f"num_nonnulls({_PRINCIPAL}, {_COMPANY}) > 0",
}

# What may be written anew, where that is not simply what is reached.
_NEW = {
    'inbox': f"(principal_id = {_PRINCIPAL} AND (company_id IS NULL OR {_reached('inbox')}))",
    'users': f"num_nonnulls({_PRINCIPAL}, {_COMPANY}) > 0",
    # A carrier has no principal; the token of a claim of ours is what it must know.
    'carrier_events': "token_is_known(token)",
}

# What the API may do at all, within these walls.
_API = {
    'alembic_version': 'SELECT',
    'carrier_accounts': 'SELECT',
    'lines': 'SELECT',
    'companies': 'SELECT, INSERT, UPDATE (name, settings, profile, metadata, calls_per_second, concurrent_calls,'
    ' deleted_at, updated_at)',
    'api_keys': 'SELECT (id, principal_id, kind, company_id, name, scopes, per_minute, per_hour, expires_at,'
    ' suspended_at, suspend_reason, revoked_at, last_used_at, created_at, updated_at),'
    ' UPDATE (last_used_at, revoked_at, updated_at)',
    'phone_numbers': 'SELECT, INSERT',
    'agents': 'SELECT, INSERT, UPDATE',
    'jobs': 'SELECT, INSERT, UPDATE',
    'candidates': 'SELECT, INSERT, UPDATE',
    'assignments': 'SELECT, INSERT, DELETE',
    'interviews': 'SELECT, UPDATE',
    'attempts': 'SELECT, UPDATE',
    'attempt_history': 'SELECT, INSERT',
    'attempt_tokens': 'SELECT',
    'carrier_events': 'INSERT, SELECT (id, token, heard_at, quarantined_at, raw), UPDATE (raw)',
    'reresolutions': 'SELECT, INSERT',
    'inbox': 'SELECT, INSERT, UPDATE',
    'memberships': 'SELECT, INSERT, UPDATE, DELETE',
    'invitations': 'SELECT, INSERT, UPDATE',
    'invitation_tokens': 'SELECT',
    'users': 'SELECT, INSERT',
    'usage': 'SELECT',
    'erasures': 'SELECT, INSERT',
}

# What is counted over all companies: no number, name, address, text or token is among it.
_COUNTED = {
    'carrier_accounts': 'SELECT',
    'companies': 'SELECT (id, pause_reason, paused_at, concurrent_calls, deleted_at)',
    'attempts': 'SELECT (id, company_id, interview_id, account_id, state, phase, reason, due_at, expires_at,'
    ' number_hash, look_at)',
    'inbox': 'SELECT (company_id, interview_id, received_at, applied_at, quarantined_at)',
    'lines': 'SELECT',
}

_READ_ALONE_BY_WORKERS = ('alembic_version', 'arrows')
_NO_TENANTS = ('carrier_accounts',)


def upgrade() -> None:
    _make_roles()
    schema = op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(f"GRANT USAGE ON SCHEMA {schema} TO duecall_api, duecall_worker, duecall_counter")
    for table in _READ_ALONE_BY_WORKERS:
        op.execute(f"GRANT SELECT ON {table} TO duecall_worker")
    for table in (*_OWN, *_NO_TENANTS):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO duecall_worker")
    for role, rights in (('duecall_api', _API), ('duecall_counter', _COUNTED)):
        for table, what in rights.items():
            op.execute(f"GRANT {what} ON {table} TO {role}")
    _make_doors()
    for table, own in _OWN.items():
        new = _NEW.get(table, own)
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        # For the owner too: that it sees everything is said by the next line, and can be taken back there.
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY everything ON {table} TO duecall_worker, CURRENT_USER USING (true)")
        op.execute(f"CREATE POLICY own_seen ON {table} FOR SELECT TO duecall_api USING ({own})")
        op.execute(f"CREATE POLICY own_made ON {table} FOR INSERT TO duecall_api WITH CHECK ({new})")
        op.execute(f"CREATE POLICY own_changed ON {table} FOR UPDATE TO duecall_api USING ({own})")
        op.execute(f"CREATE POLICY own_removed ON {table} FOR DELETE TO duecall_api USING ({own})")
        if table in _COUNTED:
            op.execute(f"CREATE POLICY counted ON {table} FOR SELECT TO duecall_counter USING (true)")


_DOORS = {
    'key_of_hash(bytea)': """
        CREATE FUNCTION key_of_hash(hash bytea) RETURNS TABLE (key api_keys, company_deleted boolean)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT k, c.deleted_at IS NOT NULL
            FROM api_keys k LEFT JOIN companies c ON c.id = k.company_id
            WHERE k.key_hash = hash;
        END
    """,
    'token_is_known(text)': """
        CREATE FUNCTION token_is_known(known text) RETURNS boolean
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT EXISTS (SELECT FROM attempt_tokens t WHERE t.token = known);
        END
    """,
    'company_of_invitation(bytea)': """
        CREATE FUNCTION company_of_invitation(hash bytea) RETURNS uuid
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT i.company_id
            FROM invitation_tokens t JOIN invitations i ON i.id = t.invitation_id
            WHERE t.token_hash = hash;
        END
    """,
    'user_of_email(text)': """
        CREATE FUNCTION user_of_email(address text) RETURNS uuid
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT u.id FROM users u WHERE u.email = address;
        END
    """,
}
"""What somebody without a principal may ask, each for the one row whose secret or address they have in hand.

Their names are looked up when they are made, so that nobody can put other tables before them.
"""


def _make_doors() -> None:
    for name, makes in _DOORS.items():
        op.execute(makes)
        op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO duecall_api, duecall_worker")


def _make_roles() -> None:
    """The roles, where they are missing: they belong to the server, and another database may have made them.

    duecall_api inherits nothing, so that it counts over all companies only when it says so.
    """
    bind = op.get_bind()
    me, has_set = bind.execute(
        text("SELECT quote_ident(current_user), current_setting('server_version_num')::int >= 160000")
    ).one()
    may = "'SET'" if has_set else "'MEMBER'"
    there = set(bind.execute(text("SELECT rolname FROM pg_roles WHERE rolname LIKE 'duecall\\_%'")).scalars())
    roles = [f"CREATE ROLE {role} NOLOGIN NOINHERIT" for role in _ROLES if role not in there]
    counts = [f"GRANT duecall_counter TO {role}" for role in ('duecall_api', 'duecall_worker', me)]
    _run(bind, roles, whole=[*roles, *counts])
    is_member = text(f"SELECT pg_has_role(oid, 'duecall_counter', {may}) FROM pg_roles WHERE quote_ident(rolname) = :role")
    missing = [each for each in counts if not bind.execute(is_member, {'role': each.split(' TO ')[1]}).scalar_one()]
    _run(bind, missing, whole=missing)


def _run(bind, statements, *, whole) -> None:
    for statement in statements:
        try:
            with bind.begin_nested():
                bind.execute(text(statement))
        except IntegrityError:
            continue  # another database of this server made it at this very moment
        except ProgrammingError as error:
            if getattr(error.orig, 'sqlstate', None) == _IS_THERE:
                continue  # the same
            raise SchemaNotMade(
                "the role that migrates may not make roles. Have a superuser run this once, then try again:"
                f" {'; '.join(whole)};"
            ) from error


def downgrade() -> None:
    for table in _OWN:
        for policy in ('everything', 'own_seen', 'own_made', 'own_changed', 'own_removed', 'counted'):
            op.execute(f"DROP POLICY IF EXISTS {policy} ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for name in _DOORS:
        op.execute(f"DROP FUNCTION {name}")
    # The roles stay: they are the server's, and somebody may log in by them.
    for table in (*_OWN, *_NO_TENANTS, *_READ_ALONE_BY_WORKERS):
        op.execute(f"REVOKE ALL ON {table} FROM duecall_api, duecall_worker, duecall_counter")
