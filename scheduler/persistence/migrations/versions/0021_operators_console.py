"""The role of the operators' console, its sessions and its sign-in links.

    duecall_operator   reads all companies, in columns without names, numbers, addresses, texts of clients or hashes of
                       keys, and writes only the columns that an operator's acts change

A login of this role cannot read a person's data, whatever the code of a page asks for. It can check a number that it is
given: `candidates_of_number` returns the ids of the candidates who have it.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from scheduler.persistence.schema import SchemaNotMade

revision = '0021'
down_revision = '0020'
branch_labels = None
depends_on = None

_ROLE = 'duecall_operator'
_EXISTS = '42710'
_OPERATORS = '00000000-0000-0000-0000-000000000000'
"""The principal of operators' commands."""
_TIMES = 'created_at, updated_at'

_WHOLE = ('alembic_version', 'arrows', 'carrier_accounts', 'lines', 'stray_calls', 'reresolutions', 'usage', 'erasures',
          'attempt_history', 'attempt_tokens', 'alarms', 'audit', 'tallies', 'tally_entries')
"""Tables without personal data."""

_READ = {
    'companies': f'id, name, settings, ats_principal_id, billing_system, calls_per_second, concurrent_calls,'
    f' next_slot_at, paused_at, pause_reason, resumed_at, deleted_at, {_TIMES}',
    'api_keys': f'id, principal_id, kind, company_id, name, scopes, per_minute, per_hour, expires_at, suspended_at,'
    f' suspend_reason, revoked_at, last_used_at, {_TIMES}',
    'phone_numbers': f'id, company_id, number_type, provider, status, capabilities, custom, {_TIMES}',
    'agents': f'id, company_id, type, focus, language, duration, phone_number_id, deleted_at, {_TIMES}',
    'jobs': f'id, company_id, status, deleted_at, {_TIMES}',
    'candidates': f'id, company_id, timezone, gdpr_expiry_date, status, erased_at, {_TIMES}',
    'interviews': f'id, company_id, candidate_id, agent_id, job_id, type, focus, duration, status, is_test, expires_at,'
    f' expires_by_default, scheduled_at, finished_at, deleted_at, {_TIMES}',
    'invitations': f'id, company_id, expires_at, accepted_at, revoked_at, sent_at, tries, send_at, {_TIMES}',
    'inbox': 'id, seq, principal_id, key_id, company_id, kind, interview_id, received_at, rung_at, applied_at, failures,'
    ' quarantined_at, first_failed_at, failed_with',
    'carrier_events': 'id, token, received_at, rung_at, heard_at, failures, quarantined_at, first_failed_at, failed_with',
    'carrier_backoffs': f'id, account_id, company_id, country, failures, trials, down_until, answered_at, cause,'
    f' is_asked, others_work, {_TIMES}',
}
_PERSONAL_OF_ATTEMPTS = ('called_number',)

_WRITTEN = {
    'companies': 'paused_at, pause_reason, resumed_at, updated_at',
    'carrier_accounts': 'paused_at, pause_reason, claimed_on, claimed_copy, updated_at',
    'inbox': 'failures, quarantined_at, first_failed_at, failed_with, rung_at',
    'carrier_events': 'failures, quarantined_at, first_failed_at, failed_with, rung_at, heard_at, raw',
    'api_keys': 'revoked_at, suspended_at, suspend_reason, updated_at',
    'alarms': 'acknowledged_at, acknowledged_by, note, post_at',
}

_LOCKED = ('interviews', 'attempts')
"""Tables whose rows an act locks and never changes. A lock needs the right to update a column; a policy forbids it."""

_COMMANDS = (
    'id, principal_id, key_id, company_id, idempotency_key, request_hash, kind, body, interview_id, received_at, rung_at,'
    ' applied_at, answer, packed_snapshot, failures'
)

_INDEXES = {
    'alarms': (('kind', 'id'),),
    'audit': (('actor', 'id'), ('verb', 'id'), ('target_id', 'id'), ('company_id', 'id')),
    'erasures': (('asked_at', 'company_id'),),
}
"""For the lists of the console."""

_ANSWERS = (
    # Of decisions only: other answers and bodies contain texts of clients.
    ('decision_answer(uuid)', _ROLE, """
        CREATE FUNCTION decision_answer(command uuid) RETURNS TABLE (is_applied boolean, refusal text, attempt_id uuid)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT i.applied_at IS NOT NULL, i.answer -> 'refusal' ->> 'message', CAST(i.answer ->> 'attempt_id' AS uuid)
            FROM inbox i WHERE i.id = command AND i.kind = 'decide_outcome';
        END
    """),
    ('quarantined_attempt(uuid)', f'duecall_worker, {_ROLE}', """
        CREATE FUNCTION quarantined_attempt(command uuid) RETURNS uuid
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            -- The error of a cast would quote the text.
            SELECT CASE WHEN i.body ->> 'attempt_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                        THEN CAST(i.body ->> 'attempt_id' AS uuid) END
            FROM inbox i
            WHERE i.id = command AND i.quarantined_at IS NOT NULL;
        END
    """),
    ('drop_quarantined(uuid[], timestamptz, jsonb)', f'duecall_worker, {_ROLE}', """
        CREATE FUNCTION drop_quarantined(commands uuid[], dropped_at timestamptz, dropped_with jsonb) RETURNS void
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            -- A right to empty the bodies would be a right to rewrite them.
            UPDATE inbox SET applied_at = dropped_at, body = NULL, answer = dropped_with
            WHERE id = ANY (commands) AND quarantined_at IS NOT NULL AND applied_at IS NULL;
        END
    """),
)
"""Functions that return single values of bodies and answers or empty bodies, with the roles that may call them."""

_FUNCTIONS = ('numbers_of_interview(uuid)', 'candidates_of_number(text[], integer)')

_CHANGED = {
    'api_keys': ('revoked_at IS NULL', 'true'),
    'inbox': ('quarantined_at IS NOT NULL AND applied_at IS NULL', 'applied_at IS NULL'),
    'carrier_events': ('quarantined_at IS NOT NULL AND heard_at IS NULL', 'true'),
    'console_sessions': ('revoked_at IS NULL', 'true'),
    'sign_in_links': ('used_at IS NULL', 'used_at IS NOT NULL'),
}
"""The rows that this role may change, as they are before and after. Of other tables, it may change all rows.

Without them it could write a command of a client, or use a key, a session or a link that has ended.
"""

_MADE = {'audit': "actor LIKE 'link:%' OR actor LIKE 'oidc:%'"}
"""The rows that this role may add. Only the command line has other actors."""

_SESSIONS = {
    'console_sessions': 'SELECT, INSERT, UPDATE (last_used_at, revoked_at)',
    'sign_in_links': 'SELECT, UPDATE (used_at)',
    'console_acts': 'SELECT, INSERT',
}


def upgrade() -> None:
    _make_tables()
    _make_role()
    bind = op.get_bind()
    schema = bind.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {_ROLE}")
    for table in _WHOLE:
        op.execute(f"GRANT SELECT ON {table} TO {_ROLE}")
    for table, columns in (*_READ.items(), ('attempts', _of_attempts(bind))):
        op.execute(f"GRANT SELECT ({columns}) ON {table} TO {_ROLE}")
    for table, columns in _WRITTEN.items():
        op.execute(f"GRANT UPDATE ({columns}) ON {table} TO {_ROLE}")
    for table, rights in _SESSIONS.items():
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO duecall_worker")
        op.execute(f"GRANT {rights} ON {table} TO {_ROLE}")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY everything ON {table} TO duecall_worker, CURRENT_USER USING (true)")
    op.execute(f"GRANT INSERT ON audit TO {_ROLE}")
    op.execute(f"GRANT INSERT ({_COMMANDS}) ON inbox TO {_ROLE}")
    op.execute(
        f"CREATE POLICY operator_made ON inbox FOR INSERT TO {_ROLE}"
        f" WITH CHECK (kind IN ('decide_outcome', 'cancel_attempt') AND principal_id = '{_OPERATORS}')"
    )
    for table in _LOCKED:
        op.execute(f"GRANT UPDATE (updated_at) ON {table} TO {_ROLE}")
        op.execute(f"CREATE POLICY operator_locked ON {table} FOR UPDATE TO {_ROLE} USING (true) WITH CHECK (false)")
    for function, roles, statement in _ANSWERS:
        op.execute(statement)
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {roles}")
    for table, indexes in _INDEXES.items():
        for columns in indexes:
            op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))
    op.create_index('ix_alarms_company', 'alarms', [sa.text("(subjects ->> 'company_id')"), 'id'])
    for table in ('console_sessions', 'console_acts', 'audit'):
        made = _MADE.get(table, 'true')
        op.execute(f"CREATE POLICY operator_made ON {table} FOR INSERT TO {_ROLE} WITH CHECK ({made})")
    for table in _hidden_rows(bind):
        op.execute(f"CREATE POLICY operator_seen ON {table} FOR SELECT TO {_ROLE} USING (true)")
        if table in _WRITTEN or table in _SESSIONS:
            before, after = _CHANGED.get(table, ('true', 'true'))
            op.execute(
                f"CREATE POLICY operator_changed ON {table} FOR UPDATE TO {_ROLE} USING ({before}) WITH CHECK ({after})"
            )
    _make_functions()


def _make_functions() -> None:
    """What the console must know about numbers, from functions that return no digit.

    `candidates_of_number` still tells whose a given number is: the console limits the searches of an operator.
    """
    op.execute("""
        CREATE FUNCTION numbers_of_interview(interview uuid, OUT is_there boolean, OUT backoffs bigint[])
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT p.phone_number IS NOT NULL,
                   ARRAY (SELECT b.id FROM carrier_backoffs b
                          WHERE b.company_id = i.company_id AND b.caller = i.caller_number)
            FROM interviews i JOIN candidates p ON p.id = i.candidate_id
            WHERE i.id = interview;
        END
    """)
    op.execute("""
        CREATE FUNCTION candidates_of_number(numbers text[], most integer) RETURNS SETOF uuid
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            SELECT c.id FROM candidates c WHERE c.phone_number = ANY (numbers) ORDER BY c.id DESC LIMIT least(most, 50);
        END
    """)
    for function in _FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO {_ROLE}")


def _make_tables() -> None:
    op.create_table(
        'console_sessions',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('token_hash', sa.LargeBinary(), nullable=False),
        sa.Column('actor', sa.Text(), nullable=False),
        sa.Column('role', sa.Text(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('revoked_at', sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name=op.f('ck_console_sessions_role')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_console_sessions')),
        sa.UniqueConstraint('token_hash', name=op.f('uq_console_sessions_token_hash')),
    )
    op.create_index('ix_console_sessions_expires_at', 'console_sessions', ['expires_at'])
    op.create_table(
        'sign_in_links',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('token_hash', sa.LargeBinary(), nullable=False),
        sa.Column('role', sa.Text(), nullable=False),
        sa.Column('created_by', sa.Text(), nullable=False),
        sa.Column('created_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('expires_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('used_at', sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name=op.f('ck_sign_in_links_role')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_sign_in_links')),
        sa.UniqueConstraint('token_hash', name=op.f('uq_sign_in_links_token_hash')),
    )
    op.create_index('ix_sign_in_links_expires_at', 'sign_in_links', ['expires_at'])
    op.create_table(
        'console_acts',
        sa.Column('token', sa.Text(), nullable=False),
        sa.Column('sent_at', sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint('token', name=op.f('pk_console_acts')),
    )
    op.create_index('ix_console_acts_sent_at', 'console_acts', ['sent_at'])
    op.create_index('ix_candidates_phone_number', 'candidates', ['phone_number'], postgresql_using='hash')


def _of_attempts(bind) -> str:
    """All columns but the personal one: a call has no other data of a person."""
    columns = bind.execute(text(
        "SELECT quote_ident(attname) FROM pg_attribute"
        " WHERE attrelid = 'attempts'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> ALL(:without)"
    ), {'without': list(_PERSONAL_OF_ATTEMPTS)}).scalars()
    return ', '.join(columns)


def _hidden_rows(bind) -> list[str]:
    """The tables with row-level security of which this role reads a column."""
    readable = [*_WHOLE, *_READ, 'attempts', *_SESSIONS]
    return list(bind.execute(text(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relrowsecurity"
        " AND relname = ANY(:readable) ORDER BY relname"
    ), {'readable': readable}).scalars())


def _make_role() -> None:
    """The role belongs to the server, so another database may have made it."""
    bind = op.get_bind()
    me, has_set = bind.execute(
        text("SELECT quote_ident(current_user), current_setting('server_version_num')::int >= 160000")
    ).one()
    exists = text("SELECT count(*) FROM pg_roles WHERE rolname = :role")
    counts = text(
        "SELECT pg_has_role(oid, 'duecall_counter', :may) FROM pg_roles WHERE rolname = :role"
    )
    needed = [f"CREATE ROLE {_ROLE} NOLOGIN NOINHERIT", f"GRANT duecall_counter TO {_ROLE}"]
    if not bind.execute(exists, {'role': _ROLE}).scalar_one():
        _run(bind, needed[0], needed)
    if not bind.execute(counts, {'role': _ROLE, 'may': 'SET' if has_set else 'MEMBER'}).scalar_one():
        _run(bind, needed[1], needed)
    try:
        # For a development database with one login. A login of the console needs no such right of the owner.
        with bind.begin_nested():
            bind.execute(text(f"GRANT {_ROLE} TO {me}"))
    except (IntegrityError, ProgrammingError):
        pass


def _run(bind, statement, needed) -> None:
    try:
        with bind.begin_nested():
            bind.execute(text(statement))
    except IntegrityError:
        pass  # another database of this server made it at this moment
    except ProgrammingError as error:
        if getattr(error.orig, 'sqlstate', None) == _EXISTS:
            return
        raise SchemaNotMade(
            "the role that migrates may not make roles. Have a superuser run this once, then try again:"
            f" {'; '.join(needed)};"
        ) from error


def downgrade() -> None:
    bind = op.get_bind()
    _forget_cancellations(bind)
    for table, indexes in _INDEXES.items():
        for columns in indexes:
            op.drop_index(f"ix_{table}_{'_'.join(columns)}", table_name=table)
    op.drop_index('ix_alarms_company', table_name='alarms')
    for function in (*_FUNCTIONS, *(name for name, _, _ in _ANSWERS)):
        op.execute(f"DROP FUNCTION {function}")
    for table in _hidden_rows(bind):
        op.execute(f"DROP POLICY IF EXISTS operator_seen ON {table}")
        op.execute(f"DROP POLICY IF EXISTS operator_changed ON {table}")
        op.execute(f"DROP POLICY IF EXISTS operator_made ON {table}")
        op.execute(f"DROP POLICY IF EXISTS operator_locked ON {table}")
    for table in _SESSIONS:
        op.drop_table(table)
    op.drop_index('ix_candidates_phone_number', 'candidates')
    for table in (*_WHOLE, *_READ, 'attempts'):
        # Also of single columns.
        op.execute(f"REVOKE ALL ON {table} FROM {_ROLE}")
    schema = bind.execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(f"REVOKE USAGE ON SCHEMA {schema} FROM {_ROLE}")


def _forget_cancellations(bind) -> None:
    op.execute("DELETE FROM inbox WHERE kind = 'cancel_attempt' AND applied_at IS NOT NULL")
    # Workers of the previous version would leave the others, and each would block its interview. Without it, the phone
    # would ring although an operator has cancelled the call.
    waiting = bind.execute(text("SELECT count(*) FROM inbox WHERE kind = 'cancel_attempt'")).scalar_one()
    if waiting:
        raise SchemaNotMade(
            f"{waiting} calls that operators have cancelled wait for a worker of this version. Let the workers run until"
            " `duecall status` shows no command as not applied yet, decide about those in quarantine, then try again."
        )
