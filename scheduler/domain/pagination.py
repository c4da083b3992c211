"""Pages of a list, newest first and stable while nothing is added."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


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
    asked: Slice
