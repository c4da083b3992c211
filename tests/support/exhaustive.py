"""Exhaustive comparisons: `make proof` makes all of them, `make test` a fixed sample."""

import os
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")
WHOLE = bool(os.environ.get("DUECALL_EXHAUSTIVE"))


def cases(everything: int, sample: int) -> int:
    """Choose the number of cases for this run, and likewise the least number that it must reach."""
    return everything if WHOLE else sample


def every(step: int, items: Sequence[Item]) -> Sequence[Item]:
    """Choose all items, or as a sample each `step`-th."""
    return items if WHOLE else items[::step]


def more(*items: Item) -> Sequence[Item]:
    """Add these items to a sample, for `make proof` alone."""
    return items if WHOLE else ()
