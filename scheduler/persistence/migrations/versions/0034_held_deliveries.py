"""Deliveries that wait behind an earlier one leave the range that looks read, and each keeps its newest tries."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = '0034'
down_revision = '0033'
branch_labels = None
depends_on = None

_TABLE = 'webhook_deliveries'
_SEND = sa.text('greatest(send_at, held_until)')
_HELD = "state = 'WAITING' AND held_until IS NOT NULL"
_UNHELD = 'finished_at IS NULL AND held_until IS NULL'
"""The same as WAITING, but in words that no other index has."""
_ORDERED = "state = 'WAITING' AND NOT is_replay"
_INDEXES = {
    'ix_webhook_deliveries_sendable': (['endpoint_id', 'is_replay', _SEND, 'place'], _UNHELD),
    'ix_webhook_deliveries_held': (['endpoint_id', 'interview_id', 'sequence'], _HELD),
    # Only for ranges of time: its condition must not follow from that of the index before.
    'ix_webhook_deliveries_held_until': (
        ['endpoint_id', 'held_until'],
        "finished_at IS NULL AND held_until > '-infinity'",
    ),
    'ix_webhook_deliveries_blocking': (['endpoint_id', 'interview_id', 'first_failed_at', 'sequence'], _ORDERED),
}
_REPLACED = 'ix_webhook_deliveries_in_order'


def upgrade() -> None:
    op.add_column(_TABLE, sa.Column('held_until', sa.DateTime(timezone=True), nullable=True))
    op.add_column(_TABLE, sa.Column('history', JSONB(), server_default=sa.text("'[]'"), nullable=False))
    # A replay by an operator ends the hold.
    op.execute('GRANT UPDATE (held_until) ON webhook_deliveries TO duecall_operator')
    for name, (columns, where) in _INDEXES.items():
        op.create_index(name, _TABLE, columns, unique=False, postgresql_where=sa.text(where))
    # Workers of the release before find the earlier deliveries by the first two columns of its successor.
    op.drop_index(_REPLACED, table_name=_TABLE)


def downgrade() -> None:
    op.create_index(
        _REPLACED,
        _TABLE,
        ['endpoint_id', 'interview_id', 'sequence'],
        unique=False,
        postgresql_where=sa.text(_ORDERED),
    )
    for name in _INDEXES:
        op.drop_index(name, table_name=_TABLE)
    op.drop_column(_TABLE, 'history')
    op.drop_column(_TABLE, 'held_until')
