"""After the end of an attempt: whether a retry follows and when, the status of its interview, operators' decisions.

Four texts tell when a retry follows, and no test compares them: F4-7 in `docs/reference/rules.md`, the pages States and
reasons, and Limits next to it, and `_RETRIES` in `api_shim/schemas/company.py`.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from types import MappingProxyType

from scheduler.domain.attempt import Attempt, AttemptState, Decided, Decision, Reason
from scheduler.domain.call import CalleeClock, Schedule
from scheduler.domain.command import DecideOutcome
from scheduler.domain.company import Delay, NextDay
from scheduler.domain.explanation import HistoryEntry
from scheduler.domain.interview import Interview, InterviewStatus
from scheduler.domain.refusals import (
    CallAttemptInProgress,
    NewerCallAttempt,
    OutcomeDecided,
    OutcomeNotUnknown,
    OutcomeReported,
    TimezoneUnknown,
)
from scheduler.lifecycle.conversations import cause_of_retry, retries_before, status_of_answered
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.scheduling import (
    Callee,
    consent_is_over_on_any,
    deciding_clocks,
    next_opening,
    present_clock,
    schedule_on,
)
from scheduler.lifecycle.state_machine import has_live_leg
from scheduler.timing import call_windows

RETRIED = frozenset({Reason.BUSY, Reason.NO_ANSWER, Reason.VOICEMAIL, Reason.CARRIER_ERROR, Reason.INSTRUCTIONS_FAILED})
"""Retried by the company's `retryPolicy`. UNREACHABLE is retried once: see `is_second_unreachable`. Never retried are a
person's decision, a non-existent number, a network that blocks the caller id, and an unknown outcome."""

FIXED_DELAYS: Mapping[Reason, timedelta] = MappingProxyType({Reason.INSTRUCTIONS_FAILED: timedelta(minutes=15)})
"""Delays that no company sets. They are not stored with a company, because release 0.2.0 cannot read them."""

PARTS_OF_THE_DAY = ((time(8), time(12)), (time(12), time(16)), (time(16), time(20)))
"""Half-open, on the callee's clock."""

_A_DAY = timedelta(days=1)


def next_attempt(
    ended: Attempt, chain: Collection[Attempt], callee: Callee, expires_at: datetime, policy: Policy
) -> Schedule | None:
    """Plan the retry after `ended`. None: no retry follows.

    The schedule's `earliest_at` obeys each rule, too, because changed calling hours compute from it again.

    `chain` are all attempts of its chain, including `ended`. No retry follows if its opening would be after
    `expires_at` or after the callee's consent.
    """
    delay = _delay(ended, chain, callee)
    if delay is None or callee.number is None:
        return None
    assert ended.ended_at is not None
    try:
        following = _as_retry(ended, callee)
        if isinstance(delay, NextDay):
            times = _next_open_day(following, chain, callee, ended.ended_at, policy)
        else:
            times = _from(following, callee, ended.ended_at + delay, policy)
        if times is None:
            return None
        earliest_at, due_at = times
        clocks = deciding_clocks(following, callee, due_at)
        over = consent_is_over_on_any(clocks, callee.consent_until, due_at)
    except TimezoneUnknown:
        return None
    if over or due_at + policy.room >= expires_at:
        return None
    return schedule_on(following.schedule.clock, callee, requested=None, due_at=due_at, earliest_at=earliest_at)


def _delay(ended: Attempt, chain: Collection[Attempt], callee: Callee) -> Delay | None:
    retry_policy, cause = callee.settings.retry_policy, cause_of_retry(ended)
    if cause is None or not is_retried(cause) or retries_before(ended) >= retry_policy.max_retries:
        return None
    if cause in FIXED_DELAYS:
        return FIXED_DELAYS[cause]
    if cause is Reason.UNREACHABLE:
        return None if is_second_unreachable(ended, chain) else NextDay.NEXT_DAY
    delays = retry_policy.delays.get(cause.value, ())
    if not delays:
        return None
    earlier_failures = sum(cause_of_retry(each) is cause for each in chain if each.id != ended.id)
    return delays[min(earlier_failures, len(delays) - 1)]


def is_retried(reason: Reason | None) -> bool:
    """Return whether an automatic retry may follow this reason."""
    return reason in RETRIED or reason is Reason.UNREACHABLE


def is_second_unreachable(ended: Attempt, chain: Collection[Attempt]) -> bool:
    """Return whether an earlier attempt of the chain was unreachable too, so that the number is taken as invalid."""
    return any(each.reason is Reason.UNREACHABLE and each.id != ended.id for each in chain)


def _as_retry(ended: Attempt, callee: Callee) -> Attempt:
    """Treat the attempt as its own retry, on the current clock: number or zone may have changed in the call."""
    schedule = replace(ended.schedule, requested=None, clock=present_clock(ended, callee))
    return replace(ended, retry_number=ended.retry_number + 1, schedule=schedule)


def _from(
    following: Attempt, callee: Callee, earliest_at: datetime, policy: Policy
) -> tuple[datetime, datetime] | None:
    """Find the earliest instant, and the first opening from then on."""
    due_at = next_opening(deciding_clocks(following, callee, earliest_at), callee.settings, earliest_at, policy)
    return None if due_at is None else (earliest_at, due_at)


def _next_open_day(
    following: Attempt, chain: Collection[Attempt], callee: Callee, ended_at: datetime, policy: Policy
) -> tuple[datetime, datetime] | None:
    """Find times on the next day with an opening, in the open part of that day with the fewest tries (`NEXT_DAY`)."""
    clock = _one_clock(following.schedule.clock)
    tomorrow = call_windows.local_times(clock, ended_at)[0].date() + _A_DAY
    first = _from(following, callee, call_windows.instant_of(clock, datetime.combine(tomorrow, time.min)), policy)
    if first is None:
        return None
    day = call_windows.local_times(clock, first[1])[0].date()
    tried = Counter(_part(clock, each.claimed_at) for each in chain if each.claimed_at is not None)
    for begins, ends in sorted(PARTS_OF_THE_DAY, key=lambda part: tried[part]):
        opens = call_windows.instant_of(clock, datetime.combine(day, begins))
        times = _from(following, callee, opens, policy)
        if times is not None and times[1] < call_windows.instant_of(clock, datetime.combine(day, ends)):
            return times
    return first


def _part(clock: CalleeClock, instant: datetime) -> tuple[time, time] | None:
    local = call_windows.local_times(clock, instant)[0].time()
    return next(((begins, ends) for begins, ends in PARTS_OF_THE_DAY if begins <= local < ends), None)


def _one_clock(clock: CalleeClock) -> CalleeClock:
    """Choose the first of several zones, which determines the part of the day. Openings depend on all zones."""
    return clock if clock.offset is not None else replace(clock, zones=clock.zones[:1])


# --- The status of an interview after an event of its attempt, and the limit of its attempts


_AFTER = {
    AttemptState.COMPLETED: InterviewStatus.COMPLETED,
    AttemptState.FAILED: InterviewStatus.FAILED,
}
MOST_ATTEMPTS = 200
"""The attempts that an interview may have, with automatic retries and deleted attempts."""


def takes_another_attempt(attempts: int) -> bool:
    """Return whether an interview with this many attempts may get another one, from a client or as a retry."""
    return attempts < MOST_ATTEMPTS


def status_after(status: InterviewStatus, attempt: Attempt, *, goes_on: bool) -> InterviewStatus:
    """Decide the stored status after `attempt` has changed. `goes_on`: another attempt is pending (a retry or invoke).

    A cancelled interview stays cancelled when its last call ends. Late proof of an earlier attempt's failure does not
    change a completed interview. A failed one goes on if its last call is proven late and the person named a time.
    """
    if status is InterviewStatus.CANCELLED:
        return status
    after = status_of_answered(attempt) if attempt.reason is Reason.ANSWERED else _AFTER.get(attempt.state, status)
    if status is InterviewStatus.COMPLETED:
        return status
    return InterviewStatus.SCHEDULED if goes_on and after is not InterviewStatus.COMPLETED else after


def may_go_on(interview: Interview) -> bool:
    """Return whether an automatic retry is allowed."""
    return interview.status is InterviewStatus.SCHEDULED and interview.deleted_at is None


def may_call_back(interview: Interview) -> bool:
    """Return whether the person may be called at the time that they named.

    The interview failed if the end of their call was lost. It goes on when that call is proven, unless it was deleted.
    """
    is_open = interview.status in {InterviewStatus.SCHEDULED, InterviewStatus.FAILED}
    return is_open and interview.deleted_at is None


def with_status(interview: Interview, status: InterviewStatus, now: datetime) -> Interview:
    """Give the interview this status, and an end unless the status is SCHEDULED."""
    over = status is not InterviewStatus.SCHEDULED
    return replace(interview, status=status, finished_at=(interview.finished_at or now) if over else None)


# --- Operators' decisions about unknown outcomes: which are allowed, and which event follows


def on_decision(attempt: Attempt, newer: Sequence[Attempt], request: DecideOutcome) -> Decided | None:
    """Choose the event of a decision. None: the same decision was made before.

    `newer` are the later attempts of the interview. Raises OutcomeNotUnknown, OutcomeDecided; CallAttemptInProgress if
    the carrier shows a live call, whose end will decide; for a call again OutcomeReported if its conversation has
    reported, and NewerCallAttempt after a newer attempt.
    """
    if attempt.decision is request.decision:
        return None
    must_be_undecided(attempt)
    if request.decision is Decision.DID_NOT_RING:
        if attempt.outcome is not None:  # guard: repeated_conversation
            raise OutcomeReported(
                "A conversation of this call has reported an outcome, so the phone rang: see details.outcome. Decide"
                " that it rang, or leave it.",
                outcome=attempt.outcome.value,
            )
        # An invoke would replace a pending attempt, or call a person who was called in the meantime.
        for each in newer:
            if may_replace(each):
                raise NewerCallAttempt(attemptId=str(each.id))
    return Decided(decision=request.decision, reason=request.reason)


def must_be_undecided(attempt: Attempt) -> None:
    """Raise OutcomeNotUnknown, OutcomeDecided or CallAttemptInProgress unless an operator may decide about it."""
    if attempt.reason is not Reason.OUTCOME_UNKNOWN:
        raise OutcomeNotUnknown(status=attempt.state.value, reasonCode=attempt.reason and attempt.reason.value)
    if attempt.decision is not None:
        raise OutcomeDecided(decision=attempt.decision.value)
    if has_live_leg(attempt):
        raise CallAttemptInProgress(attemptId=str(attempt.id))


def newer_than(attempt: Attempt, of_interview: Sequence[Attempt]) -> Sequence[Attempt]:
    """List the later attempts of the interview."""
    return [each for each in of_interview if each.id != attempt.id and each.created_at >= attempt.created_at]


def may_replace(newer: Attempt) -> bool:
    """Return True if a newer attempt rules out another call. A cancelled attempt called no person."""
    return newer.state is not AttemptState.CANCELLED


def rules_out_call_back(newer: Attempt) -> bool:
    """Return True if no call at an earlier named time follows: a newer attempt called, or a person cancelled it."""
    if newer.reason is Reason.CANCELLED_BY_USER:  # guard: cancelled_call
        return True
    return may_replace(newer)


def was_left(history: Iterable[HistoryEntry]) -> bool:
    """Return True if an operator has decided that no call follows, also if a call was found after the decision."""
    return any(
        each.detail.get("decision") != Decision.DID_NOT_RING.value for each in history if each.event == Decided.name
    )
