"""The schema of version 0.1.0. Statements are in the folder `of_0_1_0`.

Version 0.1.0 has this schema in thirteen migrations. A database that they have made continues with the next one.
"""

from alembic import op
from sqlalchemy import column, table

from scheduler.persistence.migrations.of_0_1_0 import indexes, rights, tables
from scheduler.persistence.migrations.steps import execute, make_functions, make_roles, me, schema

revision = '0013'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    execute(tables.TABLES, indexes.INDEXES)
    names = ('event', 'from_state', 'to_state', 'reason')
    op.bulk_insert(table('arrows', *map(column, names)), [dict(zip(names, row)) for row in indexes.ARROWS])
    make_roles(rights.ROLES, counting=('duecall_api', 'duecall_worker', me()))
    op.execute(f'GRANT USAGE ON SCHEMA {schema()} TO {", ".join(rights.ROLES)}')
    make_functions(rights.FUNCTIONS)
    execute(*rights.statements())
