"""Indexes for lists by the time of a change and by the time of a call.

Each write of a table waits while its indexes are built, a few seconds for a million rows. Reading goes on.
"""

import sqlalchemy as sa
from alembic import op

revision = '0023'
down_revision = '0022'
branch_labels = None
depends_on = None

_CHANGED = ('jobs', 'candidates', 'interviews')


def upgrade() -> None:
    for table in _CHANGED:
        op.create_index(f'ix_{table}_company_id_updated_at', table, ['company_id', 'updated_at'])
    op.create_index(
        'ix_interviews_company_id_scheduled_at',
        'interviews',
        ['company_id', 'scheduled_at'],
        postgresql_where=sa.text('scheduled_at IS NOT NULL'),
    )
    op.create_index(
        'ix_attempts_ended_by_company',
        'attempts',
        ['company_id', 'due_at'],
        postgresql_where=sa.text('ended_at IS NOT NULL'),
    )


def downgrade() -> None:
    op.drop_index('ix_attempts_ended_by_company', table_name='attempts')
    op.drop_index('ix_interviews_company_id_scheduled_at', table_name='interviews')
    for table in _CHANGED:
        op.drop_index(f'ix_{table}_company_id_updated_at', table_name=table)
