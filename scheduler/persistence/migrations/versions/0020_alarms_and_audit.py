"""Alarms and operators' acts are kept as rows.

Every role may raise an alarm, by a function alone, and only operators see alarms. The API and the workers add
entries of the audit, and only the owner may change or delete them. Quarantined callbacks are counted.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0020'
down_revision = '0019'
branch_labels = None
depends_on = None

_PRINCIPAL = "(SELECT nullif(current_setting('duecall.principal_id', true), '')::uuid)"
_COMPANY = "(SELECT nullif(current_setting('duecall.company_id', true), '')::uuid)"

# An act of the API: by a key of the request's principal, upon a company that the principal reaches.
_OWN_ACT = (
    f"(audit.company_id = {_COMPANY} OR EXISTS (SELECT FROM companies c WHERE c.id = audit.company_id))"
    f" AND EXISTS (SELECT FROM api_keys k WHERE k.principal_id = {_PRINCIPAL} AND audit.actor = 'key:' || k.id)"
)

_RAISE = """
    CREATE FUNCTION raise_alarms(raised jsonb) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    BEGIN ATOMIC
        INSERT INTO alarms AS present (id, kind, subjects, first_seen_at, last_seen_at, count, tries, post_at)
        SELECT a.id, a.kind, a.subjects, a.first_seen_at, a.last_seen_at, a.count, 0, a.first_seen_at
        FROM jsonb_to_recordset(raised) AS a (
            id uuid, kind text, subjects jsonb, first_seen_at timestamptz, last_seen_at timestamptz, count bigint
        )
        ORDER BY a.kind, a.subjects
        ON CONFLICT (kind, subjects) WHERE acknowledged_at IS NULL DO UPDATE SET
            count = present.count + excluded.count,
            last_seen_at = greatest(present.last_seen_at, excluded.last_seen_at);
    END
"""


def upgrade() -> None:
    op.create_table(
        'alarms',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('kind', sa.Text(), nullable=False),
        sa.Column('subjects', postgresql.JSONB(), nullable=False),
        sa.Column('first_seen_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('last_seen_at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('count', sa.BigInteger(), nullable=False),
        sa.Column('acknowledged_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('acknowledged_by', sa.Text(), nullable=True),
        sa.Column('note', sa.Text(), nullable=True),
        sa.Column('tries', sa.Integer(), nullable=False),
        sa.Column('post_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('posted_at', sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind ~ '^[A-Z0-9_]{1,80}$'", name=op.f('ck_alarms_kind')),
        sa.CheckConstraint(
            "jsonb_typeof(subjects) = 'object' AND length(subjects::text) <= 800", name=op.f('ck_alarms_few_subjects')
        ),
        sa.CheckConstraint(
            'num_nonnulls(acknowledged_at, acknowledged_by) IN (0, 2)', name=op.f('ck_alarms_acknowledged_by_an_actor')
        ),
        sa.CheckConstraint(
            'acknowledged_at IS NULL OR post_at IS NULL', name=op.f('ck_alarms_acknowledged_is_not_posted')
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_alarms')),
    )
    op.create_index(
        'uq_alarms_open',
        'alarms',
        ['kind', 'subjects'],
        unique=True,
        postgresql_where=sa.text('acknowledged_at IS NULL'),
    )
    op.create_index('ix_alarms_to_post', 'alarms', ['post_at'], postgresql_where=sa.text('post_at IS NOT NULL'))
    op.create_table(
        'audit',
        sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column('at', sa.DateTime(timezone=True), nullable=False),
        sa.Column('actor', sa.Text(), nullable=False),
        sa.Column('verb', sa.Text(), nullable=False),
        sa.Column('target_kind', sa.Text(), nullable=False),
        sa.Column('target_id', sa.Text(), nullable=True),
        sa.Column('company_id', sa.Uuid(), nullable=True),
        sa.Column('reason', sa.Text(), nullable=True),
        sa.Column('before', postgresql.JSONB(), nullable=False),
        sa.Column('after', postgresql.JSONB(), nullable=False),
        sa.Column('trace_id', sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_audit')),
    )
    for table in ('alarms', 'audit'):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY everything ON {table} TO duecall_worker, CURRENT_USER USING (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON alarms TO duecall_worker")
    op.execute("GRANT SELECT (kind, acknowledged_at) ON alarms TO duecall_counter")
    op.execute("CREATE POLICY counted ON alarms FOR SELECT TO duecall_counter USING (true)")
    op.execute("GRANT SELECT (heard_at, quarantined_at) ON carrier_events TO duecall_counter")
    op.execute("CREATE POLICY counted ON carrier_events FOR SELECT TO duecall_counter USING (true)")
    op.execute("GRANT SELECT, INSERT ON audit TO duecall_worker")
    op.execute("GRANT INSERT ON audit TO duecall_api")
    op.execute(f"CREATE POLICY own_made ON audit FOR INSERT TO duecall_api WITH CHECK ({_OWN_ACT})")
    op.execute(_RAISE)
    op.execute("REVOKE ALL ON FUNCTION raise_alarms(jsonb) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION raise_alarms(jsonb) TO duecall_api, duecall_worker")


def downgrade() -> None:
    op.execute("DROP FUNCTION raise_alarms(jsonb)")
    op.execute("DROP POLICY counted ON carrier_events")
    op.execute("REVOKE SELECT (heard_at, quarantined_at) ON carrier_events FROM duecall_counter")
    op.drop_table('audit')
    op.drop_table('alarms')
