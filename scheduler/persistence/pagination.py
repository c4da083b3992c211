"""Pages of lists, newest first, with the total count."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, func

from scheduler.domain.pagination import Listed, Slice

T = TypeVar("T")


def listed(
    connection: Connection,
    query: Select[tuple[object, ...]],
    table: Table,
    requested: Slice,
    read: Callable[[Row[tuple[object, ...]]], T],
) -> Listed[T]:
    """Read one page of `query`. Rows that were created at the same instant are sorted by their ids."""
    counted = query.with_only_columns(func.count(), maintain_column_froms=True)
    total: int = connection.execute(counted).scalar_one()
    newest_first = query.order_by(table.c.created_at.desc(), table.c.id.desc())
    rows = (
        connection.execute(newest_first.limit(requested.limit).offset(requested.offset))
        if total > requested.offset
        else ()
    )
    return Listed(items=tuple(read(row) for row in rows), total=total, asked=requested)


def matching(column: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Match texts that contain `part`, in any case; `%` and `_` are literal."""
    return column.icontains(part, autoescape=True)
