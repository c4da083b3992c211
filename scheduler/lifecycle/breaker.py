"""Does the carrier take calls at all? After several that it did not, none is tried until a while later, then one."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NeverTaken, NumberRefused

OPENS_AFTER = 5
"""So many calls in a row that the carrier did not surely take."""

BACK_OFF = (timedelta(seconds=5), timedelta(seconds=15), timedelta(minutes=1), timedelta(minutes=5))
"""How long nothing is tried, by how often in a row it was in vain; the last one repeats."""

NEEDS_A_PERSON = frozenset({"CREDENTIALS", "ACCOUNT_NOT_ACTIVE"})
"""Trying again does not mend these, so that the first one counts as enough."""

OF_ALL_CALLS = NEEDS_A_PERSON | {"NEVER_CONNECTED", "THROTTLED", "QUEUE_FULL"}
"""Why a carrier takes no call, whosever it is. Others speak of one company's number or order, and of nobody else's."""


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """How the carrier has answered lately."""

    failures: int = 0
    """In a row, those within one outage counted once."""
    down_until: datetime | None = None
    cause: str | None = None

    def is_down(self, now: datetime) -> bool:
        """Nothing is tried now."""
        return self.down_until is not None and now < self.down_until

    @property
    def is_on_trial(self) -> bool:
        """One call at a time, until the carrier takes one."""
        return self.down_until is not None


def shows_that_it_works(answer: CarrierAnswer) -> bool:
    """Whether the carrier has decided about this one call; then it decides about others too."""
    match answer:
        case Accepted() | NumberRefused():
            return True
        case NeverTaken():
            return answer.cause not in OF_ALL_CALLS | {"NOT_SENT"}
    return False


def cause_of(answer: CarrierAnswer) -> str | None:
    """Why this answer speaks against the carrier; None when it does not.

    Unknown answers count too: a carrier that answers 500 to everything may have taken nothing, and each further call
    would end as unknown.
    """
    match answer:
        case NeverTaken() if answer.cause in OF_ALL_CALLS:
            return answer.cause
        case AnswerUnknown():
            return answer.cause
    return None


def after_failure(breaker: Breaker, cause: str, now: datetime) -> Breaker:
    """After a call that the carrier did not surely take. What was sent before the breaker opened counts no more."""
    if breaker.is_down(now):
        return breaker
    least = OPENS_AFTER if cause in NEEDS_A_PERSON else 0
    failures = max(breaker.failures + 1, least)
    if failures < OPENS_AFTER:
        return Breaker(failures=failures, cause=cause)
    return Breaker(failures=failures, down_until=now + not_placed_delay(failures - OPENS_AFTER), cause=cause)


def not_placed_delay(times_before: int) -> timedelta:
    """How long an attempt waits that the carrier never took, by how often in a row it was not taken before."""
    return BACK_OFF[min(times_before, len(BACK_OFF) - 1)]
