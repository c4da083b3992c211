"""Fewer and smaller entries of indexes, and a place of recomputations that does not depend on the order of ids.

All tables are locked at once, for about ten seconds for a million attempts: most of that is the building of indexes.
"""

import sqlalchemy as sa
from alembic import op
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import OperationalError

from scheduler.persistence.errors import SchemaNotMade

revision = '0016'
down_revision = '0015'
branch_labels = None
depends_on = None

_TRIES = 12
_TABLES = 'attempts, interviews, candidates, assignments, carrier_events, reresolutions'
_LISTS = ('candidates', 'interviews')
_REFERENCES = {'candidates': ('assignments', 'interviews'), 'interviews': ('attempts',)}


def upgrade() -> None:
    _lock()
    for table in _LISTS:
        # Rows that were created at the same instant are sorted by their ids when they are read.
        for columns in (('company_id', 'created_at'), ('company_id', 'status', 'created_at')):
            op.drop_index(f'ix_{table}_{"_".join(columns)}_id', table_name=table)
            op.create_index(f'ix_{table}_{"_".join(columns)}', table, list(columns))
    _set_keys(['id', 'company_id'], has_unique=False)
    _index_open_attempts(['company_id'])
    op.drop_constraint('uq_carrier_events_fingerprint', 'carrier_events', type_='unique')
    op.drop_index('ix_carrier_events_token', table_name='carrier_events')
    op.create_unique_constraint('uq_carrier_events_token_fingerprint', 'carrier_events', ['token', 'fingerprint'])
    op.add_column('reresolutions', sa.Column('after_interview_id', sa.Uuid(), nullable=True))
    op.add_column('reresolutions', sa.Column('after_in_last_pass', sa.Boolean(), nullable=True))
    op.execute('GRANT UPDATE (after_in_last_pass) ON reresolutions TO duecall_api')


def downgrade() -> None:
    _lock()
    op.drop_column('reresolutions', 'after_in_last_pass')
    op.drop_column('reresolutions', 'after_interview_id')
    op.drop_constraint('uq_carrier_events_token_fingerprint', 'carrier_events', type_='unique')
    op.create_index('ix_carrier_events_token', 'carrier_events', ['token'])
    op.create_unique_constraint('uq_carrier_events_fingerprint', 'carrier_events', ['fingerprint'])
    _index_open_attempts(None)
    _set_keys(['id'], has_unique=True)
    for table in _LISTS:
        for columns in (('company_id', 'created_at'), ('company_id', 'status', 'created_at')):
            op.drop_index(f'ix_{table}_{"_".join(columns)}', table_name=table)
            op.create_index(f'ix_{table}_{"_".join(columns)}_id', table, [*columns, 'id'])


def _set_keys(columns: list[str], *, has_unique: bool) -> None:
    """Change the primary keys of the rows that other rows name together with their company.

    A foreign key needs an index with both columns. If it is the primary key's, rows have one entry instead of two.
    """
    for table, naming in _REFERENCES.items():
        name = f'{table.removesuffix("s")}_id'
        for other in naming:
            op.drop_constraint(f'fk_{other}_company_id_{name}', other, type_='foreignkey')
        if not has_unique:
            op.drop_constraint(f'uq_{table}_company_id_id', table, type_='unique')
        op.drop_constraint(f'pk_{table}', table, type_='primary')
        op.create_primary_key(f'pk_{table}', table, columns)
        if has_unique:
            op.create_unique_constraint(f'uq_{table}_company_id_id', table, ['company_id', 'id'])
        for other in naming:
            op.create_foreign_key(
                f'fk_{other}_company_id_{name}', other, table, ['company_id', name], ['company_id', 'id']
            )


def _index_open_attempts(included: list[str] | None) -> None:
    """Build the index by which an interview has one open attempt, with these further columns."""
    op.drop_index('uq_attempts_one_open_per_interview', table_name='attempts')
    op.create_index(
        'uq_attempts_one_open_per_interview',
        'attempts',
        ['interview_id'],
        unique=True,
        postgresql_include=included,
        postgresql_where=sa.text("state IN ('PENDING', 'IN_PROGRESS')"),
    )


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
