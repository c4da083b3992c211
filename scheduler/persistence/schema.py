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
from psycopg import sql
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


class NoLogin(Exception):
    """Somebody cannot be let in: no name, no password, or nobody here who may do it; nothing was changed."""


def make_logins(url: str) -> Logins:
    """Somebody who logs in as the API and somebody who does as a worker; with new passwords, if they were there.

    For private servers, as their superuser.
    """

    def of(login: str) -> str:
        mine = make_url(url).set(username=login, password=secrets.token_hex(16))
        return mine.render_as_string(hide_password=False)

    logins = Logins(api=of("api"), worker=of("worker"))
    set_logins(url, logins)
    return logins


def set_logins(url: str, logins: Logins) -> None:
    """Let those whom `logins` names log in by the passwords there; made if they are not there.

    As a role that may make roles, once the schema is made. Raises NoLogin, DatabaseAway.
    """
    chosen = [(_login_in("DATABASE_URL", logins.api), "duecall_api")]
    chosen.append((_login_in("DATABASE_WORKER_URL", logins.worker), "duecall_worker"))
    try:
        with _connection(url) as connection:
            for (login, password), group in chosen:
                _set_login(connection, login, password, group)
            connection.commit()
    except OperationalError as error:
        raise DatabaseAway(reason_of(error)) from error
    except DBAPIError as error:
        raise NoLogin(str(error.orig).splitlines()[0]) from error


def _login_in(name: str, url: str) -> tuple[str, str]:
    parts = make_url(with_driver(url))
    if not parts.username or not parts.password:
        raise NoLogin(f"{name} names no user, or no password, that could be given to the database")
    return parts.username, str(parts.password)


def _set_login(connection: Connection, login: str, password: str, group: str) -> None:
    # What the server logs of a statement, if it logs any, holds no password then.
    verifier = connection.connection.driver_connection.pgconn.encrypt_password(  # type: ignore[union-attr]
        password.encode(), login.encode(), b"scram-sha-256"
    )
    there = connection.execute(text("SELECT FROM pg_roles WHERE rolname = :login"), {"login": login}).first()
    for statement in (
        *(("CREATE ROLE {login}",) if there is None else ()),
        "GRANT {group} TO {login}",
        "ALTER ROLE {login} LOGIN PASSWORD {verifier}",
    ):
        connection.exec_driver_sql(
            sql.SQL(statement)
            .format(login=sql.Identifier(login), group=sql.Identifier(group), verifier=sql.Literal(verifier.decode()))
            .as_string(),
        )


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
