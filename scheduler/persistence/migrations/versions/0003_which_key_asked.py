"""A command says which of its principal's keys sent it, so that a history can name it.

Workers of the release before leave it empty.
"""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('inbox', sa.Column('key_id', sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column('inbox', 'key_id')
