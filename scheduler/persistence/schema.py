"""Schema of the database: migrations, drift check and logins."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from psycopg import sql
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError

from scheduler.persistence import sessions
from scheduler.persistence.database import reason_of, with_driver
from scheduler.persistence.errors import DatabaseAway, NoLogin, SchemaDrift, SchemaNotMade
from scheduler.persistence.sessions import FOUND, LIST, BoundedConnection, make_engine, refuse_missing

STATEMENT_S = 300.0
"""The limit of a migration's statement, which may build an index of a large table."""
_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(url: str) -> None:
    """Upgrade the database to this version's schema. Safe to run twice, and from several processes at once.

    Raises DatabaseAway, WrongDatabase for an old server, a transaction pooler or a database without the grants of the
    migrations that it names, and SchemaNotMade for a foreign database or a role that may not create tables.
    """
    migrate(url)
    with _connection(url) as connection:
        refuse_missing(connection.execute(FOUND).scalars().all())  # guard: access_at_upgrade


def migrate(url: str) -> None:
    """Run the migrations, and do not look at what earlier ones have left. Raises as `upgrade`."""
    sessions.refuse_transaction_pooler(url, "DATABASE_OWNER_URL")
    try:
        with _connection(url) as connection:
            command.upgrade(_config(connection), "head")
    except OperationalError as error:
        raise DatabaseAway(reason_of(error)) from error
    except DBAPIError as error:
        # The message is about tables, roles and versions: no tenant's row is read before the schema is complete.
        raise SchemaNotMade(str(error.orig).splitlines()[0]) from error
    except CommandError as error:
        raise SchemaNotMade(f"{error}; a newer version or another program has used this database") from error


@dataclass(frozen=True, kw_only=True)
class Logins:
    """The URLs of a database for the API, the workers and the console, with passwords."""

    api: str
    worker: str
    operator: str | None = None
    """None: no console is used."""


def make_logins(url: str) -> Logins:
    """Create the logins of the API, the workers and the console, or give existing ones new passwords.

    For private servers, as their superuser.
    """

    def login_url(login: str) -> str:
        chosen = make_url(url).set(username=login, password=secrets.token_hex(16))
        return chosen.render_as_string(hide_password=False)

    logins = Logins(api=login_url("api"), worker=login_url("worker"), operator=login_url("console"))
    set_logins(url, logins)
    return logins


def set_logins(url: str, logins: Logins) -> None:
    """Create the users in `logins` if they do not exist, and set their passwords.

    Needs a role that may create roles, and no schema: a dump is restored after its roles exist. Raises NoLogin,
    DatabaseAway.
    """
    chosen = [(_login_in("DATABASE_URL", logins.api), "duecall_api")]
    chosen.append((_login_in("DATABASE_WORKER_URL", logins.worker), "duecall_worker"))
    if logins.operator is not None:
        chosen.append((_login_in("DATABASE_OPERATOR_URL", logins.operator), "duecall_operator"))
    try:
        with _connection(url) as connection:
            _create_groups(connection)
            for (login, password), group in chosen:
                _set_login(connection, login, password, group)
                _set_limits(connection, login, group)
            connection.commit()
    except OperationalError as error:
        raise DatabaseAway(reason_of(error)) from error
    except DBAPIError as error:
        raise NoLogin(str(error.orig).splitlines()[0]) from error


def _create_groups(connection: Connection) -> None:
    """Create the roles that the migrations would create. They belong to the server, so no dump contains them."""
    existing = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    missing = [group for group in (*_COUNTING_GROUPS, _COUNTER) if group not in existing]
    for group in missing:
        connection.execute(text(f"CREATE ROLE {group} NOLOGIN NOINHERIT"))
    if missing:
        connection.execute(text(f"GRANT {_COUNTER} TO {', '.join(_COUNTING_GROUPS)}, CURRENT_USER"))


_COUNTER = "duecall_counter"
_COUNTING_GROUPS = ("duecall_api", "duecall_worker", "duecall_operator")


def _login_in(name: str, url: str) -> tuple[str, str]:
    parts = make_url(with_driver(url))
    if not parts.username or not parts.password:
        raise NoLogin(f"{name} must contain a user and a password")
    return parts.username, str(parts.password)


def _set_login(connection: Connection, login: str, password: str, group: str) -> None:
    # A verifier instead of the password, because the server may log the statement.
    verifier = connection.connection.driver_connection.pgconn.encrypt_password(  # type: ignore[union-attr]
        password.encode(), login.encode(), b"scram-sha-256"
    )
    existing = connection.execute(text("SELECT FROM pg_roles WHERE rolname = :login"), {"login": login}).first()
    for statement in (
        *(("CREATE ROLE {login}",) if existing is None else ()),
        "GRANT {group} TO {login}",
        "ALTER ROLE {login} LOGIN PASSWORD {verifier}",
    ):
        connection.exec_driver_sql(
            sql.SQL(statement)
            .format(login=sql.Identifier(login), group=sql.Identifier(group), verifier=sql.Literal(verifier.decode()))
            .as_string(),
        )


def _set_limits(connection: Connection, login: str, group: str) -> None:
    """Make the limits of transactions, and the console's role, settings of the login: a pooler cannot remove them."""
    wanted = {**sessions.LIMITS, "role": sessions.OPERATOR} if group == sessions.OPERATOR else sessions.LIMITS
    for name, value in wanted.items():
        connection.exec_driver_sql(
            sql.SQL("ALTER ROLE {login} SET {name} = {value}")
            .format(login=sql.Identifier(login), name=sql.Identifier(name), value=sql.Literal(value))
            .as_string(),
        )


def check(url: str, *, writes: bool = False) -> None:
    """Raise SchemaDrift if the tables in the code, or the list of grants, differ from what the migrations make.

    `writes`: write the list instead of comparing it.
    """
    with _connection(url) as connection:
        found = "".join(f"{line}\n" for line in sorted(connection.execute(FOUND).scalars()))
        if writes:
            LIST.write_text(found, encoding="utf-8")
        elif LIST.read_text(encoding="utf-8") != found:
            raise SchemaDrift(f"{LIST.name} differs from what the migrations grant: duecall db check --write")
        try:
            command.check(_config(connection))
        except CommandError as error:
            raise SchemaDrift(str(error)) from error


def draft(url: str, message: str) -> None:
    """Write a new migration with the differences that `check` finds. A draft, to be corrected by hand.

    Its number follows that of the newest migration, because processes compare the two.
    """
    with _connection(url) as connection:
        following = f"{int(sessions.head()) + 1:04}"
        command.revision(_config(connection), message=message, autogenerate=True, rev_id=following)


@contextmanager
def _connection(url: str) -> Iterator[Connection]:
    engine = make_engine(with_driver(url), connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, BoundedConnection)
            driver.statement_s = STATEMENT_S
            yield connection
    finally:
        engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    return config
