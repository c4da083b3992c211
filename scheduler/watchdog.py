"""Watchdog: a thread that hangs in its work is reported, and ends the process, which its supervisor starts again.

with watching("settle.round"):    a thread works
    made_progress()               it goes on: a statement, or a request to another machine, begins

Every such wait has a deadline of its own. So a thread without a step for longer hangs in a lock or another call.
Being busy is no proof of life: only steps are.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from scheduler import descriptors
from scheduler.logs import log

_log = log(__name__)
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
    """Return how many threads work on one of these kinds."""
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
            if descriptors.are_out():
                descriptors.report_shortage()

    def _report(self, thread: int, work: _Work) -> None:
        _log.error(
            "thread_hung: a thread made no step in its work for too long; the process exits to be started again",
            alarm="THREAD_HUNG",
            kind=work.kind,
            seconds=work.most,
            cause=_place_of(thread),
        )


def _place_of(thread: int) -> str:
    """Return file, line and function of a thread's innermost code of ours. No values of variables."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - there is no other way to another thread's place
    while frame is not None:
        path = frame.f_code.co_filename
        for package in ("scheduler", "workers", "api_shim", "console", "standalone"):
            if f"/{package}/" in path:
                return f"{package}/{path.rpartition(f'/{package}/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "unknown"
