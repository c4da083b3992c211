"""The clock: the only module that reads the machine's time, and deadlines of requests on the monotonic clock."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

Now = Callable[[], datetime]
"""Returns the current instant, aware UTC."""


def machine_now() -> datetime:
    """Read the machine's time without the offset. Only for comparing clocks and for reading the offset."""
    return datetime.now(UTC)


def clock(offset_s: float) -> Now:
    """Build a clock that is `offset_s` seconds ahead of the machine's."""
    offset = timedelta(seconds=offset_s)

    def now() -> datetime:
        return machine_now() + offset

    return now


def monotonic() -> float:
    """Read a clock that never jumps, in seconds, for spans within one process."""
    return time.monotonic()


# --- The deadline of a request: one instant on the monotonic clock, shared by all work for that request
# It is set where the request enters and read before each wait for a thread, a connection, a statement or a lock. Work
# in a thread inherits it with the context. Without a deadline, as in a worker's task, the usual limits apply.


_ends_at: ContextVar[float | None] = ContextVar("deadline", default=None)


def set_deadline(seconds: float) -> None:
    """Set the deadline of this task, and of all work that it starts later, to `seconds` from now."""
    _ends_at.set(monotonic() + seconds)


@contextmanager
def deadline_in(seconds: float) -> Iterator[None]:
    """Run the block under its own deadline, `seconds` from now."""
    token = _ends_at.set(monotonic() + seconds)
    try:
        yield
    finally:
        _ends_at.reset(token)


def remaining_s() -> float | None:
    """Compute the seconds left, negative after the deadline, or None without a deadline."""
    ends_at = _ends_at.get()
    return None if ends_at is None else ends_at - monotonic()
