"""How a list is read: one page, newest first, and how many there are."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, func

from scheduler.domain.listing import Listed, Slice

T = TypeVar("T")


def listed(
    connection: Connection,
    query: Select[tuple[object, ...]],
    table: Table,
    asked: Slice,
    read: Callable[[Row[tuple[object, ...]]], T],
) -> Listed[T]:
    """The page of `query` that is asked for. Two that were made at the same instant are told apart by their ids."""
    counted = query.with_only_columns(func.count(), maintain_column_froms=True)
    total: int = connection.execute(counted).scalar_one()
    newest_first = query.order_by(table.c.created_at.desc(), table.c.id.desc())
    rows = connection.execute(newest_first.limit(asked.limit).offset(asked.offset)) if total > asked.offset else ()
    return Listed(items=tuple(read(row) for row in rows), total=total, asked=asked)


def matching(column: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Whether the text has `part` in it, whatever its case; `%` and `_` stand for themselves."""
    return column.icontains(part, autoescape=True)
