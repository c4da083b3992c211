"""The base of the stores, and the writes that a transaction gathers."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

import sqlalchemy
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Executable,
    NestedTransaction,
    Select,
    SelectBase,
    Table,
    Uuid,
    all_,
    any_,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from scheduler.domain.resource import COUNTED_UP_TO, NEWEST_FIRST, Cursor, Listed, Slice
from scheduler.persistence.connection import Connection, Fixed, Found, among, as_json, insert_all, update_all
from scheduler.persistence.rows import AnyRow, known_unreadable, readable

T = TypeVar("T")
R = TypeVar("R")


def is_set(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Build the condition that a column is not NULL, in a form that no index covers.

    With IS NOT NULL, PostgreSQL may read the whole index of such rows in place of the one row that an id names: until
    the next ANALYZE it assumes an empty index.
    """
    return func.num_nonnulls(column) == 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Write(Generic[R]):
    """A write of any number of rows in a constant number of statements, by `execute`."""

    execute: Callable[[Connection, Sequence[R]], None]
    turn: int
    """Gathered writes are sent in the order of their turns."""
    merge: Callable[[R, R], R] | None = None
    """Combines two rows of the same key. None: the second one is sent in a later statement."""


def insertion(table: Table, *, turn: int, suffix: str = "") -> Write[Mapping[str, Any]]:
    """Build the write that inserts rows of a table like `insert_all`."""
    return Write(execute=lambda connection, rows: insert_all(connection, table, rows, suffix), turn=turn)


def change(table: Table, *, turn: int) -> Write[Mapping[str, Any]]:
    """Build the write that updates rows of a table by their ids like `update_all`."""
    return Write(execute=lambda connection, rows: update_all(connection, table, "id", rows), turn=turn)


def statement(table: str, sql: str, *, turn: int) -> Write[Mapping[str, Any]]:
    """Build the write that executes SQL for any rows of a table, with the driver's parameters `rows` and `count`."""

    def execute(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        connection.write(table, sql, {"rows": as_json(rows), "count": len(rows)})

    return Write(execute=execute, turn=turn)


_Rows: TypeAlias = dict[Write[Any], dict[Hashable, Any]]


IN_ORDER = "set_config('enable_bitmapscan', 'off', true)"
"""SQL after which a transaction reads rows in the order of an index, up to the limit of a page. The planner expects few
rows of a company or an endpoint, and would read and sort all of them, which may be millions."""


@dataclass(frozen=True, kw_only=True)
class Free(Generic[T]):
    """The rows that a transaction has locked, among those that it named."""

    rows: Sequence[T]
    """Without rows that this release cannot read, which are also locked."""
    held: frozenset[UUID]
    """The ids of existing rows that another transaction has locked."""


class Statements:
    """The statements of one transaction. Within `gathering`, writes wait until they are sent together.

    Any other statement sends them first, so that it sees them. They change how many statements are sent, and nothing
    else. Within `undoable`, a savepoint is set only before the first write that is sent.
    """

    def __init__(self, connection: sqlalchemy.Connection, history_key: bytes | None = None) -> None:
        self._connection = Connection(connection)
        self.history_key = history_key
        """The key that seals the history of attempts. None: new entries have no seal."""
        self._gathers = False
        self._is_beside = False
        self._rows: _Rows = {}
        self._earlier: _Rows = {}
        """Gathered before the present `undoable` block."""
        self._is_undoable = False
        self._savepoint: NestedTransaction | None = None
        self.without_reader: set[UUID] = set()
        """Companies that had no reader of partner events when this transaction looked."""

    def execute(
        self,
        statement: Executable | Fixed,
        values: Mapping[str, object] | Sequence[Mapping[str, object]] | None = None,
    ) -> Found:
        if not self._is_beside:
            self.send()
        if not (statement.is_query if isinstance(statement, Fixed) else isinstance(statement, SelectBase)):
            self._set_savepoint()
        return self._connection.execute(statement, values)

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
        return any(key in rows.get(write, ()) for rows in (self._rows, self._earlier))

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
    def together(self) -> Iterator[None]:
        """Send the writes of this block together, or later if the caller gathers writes."""
        if self._gathers:
            yield
            return
        with self.gathering():
            yield

    @contextmanager
    def undoable(self) -> Iterator[None]:
        """Undo the writes of this block, and no others, if it is left by an error. Only within `gathering`.

        As long as the block only reads, there is nothing to undo at the server, and no savepoint. Most refusals are
        decided then. Any statement but a query counts as a write. A row that a query has locked stays locked.
        """
        assert self._gathers, "without gathering, `begin_nested` does the same"
        assert not self._is_undoable, "there is one savepoint at a time"
        self._earlier, self._rows, self._is_undoable = self._rows, {}, True
        try:
            yield
            if self._savepoint is not None:
                self._savepoint.commit()
        except BaseException:
            self._rows = {}
            # An error of the connection has ended the savepoint.
            if self._savepoint is not None and self._savepoint.is_active:
                self._savepoint.rollback()
            raise
        finally:
            mine, self._rows = self._rows, self._earlier
            self._earlier, self._is_undoable, self._savepoint = {}, False, None
            for write, rows in mine.items():
                for key, row in rows.items():
                    self.write(write, key, row)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Send no gathered writes before the statements of this block: the caller adds to them what was gathered."""
        was_beside, self._is_beside = self._is_beside, True
        try:
            yield
        finally:
            self._is_beside = was_beside

    def send(self) -> None:
        """Send all gathered writes now."""
        self._send_earlier()
        rows, self._rows = self._rows, {}
        if rows:
            self._set_savepoint()
            self._send(rows)

    def _set_savepoint(self) -> None:
        if self._is_undoable and self._savepoint is None:
            self._send_earlier()
            self._savepoint = self._connection.begin_nested()

    def _send_earlier(self) -> None:
        rows, self._earlier = self._earlier, {}
        self._send(rows)

    def _send(self, rows: _Rows) -> None:
        with self._connection.joining():
            for write in sorted(rows, key=lambda each: each.turn):
                write.execute(self._connection, list(rows[write].values()))


def freely_locked(
    table: Table,
    conditions: Callable[[ReadOnlyColumnCollection[str, Column[Any]]], Sequence[ColumnElement[bool]]],
    *more: ColumnElement[Any],
) -> Select[tuple[Any, ...]]:
    """Build a query that locks the rows that no other transaction has locked, in the order of their ids.

    It waits for no lock. Rows that another transaction has locked have only the column `named_id`, so that the caller
    can tell them from rows that do not exist.
    """
    locks = select(table, *more).where(*conditions(table.c)).order_by(table.c.id)
    free = locks.with_for_update(key_share=True, skip_locked=True).cte("free")
    named = table.alias("named")
    found = select(named.c.id.label("named_id"), free).outerjoin(free, free.c.id == named.c.id)
    return found.where(*conditions(named.c)).order_by(named.c.id)


class Store:
    """The statements about one noun, on the connection of one transaction."""

    def __init__(self, statements: Statements) -> None:
        self._connection = statements

    def _one(
        self, read: Callable[[AnyRow], T], query: Executable | Fixed, values: Mapping[str, object] | None = None
    ) -> T | None:
        """Read the row of a query that returns at most one."""
        row = self._connection.execute(query, values).one_or_none()
        return None if row is None else read(row)

    def _all(
        self, read: Callable[[AnyRow], T], query: Executable | Fixed, values: Mapping[str, object] | None = None
    ) -> list[T]:
        return [read(row) for row in self._connection.execute(query, values)]

    def _readable(
        self,
        table: Table,
        read: Callable[[AnyRow], T],
        query: Executable | Fixed,
        values: Mapping[str, object] | None = None,
    ) -> list[T]:
        """Like `_all`, without the rows that this release cannot read. Each of these raises one alarm."""
        return list(readable(self._connection.execute(query, values), read, table.name))

    def _free(
        self, table: Table, read: Callable[[AnyRow], T], query: Executable | Fixed, values: Mapping[str, object]
    ) -> Free[T]:
        """Read the rows of a query of `freely_locked`."""
        rows = self._connection.execute(query, values).all()
        return Free(
            rows=list(readable([row for row in rows if row.id is not None], read, table.name)),
            held=frozenset(row.named_id for row in rows if row.id is None),
        )

    def _readable_some(
        self, table: Table, read: Callable[[AnyRow], T], query: Select[Any], limit: int, **values: object
    ) -> list[T]:
        """Read up to `limit` rows like `_readable`. Rows that cannot be read take no place of the others.

        One statement, and another one only after it has met `limit` rows and could not read all of them.
        """
        found: list[T] = []
        seen = known_unreadable(table.name)
        while len(found) < limit:
            wanted = limit - len(found)
            rows = self._connection.execute(
                query.where(table.c.id != all_(literal(seen, ARRAY(Uuid)))).limit(wanted), values
            ).all()
            found += readable(rows, read, table.name)
            if len(rows) < wanted:
                break
            seen += [row.id for row in rows]
        return found

    def _page(
        self,
        read: Callable[[AnyRow], T],
        query: Select[tuple[object, ...]],
        table: Table,
        requested: Slice,
        *,
        counted: int | None = None,
    ) -> Listed[T]:
        """Read one page of a list, newest first. Rows that were created at the same instant are sorted by their ids.

        `counted` is the number of rows of the query, if the caller knows it. More than COUNTED_UP_TO means any number.
        """
        newest_first = query.order_by(table.c.created_at.desc(), table.c.id.desc())
        # One row more than asked for shows whether another page follows, without a count.
        page = newest_first.limit(requested.limit + 1)
        if requested.offset:
            # Their ids first: PostgreSQL also computes all columns of the rows before a page, and some are queries.
            before = page.with_only_columns(table.c.id, maintain_column_froms=True).offset(requested.offset)
            page = newest_first.where(table.c.id == any_(func.array(before.correlate(None).scalar_subquery())))
        is_past_end = counted is not None and counted <= min(requested.offset, COUNTED_UP_TO)
        rows = [] if is_past_end else list(self._connection.execute(page))
        shown, seen = rows[: requested.limit], requested.offset + len(rows)
        items = tuple(readable(shown, read, table.name))
        is_last = len(rows) <= requested.limit and (shown or not requested.offset)
        if is_last:
            return Listed(items=items, total=seen, asked=requested)
        # In the order of the page. Otherwise PostgreSQL might read the table from its beginning, with the rows of all
        # companies, because it expects those of this one everywhere.
        in_order = query.order_by(table.c.created_at.desc())
        total = self._count_up_to(COUNTED_UP_TO + 1, in_order) if counted is None else counted
        is_estimate = total > COUNTED_UP_TO
        if shown:
            total = max(total, seen)  # the rows may have become more since they were counted
        end = None
        if len(rows) > requested.limit:
            end = Cursor(sort=NEWEST_FIRST, at=shown[-1].created_at, id=shown[-1].id)
        return Listed(items=items, total=total, total_is_estimate=is_estimate, asked=requested, next=end)

    def _count_up_to(self, most: int, query: Select[tuple[object, ...]]) -> int:
        """Count the rows of a query. `most` means that many or more: no further row is read."""
        some = query.with_only_columns(literal(1), maintain_column_froms=True).limit(most)
        return self._count(select(func.count()).select_from(some.subquery()))

    def _is_any(self, query: Executable | Fixed, values: Mapping[str, object] | None = None) -> bool:
        """Return True if the query returns a row."""
        return self._connection.execute(query, values).first() is not None

    def _count(self, query: Executable | Fixed, values: Mapping[str, object] | None = None) -> int:
        count: int = self._connection.execute(query, values).scalar_one()
        return count

    def _insert(self, table: Table, **values: object) -> None:
        self._connection.execute(insert(table).values(**values))

    def _update(self, table: Table, *which: ColumnElement[bool], **values: object) -> int:
        """Update the rows that meet all conditions, and count them."""
        return self._connection.execute(update(table).where(*which).values(**values)).rowcount

    def _delete(self, table: Table, *which: ColumnElement[bool]) -> int:
        """Delete the rows that meet all conditions, and count them."""
        return self._connection.execute(delete(table).where(*which)).rowcount

    def _delete_free(self, column: Column[Any], old: Select[Any]) -> int:
        """Delete the rows whose `column` is found by a query, without rows that another transaction has locked."""
        ids = self._connection.execute(old.with_for_update(skip_locked=True)).scalars()
        return self._delete(column.table, among(column, ids))
