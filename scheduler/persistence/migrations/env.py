"""Alembic's environment: runs migrations on the connection of `persistence.schema`, one process at a time."""

from alembic import context
from sqlalchemy import Connection, text

from scheduler.persistence.schema import STATEMENT_S
from scheduler.persistence.tables import metadata

_LOCK = 0x64_75_65
"""The advisory lock of a running migration."""


def _run(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '10s'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_S:.0f}s'"))
    connection.execute(text(f"SELECT pg_advisory_lock({_LOCK})"))
    connection.commit()
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.execute(text(f"SELECT pg_advisory_unlock({_LOCK})"))
    connection.commit()


_run(context.config.attributes["connection"])
