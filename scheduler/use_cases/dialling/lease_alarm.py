"""A kernel timer that ends this process before it could send a call too late.

A frozen process cannot notice the freeze. The timer keeps running and ends the process before its next step.
"""

import signal
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from scheduler.clock import monotonic

_AT_ONCE = 0.001
"""Seconds. A timer of zero would be off."""


class LeaseAlarm:
    """One timer for all calls of this process, set to the earliest of their deadlines."""

    def __init__(self) -> None:
        self._ends: dict[UUID, float] = {}
        self._earliest: float | None = None
        """The deadline to which the timer is set. None: it is off."""

    def __len__(self) -> int:
        return len(self._ends)

    @staticmethod
    def prepare() -> None:
        """Give the signal its default action, which ends the process. Call from the main thread.

        Blocks the signal in this thread and in the threads that it starts.
        """
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        LeaseAlarm.block()

    @staticmethod
    def block() -> None:
        """Block the signal in the calling thread, which sends no calls."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # guard: alarm_thread

    @staticmethod
    def unblock() -> None:
        """Let only the calling thread, which sends, take the signal.

        After SIGCONT each thread checks for pending signals before it goes on. If another thread takes this one, it
        releases a kernel lock before it ends the process, and the sending thread may write its first byte in between.
        The sending thread itself cannot go on while the signal is pending.
        """
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    @staticmethod
    def threads(name: str) -> ThreadPoolExecutor:
        """Create threads that block the signal. They would inherit the loop's mask, which lets it through."""
        return ThreadPoolExecutor(max_workers=12, thread_name_prefix=name, initializer=LeaseAlarm.block)

    def hold(self, attempt_id: UUID, until: float) -> None:
        """End this process at `until`, on the monotonic clock, unless the call is prolonged or dropped before."""
        former, self._ends[attempt_id] = self._ends.get(attempt_id), until
        if self._earliest is None or until < self._earliest or former == self._earliest:
            self._set()

    def ends_of(self, attempt_id: UUID) -> float:
        """Return this call's deadline on the monotonic clock. Raises KeyError."""
        return self._ends[attempt_id]

    def clear(self) -> None:
        """Drop all calls."""
        self._ends.clear()
        self._set()

    def drop(self, attempt_id: UUID) -> None:
        """Drop a call that this process has finished."""
        former = self._ends.pop(attempt_id, None)
        if former is not None and former == self._earliest:
            self._set()

    def _set(self) -> None:
        """Set the timer to the earliest deadline. Not called for other deadlines: each call has four changes."""
        earliest = min(self._ends.values(), default=None)
        if earliest == self._earliest:
            return
        self._earliest = earliest
        remaining = 0.0 if earliest is None else max(_AT_ONCE, earliest - monotonic())
        signal.setitimer(signal.ITIMER_REAL, remaining)  # guard: frozen
