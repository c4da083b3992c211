"""Batches: many requests for interviews in one, stored before they are applied."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

revision = '0026'
down_revision = '0025'
branch_labels = None
depends_on = None

_TABLES = ('batches', 'batch_items')
_COMPANY = "(SELECT nullif(current_setting('duecall.company_id', true), '')::uuid)"

_SEEN_BY_OPERATORS = {
    # Not the name, which is a client's text.
    'batches': 'id, company_id, principal_id, key_id, state, total, applied, existing, refused, cancelled, first_due_at,'
    ' work_at, cancelled_to, started_at, finished_at, created_at, updated_at',
    # Not the body, which is personal data, nor texts that quote it.
    'batch_items': 'batch_id, index, company_id, state, error_code, interview_id, existed, failures',
}

_COUNTED = 'company_id, state, total, applied, refused, cancelled, finished_at, created_at, updated_at'


def upgrade() -> None:
    _make_tables()
    for table in _TABLES:
        own = (
            f"({table}.company_id = {_COMPANY}"
            f" OR EXISTS (SELECT FROM companies c WHERE c.id = {table}.company_id))"
        )
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO duecall_worker")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY everything ON {table} TO duecall_worker, CURRENT_USER USING (true)")
        op.execute(f"GRANT SELECT, INSERT, UPDATE ON {table} TO duecall_api")
        op.execute(f"CREATE POLICY own_seen ON {table} FOR SELECT TO duecall_api USING {own}")
        op.execute(f"CREATE POLICY own_made ON {table} FOR INSERT TO duecall_api WITH CHECK {own}")
        op.execute(f"CREATE POLICY own_changed ON {table} FOR UPDATE TO duecall_api USING {own}")
        op.execute(f"GRANT SELECT ({_SEEN_BY_OPERATORS[table]}) ON {table} TO duecall_operator")
        op.execute(f"CREATE POLICY operator_seen ON {table} FOR SELECT TO duecall_operator USING (true)")
    op.execute(f'GRANT SELECT ({_COUNTED}) ON batches TO duecall_counter')
    op.execute('CREATE POLICY counted ON batches FOR SELECT TO duecall_counter USING (true)')


def _make_tables() -> None:
    instant = sa.DateTime(timezone=True)
    zero = text('0')
    op.create_table(
        'batches',
        sa.Column('id', sa.Uuid(), nullable=False),
        sa.Column('company_id', sa.Uuid(), nullable=False),
        sa.Column('principal_id', sa.Uuid(), nullable=False),
        sa.Column('key_id', sa.Uuid(), nullable=False),
        sa.Column('name', sa.Text(), nullable=True),
        sa.Column('state', sa.Text(), nullable=False),
        sa.Column('total', sa.Integer(), nullable=False),
        sa.Column('applied', sa.Integer(), server_default=zero, nullable=False),
        sa.Column('existing', sa.Integer(), server_default=zero, nullable=False),
        sa.Column('refused', sa.Integer(), server_default=zero, nullable=False),
        sa.Column('cancelled', sa.Integer(), server_default=zero, nullable=False),
        sa.Column('first_due_at', instant, nullable=True),
        sa.Column('work_at', instant, nullable=False),
        sa.Column('cancelled_to', sa.Integer(), server_default=text('-1'), nullable=False),
        sa.Column('started_at', instant, nullable=True),
        sa.Column('finished_at', instant, nullable=True),
        sa.Column('created_at', instant, nullable=False),
        sa.Column('updated_at', instant, nullable=False),
        sa.CheckConstraint(
            "state IN ('ACCEPTED', 'RUNNING', 'PAUSED', 'COMPLETED', 'CANCELLED')", name=op.f('ck_batches_state')
        ),
        sa.CheckConstraint('applied + refused + cancelled <= total', name=op.f('ck_batches_no_item_counts_twice')),
        sa.CheckConstraint('existing <= applied', name=op.f('ck_batches_existing_items_are_applied')),
        sa.CheckConstraint(
            "state NOT IN ('COMPLETED', 'CANCELLED') OR applied + refused + cancelled = total",
            name=op.f('ck_batches_no_item_waits_at_the_end'),
        ),
        sa.CheckConstraint(
            "(state = 'COMPLETED' AND finished_at IS NOT NULL) OR state = 'CANCELLED' OR"
            " (state NOT IN ('COMPLETED', 'CANCELLED') AND finished_at IS NULL)",
            name=op.f('ck_batches_finished_at_its_end'),
        ),
        sa.ForeignKeyConstraint(['company_id'], ['companies.id'], name=op.f('fk_batches_company_id')),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_batches')),
    )
    op.create_index('ix_batches_company_id_created_at', 'batches', ['company_id', 'created_at'])
    op.create_index('ix_batches_created_at', 'batches', ['created_at'])
    op.create_index('ix_batches_unfinished', 'batches', ['work_at'], postgresql_where=text('finished_at IS NULL'))
    op.create_index(
        'ix_batches_finished_at', 'batches', ['finished_at'], postgresql_where=text('finished_at IS NOT NULL')
    )
    op.create_table(
        'batch_items',
        sa.Column('batch_id', sa.Uuid(), nullable=False),
        sa.Column('index', sa.Integer(), nullable=False),
        sa.Column('company_id', sa.Uuid(), nullable=False),
        sa.Column('state', sa.Text(), nullable=False),
        sa.Column('body', postgresql.JSONB(), nullable=True),
        sa.Column('external_id', sa.Text(), nullable=True),
        sa.Column('error_code', sa.Text(), nullable=True),
        sa.Column('error', postgresql.JSONB(), nullable=True),
        sa.Column('interview_id', sa.Uuid(), nullable=True),
        sa.Column('existed', sa.Boolean(), server_default=text('false'), nullable=False),
        sa.Column('failures', sa.SmallInteger(), server_default=zero, nullable=False),
        sa.CheckConstraint(
            "state IN ('WAITING', 'APPLIED', 'REFUSED', 'CANCELLED')", name=op.f('ck_batch_items_state')
        ),
        sa.CheckConstraint(
            "(state = 'WAITING') = (body IS NOT NULL)", name=op.f('ck_batch_items_a_body_while_it_waits')
        ),
        sa.CheckConstraint(
            "(state = 'APPLIED') = (interview_id IS NOT NULL)", name=op.f('ck_batch_items_an_interview_if_applied')
        ),
        sa.CheckConstraint(
            "(state = 'REFUSED') = (error_code IS NOT NULL)", name=op.f('ck_batch_items_an_error_if_refused')
        ),
        sa.ForeignKeyConstraint(['batch_id'], ['batches.id'], name=op.f('fk_batch_items_batch_id')),
        sa.PrimaryKeyConstraint('batch_id', 'index', name=op.f('pk_batch_items')),
    )
    op.create_index('ix_batch_items_company_id', 'batch_items', ['company_id'])
    op.create_index('ix_batch_items_by_state', 'batch_items', ['batch_id', 'state', 'index'])
    op.create_index(
        'ix_batch_items_failed',
        'batch_items',
        ['batch_id', 'failures', 'index'],
        postgresql_where=text("state = 'WAITING' AND failures > 0"),
    )


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
