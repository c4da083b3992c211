"""Watches over a dial worker: times of its POSTs, a timer that ends it before a late call, alarms about claims."""

import asyncio
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.lifecycle.policy import LOOK_TO_SEND
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway
from scheduler.process import QUIET_DATABASE_S, watching
from scheduler.rules.tallies import Sent

T = TypeVar("T")

# --- A kernel timer that ends this process before it could send a call too late
# A frozen process cannot notice the freeze. The timer keeps running and ends the process before its next step.


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
        """Find this call's deadline on the monotonic clock. Raises KeyError."""
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


class DatabaseThreads:
    """The threads in which a dial worker waits for the database. Their steps are watched."""

    def __init__(self) -> None:
        self._threads = LeaseAlarm.threads("dial")

    async def run(self, step: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(_watched, step))


def _watched(step: Callable[[], T]) -> T:
    with watching("dial", QUIET_DATABASE_S):
        return step()


# --- Times of the POSTs of a dial worker that are in flight


_UNANSWERED_CALLS = 2
_UNANSWERED_FOR_S = 1.0


class PostTimes:
    def __init__(self, ticks: Callable[[], float] = monotonic) -> None:
        self._ticks = ticks
        self._begun_at: dict[UUID, float] = {}
        self._answered_at = 0.0
        self._left_at: dict[UUID, float] = {}
        self._sent: dict[UUID, Sent] = {}

    @contextmanager
    def in_flight(self, attempt_id: UUID) -> Iterator[None]:
        """Note that the POST of this block is in flight."""
        self._begun_at[attempt_id] = self._ticks()
        try:
            yield
        finally:
            del self._begun_at[attempt_id]
            left_at = self._left_at.pop(attempt_id, None)
            if left_at is not None:
                self._sent[attempt_id] = replace(self._sent[attempt_id], answered_after=self._ticks() - left_at)

    def left(self, attempt_id: UUID, lateness: timedelta, look: Mapping[str, Any] | None = None) -> None:
        """Note that the first byte of a POST in flight is sent, which a look with this record has permitted."""
        self._left_at[attempt_id] = self._ticks()
        self._sent[attempt_id] = Sent(lateness=lateness, answered_after=0.0, look=look)

    def answered(self) -> None:
        """Note that the carrier has answered a POST."""
        self._answered_at = self._ticks()

    def are_unanswered(self) -> bool:
        """Return True if at least two POSTs are in flight, the first for over a second, and none was answered since."""
        unanswered = [begun for begun in self._begun_at.values() if begun > self._answered_at]
        return len(unanswered) >= _UNANSWERED_CALLS and min(unanswered) < self._ticks() - _UNANSWERED_FOR_S

    def of(self, attempt_id: UUID) -> Sent | None:
        """Find the times of an answered call. None if its POST was not sent."""
        return self._sent.get(attempt_id)

    def drop(self, attempt_id: UUID) -> None:
        self._sent.pop(attempt_id, None)


# --- Alarms about a dial worker that cannot claim
# A long-held row lock, or a database that answers too slowly. All instants are seconds on the monotonic clock.


_log = log(__name__)
LOCK_LASTS_S = 10.0
_REPEAT_ALARM_S = 60.0


class LockWatch:
    """Notices rows that another transaction keeps locked, by company. None means the row of the carrier account.

    Each is reported once while it lasts. `holder` returns the process id of the session that has locked a company's
    row, if it is known.
    """

    def __init__(self, holder: Callable[[UUID], int | None]) -> None:
        self._holder = holder
        self._since: dict[UUID | None, float] = {}
        self._last_seen: dict[UUID | None, float] = {}
        """The most recent time at which each row was found locked."""
        self._reported: set[UUID | None] = set()

    def __bool__(self) -> bool:
        """Return True if any row was locked when it was last checked."""
        return bool(self._since)

    def saw(self, locked: Collection[UUID | None], free: Collection[UUID | None], instant: float) -> None:
        """Note the locked and free rows of one claim. Queries the database before it raises an alarm."""
        # A row that no claim has met for a while may have been free in between: two short locks are not a long one.
        unseen = {each for each, seen in self._last_seen.items() if instant - seen > _REPEAT_ALARM_S}
        for each in {*free, *unseen}:
            self._since.pop(each, None)
            self._last_seen.pop(each, None)
            self._reported.discard(each)
        for each in locked:
            self._last_seen[each] = instant
            since = self._since.setdefault(each, instant)
            if instant - since > LOCK_LASTS_S and each not in self._reported:
                self._reported.add(each)
                self._report(each, instant - since)

    def _report(self, company_id: UUID | None, seconds: float) -> None:
        pid = None
        if company_id is not None:
            try:
                pid = self._holder(company_id)
            except DatabaseAway:
                pid = None
        _log.error(
            "row_locked: another transaction has kept a row locked, so its calls wait",
            alarm="LOCK_HELD",
            company_id=None if company_id is None else str(company_id),
            cause="the carrier account" if company_id is None else "a company",
            pid=pid,
            seconds=round(seconds, 1),
        )


class LookWatch:
    """Notices that the statement of a last look takes longer than its result is valid. Reports it once a minute."""

    def __init__(self) -> None:
        self.took: timedelta | None = None
        """Duration of the most recent statement. None before the first."""
        self._reported_at: float | None = None

    def are_too_slow(self, instant: float) -> bool:
        if self.took is None:
            return False
        if self.took <= LOOK_TO_SEND:
            if self._reported_at is not None:
                self._reported_at = None
                _log.info(
                    "last_looks_in_time: the database answered a last look in time again",
                    seconds=round(self.took.total_seconds(), 3),
                )
            return False
        if self._reported_at is None or instant - self._reported_at >= _REPEAT_ALARM_S:
            self._reported_at = instant
            _log.error(
                "last_looks_slow: the database answered a last look too late, so nothing is dialled",
                alarm="DATABASE_SLOW",
                seconds=round(self.took.total_seconds(), 3),
            )
        return True
