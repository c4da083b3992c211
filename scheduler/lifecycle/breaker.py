"""Does the carrier take calls at all? When it does not, none is tried until it has answered a harmless question."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NeverTaken, NumberRefused

OPENS_AFTER = 5
"""So many calls in a row that the carrier did not surely take."""

BACK_OFF = (timedelta(seconds=5), timedelta(seconds=15), timedelta(minutes=1), timedelta(minutes=5))
"""How long nothing is tried, by how often in a row it was in vain; the last one repeats."""

FORGETS_AFTER = 2 * BACK_OFF[-1]
"""A carrier that has answered for so long, and on which no call has failed since, begins with the first wait again."""

NEEDS_A_PERSON = frozenset({"CREDENTIALS", "ACCOUNT_NOT_ACTIVE"})
"""Trying again does not mend these, so that the first one counts as enough."""

BREAKS_OFF = frozenset({"NO_ANSWER_IN_TIME", "ANSWER_BROKE_OFF"})
"""The request was perhaps taken, and no answer came. Like a 5xx it speaks of the carrier, not of one order."""

PERMISSIONS = frozenset({"COUNTRY_REFUSED", "CALLER_REFUSED"})
"""What our account may not do. Trying again mends these only after a person has: see `backoffs`."""

OF_ALL_CALLS = NEEDS_A_PERSON | {"NEVER_CONNECTED", "THROTTLED", "QUEUE_FULL"}
"""Why a carrier takes no call, whosever it is. Others speak of one company's number or order, and of nobody else's."""


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """How the carrier has answered lately."""

    failures: int = 0
    """In a row, those within one outage counted once."""
    down_until: datetime | None = None
    """When it is asked whether it is back; None while it takes calls."""
    answered_at: datetime | None = None
    """When it answered that question well: one call may be tried."""
    cause: str | None = None
    trials: int = 0
    """How many calls in a row were tried in vain although it had answered the question."""

    @property
    def is_down(self) -> bool:
        """No call is tried now."""
        return self.down_until is not None and not self.is_on_trial

    @property
    def is_on_trial(self) -> bool:
        """One call at a time, until the carrier takes one."""
        # An answer from before it went down again says nothing; so reads also what the release before has written.
        return self.down_until is not None and self.answered_at is not None and self.answered_at >= self.down_until

    def is_to_be_asked(self, now: datetime) -> bool:
        """Whether to ask the carrier, by what spends no call, if it is back."""
        if self.down_until is None or self.is_on_trial:
            return False
        # No wait is longer than the longest: it was begun on a clock that has been set back since.
        return now >= self.down_until or now < self.down_until - BACK_OFF[-1]


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


def opens_at_once(cause: str) -> bool:
    """Whether one such answer is enough: the next call would be spent, or a person is needed.

    A 4xx that nobody knows is not: it may speak of one company's order, and would stop everybody else's calls.
    """
    return cause in NEEDS_A_PERSON | BREAKS_OFF or cause.startswith("HTTP_5")


def after_failure(breaker: Breaker, cause: str, now: datetime, *, may_open: bool = True) -> Breaker:
    """After a call that the carrier did not surely take. Calls sent before the breaker opened no longer count.

    `may_open` is False while the failures are one company's alone: they are counted, and stop no other company.
    """
    if breaker.is_down:
        return breaker
    if breaker.is_on_trial:
        return _tried_in_vain(breaker, cause, now) if may_open else breaker
    failures = max(breaker.failures + 1, OPENS_AFTER if opens_at_once(cause) else 0)
    if failures < OPENS_AFTER or not may_open:
        return Breaker(failures=min(failures, OPENS_AFTER), cause=cause)
    return Breaker(failures=OPENS_AFTER, down_until=_next_wait(OPENS_AFTER, now), cause=cause)


def after_refusal(breaker: Breaker, cause: str, now: datetime) -> Breaker:
    """After an order that our account has no permission for: one is enough, however it came."""
    if breaker.is_on_trial:
        return _tried_in_vain(breaker, cause, now)
    return Breaker(failures=OPENS_AFTER, down_until=_next_wait(OPENS_AFTER, now), cause=cause)


def _tried_in_vain(breaker: Breaker, cause: str, now: datetime) -> Breaker:
    """One more trial in vain; the first one when the carrier had answered well for long."""
    assert breaker.answered_at is not None
    trials = 0 if now - breaker.answered_at > FORGETS_AFTER else breaker.trials + 1
    failures = OPENS_AFTER + trials
    return Breaker(failures=failures, down_until=_next_wait(failures, now), cause=cause, trials=trials)


def while_asked(breaker: Breaker, now: datetime) -> Breaker:
    """While the question whether it is back is out, and if no good answer comes: the next one is after a longer wait.

    Written before it is asked, so that of many one asks, and an asker that dies holds up nobody.
    """
    failures = breaker.failures + 1
    return replace(breaker, failures=failures, down_until=_next_wait(failures, now))


def after_answer(breaker: Breaker, now: datetime) -> Breaker:
    """It answers questions again: one call is tried.

    What questions in vain have added to the wait is taken back, since it is there; what calls in vain have added
    stays, since each of them may be spent.
    """
    return replace(breaker, failures=OPENS_AFTER + breaker.trials, down_until=now, answered_at=now)


def after_question_in_vain(breaker: Breaker, cause: str, now: datetime) -> Breaker:
    """One company's calls failed, and the question whether it is the carrier was not answered: it is."""
    if breaker.is_down:
        return breaker
    failures = OPENS_AFTER + breaker.trials
    return Breaker(failures=failures, down_until=_next_wait(failures, now), cause=cause, trials=breaker.trials)


def not_placed_delay(times_before: int) -> timedelta:
    """How long an attempt waits that the carrier never took, by how often in a row it was not taken before."""
    return BACK_OFF[min(times_before, len(BACK_OFF) - 1)]


def _next_wait(failures: int, now: datetime) -> datetime:
    return now + not_placed_delay(failures - OPENS_AFTER)
