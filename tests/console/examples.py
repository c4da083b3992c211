"""Example values for rows with bars: attempts on nights of clock changes, and a day with many companies."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from console.timeline import CallHours
from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.call import CalleeClock, Schedule, TimezoneSource
from scheduler.domain.company import DEFAULT_INTERVALS, CallTimeInterval
from scheduler.domain.explanation import Block, Explanation, HistoryEntry

FAR = date(9999, 12, 31)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def in_zones(*zones: str) -> CalleeClock:
    return CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=tuple(sorted(zones)))


def hours_of(
    *zones: str, intervals: tuple[CallTimeInterval, ...] = DEFAULT_INTERVALS, consent_until: date = FAR
) -> CallHours:
    clocks = (in_zones(*zones),) if zones else ()
    return CallHours(clocks=clocks, intervals=intervals, consent_until=consent_until)


def happened(at: str, event: str, **more: Any) -> HistoryEntry:
    values: dict[str, Any] = {"from_state": "PENDING", "to_state": "PENDING", "reason": None, "actor": "dial"}
    return HistoryEntry(at=utc(at), event=event, **(values | more))


def explained(
    *history: HistoryEntry,
    due_at: str,
    expires_at: str = "2026-12-31T00:00:00",
    next_possible_at: str | None = None,
    blocks: tuple[Block, ...] = (),
    **attempt: Any,
) -> Explanation:
    due = utc(due_at)
    values: dict[str, Any] = {
        "id": UUID(int=0x0192A1B2C3D4),
        "interview_id": UUID(int=2),
        "company_id": UUID(int=3),
        "chain_id": UUID(int=1),
        "retry_number": 0,
        "manual": False,
        "state": AttemptState.PENDING,
        "schedule": Schedule(
            requested=None, clock=in_zones("Europe/Berlin"), due_at=due, earliest_at=due, tzdata_version="2026f"
        ),
        "due_at": due,
        "expires_at": utc(expires_at),
        "created_at": due - timedelta(days=1),
        "updated_at": due,
    }
    return Explanation(
        attempt=Attempt(**(values | attempt)),
        waits_for="its time",
        next_possible_at=None if next_possible_at is None else utc(next_possible_at),
        blocks=blocks,
        happenings=history,
    )
