"""Processes that can open no further file or connection."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
def limited(pid: int, count: int) -> Iterator[None]:
    """Set the limit of a process during the block."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it may have ended
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
