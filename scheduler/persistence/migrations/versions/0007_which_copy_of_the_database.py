"""Name the copy of the database in which calls were last claimed: a dump restored into the same server is another copy.

Workers of the release before compare `claimed_on` and neither read nor write the new column.
"""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('carrier_accounts', sa.Column('claimed_copy', sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column('carrier_accounts', 'claimed_copy')
