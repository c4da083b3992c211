"""Record when the carrier's list was read in full, when a given-up call is searched for, and whose cause was lost.

Workers of the release before neither read nor write these columns. Attempts that they give up are not searched for.
"""

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None

_COUNTED = 'unknown_at, cause_is_lost'


def upgrade() -> None:
    op.add_column('attempts', sa.Column('listed_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('attempts', sa.Column('search_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('attempts', sa.Column('cause_is_lost', sa.Boolean(), nullable=True))
    op.create_index(
        'ix_attempts_search', 'attempts', ['search_at'], unique=False, postgresql_where=sa.text('search_at IS NOT NULL')
    )
    op.create_index(
        'ix_attempts_cause_lost', 'attempts', ['company_id'], unique=False, postgresql_where=sa.text('cause_is_lost')
    )
    op.execute(f'GRANT SELECT ({_COUNTED}) ON attempts TO duecall_counter')


def downgrade() -> None:
    op.execute(f'REVOKE SELECT ({_COUNTED}) ON attempts FROM duecall_counter')
    op.drop_index('ix_attempts_cause_lost', table_name='attempts', postgresql_where=sa.text('cause_is_lost'))
    op.drop_index('ix_attempts_search', table_name='attempts', postgresql_where=sa.text('search_at IS NOT NULL'))
    op.drop_column('attempts', 'cause_is_lost')
    op.drop_column('attempts', 'search_at')
    op.drop_column('attempts', 'listed_at')
