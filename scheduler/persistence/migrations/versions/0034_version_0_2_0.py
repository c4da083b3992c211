"""The schema of version 0.2.0, from that of 0.1.0.

Migrations 0014 to 0033 belonged to no release, and this one has the number of the last of them: a database that they
upgraded is at the same schema. Statements are in the folder `of_0_2_0`. There is no way back by a migration, which would
lose data: version 0.1.0 works on this schema.
"""

from alembic import op
from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from scheduler.persistence.errors import SchemaNotMade
from scheduler.persistence.migrations.of_0_2_0 import functions, rights, tables
from scheduler.persistence.migrations.steps import execute, make_functions, make_roles, me, schema

revision = '0034'
down_revision = '0013'
branch_labels = None
depends_on = None

_READ_MEANWHILE = ('attempts', 'interviews', 'candidates')
_CHANGED = (
    *('attempts', 'attempt_history', 'inbox', 'interviews', 'candidates', 'assignments', 'carrier_events'),
    *('reresolutions', 'jobs', 'companies', 'lines', 'erasures', 'agents', 'api_keys', 'attempt_tokens'),
    *('carrier_backoffs', 'invitations', 'phone_numbers', 'stray_calls', 'usage'),
)
_TRIES = 12
_ROLE = 'duecall_operator'


def upgrade() -> None:
    _lock(_READ_MEANWHILE, 'SHARE')
    make_functions(functions.SEARCH)
    execute(tables.LISTS)
    _lock(_CHANGED, 'ACCESS EXCLUSIVE')
    execute(tables.CHANGES)
    execute(tables.NEW)
    make_roles((_ROLE,), counting=(_ROLE,))
    _let_the_owner_be_operator()
    make_functions(functions.EVENTS | functions.OPERATORS)
    op.execute(f'GRANT USAGE ON SCHEMA {schema()} TO {_ROLE}')
    execute(*rights.statements())


def downgrade() -> None:
    raise SchemaNotMade('no migration leads back to version 0.1.0, which works on this schema')


def _lock(locked: tuple[str, ...], mode: str) -> None:
    """Lock tables before the first change of them. Writers, or all others, wait until the migration has ended."""
    bind = op.get_bind()
    # Intake writes candidates before attempts, and settling writes them after attempts, so no order excludes a
    # deadlock. Each try ends before PostgreSQL would look for one (deadlock_timeout, 1 s), and gives all locks back.
    for _ in range(_TRIES):
        try:
            with bind.begin_nested():
                bind.execute(text("SET LOCAL lock_timeout = '400ms'"))
                bind.execute(text(f'LOCK TABLE {", ".join(locked)} IN {mode} MODE'))
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


def _let_the_owner_be_operator() -> None:
    """For a development database with one login. A login of the console needs no such right of the owner."""
    try:
        with op.get_bind().begin_nested():
            op.execute(f'GRANT {_ROLE} TO {me()}')
    except (IntegrityError, ProgrammingError):
        pass
