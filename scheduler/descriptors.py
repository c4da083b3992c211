"""Descriptors: the limit of open files and connections of this process, and failures at that limit.

Such a failure is local. It proves nothing about the carrier or a receiver, so it must not count against them.
"""

import errno
import os
import resource
import socket
from collections.abc import Iterator

from scheduler.clock import monotonic
from scheduler.logs import log

_log = log(__name__)
ENOUGH = 1024
"""The soft limit below which a process warns at its start."""
_MOST = 65_536
"""Some libraries use time or memory for each possible descriptor, and containers may allow a billion."""
_KEPT = 64
"""Descriptors of a dial worker for everything except its POSTs: servers, pools, logs, modules."""
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a connection that this machine could not open: no descriptor or memory was free.

Not EADDRNOTAVAIL: without a free local port it occurs, too, but also for each IPv6 address on a machine without IPv6.
"""
_REPORT_EVERY_S = 60.0


class _Reports:
    """The time of this process's last report. None before the first one."""

    last_at: float | None = None


def raise_limit() -> None:
    """Raise the soft limit of this process to its hard limit, at most to 65,536. Warn if the result is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != resource.RLIM_INFINITY and soft < ENOUGH:
        _log.warning(
            "descriptor_limit_low: this process may open few files and connections; raise its hard limit (ulimit -Hn)",
            count=soft,
        )


def most_posts() -> int:
    """Return how many POSTs a dial worker may have in flight, by its present limit. At least one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else max(1, min(soft, _MOST) - _KEPT)


def are_out() -> bool:
    """Return True if this process cannot open another file now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _SHORTAGES
    return False


def is_shortage(error: BaseException) -> bool:
    """Return True if a connection failed because this machine could not open it.

    The resolver hides the cause of its failures, so a failed lookup counts if no descriptor is free now.
    """
    causes = list(_causes(error))
    if any(isinstance(each, OSError) and each.errno in _SHORTAGES for each in causes):
        return True
    return any(isinstance(each, socket.gaierror) for each in causes) and are_out()


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all errors that it was made from."""
    left, seen = [error], set()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = (*each.args, each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
        inner = (*inner, getattr(each, "reason", None), getattr(each, "os_error", None))
        left.extend(one for one in inner if isinstance(one, BaseException))


def report_shortage() -> None:
    """Raise an alarm, at most once a minute, that this process is at its limit."""
    instant = monotonic()
    if _Reports.last_at is not None and instant - _Reports.last_at < _REPORT_EVERY_S:
        return
    _Reports.last_at = instant
    _log.error(
        "out_of_descriptors: this process can open no further file or connection; raise its limit (ulimit -n)",
        alarm="OUT_OF_DESCRIPTORS",
        count=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        pid=os.getpid(),
    )
