"""A page of a list: newest first, stable while nothing is added."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Which page is asked for, counting from 1, and how many things a page has."""

    page: int
    limit: int

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.limit


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[T]):
    """One page, and how many things there are in all."""

    items: tuple[T, ...]
    total: int
    asked: Slice
