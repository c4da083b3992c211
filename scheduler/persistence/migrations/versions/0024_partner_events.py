"""Events for partners: what happened to their interviews, calls and companies, in a numbered order.

A company has events only while it has a reader: a webhook, or an API key with the scope `read:webhooks`.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

revision = '0024'
down_revision = '0023'
branch_labels = None
depends_on = None

_TABLES = ('events', 'interview_sequences', 'webhook_endpoints')
_FUNCTIONS = ('kept_events(json)', 'has_reader(uuid)')
_PRINCIPAL = "(SELECT nullif(current_setting('duecall.principal_id', true), '')::uuid)"
_COMPANY = "(SELECT nullif(current_setting('duecall.company_id', true), '')::uuid)"
_NEW = 'id, company_id, ats_principal_id, interview_id, attempt_id, type, occurred_at, data'
_OF_OPERATORS = (
    "type IN ('company.paused', 'company.resumed')"
    " OR (type = 'command.applied' AND data ->> 'reasonCode' = 'COMMAND_DROPPED')"
    " OR (type = 'endpoint.disabled' AND data ->> 'reasonCode' = 'OPERATOR')"
)

_CHANGED_BY_OPERATORS = (
    'consecutive_failures, failing_since, circuit_opened_at, probe_at, disabled_at, disabled_cause, is_slow, notice_at,'
    ' notice_tries, updated_at'
)
_SEEN_BY_OPERATORS = {
    'events': '',
    'interview_sequences': '',
    # Not the texts of a client, and no secret. An address may contain a password.
    'webhook_endpoints': ' (id, principal_id, api_key_id, company_id, events, is_active, max_retries, timeout_ms,'
    ' old_secret_until, consecutive_failures, failing_since, circuit_opened_at, probe_at, disabled_at, disabled_cause,'
    ' notice_at, notice_tries, claimed_at, is_slow, created_at, updated_at)',
}


def _reached(table) -> str:
    return (
        f"({table}.company_id = {_COMPANY}"
        f" OR EXISTS (SELECT FROM companies c WHERE c.id = {table}.company_id))"
    )


_OWN_EVENT = (
    f"(ats_principal_id = {_PRINCIPAL}"
    f" OR company_id = {_COMPANY} AND type NOT IN ('ping', 'endpoint.disabled'))"
)
"""The events of a deleted company outlive the company. Events about a webhook are for its principal only."""
_OWN_PING = f"(type = 'ping' AND company_id IS NULL AND ats_principal_id = {_PRINCIPAL})"
_MADE = f"(({_reached('events')} OR {_OWN_PING}) AND (place IS NULL OR type = 'ping'))"
_OWN_ENDPOINT = f"principal_id = {_PRINCIPAL}"
"""Not the endpoints of other keys with access to the company: an ATS and its company do not see each other's."""
_OWN_TARGET = f"({_OWN_ENDPOINT} AND (company_id IS NULL OR {_reached('webhook_endpoints')}))"

_OWN_ACT = (
    "company_id IS NULL AND target_kind = 'webhook'"
    f" AND EXISTS (SELECT FROM api_keys k WHERE k.principal_id = {_PRINCIPAL} AND audit.actor = 'key:' || k.id)"
)
"""An act upon an endpoint for all companies of an ATS key."""


def upgrade() -> None:
    _make_tables()
    op.execute("CREATE SEQUENCE event_places")
    # Numbering raises it to the clock, because a restored database has forgotten the places after its backup.
    op.execute("GRANT SELECT, USAGE, UPDATE ON SEQUENCE event_places TO duecall_worker")
    for table in _TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO duecall_worker")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY everything ON {table} TO duecall_worker, CURRENT_USER USING (true)")
    # The API numbers only pings by itself: the request that tests an endpoint waits for its delivery.
    op.execute("GRANT USAGE ON SEQUENCE event_places TO duecall_api")
    op.execute(f"GRANT SELECT, INSERT ({_NEW}, place) ON events TO duecall_api")
    op.execute(f"CREATE POLICY own_seen ON events FOR SELECT TO duecall_api USING ({_OWN_EVENT})")
    op.execute(f"CREATE POLICY own_made ON events FOR INSERT TO duecall_api WITH CHECK ({_MADE})")
    op.execute("GRANT SELECT, INSERT, UPDATE ON webhook_endpoints TO duecall_api")
    for name, verb, check in (
        ('own_seen', 'SELECT', f'USING ({_OWN_ENDPOINT})'),
        ('own_made', 'INSERT', f'WITH CHECK ({_OWN_TARGET})'),
        ('own_changed', 'UPDATE', f'USING ({_OWN_ENDPOINT}) WITH CHECK ({_OWN_TARGET})'),
    ):
        op.execute(f"CREATE POLICY {name} ON webhook_endpoints FOR {verb} TO duecall_api {check}")
    for table, columns in _SEEN_BY_OPERATORS.items():
        op.execute(f"GRANT SELECT{columns} ON {table} TO duecall_operator")
        op.execute(f"CREATE POLICY operator_seen ON {table} FOR SELECT TO duecall_operator USING (true)")
    op.execute(f"CREATE POLICY own_webhook_made ON audit FOR INSERT TO duecall_api WITH CHECK ({_OWN_ACT})")
    # An operator revokes keys, whose endpoints are disabled for good, and disables and enables other endpoints.
    op.execute(f"GRANT UPDATE ({_CHANGED_BY_OPERATORS}) ON webhook_endpoints TO duecall_operator")
    op.execute(
        "CREATE POLICY operator_changed ON webhook_endpoints FOR UPDATE TO duecall_operator"
        " USING (disabled_cause IS NULL OR disabled_cause NOT IN ('KEY_REVOKED', 'DELETED'))"
        " WITH CHECK (disabled_cause IS NULL OR disabled_cause IN ('KEY_REVOKED', 'OPERATOR'))"
    )
    # An operator pauses and resumes companies, drops commands from the quarantine, and disables endpoints.
    op.execute(f"GRANT INSERT ({_NEW}) ON events TO duecall_operator")
    op.execute(f"CREATE POLICY operator_made ON events FOR INSERT TO duecall_operator WITH CHECK ({_OF_OPERATORS})")
    _make_kept()
    _make_places()
    _make_origins()


def _make_kept() -> None:
    """The events of companies with a reader: a role that writes one may not see the keys and webhooks of others.

    `has_reader` looks in one table after the other: most companies need three small queries, and one query over all
    tables costs twice as much, because each execution opens all of them.

    In PL/pgSQL, which keeps its plans: a function in SQL is planned again for each statement. A function, because the
    driver parses a statement above 4 kB again for each execution.
    """
    schema = op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(f"""
        CREATE FUNCTION has_reader(company uuid) RETURNS boolean
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        DECLARE
            ats uuid;
        BEGIN
            SELECT c.ats_principal_id INTO ats FROM {schema}.companies c WHERE c.id = company AND c.deleted_at IS NULL;
            IF NOT FOUND THEN
                RETURN false;
            END IF;
            PERFORM FROM {schema}.api_keys k
            WHERE k.company_id = company AND k.revoked_at IS NULL AND 'read:webhooks' = ANY (k.scopes);
            IF FOUND THEN
                RETURN true;
            END IF;
            PERFORM FROM {schema}.webhook_endpoints w WHERE w.company_id = company AND w.disabled_at IS NULL;
            IF FOUND THEN
                RETURN true;
            END IF;
            IF ats IS NULL THEN
                RETURN false;
            END IF;
            PERFORM FROM {schema}.api_keys k
            WHERE k.principal_id = ats AND k.revoked_at IS NULL AND 'read:webhooks' = ANY (k.scopes);
            IF FOUND THEN
                RETURN true;
            END IF;
            PERFORM FROM {schema}.webhook_endpoints w
            WHERE w.principal_id = ats AND w.company_id IS NULL AND w.disabled_at IS NULL;
            RETURN FOUND;
        END
        $function$
    """)
    # Parsed once: the companies are found by the rows themselves, and by their index.
    op.execute(f"""
        CREATE FUNCTION kept_events(noted json) RETURNS TABLE (
            id uuid, company_id uuid, ats_principal_id uuid, interview_id uuid, attempt_id uuid,
            type text, occurred_at timestamptz, data jsonb
        )
        LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
        #variable_conflict use_column
        BEGIN
            RETURN QUERY
            WITH given AS MATERIALIZED (
                SELECT * FROM ROWS FROM (
                    json_to_recordset(noted) AS (
                        id uuid, company_id uuid, interview_id uuid, attempt_id uuid, type text,
                        occurred_at timestamptz, data jsonb
                    )
                ) WITH ORDINALITY AS e (id, company_id, interview_id, attempt_id, type, occurred_at, data, nth)
            ), readers AS MATERIALIZED (
                SELECT c.id, c.ats_principal_id
                FROM {schema}.companies c
                WHERE c.id = ANY (ARRAY (SELECT DISTINCT g.company_id FROM given g)) AND {schema}.has_reader(c.id)
            )
            SELECT g.id, g.company_id, r.ats_principal_id, g.interview_id, g.attempt_id, g.type, g.occurred_at, g.data
            FROM given g
            JOIN readers r ON r.id = g.company_id
            ORDER BY g.nth;
        END
        $function$
    """)
    for function in _FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO duecall_api, duecall_worker, duecall_operator")


def _make_places() -> None:
    """The places between which lie all events that occurred in a period. Both are outside of it.

    Found by two ids, which begin with the time. A function, because a policy would search the events of one company for
    them, and a company may have none near that time. Not by pings: they get their places at once, also while older
    events wait for theirs.
    """
    schema = op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(f"""
        CREATE FUNCTION event_places(since uuid, until uuid, OUT after bigint, OUT before bigint)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
            SELECT coalesce((SELECT e.place FROM {schema}.events e WHERE e.id < since AND e.place IS NOT NULL AND e.type <> 'ping'
                             ORDER BY e.id DESC LIMIT 1), 0),
                   coalesce((SELECT e.place FROM {schema}.events e WHERE e.id >= until AND e.place IS NOT NULL AND e.type <> 'ping'
                             ORDER BY e.id LIMIT 1), 9223372036854775807)
        $function$
    """)
    op.execute("REVOKE ALL ON FUNCTION event_places(uuid, uuid) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION event_places(uuid, uuid) TO duecall_api, duecall_worker, duecall_operator")


def _make_origins() -> None:
    """Scheme, host and port of a webhook's URL: operators may not read the rest, which may contain a password."""
    schema = op.get_bind().execute(text("SELECT quote_ident(current_schema())")).scalar_one()
    op.execute(r"""
        CREATE FUNCTION webhook_origin(webhook uuid) RETURNS text
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS $function$
            SELECT substring(w.url FROM '^[a-zA-Z]+://') || substring(w.url FROM '^[a-zA-Z]+://(?:[^/?#]*@)?([^/?#]*)')
            FROM {schema}.webhook_endpoints w
            WHERE w.id = webhook
        $function$
    """.replace('{schema}', schema))
    op.execute("REVOKE ALL ON FUNCTION webhook_origin(uuid) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION webhook_origin(uuid) TO duecall_worker, duecall_operator")


def _make_tables() -> None:
    instant = sa.DateTime(timezone=True)
    op.create_table(
        'events',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('company_id', sa.Uuid(), nullable=True),
        sa.Column('ats_principal_id', sa.Uuid(), nullable=True),
        sa.Column('interview_id', sa.Uuid(), nullable=True),
        sa.Column('attempt_id', sa.Uuid(), nullable=True),
        sa.Column('type', sa.Text(), nullable=False),
        sa.Column('occurred_at', instant, nullable=False),
        sa.Column('data', postgresql.JSONB(), nullable=False),
        sa.Column('entry', sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column('place', sa.BigInteger(), nullable=True),
        sa.Column('sequence', sa.Integer(), nullable=True),
        sa.CheckConstraint(
            'sequence IS NULL OR (place IS NOT NULL AND interview_id IS NOT NULL)',
            name=op.f('ck_events_numbered_at_once'),
        ),
        sa.CheckConstraint(
            'company_id IS NOT NULL OR (ats_principal_id IS NOT NULL AND interview_id IS NULL)',
            name=op.f('ck_events_of_a_company_or_an_ats'),
        ),
        sa.CheckConstraint(
            "jsonb_typeof(data) = 'object' AND length(data::text) <= 4000", name=op.f('ck_events_thin_data')
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_events')),
    )
    op.create_index('uq_events_place', 'events', ['place'], unique=True, postgresql_where=text('place IS NOT NULL'))
    op.create_index('ix_events_unnumbered', 'events', ['entry'], postgresql_where=text('place IS NULL'))
    op.create_index('ix_events_company_id_place', 'events', ['company_id', 'place'])
    op.create_index(
        'ix_events_ats_principal_id_place',
        'events',
        ['ats_principal_id', 'place'],
        postgresql_where=text('ats_principal_id IS NOT NULL'),
    )
    op.create_table(
        'interview_sequences',
        sa.Column('interview_id', sa.Uuid(), nullable=False),
        sa.Column('last', sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint('interview_id', name=op.f('pk_interview_sequences')),
    )
    op.create_table(
        'webhook_endpoints',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('principal_id', sa.Uuid(), nullable=False),
        sa.Column('api_key_id', sa.Uuid(), nullable=False),
        sa.Column('company_id', sa.Uuid(), nullable=True),
        sa.Column('url', sa.Text(), nullable=False),
        sa.Column('name', sa.Text(), nullable=True),
        sa.Column('description', sa.Text(), nullable=True),
        sa.Column('headers', sa.LargeBinary(), nullable=True),
        sa.Column('header_names', postgresql.ARRAY(sa.Text()), server_default=text("'{}'"), nullable=False),
        sa.Column('events', postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column('is_active', sa.Boolean(), server_default=text('true'), nullable=False),
        sa.Column('max_retries', sa.Integer(), nullable=False),
        sa.Column('timeout_ms', sa.Integer(), nullable=False),
        sa.Column('secret', sa.LargeBinary(), nullable=False),
        sa.Column('old_secret', sa.LargeBinary(), nullable=True),
        sa.Column('old_secret_until', instant, nullable=True),
        sa.Column('consecutive_failures', sa.Integer(), server_default=text('0'), nullable=False),
        sa.Column('failing_since', instant, nullable=True),
        sa.Column('circuit_opened_at', instant, nullable=True),
        sa.Column('probe_at', instant, nullable=True),
        sa.Column('disabled_at', instant, nullable=True),
        sa.Column('disabled_cause', sa.Text(), nullable=True),
        sa.Column('notice_at', instant, nullable=True),
        sa.Column('notice_tries', sa.SmallInteger(), server_default=text('0'), nullable=False),
        sa.Column('claimed_at', instant, nullable=True),
        sa.Column('is_slow', sa.Boolean(), server_default=text('false'), nullable=False),
        sa.Column('created_at', instant, nullable=False),
        sa.Column('updated_at', instant, nullable=False),
        sa.CheckConstraint(
            '(disabled_at IS NULL) = (disabled_cause IS NULL)', name=op.f('ck_webhook_endpoints_disabled_for_a_cause')
        ),
        sa.CheckConstraint(
            '(old_secret IS NULL) = (old_secret_until IS NULL)', name=op.f('ck_webhook_endpoints_an_old_secret_ends')
        ),
        sa.ForeignKeyConstraint(
            ['company_id'], ['companies.id'], name=op.f('fk_webhook_endpoints_company_id')
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_webhook_endpoints')),
    )
    op.create_index('ix_webhook_endpoints_principal_id', 'webhook_endpoints', ['principal_id'])
    op.create_index('ix_webhook_endpoints_company_id', 'webhook_endpoints', ['company_id'])
    op.create_index(
        'ix_webhook_endpoints_notices', 'webhook_endpoints', ['notice_at'],
        postgresql_where=text('notice_at IS NOT NULL'),
    )


def downgrade() -> None:
    op.execute("DROP POLICY own_webhook_made ON audit")
    op.execute("DROP FUNCTION webhook_origin(uuid)")
    op.execute("DROP FUNCTION event_places(uuid, uuid)")
    for function in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
    for table in reversed(_TABLES):
        op.drop_table(table)
    op.execute("DROP SEQUENCE event_places")
