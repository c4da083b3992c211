"""The schema of version 0.3.0, from that of 0.2.0.

Statements are in the folder `of_0_3_0`. There is no way back by a migration, which would lose data: version 0.2.0 works
on this schema.
"""

from alembic import op
from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from scheduler.persistence.errors import SchemaNotMade
from scheduler.persistence.migrations.of_0_3_0 import evidence, reputation, tables
from scheduler.persistence.migrations.steps import execute

revision = '0035'
down_revision = '0034'
branch_labels = None
depends_on = None

_CHANGED = ('attempts', 'attempt_history', 'lines', 'inbox')
_TRIES = 12


def upgrade() -> None:
    _lock(_CHANGED)
    execute(tables.CHANGES, tables.OUTCOMES, tables.REFUSALS, evidence.SEALS)
    execute(reputation.TABLES, reputation.RIGHTS)
    insert = text('INSERT INTO arrows (event, from_state, to_state, reason) VALUES (:event, :source, :target, :reason)')
    op.get_bind().execute(
        insert, [dict(zip(('event', 'source', 'target', 'reason'), arrow, strict=True)) for arrow in tables.ARROWS]
    )


def downgrade() -> None:
    raise SchemaNotMade('no migration leads back to version 0.2.0, which works on this schema')


def _lock(locked: tuple[str, ...]) -> None:
    """Lock tables before the first change of them. All others wait until the migration has ended."""
    bind = op.get_bind()
    # Each try ends before PostgreSQL would look for a deadlock (deadlock_timeout, 1 s), and gives all locks back.
    for _ in range(_TRIES):
        try:
            with bind.begin_nested():
                bind.execute(text("SET LOCAL lock_timeout = '400ms'"))
                bind.execute(text(f'LOCK TABLE {", ".join(locked)} IN ACCESS EXCLUSIVE MODE'))
                bind.execute(text("SET LOCAL lock_timeout = '10s'"))
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
        else:
            return
    raise SchemaNotMade(
        f'the tables {", ".join(locked)} could not be locked within 5 s, because other transactions use them. Pause'
        ' calling (duecall pause --all), then try again.'
    )
