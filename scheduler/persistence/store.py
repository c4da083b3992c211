"""The base of the stores."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy import Connection, Executable, Select, Table, func

from scheduler.domain.pagination import Listed, Slice
from scheduler.persistence.rows import AnyRow

T = TypeVar("T")


class Store:
    """The statements about one noun, on the connection of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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
