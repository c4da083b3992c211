"""Which schema the database has, which it should have, and how it gets there."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

from scheduler.persistence.database import DatabaseAway, reason_of, with_driver

_MIGRATIONS = Path(__file__).parent / "migrations"


class SchemaDrift(Exception):
    """The tables in the code and the migrations say different things."""


class SchemaNotMade(Exception):
    """The database could not be brought to this release's schema; nothing in it was changed."""


def head() -> str | None:
    """The newest migration that this release knows."""
    return ScriptDirectory.from_config(_config(None)).get_current_head()


def upgrade(url: str) -> None:
    """Bring the database to this release's schema. Safe to run twice, and from several processes at once.

    Raises DatabaseAway, and SchemaNotMade for one that is not ours, or whose role may not make tables.
    """
    try:
        with _connection(url) as connection:
            command.upgrade(_config(connection), "head")
    except OperationalError as error:
        raise DatabaseAway(reason_of(error)) from error
    except DBAPIError as error:
        # Of tables, roles and versions; no row of anybody's is touched before the schema stands.
        raise SchemaNotMade(str(error.orig).splitlines()[0]) from error
    except CommandError as error:
        raise SchemaNotMade(f"{error}; a later release has been here, or another program") from error


@dataclass(frozen=True, kw_only=True)
class Logins:
    """The URLs of a database for those who are behind its walls; passwords included."""

    api: str
    worker: str


def make_logins(url: str) -> Logins:
    """Somebody who logs in as the API and somebody who does as a worker; with new passwords, if they were there.

    For private servers, as their superuser: whoever has a server of their own makes these by hand, as the README says.
    """
    passwords = {login: secrets.token_hex(16) for login in ("api", "worker")}
    with _connection(url) as connection:
        for login, password in passwords.items():
            there = connection.execute(text("SELECT FROM pg_roles WHERE rolname = :login"), {"login": login}).first()
            if there is None:
                connection.execute(text(f"CREATE ROLE {login} IN ROLE duecall_{login}"))
            connection.execute(text(f"ALTER ROLE {login} LOGIN PASSWORD '{password}'"))
        connection.commit()

    def of(login: str) -> str:
        mine = make_url(url).set(username=login, password=passwords[login])
        return mine.render_as_string(hide_password=False)

    return Logins(api=of("api"), worker=of("worker"))


def check(url: str) -> None:
    """Raises SchemaDrift when the tables in the code are not what the migrations make."""
    with _connection(url) as connection:
        try:
            command.check(_config(connection))
        except CommandError as error:
            raise SchemaDrift(str(error)) from error


def draft(url: str, message: str) -> None:
    """Write a new migration with what `check` found; a draft, to be read and mended by hand."""
    with _connection(url) as connection:
        command.revision(_config(connection), message=message, autogenerate=True)


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    engine = create_engine(with_driver(url), hide_parameters=True, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _config(connection: Connection | None) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config
