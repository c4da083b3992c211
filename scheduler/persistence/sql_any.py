"""A set of values as one SQL parameter."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, Column, ColumnElement, any_, literal


def among(column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """Match rows whose value is one of these."""
    return column == any_(literal(list(values), ARRAY(column.type)))
