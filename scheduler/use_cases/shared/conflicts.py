"""Lock conflicts: try a step again at once when another transaction holds a row for longer than the lock timeout."""

from collections.abc import Callable
from itertools import count
from typing import TypeVar

from scheduler.logs import log
from scheduler.persistence.errors import LockTaken

T = TypeVar("T")
_log = log(__name__)
_TRIES = 3
_conflicts = count(1)


def again_at_once(verb: Callable[[], T]) -> T:
    """Return what `verb` returns, called up to three times while it raises LockTaken. Each conflict is counted.

    Each try waits for the lock timeout, so no pause is needed in between. Raises LockTaken after the last one.
    """
    for _ in range(_TRIES - 1):
        try:
            return verb()
        except LockTaken:
            _log.info(
                "lock_conflict: another transaction held the row, so the step is tried again", count=next(_conflicts)
            )
    return verb()
