"""Smaller answers of commands."""

import json

import sqlalchemy as sa
from alembic import op

from scheduler.persistence.packed_snapshots import unpack

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('inbox', sa.Column('packed_snapshot', sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    _unpack_snapshots()
    op.drop_column('inbox', 'packed_snapshot')


def _unpack_snapshots() -> None:
    """Store each snapshot in the column in which workers of the release before look for it."""
    inbox = sa.table('inbox', *(sa.column(name) for name in ('id', 'interview_id', 'company_id', 'packed_snapshot')))
    bind = op.get_bind()
    change = sa.text("UPDATE inbox SET answer = jsonb_set(answer, '{snapshot}', CAST(:snapshot AS jsonb)) WHERE id = :id")
    packed = sa.select(inbox).where(inbox.c.packed_snapshot != b'').execution_options(yield_per=1000)
    for row in bind.execute(packed):
        snapshot = unpack(row.packed_snapshot, (row.interview_id, row.company_id))
        bind.execute(change, {'id': row.id, 'snapshot': json.dumps(snapshot)})
