"""The deadline of a request: one instant on the monotonic clock, known to everything that is done for the request.

It is set where the request enters and read where something waits: for a thread, a connection, a statement or a lock.
Work in a thread inherits it with the context. Without a deadline, as in a worker's task, the usual limits apply.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from scheduler.clock import monotonic

_ends_at: ContextVar[float | None] = ContextVar("deadline", default=None)


def set_deadline(seconds: float) -> None:
    """Give this task, and whatever it starts from now on, so many seconds from now."""
    _ends_at.set(monotonic() + seconds)


@contextmanager
def deadline_in(seconds: float) -> Iterator[None]:
    """Run the block under a deadline of its own, so many seconds from now."""
    token = _ends_at.set(monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining_s() -> float | None:
    """Return the seconds that are left, below zero after the deadline. None: there is no deadline."""
    ends_at = _ends_at.get()
    return None if ends_at is None else ends_at - monotonic()
