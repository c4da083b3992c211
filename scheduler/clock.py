"""The clock: the only module that reads the machine's time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Now = Callable[[], datetime]
"""Returns the current instant, aware UTC."""


def machine_now() -> datetime:
    """Return the machine's time without the offset. Only for comparing clocks and for reading the offset."""
    return datetime.now(UTC)


def clock(offset_s: float) -> Now:
    """Return a clock that is `offset_s` seconds ahead of the machine's."""
    offset = timedelta(seconds=offset_s)

    def now() -> datetime:
        return machine_now() + offset

    return now


def monotonic() -> float:
    """Return seconds on a clock that never jumps, for spans within one process."""
    return time.monotonic()
