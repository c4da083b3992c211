"""Rows and dataclasses, and rows of several companies of which one may be unreadable."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import Field, fields
from datetime import timedelta
from enum import Enum
from functools import cache, partial
from operator import attrgetter
from threading import Lock
from types import UnionType
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, get_args, get_type_hints
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.logs import log


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


D = TypeVar("D", bound=_Dataclass)
AnyRow: TypeAlias = Any
"""A row with any columns, which are its attributes: of SQLAlchemy, or a tuple of the driver."""
AnyValue: TypeAlias = Any
"""The value of any column."""


def from_row(cls: type[D], row: AnyRow, prefix: str = "", **given: object) -> D:
    """Build a dataclass from the columns named like its fields, after `prefix`. Enums are built from their values.

    Fields that need any other conversion are `given`. Raises AttributeError if the row lacks the column of a field.
    """
    names, read, enums = _fields(cls, frozenset(given), prefix)
    values = dict(zip(names, read(row), strict=True))
    for name, enum in enums:
        if values[name] is not None:
            values[name] = enum(values[name])
    return cls(**values, **given)


def as_columns(instance: _Dataclass, *, without: Collection[str] = (), **given: object) -> dict[str, Any]:
    """Convert the fields of a dataclass to values of the columns named like them, enums to their values.

    `given` are the values of further columns, and of fields that need any other conversion.
    """
    values = {each.name: getattr(instance, each.name) for each in fields(instance) if each.name not in without}
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()} | given


@cache
def _fields(
    cls: type[_Dataclass], given: frozenset[str], prefix: str
) -> tuple[tuple[str, ...], Callable[[AnyRow], Iterable[AnyValue]], tuple[tuple[str, type[Enum]], ...]]:
    """List the names of the other fields, a function that reads their columns, and the enums of those that have one."""
    types = get_type_hints(cls)
    names = tuple(each.name for each in fields(cls) if each.name not in given)
    columns = [prefix + name for name in names]
    enums = {name: _enum_in(types[name]) for name in names}
    # A single call for all columns. For one column it would return no tuple.
    read = attrgetter(*columns) if len(columns) > 1 else partial(_each, columns)
    return names, read, tuple((name, enum) for name, enum in enums.items() if enum is not None)


def _each(columns: Iterable[str], row: AnyRow) -> list[AnyValue]:
    return [getattr(row, each) for each in columns]


def _enum_in(declared: object) -> type[Enum] | None:
    """Find the enum in a type like `Phase` or `Phase | None`."""
    choices = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    return next((each for each in choices if isinstance(each, type) and issubclass(each, Enum)), None)


# --- Rows of several companies, read one by one: one that this release cannot read stops none of the others
# A later release may have written the row, for example before a rollback, or while both releases run. This one leaves
# it alone, and raises an alarm with the table and the id. Alarms are counted by their kind.


T = TypeVar("T")
_log = log(__name__)
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""Errors of a conversion that meets an unknown value. Errors of the database are not among them."""
_REPORTED_EVERY_S = timedelta(minutes=10).total_seconds()
"""The alarm of a row is counted at most so often, because loops read the row again and again."""
_MOST_REPORTED = 10_000
_SUBJECTS = {
    "attempts": "attempt_id",
    "interviews": "interview_id",
    "companies": "company_id",
    "inbox": "command_id",
    "carrier_events": "event_id",
    "webhook_deliveries": "event_id",
    "batches": "batch_id",
}
"""The field of an alarm that names the row. It is `row_id` for all other tables."""


def readable(rows: Iterable[AnyRow], read: Callable[[AnyRow], T], table: str, key: str = "id") -> Iterator[T]:
    """Yield what `read` makes of each row. A row that it cannot read is left out and reported.

    `table` and the column `key` name the row in the alarm.
    """
    for row in rows:
        found, error = _read(row, read)
        if error is not None:  # guard: readable
            _reports.report(table, row, getattr(row, key), error)
            continue
        yield found


def _read(row: AnyRow, read: Callable[[AnyRow], T]) -> tuple[T | Any, Exception | None]:
    try:
        return read(row), None
    except UNREADABLE as error:
        return None, error


def known_unreadable(table: str) -> list[UUID]:
    """List the rows of a table that this process could not read in the last ten minutes.

    A loop that reads a limited number of rows leaves them out, because they stay the first of their range.
    """
    return _reports.known(table)


class _Reports:
    """The alarms of this process about unreadable rows, with the instants of the last ones."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: dict[tuple[str, UUID | int], float] = {}

    def known(self, table: str) -> list[UUID]:
        since = monotonic() - _REPORTED_EVERY_S
        with self._lock:
            mine = [row_id for (each, row_id), last in self._last.items() if each == table and last > since]
        return [each for each in mine if isinstance(each, UUID)]

    def report(self, table: str, row: AnyRow, row_id: UUID | int, error: Exception) -> None:
        """Log the error with an alarm, which the writer of alarms stores."""
        if not self._is_due((table, row_id)):
            return
        company_id = getattr(row, "company_id", None)
        company = {} if company_id is None else {"company_id": str(company_id)}
        _log.error(
            "row_unreadable: this release cannot read a row, so it is left out and all others go on",
            alarm="UNREADABLE_ROW",
            table=table,
            exc_info=error,
            **(company | {_SUBJECTS.get(table, "row_id"): str(row_id)}),
        )

    def _is_due(self, row: tuple[str, UUID | int]) -> bool:
        instant = monotonic()
        with self._lock:
            last = self._last.get(row)
            if last is not None and instant < last + _REPORTED_EVERY_S:
                return False
            if len(self._last) >= _MOST_REPORTED:
                self._last.clear()
            self._last[row] = instant
            return True


_reports = _Reports()
