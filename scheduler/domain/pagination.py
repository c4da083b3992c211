"""Pages of a list, newest first and stable while nothing is added."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

COUNTED_UP_TO = 10_000
"""Longest list whose items are all counted. Counting a million rows takes longer than reading a page of them."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The requested page, counted from 1, and the page size."""

    page: int
    limit: int

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[T]):
    """One page, with the total number of items."""

    items: tuple[T, ...]
    total: int
    """Exact up to COUNTED_UP_TO, and on the last page. Otherwise an estimate: the number of items that certainly exist.

    An estimate covers this page, and one item after it if another page follows.
    """
    total_is_estimate: bool = False
    asked: Slice

    def map(self, change: Callable[[T], U]) -> "Listed[U]":
        """Return the same page of other items."""
        items = tuple(change(each) for each in self.items)
        return Listed(items=items, total=self.total, total_is_estimate=self.total_is_estimate, asked=self.asked)
