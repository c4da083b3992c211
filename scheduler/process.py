"""A process of Duecall: its limit of descriptors, its garbage collection, and its watchdog."""

import errno
import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from scheduler.clock import monotonic
from scheduler.logs import log

# --- Descriptors: the limit of open files and connections of this process, and failures at that limit
# Such a failure is local. It proves nothing about the carrier or a receiver, so it must not count against them.


_log = log(__name__)
ENOUGH = 1024
"""The soft limit below which a process warns at its start."""
_MOST = 65_536
"""Some libraries use time or memory for each possible descriptor, and containers may allow a billion."""
_KEPT = 64
"""Descriptors of a dial worker for everything except its POSTs: servers, pools, logs, modules."""
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of a connection that this machine could not open: no descriptor or memory was free.

Not EADDRNOTAVAIL: it occurs without a free local port, but also for each IPv6 address on a machine without IPv6.
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
    """Compute how many POSTs a dial worker may have in flight, by its present limit. At least one."""
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
    causes = list(causes_of(error))
    if any(isinstance(each, OSError) and each.errno in _SHORTAGES for each in causes):
        return True
    return any(isinstance(each, socket.gaierror) for each in causes) and are_out()


def causes_of(error: BaseException) -> Iterator[BaseException]:
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


# --- Garbage collection of the processes that handle calls


_NEW_OBJECTS = 10_000
"""Python's own number is 700, which a busy process reaches about ten times a second."""


def collect_rarely() -> None:
    """Collect garbage after 10,000 new objects, and leave out all objects of now. Call once, at the end of the start.

    Nearly all objects are freed without a collection. So a collection mostly walks those of requests in progress.
    """
    gc.collect()
    gc.freeze()
    _, second, third = gc.get_threshold()
    gc.set_threshold(_NEW_OBJECTS, second, third)


# --- Watchdog: a thread that hangs in its work is reported, and ends the process, which its supervisor starts again
#
#     in `watching("settle.round")`   a thread works
#     at `made_progress()`            it goes on: a statement, or a request to another machine, begins
#
# Every such wait has a deadline of its own. So a thread without a step for longer hangs in a lock or another call.
# Being busy is no proof of life: only steps are.


CHECK_EVERY_S = 1.0
QUIET_S = 30
"""The longest time without a step: longer than any single wait, such as a request to the carrier or a mail."""
QUIET_DATABASE_S = 15
"""The same for work that waits for the database alone, whose longest wait is 7 s."""
EXIT_S = 5.0
"""The time for an orderly exit."""


class _Work:
    """The work of one thread. The thread itself counts its steps, and the watchdog the checks since the last one."""

    __slots__ = ("checks", "kind", "most", "seen", "steps")

    def __init__(self, kind: str, most: int) -> None:
        self.kind = kind
        self.most = most
        self.steps = 0
        self.seen = 0
        self.checks = 0

    def hangs(self) -> bool:
        """Count a check. Not seconds: after a pause of the whole process each thread has as many turns as this one."""
        self.checks = self.checks + 1 if self.steps == self.seen else 0
        self.seen = self.steps
        return self.checks >= self.most


_working: dict[int, _Work] = {}
"""The work of each thread that is working, by the thread's identifier."""


@contextmanager
def watching(kind: str, quiet_s: int = QUIET_S) -> Iterator[None]:
    """Let the watchdog watch this thread during the block. Within another such block it changes nothing."""
    thread = threading.get_ident()
    if thread in _working:
        yield
        return
    _working[thread] = _Work(kind, quiet_s)
    try:
        yield
    finally:
        del _working[thread]


def made_progress() -> None:
    """Note that this thread goes on. Costs a tenth of a microsecond."""
    work = _working.get(threading.get_ident())
    if work is not None:
        work.steps += 1


def count_working(kinds: Collection[str]) -> int:
    """Count the threads that work on one of these kinds."""
    return sum(work.kind in kinds for work in list(_working.values()))


def end_process(exit_s: float = EXIT_S) -> None:
    """End the process by SIGTERM, and by force after `exit_s`."""
    timer = threading.Timer(exit_s, os._exit, (os.EX_SOFTWARE,))
    timer.daemon = True
    timer.start()
    os.kill(os.getpid(), signal.SIGTERM)


class Watchdog:
    """Checks each working thread once a second. `on_hang` is called once, from the thread of this object."""

    def __init__(self, on_hang: Callable[[], None] = end_process, *, every_s: float = CHECK_EVERY_S) -> None:
        self._on_hang = on_hang
        self._every_s = every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog of threads", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            # A copy, because other threads begin and end.
            hanging = [(thread, work) for thread, work in list(_working.items()) if work.hangs()]
            if hanging:
                self._report(*hanging[0])
                self._on_hang()  # guard: hung_thread
                return
            if are_out():
                report_shortage()

    def _report(self, thread: int, work: _Work) -> None:
        _log.error(
            "thread_hung: a thread made no step in its work for too long; the process exits to be started again",
            alarm="THREAD_HUNG",
            kind=work.kind,
            seconds=work.most,
            cause=_place_of(thread),
        )


def _place_of(thread: int) -> str:
    """Name file, line and function of a thread's innermost code of ours. No values of variables."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - there is no other way to another thread's place
    while frame is not None:
        path = frame.f_code.co_filename
        for package in ("scheduler", "workers", "api_shim", "console", "standalone", "command_line"):
            if f"/{package}/" in path:
                return f"{package}/{path.rpartition(f'/{package}/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "unknown"
