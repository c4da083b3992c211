"""Rows that a clock from the future wrote are found without a look at every row."""

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        'ix_attempts_pending_updated_at', 'attempts', ['updated_at'], postgresql_where=sa.text("state = 'PENDING'")
    )
    op.create_index('ix_lines_free_at', 'lines', ['free_at'])


def downgrade() -> None:
    op.drop_index('ix_lines_free_at', table_name='lines')
    op.drop_index('ix_attempts_pending_updated_at', table_name='attempts')
