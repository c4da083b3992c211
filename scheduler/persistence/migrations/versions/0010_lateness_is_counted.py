"""Let lateness be counted over all companies: it needs each company's pace and the end of its last pause."""

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('companies', sa.Column('resumed_at', sa.DateTime(timezone=True), nullable=True))
    op.execute("GRANT SELECT (created_at) ON attempts TO duecall_counter")
    op.execute("GRANT SELECT (next_slot_at, calls_per_second, resumed_at) ON companies TO duecall_counter")


def downgrade() -> None:
    op.execute("REVOKE SELECT (created_at) ON attempts FROM duecall_counter")
    op.execute("REVOKE SELECT (next_slot_at, calls_per_second, resumed_at) ON companies FROM duecall_counter")
    op.drop_column('companies', 'resumed_at')
