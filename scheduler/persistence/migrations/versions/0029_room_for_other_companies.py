"""Ceilings of limits, and holds of attempts that cannot be released: no company takes the room or time of others."""

import sqlalchemy as sa
from alembic import op

revision = '0029'
down_revision = '0028'
branch_labels = None
depends_on = None

_CEILING = 'concurrent_calls <= concurrent_calls_ceiling AND calls_per_second <= calls_per_second_ceiling'

_HELD = "state = 'PENDING' AND held_until IS NOT NULL"
_DUE = sa.text('greatest(due_at, held_until)')
_INDEXES = {
    'ix_attempts_releasable': ('attempts', ['company_id', 'manual', _DUE], "state = 'PENDING' AND held_until IS NULL"),
    'ix_attempts_held_by_number': ('attempts', ['number_hash', 'company_id', 'due_at'], _HELD),
    # Only for ranges of time: its condition must not follow from that of the index before.
    'ix_attempts_held': ('attempts', ['company_id', 'held_until'], "state = 'PENDING' AND held_until > '-infinity'"),
    'ix_lines_awaited': ('lines', ['free_at', 'number_hash'], 'is_awaited AND attempt_id IS NULL'),
}


def upgrade() -> None:
    op.add_column('companies', sa.Column('calls_per_second_ceiling', sa.Numeric(precision=8, scale=3), nullable=True))
    op.add_column('companies', sa.Column('concurrent_calls_ceiling', sa.Integer(), nullable=True))
    op.create_check_constraint(op.f('ck_companies_limits_within_the_ceiling'), 'companies', _CEILING)

    op.add_column('attempts', sa.Column('held_until', sa.DateTime(timezone=True), nullable=True))
    op.add_column('lines', sa.Column('is_awaited', sa.Boolean(), server_default=sa.text('false'), nullable=False))
    op.execute('GRANT SELECT (held_until) ON attempts TO duecall_operator')
    for name, (table, columns, where) in _INDEXES.items():
        op.create_index(name, table, columns, unique=False, postgresql_where=sa.text(where))


def downgrade() -> None:
    for name, (table, _, _) in _INDEXES.items():
        op.drop_index(name, table_name=table)
    op.drop_column('lines', 'is_awaited')
    op.drop_column('attempts', 'held_until')
    op.drop_constraint(op.f('ck_companies_limits_within_the_ceiling'), 'companies')
    op.drop_column('companies', 'concurrent_calls_ceiling')
    op.drop_column('companies', 'calls_per_second_ceiling')
