"""A kernel timer that ends this process before it could send a call too late.

A frozen process cannot notice the freeze. The timer keeps running and ends the process before its next step.
"""

import signal
from uuid import UUID

from scheduler.clock import monotonic

_AT_ONCE = 0.001
"""Seconds. A timer of zero would be off."""


class LeaseAlarm:
    """One timer for all calls of this process, set to the earliest of their deadlines."""

    def __init__(self) -> None:
        self._ends: dict[UUID, float] = {}

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

    def hold(self, attempt_id: UUID, until: float) -> None:
        """End this process at `until`, on the monotonic clock, unless the call is prolonged or dropped before."""
        self._ends[attempt_id] = until
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
        self._ends.pop(attempt_id, None)
        self._set()

    def _set(self) -> None:
        remaining = min(self._ends.values()) - monotonic() if self._ends else 0.0
        signal.setitimer(signal.ITIMER_REAL, max(_AT_ONCE, remaining) if self._ends else 0.0)  # guard: frozen
