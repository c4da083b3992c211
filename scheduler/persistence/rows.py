"""Rows and dataclasses: each field has the column of its name."""

from collections.abc import Collection
from dataclasses import Field, fields
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, get_args, get_type_hints


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
    names, enums = _fields(cls, frozenset(given))
    values = {name: getattr(row, prefix + name) for name in names}
    for name, enum in enums:
        if values[name] is not None:
            values[name] = enum(values[name])
    return cls(**values, **given)


def as_columns(instance: _Dataclass, *, without: Collection[str] = (), **given: object) -> dict[str, Any]:
    """Return the fields of a dataclass as values of the columns named like them, enums as their values.

    `given` are the values of further columns, and of fields that need any other conversion.
    """
    values = {each.name: getattr(instance, each.name) for each in fields(instance) if each.name not in without}
    return {name: value.value if isinstance(value, Enum) else value for name, value in values.items()} | given


@cache
def _fields(cls: type[_Dataclass], given: frozenset[str]) -> tuple[tuple[str, ...], tuple[tuple[str, type[Enum]], ...]]:
    """Return the names of the other fields, and the enums of those that have one."""
    types = get_type_hints(cls)
    names = tuple(each.name for each in fields(cls) if each.name not in given)
    enums = {name: _enum_in(types[name]) for name in names}
    return names, tuple((name, enum) for name, enum in enums.items() if enum is not None)


def _enum_in(declared: object) -> type[Enum] | None:
    """Return the enum in a type like `Phase` or `Phase | None`."""
    choices = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    return next((each for each in choices if isinstance(each, type) and issubclass(each, Enum)), None)
