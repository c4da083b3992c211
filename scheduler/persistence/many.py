"""Many values as one SQL parameter, and many rows in one statement.

A statement costs about as much for 200 rows as for one. The driver's `executemany` sends one statement a row, so rows
are passed as one array a column.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, Connection, Table, TextClause, any_, literal, text
from sqlalchemy.dialects.postgresql import JSONB, dialect

_SET = "columns_set"
"""For each row a bit for each column: whether the row sets it."""
_DIALECT = dialect()  # type: ignore[no-untyped-call]


def among(column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """Match rows whose value is one of these."""
    return column == any_(literal(list(values), ARRAY(column.type)))


def insert_all(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], suffix: str = "") -> None:
    """Insert rows that all have the same columns, in their order. `suffix` is SQL, such as ON CONFLICT."""
    names = tuple(rows[0])
    connection.execute(_insertion(table, names, suffix), _arrays(table, names, rows))


def update_all(connection: Connection, table: Table, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Update rows with different keys. Each has its `key` and new values. Its other columns keep theirs."""
    names = tuple(column.name for column in table.c if any(column.name in row for row in rows))
    is_mixed = any(len(row) < len(names) for row in rows)
    values = _arrays(table, names, rows)
    if is_mixed:
        values[_SET] = [sum(1 << place for place, name in enumerate(names) if name in row) for row in rows]
    connection.execute(_change(table, key, names, is_mixed=is_mixed), values)


@cache
def _insertion(table: Table, names: tuple[str, ...], suffix: str) -> TextClause:
    columns = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(_value(table.c[name]) for name in names)
    return text(f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM {_given(table, names)} {suffix}")  # noqa: S608 - the names are those of our tables


@cache
def _change(table: Table, key: str, names: tuple[str, ...], *, is_mixed: bool) -> TextClause:
    changes = []
    for place, name in enumerate(names):
        value = _value(table.c[name])
        if is_mixed:
            value = f'CASE WHEN given.{_SET} & {1 << place} <> 0 THEN {value} ELSE {table.name}."{name}" END'
        if name != key:
            changes.append(f'"{name}" = {value}')
    given = _given(table, names, f"CAST(:{_SET} AS bigint[])" if is_mixed else None)
    is_row = f'{table.name}."{key}" = given."{key}"'
    return text(f"UPDATE {table.name} SET {', '.join(changes)} FROM {given} WHERE {is_row}")  # noqa: S608 - as above


def _given(table: Table, names: tuple[str, ...], bits: str | None = None) -> str:
    arrays = [f"CAST(:{name} AS {_array_type(table.c[name])}[])" for name in names]
    columns = [f'"{name}"' for name in names]
    if bits is not None:
        arrays.append(bits)
        columns.append(_SET)
    return f"unnest({', '.join(arrays)}) AS given ({', '.join(columns)})"


def _is_nested(column: Column[Any]) -> bool:
    """Return True for a column whose values are passed as JSON: PostgreSQL has no array of arrays of unequal length."""
    return isinstance(column.type, JSONB | ARRAY)


def _array_type(column: Column[Any]) -> str:
    return "text" if _is_nested(column) else column.type.compile(_DIALECT)


def _value(column: Column[Any]) -> str:
    given = f'given."{column.name}"'
    if isinstance(column.type, JSONB):
        return f"CAST({given} AS jsonb)"
    if isinstance(column.type, ARRAY):
        return f"ARRAY(SELECT jsonb_array_elements_text(CAST({given} AS jsonb)))"
    return given


def _arrays(table: Table, names: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [_plain(row.get(name), nested=_is_nested(table.c[name])) for row in rows] for name in names}


def _plain(value: object, *, nested: bool) -> object:
    return json.dumps(value) if nested and value is not None else value
