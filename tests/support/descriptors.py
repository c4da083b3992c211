"""Processes that can open no further file or connection."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count as count_up
from pathlib import Path

from scheduler import process

_FEWEST = 3
"""Below all that a process has open, so that it cannot use the place of what it closes in the meantime either."""


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no file or connection during the block."""
    process._Reports.last_at = None
    with limited(os.getpid(), _FEWEST):
        yield


@contextmanager
def limited(pid: int, count: int | None = None) -> Iterator[None]:
    """Set the limit of a process during the block. None: to what it has open now."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_lowest_free(pid) if count is None else count, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it may have ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _lowest_free(pid: int) -> int:
    """Return the number of the next descriptor that this process would open."""
    opened = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in count_up() if number not in opened)
