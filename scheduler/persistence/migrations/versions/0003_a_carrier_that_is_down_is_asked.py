"""A carrier that is down is asked before a call is tried; carrier events that nobody can hear are set aside.

Workers of the release before run on this schema: what they do not know is empty or has a default, and an answer that
they leave behind counts for nothing once they have written a later `down_until`.
"""

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('carrier_accounts', sa.Column('answered_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('carrier_events', sa.Column('failures', sa.Integer(), server_default=sa.text('0'), nullable=False))
    op.add_column('carrier_events', sa.Column('quarantined_at', sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column('carrier_events', 'quarantined_at')
    op.drop_column('carrier_events', 'failures')
    op.drop_column('carrier_accounts', 'answered_at')
