"""Smaller answers of commands, and fewer and smaller indexes.

All tables are locked at once, for about ten seconds for a million attempts: most of that is the building of indexes.
"""

import json

import sqlalchemy as sa
from alembic import op
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from scheduler.persistence.errors import SchemaNotMade
from scheduler.persistence.json_columns import unpack

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None

_TRIES = 12
_TABLES = 'attempts, attempt_history, inbox'
_PENDING = sa.text("state = 'PENDING'")
_OF_RETRIES = sa.text('retry_number > 0')


def upgrade() -> None:
    _lock()
    op.add_column('inbox', sa.Column('packed_snapshot', sa.LargeBinary(), nullable=True))
    # An update is HOT if it changes no indexed column. A summary (BRIN) does not count, from PostgreSQL 16 on.
    op.drop_index('ix_attempts_pending_updated_at', table_name='attempts')
    op.create_index(
        'ix_attempts_updated_at',
        'attempts',
        ['updated_at'],
        postgresql_using='brin',
        postgresql_with={'pages_per_range': 32, 'autosummarize': True},
    )
    op.drop_index('ix_attempts_waiting_by_number', table_name='attempts')
    op.create_index(
        'ix_attempts_waiting_by_number',
        'attempts',
        ['number_hash'],
        postgresql_using='hash',
        postgresql_where=_PENDING,
    )
    op.drop_index('ix_attempts_chain_id', table_name='attempts')
    op.create_index('ix_attempts_retries', 'attempts', ['chain_id'], postgresql_where=_OF_RETRIES)
    op.drop_constraint('uq_attempts_company_id_id', 'attempts', type_='unique')
    op.drop_index('ix_attempts_interview_id_created_at', table_name='attempts')
    op.create_index('ix_attempts_interview_id', 'attempts', ['interview_id'])
    op.drop_index('ix_attempt_history_attempt_id_id', table_name='attempt_history')
    op.create_index('ix_attempt_history_attempt_id', 'attempt_history', ['attempt_id'])
    # An early version of 0014 took it from the owner of the table, who needs it for ANALYZE.
    op.execute('GRANT EXECUTE ON FUNCTION candidate_search_keys(uuid, text) TO PUBLIC')


def downgrade() -> None:
    _lock()
    op.drop_index('ix_attempt_history_attempt_id', table_name='attempt_history')
    op.create_index('ix_attempt_history_attempt_id_id', 'attempt_history', ['attempt_id', 'id'])
    op.drop_index('ix_attempts_interview_id', table_name='attempts')
    op.create_index('ix_attempts_interview_id_created_at', 'attempts', ['interview_id', 'created_at'])
    op.create_unique_constraint('uq_attempts_company_id_id', 'attempts', ['company_id', 'id'])
    op.drop_index('ix_attempts_retries', table_name='attempts')
    op.create_index('ix_attempts_chain_id', 'attempts', ['chain_id'])
    op.drop_index('ix_attempts_waiting_by_number', table_name='attempts')
    op.create_index('ix_attempts_waiting_by_number', 'attempts', ['number_hash'], postgresql_where=_PENDING)
    op.drop_index('ix_attempts_updated_at', table_name='attempts')
    op.create_index('ix_attempts_pending_updated_at', 'attempts', ['updated_at'], postgresql_where=_PENDING)
    _unpack_snapshots()
    op.drop_column('inbox', 'packed_snapshot')


def _lock() -> None:
    """Lock all tables before the first change."""
    bind = op.get_bind()
    # Workers lock these tables in several orders, so no order excludes a deadlock. Each try ends before PostgreSQL
    # would look for one (deadlock_timeout, 1 s), and gives all locks back.
    for _ in range(_TRIES):
        try:
            with bind.begin_nested():
                bind.execute(sa.text("SET LOCAL lock_timeout = '400ms'"))
                bind.execute(sa.text(f'LOCK TABLE {_TABLES} IN ACCESS EXCLUSIVE MODE'))
                bind.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
        else:
            return
    raise SchemaNotMade(
        f'the tables {_TABLES} could not be locked within 5 s, because other transactions use them.'
        ' Pause calling (duecall pause --all), then try again.'
    )


def _unpack_snapshots() -> None:
    """Store each snapshot in the column in which workers of the release before look for it."""
    inbox = sa.table('inbox', *(sa.column(name) for name in ('id', 'interview_id', 'company_id', 'packed_snapshot')))
    bind = op.get_bind()
    change = sa.text("UPDATE inbox SET answer = jsonb_set(answer, '{snapshot}', CAST(:snapshot AS jsonb)) WHERE id = :id")
    packed = sa.select(inbox).where(inbox.c.packed_snapshot != b'').execution_options(yield_per=1000)
    for row in bind.execute(packed):
        snapshot = unpack(row.packed_snapshot, (row.interview_id, row.company_id))
        bind.execute(change, {'id': row.id, 'snapshot': json.dumps(snapshot)})
