"""Reputation of caller ids: how the calls of each one ended on a day, and when an operator is alarmed.

A day is a day of UTC, for all companies: networks judge a caller id by all its calls, whatever zones they are in.
Duecall never replaces a caller id by another one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from statistics import median
from uuid import UUID

from scheduler.domain.attempt import Attempt, Reason
from scheduler.lifecycle.state_machine import CALL_ENDS

BLOCKED_CALLS = 3
"""From this many blocked calls of a caller id on one day, an alarm is raised."""
COMPARED_CALLS = 50
"""With fewer calls on a day, the answer rate of a caller id is not compared."""
_COMPARED_CALLERS = 3
"""With fewer caller ids of so many calls, the account has no usual answer rate."""
_LOWEST_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class CallerResult:
    """The end of one call, for the caller id that it was placed from."""

    company_id: UUID
    number: str = field(repr=False)
    """Only to find the caller id. It is not stored with the counts."""
    day: date
    is_answered: bool = False
    is_declined: bool = False
    is_blocked: bool = False


@dataclass(frozen=True, kw_only=True)
class CallerDay:
    """The calls of one caller id that ended on one day of UTC."""

    company_id: UUID
    phone_number_id: UUID
    day: date
    calls: int = 0
    answered: int = 0
    declined: int = 0
    """The person declined."""
    blocked: int = 0
    """The person's network blocked the caller id. The phone did not ring, so the person declined nothing."""
    is_blocked_reported: bool = False
    """The alarm about blocked calls was raised for this day."""
    is_rate_reported: bool = False
    """The alarm about the answer rate was raised for this day."""

    @property
    def answer_rate(self) -> float:
        return self.answered / self.calls if self.calls else 0.0

    @property
    def is_compared(self) -> bool:
        """Return True if the day has enough calls to compare its answer rate."""
        return self.calls >= COMPARED_CALLS


@dataclass(frozen=True, kw_only=True)
class BlockedNumber:
    """The blocked calls of one number on one day of UTC, of all companies that call from it: networks judge it."""

    day: date
    company_ids: Sequence[UUID]
    """The companies that have blocked calls from it."""
    phone_number_ids: Sequence[UUID]
    """The number's id at each of these companies."""
    blocked: int
    is_reported: bool
    """The alarm about blocked calls was raised for this day, for one of the companies."""


def day_of(instant: datetime) -> date:
    """Find the day of UTC of an instant."""
    return instant.astimezone(UTC).date()


def result_of(before: Attempt, after: Attempt, number: str | None) -> CallerResult | None:
    """Describe the proven end of a call that the carrier took. None: it is no such end, or was counted before.

    An unknown outcome is counted when it is proven, on the day on which its call ended.
    """
    if number is None or after.call_sid is None or after.ended_at is None:
        return None
    if after.reason not in CALL_ENDS or before.reason in CALL_ENDS:
        return None
    return CallerResult(
        company_id=after.company_id,
        number=number,
        day=day_of(after.ended_at),
        is_answered=after.reason is Reason.ANSWERED,
        is_declined=after.reason is Reason.DECLINED,
        is_blocked=after.reason is Reason.BLOCKED_BY_NETWORK,  # guard: network_block
    )


def is_blocked_too_often(day: CallerDay | BlockedNumber) -> bool:
    """Return True if networks blocked the caller id so often on this day that an operator must know."""
    return day.blocked >= BLOCKED_CALLS


def usual_answer_rate(days: Iterable[CallerDay]) -> float | None:
    """Compute the median answer rate of the caller ids of one day. None: too few have enough calls."""
    rates = [day.answer_rate for day in days if day.is_compared]
    return median(rates) if len(rates) >= _COMPARED_CALLERS else None


def is_rarely_answered(day: CallerDay, usual: float | None) -> bool:
    """Return True if the caller id is answered less than half as often as usual."""
    return usual is not None and day.is_compared and day.answer_rate < _LOWEST_SHARE * usual
