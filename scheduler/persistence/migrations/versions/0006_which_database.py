"""On which database calls were claimed last, so that one that has forgotten some is noticed before it dials.

Workers of the release before neither read nor write it.
"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('carrier_accounts', sa.Column('claimed_on', sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column('carrier_accounts', 'claimed_on')
