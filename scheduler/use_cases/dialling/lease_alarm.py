"""The kernel's timer, which ends this process before a call that it has not sent could leave too late.

A process that was frozen cannot tell that it was. The timer goes on meanwhile and ends it before its next step.
"""

import signal
from uuid import UUID

from scheduler.clock import monotonic

_AT_ONCE = 0.001
"""Seconds. A timer of zero would be off."""


class LeaseAlarm:
    """One timer for all calls of this process, set to the earliest of their ends."""

    def __init__(self) -> None:
        self._ends: dict[UUID, float] = {}

    def __len__(self) -> int:
        return len(self._ends)

    @staticmethod
    def prepare() -> None:
        """Give the signal its default action, which ends the process. Call from the main thread.

        Blocks the signal in this thread and in those that it starts.
        """
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        LeaseAlarm.block()

    @staticmethod
    def block() -> None:
        """Keep the signal from the calling thread, which sends no calls."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # guard: alarm_thread

    @staticmethod
    def unblock() -> None:
        """Let the calling thread alone take the signal: the one that sends.

        After SIGCONT each thread looks for pending signals before it goes on. If another thread takes this one, it
        releases a kernel lock before it ends the process, and the sending thread may write its first byte meanwhile.
        The sending thread itself cannot go on while the signal is pending.
        """
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    def hold(self, attempt_id: UUID, until: float) -> None:
        """End this process at `until`, on the monotonic clock, unless the call is held longer or dropped by then."""
        self._ends[attempt_id] = until
        self._set()

    def ends_of(self, attempt_id: UUID) -> float:
        """When the process would end because of this call, on the monotonic clock. Raises KeyError."""
        return self._ends[attempt_id]

    def clear(self) -> None:
        """Drop all calls."""
        self._ends.clear()
        self._set()

    def drop(self, attempt_id: UUID) -> None:
        """The call is over for this process."""
        self._ends.pop(attempt_id, None)
        self._set()

    def _set(self) -> None:
        remaining = min(self._ends.values()) - monotonic() if self._ends else 0.0
        signal.setitimer(signal.ITIMER_REAL, max(_AT_ONCE, remaining) if self._ends else 0.0)  # guard: frozen
