"""A conflict between transactions: another one holds a row for longer than we wait. It is tried again at once."""

from collections.abc import Callable
from itertools import count
from typing import TypeVar

from scheduler.logs import log
from scheduler.persistence.database import LockTaken

T = TypeVar("T")
_log = log(__name__)
_TRIES = 3
_conflicts = count(1)


def again_at_once(verb: Callable[[], T]) -> T:
    """Return what `verb` returns, called up to three times while it raises LockTaken. Each conflict is counted.

    Each try waits for its lock as long as the database lets it, so that no pause is needed in between. Raises
    LockTaken after the last one.
    """
    for _ in range(_TRIES - 1):
        try:
            return verb()
        except LockTaken:
            _log.info("conflict", count=next(_conflicts))
    return verb()
