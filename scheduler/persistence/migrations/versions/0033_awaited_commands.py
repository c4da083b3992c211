"""The time until which a request waits for the answer of its command: a refusal in its response is no event.

Only refusals that a request has not returned are in the index, so commands as usual do not change it.
"""

import sqlalchemy as sa
from alembic import op

revision = '0033'
down_revision = '0032'
branch_labels = None
depends_on = None

_OWED = sa.text("applied_at < awaited_until AND answer ? 'refusal' AND quarantined_at IS NULL")


def upgrade() -> None:
    op.add_column('inbox', sa.Column('awaited_until', sa.DateTime(timezone=True), nullable=True))
    op.create_index('ix_inbox_owed', 'inbox', ['awaited_until'], unique=False, postgresql_where=_OWED)
    op.execute('GRANT SELECT (awaited_until) ON inbox TO duecall_operator')


def downgrade() -> None:
    op.drop_index('ix_inbox_owed', table_name='inbox')
    op.drop_column('inbox', 'awaited_until')
