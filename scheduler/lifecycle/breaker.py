"""The carrier's circuit breaker. If the carrier accepts no calls, none is tried until it has answered a probe."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NeverTaken, NumberRefused

OPENS_AFTER = 5
"""The breaker opens after this many consecutive calls that the carrier did not certainly accept."""

BACK_OFF = (timedelta(seconds=5), timedelta(seconds=15), timedelta(minutes=1), timedelta(minutes=5))
"""The wait before the next try, by the number of consecutive failures; the last one repeats."""

PROBED_WITHIN = timedelta(minutes=1)
"""A probe is overdue this long after its time. It is sent within a sweep, so Duecall itself keeps the calls waiting."""

FORGETS_AFTER = 2 * BACK_OFF[-1]
"""After this time with answers and without a failed call, the waits begin with the first one again."""

NEEDS_A_PERSON = frozenset({"CREDENTIALS", "ACCOUNT_NOT_ACTIVE"})
"""A new try cannot fix these, so one of them is enough."""

BREAKS_OFF = frozenset({"NO_ANSWER_IN_TIME", "ANSWER_BROKE_OFF"})
"""The request may have been accepted, but no answer came. Like a 5xx it is about the carrier, not about one order."""

PERMISSIONS = frozenset({"COUNTRY_REFUSED", "CALLER_REFUSED"})
"""Permissions that our account lacks. A new try succeeds only after an operator has obtained them: see `backoffs`."""

NUMBER_BLOCKED = "NUMBER_BLOCKED"
"""The carrier blocks one number. Only its line waits, unless other numbers of its country are blocked too."""

COUNTRY_BLOCKED_AFTER = 2
COUNTRY_BLOCKED_WITHIN = timedelta(hours=1)
"""This many distinct blocked numbers of a country within this time count as a refused country."""

_BLOCKED_WAITS = (timedelta(hours=1), timedelta(days=1))
"""The wait of an attempt whose number the carrier blocks, by the number of refusals in a row; the last one repeats."""

OF_ALL_CALLS = NEEDS_A_PERSON | {"NEVER_CONNECTED", "THROTTLED", "QUEUE_FULL"}
"""Causes that affect the calls of every company. All others are about one company's number or order."""


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """The recent answers of the carrier."""

    failures: int = 0
    """Consecutive failures. Those within one outage count once."""
    down_until: datetime | None = None
    """The time of the next probe. None while the carrier accepts calls."""
    answered_at: datetime | None = None
    """The time of a successful probe, after which one call may be tried."""
    cause: str | None = None
    trials: int = 0
    """Consecutive trial calls that failed after a successful probe."""

    @property
    def is_down(self) -> bool:
        """True if no call may be tried now."""
        return self.down_until is not None and not self.is_on_trial

    @property
    def is_on_trial(self) -> bool:
        """True if only one call at a time is tried, until the carrier accepts one (half-open)."""
        # An answer from before the last opening does not count, also in rows of the previous version.
        return self.down_until is not None and self.answered_at is not None and self.answered_at >= self.down_until

    def is_to_be_asked(self, now: datetime) -> bool:
        """Return whether the carrier must be probed now, with a request that places no call."""
        if self.down_until is None or self.is_on_trial:
            return False
        # A wait beyond the maximum began on a clock that has been set back since.
        return now >= self.down_until or now < self.down_until - BACK_OFF[-1]

    def is_probe_overdue(self, now: datetime) -> bool:
        """Return whether the carrier should have been probed by now, and no worker has begun to."""
        return self.down_until is not None and not self.is_on_trial and now >= self.down_until + PROBED_WITHIN


def is_number_blocked(answer: CarrierAnswer) -> bool:
    """Return whether the carrier blocks the number of this order."""
    return isinstance(answer, NeverTaken) and answer.cause == NUMBER_BLOCKED


def shows_that_it_works(answer: CarrierAnswer) -> bool:
    """Return whether the carrier has decided about this call, which shows that it works."""
    match answer:
        case Accepted() | NumberRefused():
            return True
        case NeverTaken():
            return answer.cause not in OF_ALL_CALLS | {"NOT_SENT"}
    return False


def cause_of(answer: CarrierAnswer) -> str | None:
    """Name the cause by which this answer counts against the carrier, or None.

    Unknown answers count too: a carrier that always answers 500 may accept nothing, and each further call would end
    as unknown.
    """
    match answer:
        case NeverTaken() if answer.cause in OF_ALL_CALLS:
            return answer.cause
        case AnswerUnknown():
            return answer.cause
    return None


def opens_at_once(cause: str) -> bool:
    """Return whether one such answer opens the breaker: the next call would be lost, or an operator is needed.

    An undocumented 4xx does not: it may be about one company's order, and would stop the calls of all others.
    """
    return cause in NEEDS_A_PERSON | BREAKS_OFF or cause.startswith("HTTP_5")


def after_failure(breaker: Breaker, cause: str, now: datetime, *, may_open: bool = True) -> Breaker:
    """Compute the breaker after a call that the carrier did not certainly accept.

    Answers to calls sent before the breaker opened are ignored. `may_open` is False while only one company's calls
    fail: the failures are counted, but do not stop other companies.
    """
    if breaker.is_down:
        return breaker
    if breaker.is_on_trial:
        return _after_failed_trial(breaker, cause, now) if may_open else breaker
    failures = max(breaker.failures + 1, OPENS_AFTER if opens_at_once(cause) else 0)
    if failures < OPENS_AFTER or not may_open:
        return Breaker(failures=min(failures, OPENS_AFTER), cause=cause)
    return Breaker(failures=OPENS_AFTER, down_until=_next_wait(OPENS_AFTER, now), cause=cause)


def after_refusal(breaker: Breaker, cause: str, now: datetime) -> Breaker:
    """Compute the breaker after an order that our account has no permission for. One such order opens it."""
    if breaker.is_on_trial:
        return _after_failed_trial(breaker, cause, now)
    return Breaker(failures=OPENS_AFTER, down_until=_next_wait(OPENS_AFTER, now), cause=cause)


def _after_failed_trial(breaker: Breaker, cause: str, now: datetime) -> Breaker:
    """Count a failed trial, starting again at zero if the carrier had worked for FORGETS_AFTER."""
    assert breaker.answered_at is not None
    trials = 0 if now - breaker.answered_at > FORGETS_AFTER else breaker.trials + 1
    failures = OPENS_AFTER + trials
    return Breaker(failures=failures, down_until=_next_wait(failures, now), cause=cause, trials=trials)


def while_asked(breaker: Breaker, now: datetime) -> Breaker:
    """Compute the breaker during a probe, which also applies if the probe fails: the next wait is longer.

    It is stored before the probe, so that only one of several workers probes, and a crash of that worker blocks none.
    """
    failures = breaker.failures + 1
    return replace(breaker, failures=failures, down_until=_next_wait(failures, now))


def after_answer(breaker: Breaker, now: datetime) -> Breaker:
    """Compute the breaker after a successful probe: one call is tried.

    The waits added by failed probes are dropped, because the carrier answers again. Those added by failed trial calls
    are kept, because each trial may lose a call.
    """
    return replace(breaker, failures=OPENS_AFTER + breaker.trials, down_until=now, answered_at=now)


def after_question_in_vain(breaker: Breaker, cause: str, now: datetime) -> Breaker:
    """Compute the breaker after a failed probe that one company's failures had caused: the carrier itself is down."""
    if breaker.is_down:
        return breaker
    failures = OPENS_AFTER + breaker.trials
    return Breaker(failures=failures, down_until=_next_wait(failures, now), cause=cause, trials=breaker.trials)


def not_placed_delay(times_before: int, cause: str | None = None) -> timedelta:
    """Compute how long an attempt waits that the carrier did not accept, by the number of times before in a row."""
    waits = _BLOCKED_WAITS if cause == NUMBER_BLOCKED else BACK_OFF
    return waits[min(times_before, len(waits) - 1)]


def _next_wait(failures: int, now: datetime) -> datetime:
    return now + not_placed_delay(failures - OPENS_AFTER)
