"""Turns of workers: background work in batches, which lets the other tasks of its queue go first after some seconds."""

import threading
from collections.abc import Callable

from scheduler.clock import monotonic

_TURN_S = 2.0


def take_turn(batch: Callable[[], bool], *, alone: "threading.Lock | None" = None, seconds: float = _TURN_S) -> bool:
    """Run batches until one finds no work, or until the turn is over. True: work may be left for another turn.

    With `alone`, one thread of the process has a turn at a time. Others leave at once, so that the work occupies no
    second place of the worker.
    """
    if alone is not None and not alone.acquire(blocking=False):
        return False
    try:
        ends_at = monotonic() + seconds
        while batch():
            if monotonic() >= ends_at:
                return True
        return False
    finally:
        if alone is not None:
            alone.release()
