"""Alarms about what keeps a dial worker from claiming: a lock that lasts, and a database that answers too slowly.

Each is raised once while its cause lasts. All instants are seconds on the monotonic clock.
"""

from collections.abc import Callable, Collection
from datetime import timedelta
from uuid import UUID

from scheduler.lifecycle.policy import LOOK_TO_SEND
from scheduler.logs import log
from scheduler.persistence.database import DatabaseAway

_log = log(__name__)
LOCK_LASTS_S = 10.0
_SAY_AGAIN_S = 60.0


class LockWatch:
    """Notices rows that another transaction keeps locked, by company. None stands for the row of the carrier account.

    `holder` returns the process id of the database session that has locked a company's row, if it can be told.
    """

    def __init__(self, holder: Callable[[UUID], int | None]) -> None:
        self._holder = holder
        self._since: dict[UUID | None, float] = {}
        self._seen: dict[UUID | None, float] = {}
        """When each was seen locked last."""
        self._told: set[UUID | None] = set()

    def __bool__(self) -> bool:
        """Whether some row was locked when it was seen last."""
        return bool(self._since)

    def saw(self, locked: Collection[UUID | None], free: Collection[UUID | None], instant: float) -> None:
        """Note one claim: these rows were locked, those were not. Queries the database before it raises an alarm."""
        # A row that no claim has met for so long may have been free in between: two short locks are not a long one.
        unseen = {each for each, seen in self._seen.items() if instant - seen > _SAY_AGAIN_S}
        for each in {*free, *unseen}:
            self._since.pop(each, None)
            self._seen.pop(each, None)
            self._told.discard(each)
        for each in locked:
            self._seen[each] = instant
            since = self._since.setdefault(each, instant)
            if instant - since > LOCK_LASTS_S and each not in self._told:
                self._told.add(each)
                self._tell(each, instant - since)

    def _tell(self, company_id: UUID | None, seconds: float) -> None:
        pid = None
        if company_id is not None:
            try:
                pid = self._holder(company_id)
            except DatabaseAway:
                pid = None
        _log.error(
            "Another transaction keeps a row locked; its calls wait.",
            alarm="LOCK_HELD",
            company_id=None if company_id is None else str(company_id),
            cause="the carrier account" if company_id is None else "a company",
            pid=pid,
            seconds=round(seconds, 1),
        )


class LookWatch:
    """Notices that the statement of a last look takes longer than a last look is good for."""

    def __init__(self) -> None:
        self._told_at: float | None = None

    def is_too_slow(self, took: timedelta, instant: float) -> bool:
        if took <= LOOK_TO_SEND:
            if self._told_at is not None:
                self._told_at = None
                _log.info("The database answers last looks in time again.", seconds=round(took.total_seconds(), 3))
            return False
        if self._told_at is None or instant - self._told_at >= _SAY_AGAIN_S:
            self._told_at = instant
            _log.error(
                "The database answers last looks too slowly; nothing is dialled.",
                alarm="DATABASE_SLOW",
                seconds=round(took.total_seconds(), 3),
            )
        return True
