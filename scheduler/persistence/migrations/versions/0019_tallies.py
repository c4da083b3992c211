"""Counters and histograms survive restarts, and are the same in every process.

Each transaction appends its amounts, so that no two processes change the same row. The clock folds them into totals.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0019'
down_revision = '0018'
branch_labels = None
depends_on = None

_TABLES = ('tallies', 'tally_entries')


def upgrade() -> None:
    op.create_table(
        'tallies',
        sa.Column('name', sa.Text(), nullable=False),
        sa.Column('label', sa.Text(), nullable=False),
        sa.Column('n', sa.BigInteger(), nullable=False),
        sa.Column('sum', sa.Double(), nullable=False),
        sa.Column('buckets', postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.PrimaryKeyConstraint('name', 'label', name=op.f('pk_tallies')),
    )
    op.create_table(
        'tally_entries',
        sa.Column('id', sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column('entries', postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_tally_entries')),
    )
    for table in _TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO duecall_worker")
        op.execute(f"GRANT SELECT ON {table} TO duecall_counter")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY everything ON {table} TO duecall_worker, CURRENT_USER USING (true)")
        op.execute(f"CREATE POLICY counted ON {table} FOR SELECT TO duecall_counter USING (true)")
    # An API process adds what it has counted itself, and reads the totals only as the counting role.
    op.execute("GRANT INSERT ON tally_entries TO duecall_api")
    op.execute("CREATE POLICY added ON tally_entries FOR INSERT TO duecall_api WITH CHECK (true)")


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
