"""Candidates, jobs and interviews may have a client's own id, unique among those of their company."""

import sqlalchemy as sa
from alembic import op
from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from scheduler.persistence.errors import SchemaNotMade

revision = '0022'
down_revision = '0021'
branch_labels = None
depends_on = None

_TRIES = 12
_TABLES = ('interviews', 'candidates', 'jobs')
_FUNCTION = 'resources_of_external_id(text[], integer)'
_ENDS = {'candidates': 'erased_at'}
"""An id is free once this column is set. Of other tables, `deleted_at`."""


def upgrade() -> None:
    _lock()
    for table in _TABLES:
        op.add_column(table, sa.Column('external_id', sa.Text(), nullable=True))
        op.add_column(table, sa.Column('content_hash', sa.LargeBinary(), nullable=True))
        op.create_index(
            f'uq_{table}_external_id',
            table,
            ['company_id', 'external_id'],
            unique=True,
            postgresql_where=sa.text(f"external_id IS NOT NULL AND {_ENDS.get(table, 'deleted_at')} IS NULL"),
        )
    _find_for_operators()


def _find_for_operators() -> None:
    """Let an operator find the resources with a whole external id, whose column the role must not read.

    The index begins with the company. OFFSET 0 makes PostgreSQL look into it for each company, instead of reading all
    rows.
    """
    parts = [
        f"""
            SELECT '{table.removesuffix("s")}', r.id, c.id FROM companies c CROSS JOIN LATERAL (
                SELECT t.id FROM {table} t
                WHERE t.company_id = c.id AND t.external_id = ANY (texts) AND t.{_ENDS.get(table, 'deleted_at')} IS NULL
                OFFSET 0
            ) r
        """
        for table in _TABLES
    ]
    op.execute(f"""
        CREATE FUNCTION resources_of_external_id(texts text[], most integer)
            RETURNS TABLE (kind text, id uuid, company_id uuid)
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        BEGIN ATOMIC
            {' UNION ALL '.join(parts)} ORDER BY 2 DESC LIMIT least(most, 50);
        END
    """)
    op.execute(f"REVOKE ALL ON FUNCTION {_FUNCTION} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {_FUNCTION} TO duecall_operator")


def _lock() -> None:
    """Lock all tables before the first change. Other transactions wait until the migration has ended."""
    bind = op.get_bind()
    # No order excludes a deadlock. Each try ends before PostgreSQL would look for one (deadlock_timeout, 1 s), and gives
    # all locks back.
    for _ in range(_TRIES):
        try:
            with bind.begin_nested():
                bind.execute(text("SET LOCAL lock_timeout = '400ms'"))
                bind.execute(text(f"LOCK TABLE {', '.join(_TABLES)} IN ACCESS EXCLUSIVE MODE"))
                bind.execute(text("SET LOCAL lock_timeout = '10s'"))
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
        else:
            return
    raise SchemaNotMade(
        "the tables interviews, candidates and jobs could not be locked within 5 s, because other transactions use them."
        " Pause calling (duecall pause --all), then try again."
    )


def downgrade() -> None:
    _lock()
    op.execute(f"DROP FUNCTION {_FUNCTION}")
    for table in reversed(_TABLES):
        op.drop_index(f'uq_{table}_external_id', table_name=table)
        op.drop_column(table, 'content_hash')
        op.drop_column(table, 'external_id')
