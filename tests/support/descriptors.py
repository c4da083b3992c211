"""Processes that can open no further file or connection."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from scheduler import descriptors

_FEWEST = 3
"""Below all that a process has open, so that it cannot use the place of what it closes in the meantime either."""


@contextmanager
def no_descriptors(pid: int | None = None) -> Iterator[None]:
    """Let a process, by default this one, open no file or connection during the block."""
    descriptors._Reports.last_at = None
    pid = os.getpid() if pid is None else pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (_FEWEST, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
