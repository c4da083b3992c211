"""Conversations: which reports of their outcomes are accepted, and what follows from an outcome."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeGuard
from uuid import UUID

from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    ConversationOutcome,
    Ended,
    Event,
    ProofMissing,
    Proven,
    Reason,
    VerdictAwaited,
    VerdictHeard,
)
from scheduler.domain.call import CallNews, CallProgress, Schedule, ScheduleWarning, TimezoneSource
from scheduler.domain.command import ReportOutcome, Request
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.refusals import (
    CallNotAnswered,
    OffsetMustMatchNumber,
    OutcomeReported,
    Refused,
    TimezoneUnknown,
    TooManyCallBacks,
)
from scheduler.lifecycle import scheduling, verdicts
from scheduler.lifecycle.policy import CALL_BACK_GAP, MAX_AHEAD, POLLS, REPORT_FIRST, SLACK, Policy, latest_written
from scheduler.lifecycle.scheduling import Callee
from scheduler.lifecycle.state_machine import MAY_HAVE_BEEN_ANSWERED, REFUSALS, has_live_leg, is_awaited
from scheduler.timing import requested_time

MOST_CALL_BACKS = 3
"""Calls of a chain that follow from a time that the person named."""


# --- Reports


def refuses_number(request: Request) -> TypeGuard[ReportOutcome]:
    """Return whether a request reports that a number is not to be called again.

    It is noted also for a deleted interview or attempt, because the person may be called by another interview.
    """
    return isinstance(request, ReportOutcome) and request.outcome in REFUSALS  # guard: refusal_of_deleted


def on_clock_of_chain(attempt: Attempt, call_back_at: str | None) -> str | None:
    """Name the zone that a client has named for the chain, if a reported time names no clock.

    It is the clock that the voice server sees. An offset is not added: it is that of one day.
    """
    clock = attempt.schedule.clock
    if call_back_at is None or clock.source is not TimezoneSource.ZONE:
        return call_back_at
    try:
        named = requested_time.read(call_back_at)
    except Refused:
        return call_back_at  # it is refused when it is resolved
    if named.zone is not None or named.offset is not None or named.is_instant:
        return call_back_at
    wall, bracket, tags = call_back_at.partition("[")
    return f"{wall}[{clock.zones[0]}]{bracket}{tags}"


def is_new_report(
    attempt: Attempt, outcome: ConversationOutcome, call_back_at: str | None = None, note: str | None = None
) -> bool:
    """Return False if the same was reported before, with the same note.

    A call whose wait for a report is over, or that needed none, is finished. Raises OutcomeReported with the first
    outcome; CallNotAnswered; TooManyCallBacks. A refusal of the number is always new: a person who asks for no further
    calls is not called again, whatever was reported or known before.
    """
    first = _first_report(attempt)
    if first == (outcome, call_back_at) and attempt.outcome_note == note:
        return False
    if _is_refusal(attempt, outcome):  # guard: lasting_refusal
        return True
    if first is not None:
        raise OutcomeReported(outcome=first[0].value, callBackAt=first[1])
    if not is_awaited(attempt) and not _is_conversation(attempt):  # guard: report_before_answer
        raise CallNotAnswered(status=attempt.state.value, reasonCode=attempt.reason and attempt.reason.value)
    if outcome is ConversationOutcome.CALL_BACK and attempt.call_backs >= MOST_CALL_BACKS:  # guard: call_backs
        raise TooManyCallBacks(limit=MOST_CALL_BACKS)
    return True


def may_wait(received_at: datetime, now: datetime) -> bool:
    """Return whether a report waits for news of its call, as long at most as the end waits for a report.

    One that was received later than now was accepted by a wrong clock, and does not wait.
    """
    return now - REPORT_FIRST < received_at <= latest_written(now)


def may_be_unheard(attempt: Attempt, outcome: ConversationOutcome) -> bool:
    """Return whether a person may have refused the number in this call, though the carrier has reported no answer.

    Its callbacks may be late or lost. A person who asked for no further calls would then be called again.
    """
    return outcome in REFUSALS and attempt.state is AttemptState.IN_PROGRESS  # guard: unheard_answer


def _is_refusal(attempt: Attempt, outcome: ConversationOutcome) -> bool:
    """Return whether this is a refusal of the number by a call that was answered, or may have been.

    WRONG_PERSON does not replace OPTED_OUT, which blocks more. The same refusal with another note replaces nothing.
    """
    if outcome not in REFUSALS:
        return False
    if attempt.outcome in {outcome, ConversationOutcome.OPTED_OUT}:  # guard: stronger_refusal
        return False
    if attempt.state is AttemptState.IN_PROGRESS:
        return _was_answered(attempt)
    return attempt.reason is Reason.ANSWERED or attempt.reason in MAY_HAVE_BEEN_ANSWERED


def is_refused(chain: Iterable[Attempt], number_hash: bytes) -> bool:
    """Return whether a conversation of the chain has reported that this number is not to be called again."""
    return any(
        each.outcome is ConversationOutcome.OPTED_OUT
        or (each.outcome is ConversationOutcome.WRONG_PERSON and each.number_hash == number_hash)
        for each in chain
    )


@dataclass(frozen=True, kw_only=True)
class NumberRefusal:
    """A reported refusal of a number, by any call of an interview."""

    interview_id: UUID
    outcome: ConversationOutcome
    outcome_at: datetime
    number_hash: bytes | None = field(repr=False)


def may_be_refused_meanwhile(attempt: Attempt) -> bool:
    """Return whether an earlier call of the interview may refuse the attempt after it was planned."""
    return attempt.retry_number > 0 or attempt.manual


def has_opted_out_since(refusals: Iterable[NumberRefusal], began_at: datetime) -> bool:
    """Return whether an opt-out was reported since then, as far as the clocks of two workers can tell."""
    began_at -= SLACK  # guard: refusal_clock
    return any(each.outcome is ConversationOutcome.OPTED_OUT and each.outcome_at >= began_at for each in refusals)


def is_refused_meanwhile(refusals: Collection[NumberRefusal], chain: Iterable[Attempt], number_hash: bytes) -> bool:
    """Return whether this number was refused by any call, or any number by an opt-out since the chain began.

    A client that invoked the chain after the opt-out has decided to call another number.
    """
    return (
        any(each.number_hash == number_hash for each in refusals)
        or has_opted_out_since(refusals, min(each.created_at for each in chain))  # guard: refused_meanwhile
    )


def ends_unreported(attempt: Attempt, happened: Sequence[Event]) -> bool:
    """Return whether these events end a call that was answered and whose conversation has not reported an outcome."""
    ends = any(isinstance(each, Ended | Proven | ProofMissing) for each in happened)
    return ends and attempt.outcome is None and _is_conversation(attempt)


@dataclass(frozen=True, kw_only=True)
class ProofWait:
    """Late proof that a call was answered is written later: its conversation may still report an outcome."""

    look_at: datetime
    """The poll that ends the wait, at the latest."""
    events: tuple[Event, ...]
    """What is known of the end now. None if its wait has begun."""


def wait_for_report(attempt: Attempt, happened: Sequence[Event], now: datetime, policy: Policy) -> ProofWait | None:
    """Let late proof of an answered call wait for the report of its conversation. None: it does not wait.

    The call was found live, so its end is known, and its conversation may report as long after it as any other one. A
    wait that begins later than now was written by a wrong clock, and is over.
    """
    proof = happened[-1] if happened else None
    if not isinstance(proof, Proven) or proof.reason is not Reason.ANSWERED or attempt.outcome is not None:
        return None
    since = attempt.hung_up_at or now
    if not has_live_leg(attempt) or attempt.hang_up is not None or since > latest_written(now):
        return None
    if now - since >= policy.outcome_wait:  # guard: late_wait_over
        return None
    look_at = min(since + policy.outcome_wait, now + POLLS[-1])
    if attempt.hung_up_at is not None:
        return ProofWait(look_at=look_at, events=())
    awaited = VerdictAwaited(call_sid=proof.call_sid, look_at=look_at, duration=proof.duration)
    if proof.answered_by in {None, attempt.answered_by}:
        return ProofWait(look_at=look_at, events=(awaited,))
    return ProofWait(look_at=look_at, events=(VerdictHeard(answered_by=proof.answered_by), awaited))


def known_end(attempt: Attempt) -> CallNews | None:
    """Repeat the news of the end of a call that was found late, once its outcome is reported. None: it is not known."""
    if not has_live_leg(attempt) or attempt.hung_up_at is None:
        return None
    return replace(verdicts.heard_end(attempt), token=attempt.token)


def _is_conversation(attempt: Attempt) -> bool:
    is_live = attempt.state is AttemptState.IN_PROGRESS or has_live_leg(attempt)
    return is_live and _was_answered(attempt)


def _was_answered(attempt: Attempt) -> bool:
    """Return whether a live call was answered. Its end may be known, and wait for the verdict of a machine."""
    return attempt.heard_rank is CallProgress.ANSWERED or attempt.hung_up_at is not None


def _first_report(attempt: Attempt) -> tuple[ConversationOutcome, str | None] | None:
    if attempt.outcome is not None:
        return attempt.outcome, None if attempt.call_back is None else attempt.call_back.requested
    if attempt.reason is Reason.ANSWERED and not is_awaited(attempt):
        return ConversationOutcome.FINISHED, None
    return None


# --- After the end of a call with a report


_RETRIED_LIKE = {
    ConversationOutcome.SCREENED: Reason.VOICEMAIL,
    ConversationOutcome.HUNG_UP_EARLY: Reason.NO_ANSWER,
    ConversationOutcome.TECHNICAL: Reason.CARRIER_ERROR,
}
"""Outcomes that are retried, each with the delays of `retryPolicy` for a similar reason."""


def cause_of_retry(ended: Attempt) -> Reason | None:
    """Find the reason by which `retryPolicy` plans the retry of an attempt. None if it has no retry.

    That is an answered call without a reason for one, and any call after which the number is not called again.
    """
    if ended.outcome in REFUSALS:  # guard: refused_retry
        return None
    if ended.reason is Reason.ANSWERED:
        return None if ended.outcome is None else _RETRIED_LIKE.get(ended.outcome)
    return ended.reason


def retries_before(ended: Attempt) -> int:
    """Count the retries of the chain that were used up. A call at a time that the person named uses up none."""
    return ended.retry_number - ended.call_backs


def status_of_answered(attempt: Attempt) -> InterviewStatus:
    """Decide the status of the interview after an answered call, if no other attempt follows."""
    match attempt.outcome:
        case None | ConversationOutcome.FINISHED:
            return InterviewStatus.COMPLETED
        case ConversationOutcome.OPTED_OUT:
            return InterviewStatus.CANCELLED
        case _:
            return InterviewStatus.FAILED


def is_unfinished(ended: Attempt) -> bool:
    """Return whether a call that has ended leaves its interview open to another one."""
    if ended.reason is Reason.ANSWERED:
        return status_of_answered(ended) is InterviewStatus.FAILED
    return ended.state is AttemptState.FAILED


def calls_back(ended: Attempt) -> bool:
    """Return whether the person has named a time for the next call."""
    return ended.reason is Reason.ANSWERED and ended.outcome is ConversationOutcome.CALL_BACK


def is_proven_in_time(ended: Attempt, callee: Callee, now: datetime) -> bool:
    """Return whether late proof comes by the time that the person named. Later, they expect no call any longer."""
    if ended.call_back is None:
        return False
    try:
        return now <= _on_present_clock(ended.call_back, ended, callee).earliest_at
    except TimezoneUnknown:
        return False


def next_call_back(
    ended: Attempt, callee: Callee, expires_at: datetime, now: datetime, policy: Policy
) -> tuple[Schedule, tuple[ScheduleWarning, ...]] | None:
    """Plan the call at the time that the person named, by the present rules. None: it is not possible any longer.

    The time was possible when it was reported. The call may have lasted beyond it, and settings may have changed.
    """
    asked = ended.call_back
    if asked is None or callee.number is None:
        return None
    try:
        asked = _on_present_clock(asked, ended, callee)
        clock, start = asked.clock, max(asked.earliest_at, now)
        following = replace(ended, schedule=asked)
        following = replace(following, call_backs=ended.call_backs + 1)  # guard: own_clock_when_called_back
        clocks = scheduling.deciding_clocks(following, callee, start)
        due_at = scheduling.next_opening(clocks, callee.settings, start, policy)
        if due_at is None or due_at + policy.room >= expires_at:
            return None
        clocks = scheduling.deciding_clocks(following, callee, due_at)
        if scheduling.consent_is_over_on_any(clocks, callee.consent_until, due_at):
            return None
        warnings = scheduling.offset_warnings(clock, callee, due_at)
    except (TimezoneUnknown, OffsetMustMatchNumber):
        return None
    schedule = scheduling.schedule_on(
        clock, callee, requested=asked.requested, due_at=due_at, earliest_at=asked.earliest_at
    )
    return schedule, warnings


def _on_present_clock(asked: Schedule, ended: Attempt, callee: Callee) -> Schedule:
    """Resolve a named time again on the callee's present clock, as a pending attempt is. Raises TimezoneUnknown."""
    following = replace(ended, schedule=asked)
    clock = scheduling.present_clock(following, callee)
    asked = replace(asked, clock=clock)
    asked = replace(asked, earliest_at=scheduling.present_earliest(following, clock))  # guard: named_clock
    return asked  # noqa: RET504 - the guard can be removed


_A_DAY = timedelta(days=1)


def last_possible(
    text: str, callee: Callee, expires_at: datetime | None, now: datetime, policy: Policy
) -> dict[str, str | None]:
    """Find a time instead of one that is too late: within the last day on which the person may be called back.

    It is earlier than the time that the person named. Null: no call back is possible any longer.
    """
    first, latest = now + CALL_BACK_GAP, now + MAX_AHEAD
    start = latest if expires_at is None else min(latest, expires_at)
    while start > first:
        start = max(start - _A_DAY, first)
        found = scheduling.next_for_call_back(text, callee, start, policy)
        if _is_possible(found["nextAllowedScheduledAt"], callee, expires_at, now, policy):
            return found
    return {"nextAllowedAt": None, "nextAllowedScheduledAt": None}


def _is_possible(text: str | None, callee: Callee, expires_at: datetime | None, now: datetime, policy: Policy) -> bool:
    if text is None:
        return False
    try:
        schedule, _ = scheduling.on_request(text, callee, now, policy, is_call_back=True)
        if expires_at is not None:
            scheduling.must_open_before(expires_at, schedule.due_at, policy)
    except Refused:
        return False
    return True
