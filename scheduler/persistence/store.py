"""The base of the stores, and the writes that a transaction gathers."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, CursorResult, Executable, NestedTransaction, Select, Table, func

from scheduler.domain.pagination import Listed, Slice
from scheduler.persistence.rows import AnyRow

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False, kw_only=True)
class Write(Generic[R]):
    """A write of any number of rows in a constant number of statements, by `execute`."""

    execute: Callable[[Connection, Sequence[R]], None]
    turn: int
    """Gathered writes are sent in the order of their turns."""
    merge: Callable[[R, R], R] | None = None
    """Combines two rows of the same key. None: the second one is sent in a later statement."""


class Statements:
    """The statements of one transaction. Within `gathering`, writes wait until they are sent together.

    Any other statement sends them first, so that it sees them. They change how many statements are sent, and nothing
    else.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._gathers = False
        self._is_beside = False
        self._rows: dict[Write[Any], dict[Hashable, Any]] = {}

    def execute(
        self,
        statement: Executable,
        values: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
        *,
        execution_options: Mapping[str, object] | None = None,
    ) -> CursorResult[*tuple[Any, ...]]:
        if not self._is_beside:
            self.send()
        return self._connection.execute(statement, values, execution_options=execution_options)

    def begin_nested(self) -> NestedTransaction:
        # A savepoint that is rolled back must take back the writes of its time, and no others.
        assert not self._gathers, "writes are not gathered around a savepoint"
        return self._connection.begin_nested()

    def write(self, write: Write[R], key: Hashable, row: R) -> None:
        """Write a row now, or later if writes are gathered. Rows of one statement have different keys."""
        rows = self._rows.setdefault(write, {})
        if key not in rows:
            rows[key] = row
        elif write.merge is not None:
            rows[key] = write.merge(rows[key], row)
        else:
            self.send()
            self._rows[write] = {key: row}
        if not self._gathers:
            self.send()

    def awaits(self, write: Write[Any], key: Hashable) -> bool:
        """Return True if this row was gathered and is not sent yet."""
        return key in self._rows.get(write, ())

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Gather the writes of this block, and send them at its end. After an error they are dropped."""
        self._gathers = True
        try:
            yield
            self.send()
        finally:
            self._gathers = False
            self._rows = {}

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Send no gathered writes before the statements of this block: the caller adds to them what was gathered."""
        self._is_beside = True
        try:
            yield
        finally:
            self._is_beside = False

    def send(self) -> None:
        """Send all gathered writes now."""
        rows, self._rows = self._rows, {}
        for write in sorted(rows, key=lambda each: each.turn):
            write.execute(self._connection, list(rows[write].values()))


class Store:
    """The statements about one noun, on the connection of one transaction."""

    def __init__(self, statements: Statements) -> None:
        self._connection = statements

    def _one(
        self, read: Callable[[AnyRow], T], query: Executable, values: Mapping[str, object] | None = None
    ) -> T | None:
        """Read the row of a query that returns at most one."""
        row = self._connection.execute(query, values).one_or_none()
        return None if row is None else read(row)

    def _all(
        self, read: Callable[[AnyRow], T], query: Executable, values: Mapping[str, object] | None = None
    ) -> list[T]:
        return [read(row) for row in self._connection.execute(query, values)]

    def _page(
        self, read: Callable[[AnyRow], T], query: Select[tuple[object, ...]], table: Table, requested: Slice
    ) -> Listed[T]:
        """Read one page of a list, newest first. Rows that were created at the same instant are sorted by their ids."""
        total = self._count(query.with_only_columns(func.count(), maintain_column_froms=True))
        newest_first = query.order_by(table.c.created_at.desc(), table.c.id.desc())
        page = newest_first.limit(requested.limit).offset(requested.offset)
        items = self._all(read, page) if total > requested.offset else ()
        return Listed(items=tuple(items), total=total, asked=requested)

    def _is_any(self, query: Executable) -> bool:
        """Return True if the query returns a row."""
        return self._connection.execute(query).first() is not None

    def _count(self, query: Executable, values: Mapping[str, object] | None = None) -> int:
        count: int = self._connection.execute(query, values).scalar_one()
        return count
