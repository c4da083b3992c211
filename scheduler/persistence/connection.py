"""The connection of one transaction, and statements for many rows. Constant texts are executed by the driver itself.

For each execution, SQLAlchemy works three times as long as the driver. It still builds the statements, keeps the pool,
and executes those statements that are built for one execution.
"""

import json
import re
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache, partial
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy
from psycopg.errors import FeatureNotSupported
from psycopg.pq import TransactionStatus
from sqlalchemy import (
    ARRAY,
    BindParameter,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Executable,
    NestedTransaction,
    SelectBase,
    Table,
    TextClause,
    UpdateBase,
    any_,
    bindparam,
    literal,
)
from sqlalchemy.dialects import registry
from sqlalchemy.exc import DBAPIError, MultipleResultsFound, NoResultFound, SQLAlchemyError

from scheduler.persistence.rows import AnyRow, AnyValue

_DIALECT: Dialect = registry.load("postgresql.psycopg")()
_PARAMETER = re.compile(r"%%|%\((?P<name>\w+)\)")
"""The driver's parameter, or its escaped percent sign, which begins no parameter."""


class Found:
    """The rows that a statement returned, and how many rows it returned or changed."""

    def __init__(self, rows: Sequence[AnyRow], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[AnyRow]:
        return iter(self._rows)

    def all(self) -> Sequence[AnyRow]:
        return self._rows

    def scalars(self) -> Sequence[AnyValue]:
        return [row[0] for row in self._rows]

    def first(self) -> AnyRow | None:
        return self._rows[0] if self._rows else None

    def one(self) -> AnyRow:
        """Read the only row. Raises NoResultFound, MultipleResultsFound."""
        if not self._rows:
            raise NoResultFound("the statement returned no row")
        return self.one_or_none()

    def one_or_none(self) -> AnyRow | None:
        """Read the only row, if there is one. Raises MultipleResultsFound."""
        if len(self._rows) > 1:
            raise MultipleResultsFound("the statement returned several rows")
        return self.first()

    def scalar_one(self) -> AnyValue:
        return self.one()[0]

    def scalar_one_or_none(self) -> AnyValue:
        row = self.one_or_none()
        return None if row is None else row[0]


class Fixed:
    """A statement that is built once. Each execution passes the values of its `bindparam`s by name.

    They are passed on to the driver, which adapts no mapping to JSON.
    """

    def __init__(self, statement: SelectBase | UpdateBase) -> None:
        compiled = statement.compile(dialect=_DIALECT)
        self.sql = str(compiled)
        self.values = {name: each.value for name, each in compiled.binds.items() if not each.required}
        self.is_query = isinstance(statement, SelectBase)


class Connection:
    """Executes statements on a connection of SQLAlchemy's pool. All errors are those of SQLAlchemy."""

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self._connection = connection
        self._joined: dict[str, tuple[str, Mapping[str, object]]] | None = None
        """The writes of the present `joining` block that are not sent yet, by table."""

    def execute(
        self, statement: Executable | Fixed, values: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None
    ) -> Found:
        self._send_joined()
        if isinstance(statement, Fixed):
            assert not isinstance(values, Sequence)
            return self.by_driver(statement.sql, {**statement.values, **(values or {})})
        if isinstance(statement, TextClause) and not isinstance(values, Sequence):
            return self.by_driver(_sql_of(statement), values or {})
        result = self._connection.execute(statement, values)
        return Found(result.all() if result.returns_rows else (), result.rowcount)

    def write(self, table: str, sql: str, values: Mapping[str, object]) -> None:
        """Execute a write of one table. Its text has the driver's parameters. Within `joining` it may be sent later."""
        if self._joined is None:
            self.by_driver(sql, values)
            return
        if table in self._joined:
            self._send_joined()
        self._joined[table] = sql, values

    @contextmanager
    def joining(self) -> Iterator[None]:
        """Send the writes of this block together, in as few statements as possible.

        Writes of one table stay in their order, and so do other statements. PostgreSQL checks foreign keys at the end
        of a statement, so a row and those that refer to it may be written by the same one.
        """
        self._joined = {}
        try:
            yield
            self._send_joined()
        finally:
            self._joined = None

    def begin_nested(self) -> NestedTransaction:
        return self._connection.begin_nested()

    def _send_joined(self) -> None:
        if self._joined:
            writes, self._joined = list(self._joined.values()), {}
            self.by_driver(
                _joined_sql(tuple(sql for sql, _ in writes)),
                {f"{name}_{place}": each for place, (_, own) in enumerate(writes) for name, each in own.items()},
            )

    def by_driver(self, sql: str, values: Mapping[str, object] | None) -> Found:
        """Execute a text with the driver's parameters. Without values it may contain several statements.

        Returns the rows of the first one. Raises DBAPIError, as SQLAlchemy does.
        """
        driver = self._connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        try:
            cursor = driver.cursor(row_factory=_rows)
            for notify in self._connection.dispatch.before_cursor_execute:
                notify(self._connection, cursor, sql, values or {}, None, False)
            cursor.execute(sql.encode(), values)
            rows = () if cursor.rownumber is None else cursor.fetchall()
        except psycopg.Error as error:
            is_lost = driver.closed or _is_outdated(error)
            if driver.closed:
                self._report_loss()
            if is_lost and not self._connection.invalidated:
                self._connection.invalidate(error)
            raise _translated(error, sql, is_lost=is_lost) from error
        except BaseException as error:
            # After an interruption the next statement might read the answer to this one. Most errors are raised before
            # it is sent, by values that cannot be sent: they must not end a transaction with other items.
            if not isinstance(error, Exception) or driver.info.transaction_status is TransactionStatus.ACTIVE:
                self._connection.invalidate(error)
            raise
        return Found(rows, cursor.rowcount)

    def _report_loss(self) -> None:
        """Let SQLAlchemy notice that the connection is lost. It then also drops all older connections of the pool."""
        with suppress(SQLAlchemyError):
            self._connection.exec_driver_sql("SELECT")  # sends nothing: the connection is closed


def begin(connection: sqlalchemy.Connection, sql: str) -> Found:
    """Begin a transaction with one message of several statements, and return the rows of the first one."""
    connection.begin()  # from here on, a lost connection is not replaced before a rollback
    return Connection(connection).by_driver(sql, None)


@lru_cache(maxsize=512)
def _joined_sql(writes: tuple[str, ...]) -> str:
    """Join writes of different tables into one statement. Each parameter has the place of its write in its name."""
    *others, last = (_PARAMETER.sub(partial(_placed, place), sql) for place, sql in enumerate(writes))
    before = ", ".join(f"written_{place} AS ({sql})" for place, sql in enumerate(others))
    return f"WITH {before} {last}" if before else last


def _placed(place: int, found: re.Match[str]) -> str:
    return f"%({found['name']}_{place})" if found["name"] else found[0]


def _rows(cursor: psycopg.Cursor[AnyRow]) -> Callable[[Sequence[object]], AnyRow]:
    # Not from `cursor.description`, which takes ten times as long.
    result = cursor.pgresult
    names = () if result is None else tuple(result.fname(place) or b"" for place in range(result.nfields))
    make: Callable[[Sequence[object]], AnyRow] = _row_type(names)._make
    return make


@lru_cache(maxsize=512)
def _row_type(names: tuple[bytes, ...]) -> AnyValue:
    """Build the type of rows with these columns. Columns of the same name have only their places."""
    unique = (name.decode() if names.count(name) == 1 else "" for name in names)
    return namedtuple("Row", unique, rename=True)  # noqa: PYI024 - the columns are not known before


@lru_cache(maxsize=512)
def _sql_of(statement: TextClause) -> str:
    # Without indentation and comments, because the driver parses a text above 4 kB again for each execution.
    lines = (line.strip() for line in str(statement.compile(dialect=_DIALECT)).splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))


def _is_outdated(error: psycopg.Error) -> bool:
    """Return True if a migration has changed the columns of a prepared statement, which then fails each time."""
    # As the JDBC driver does: the code alone means a statement that PostgreSQL does not support.
    return isinstance(error, FeatureNotSupported) and error.diag.source_function == "RevalidateCachedQuery"


def _translated(error: psycopg.Error, sql: str, *, is_lost: bool) -> Exception:
    return DBAPIError.instance(
        sql, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=is_lost, dialect=_DIALECT
    )


# --- Many values as one parameter, and many rows in one statement
# A statement costs about as much for 200 rows as for one. The driver's `executemany` sends one statement a row, so rows
# are passed as one parameter. JSON takes a third of the time that the driver takes for an array of each column.


_SET = "columns_set"
"""For each row a bit for each column: whether the row sets it."""
_SHORT = {"TIMESTAMP WITH TIME ZONE": "timestamptz"}


def among(column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """Match rows whose value is one of these."""
    return column == any_(literal(list(values), ARRAY(column.type)))


def among_given(column: Column[Any], name: str) -> ColumnElement[bool]:
    """Match rows whose value is one of those that each execution passes as this parameter."""
    return column == any_(bindparam(name, type_=ARRAY(column.type)))


def given_instant(name: str) -> BindParameter[datetime]:
    """Build the parameter of an instant that each execution passes."""
    return bindparam(name, type_=DateTime(timezone=True))


def insert_all(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], suffix: str = "") -> None:
    """Insert rows that all have the same columns, in their order. `suffix` is SQL, such as ON CONFLICT."""
    connection.write(table.name, _insertion(table, tuple(rows[0]), suffix), {"rows": as_json(rows)})


def update_all(connection: Connection, table: Table, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update rows with different keys. Each has its `key` and new values. Its other columns keep theirs."""
    names = tuple(column.name for column in table.c if any(column.name in row for row in rows))
    is_mixed = any(len(row) < len(names) for row in rows)
    if is_mixed:
        rows = [{**row, _SET: sum(1 << place for place, name in enumerate(names) if name in row)} for row in rows]
    values = {"rows": as_json(rows), "count": len(rows)}
    connection.write(table.name, _change(table, key, names, is_mixed=is_mixed), values)


@cache
def _insertion(table: Table, names: tuple[str, ...], suffix: str) -> str:
    columns = ", ".join(f'"{name}"' for name in names)
    # No list of columns in the SELECT, because the driver parses a text above 4 kB again for each execution.
    return f"INSERT INTO {table.name} ({columns}) SELECT * FROM {given_rows(table, names)} {suffix}"  # noqa: S608 - the names are those of our tables


@cache
def _change(table: Table, key: str, names: tuple[str, ...], *, is_mixed: bool) -> str:
    changes = []
    for place, name in enumerate(names):
        value = f'given."{name}"'
        if is_mixed:
            value = f'CASE WHEN given.{_SET} & {1 << place} <> 0 THEN {value} ELSE {table.name}."{name}" END'
        if name != key:
            changes.append(f'"{name}" = {value}')
    given = given_rows(table, names, f", {_SET} bigint" if is_mixed else "")
    is_row = f'{table.name}."{key}" = given."{key}"'
    # The limit tells the planner how many rows there are.
    given = f"{given} LIMIT %(count)s"
    return f"UPDATE {table.name} SET {', '.join(changes)} FROM (SELECT * FROM {given}) AS given WHERE {is_row}"  # noqa: S608 - as above


def given_rows(table: Table, names: tuple[str, ...], more: str = "", rows: str = "%(rows)s") -> str:
    """Build the SQL of rows with these columns that each execution passes, by `as_json`, as the parameter `rows`."""
    types = {name: table.c[name].type.compile(_DIALECT) for name in names}
    columns = ", ".join(f'"{name}" {_SHORT.get(type_, type_)}' for name, type_ in types.items())
    return f"json_to_recordset(CAST({rows} AS json)) AS given ({columns}{more})"


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Encode rows as one parameter of a statement."""
    return json.dumps(rows, default=_as_text)


def _as_text(value: object) -> str:
    """Convert a value to its text in PostgreSQL."""
    match value:
        case datetime() | date():
            return value.isoformat()
        case UUID() | Decimal():
            return str(value)
        case bytes():
            return f"\\x{value.hex()}"
        case timedelta():
            return f"{value.days} days {value.seconds}.{value.microseconds:06} seconds"
    raise TypeError(f"no column has values of the type {type(value).__name__}")
