"""An index for the newest attempts of an interview, and the progress of erased people with many interviews."""

import sqlalchemy as sa
from alembic import op

revision = '0028'
down_revision = '0027'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index('ix_attempts_interview_id_created_at', 'attempts', ['interview_id', 'created_at'])
    op.drop_index('ix_attempts_interview_id', table_name='attempts')
    op.add_column('candidates', sa.Column('leaving_at', sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        'ix_candidates_leaving_at',
        'candidates',
        ['leaving_at'],
        postgresql_where=sa.text('leaving_at IS NOT NULL'),
    )


def downgrade() -> None:
    op.drop_index('ix_candidates_leaving_at', table_name='candidates')
    op.drop_column('candidates', 'leaving_at')
    op.create_index('ix_attempts_interview_id', 'attempts', ['interview_id'])
    op.drop_index('ix_attempts_interview_id_created_at', table_name='attempts')
