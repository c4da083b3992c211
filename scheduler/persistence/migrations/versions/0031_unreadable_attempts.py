"""Attempts that a worker could not read are not released again at once."""

import sqlalchemy as sa
from alembic import op

revision = '0031'
down_revision = '0030'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('attempts', sa.Column('unreadable_until', sa.DateTime(timezone=True), nullable=True))
    op.execute('GRANT SELECT (unreadable_until) ON attempts TO duecall_operator')


def downgrade() -> None:
    op.drop_column('attempts', 'unreadable_until')
