"""What time is it? The one place that asks the machine."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Now = Callable[[], datetime]
"""Gives the present instant, aware UTC."""


def machine_now() -> datetime:
    """The machine's clock, offset left out. Only for comparing clocks and for reading the offset."""
    return datetime.now(UTC)


def clock(offset_s: float) -> Now:
    """A clock that runs `offset_s` seconds ahead of the machine's."""
    offset = timedelta(seconds=offset_s)

    def now() -> datetime:
        return machine_now() + offset

    return now


def monotonic() -> float:
    """Seconds on a clock that never jumps; for spans within one process."""
    return time.monotonic()
