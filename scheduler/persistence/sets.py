"""A set of values as one parameter, however many they are."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, any_, literal


def among(column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether the column's value is one of these."""
    return column == any_(literal(list(values), ARRAY(column.type)))
