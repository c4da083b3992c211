"""Ceilings of limits: no company takes all places."""

import sqlalchemy as sa
from alembic import op

revision = '0029'
down_revision = '0028'
branch_labels = None
depends_on = None

_CEILING = 'concurrent_calls <= concurrent_calls_ceiling AND calls_per_second <= calls_per_second_ceiling'


def upgrade() -> None:
    op.add_column('companies', sa.Column('calls_per_second_ceiling', sa.Numeric(precision=8, scale=3), nullable=True))
    op.add_column('companies', sa.Column('concurrent_calls_ceiling', sa.Integer(), nullable=True))
    op.create_check_constraint(op.f('ck_companies_limits_within_the_ceiling'), 'companies', _CEILING)


def downgrade() -> None:
    op.drop_constraint(op.f('ck_companies_limits_within_the_ceiling'), 'companies')
    op.drop_column('companies', 'concurrent_calls_ceiling')
    op.drop_column('companies', 'calls_per_second_ceiling')
