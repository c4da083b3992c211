"""Alarms about a dial worker that cannot claim: a long-held row lock, or a database that answers too slowly.

All instants are seconds on the monotonic clock.
"""

from collections.abc import Callable, Collection
from datetime import timedelta
from uuid import UUID

from scheduler.lifecycle.policy import LOOK_TO_SEND
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway

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
        self._reported_at: float | None = None

    def is_too_slow(self, took: timedelta, instant: float) -> bool:
        if took <= LOOK_TO_SEND:
            if self._reported_at is not None:
                self._reported_at = None
                _log.info(
                    "last_looks_in_time: the database answered a last look in time again",
                    seconds=round(took.total_seconds(), 3),
                )
            return False
        if self._reported_at is None or instant - self._reported_at >= _REPEAT_ALARM_S:
            self._reported_at = instant
            _log.error(
                "last_looks_slow: the database answered a last look too late, so nothing is dialled",
                alarm="DATABASE_SLOW",
                seconds=round(took.total_seconds(), 3),
            )
        return True
