"""Decisions about attempts: pure functions from a situation and `now` to events."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from scheduler.domain import attempt as events
from scheduler.domain import command as commands
from scheduler.domain.attempt import Attempt, AttemptState, Event, HangUpCause, Phase, Reason
from scheduler.domain.call import (
    Accepted,
    AnswerUnknown,
    CalleeClock,
    CallNews,
    CallProgress,
    CallStatus,
    CarrierAnswer,
    NeverTaken,
    NumberRefused,
    Withheld,
)
from scheduler.domain.explanation import Block, Rule
from scheduler.domain.refusals import CallAttemptInProgress, TimezoneUnknown
from scheduler.lifecycle import look_records, scheduling, verdicts
from scheduler.lifecycle.blocks import Situation, blocks
from scheduler.lifecycle.breaker import BACK_OFF, not_placed_delay
from scheduler.lifecycle.call_reasons import may_lack_instructions, may_name_a_cause, names_no_cause, reason_of
from scheduler.lifecycle.policy import DEFERRED_DELAY, MAX_CLOCK_SKEW, POLL_AFTER_RING, VERDICT_WAIT, Policy
from scheduler.lifecycle.state_machine import is_busy, is_over

_NO_OPENING_DELAY = timedelta(days=1)
_LONGEST_RECHECK = timedelta(minutes=10)


# ---- submit: an impossible command is refused immediately


def on_acceptance(request: commands.Request, busy: Attempt | None) -> None:
    """Raise CallAttemptInProgress if a call in progress forbids the request.

    `busy` is the interview's attempt that has such a call. The check precedes acceptance: after a 202 the client knows
    that no call was in progress, and none begins before the command is applied.
    """
    if busy is None:
        return
    match request:
        case commands.RescheduleAttempt() | commands.DeleteAttempt():
            # An attempt that was given up and then found live has ended: it may be deleted, but not moved.
            forbidden = request.attempt_id == busy.id and busy.state is AttemptState.IN_PROGRESS
        case commands.InvokeAttempt():
            forbidden = True
        case commands.UpdateInterview():
            forbidden = request.scheduled_at is not None or request.expires_at is not None
        case _:
            forbidden = False
    if forbidden:
        raise CallAttemptInProgress(attemptId=str(busy.id))


# ---- dial: the last look, and the answer to the POST


@dataclass(frozen=True, kw_only=True)
class GoAhead:
    """The POST may be sent now."""

    leave_by: datetime
    """The last instant for sending. Later the phone may not ring long enough, or not at all."""
    look: Mapping[str, Any] = field(repr=False)
    """The record of this look, for the evidence of the call."""


class NotMine:
    """The attempt is no longer the caller's, who must write nothing and send nothing."""


def on_last_look(
    situation: Situation, epoch: int, now: datetime, policy: Policy
) -> GoAhead | NotMine | tuple[Event, ...]:
    """Decide whether the phone may ring now. Every check of the claim is repeated, above all the window.

    Returned events put the attempt back, or end it.
    """
    attempt = situation.attempt
    if (
        attempt.state is not AttemptState.IN_PROGRESS
        or attempt.epoch != epoch  # guard: look_epoch
        or attempt.lease_until is None
        # An attempt with a lapsed lease is settled, never sent.
        or attempt.lease_until <= now  # guard: look_lease
    ):
        return NotMine()
    soon = now + DEFERRED_DELAY
    if abs(situation.database_skew) > MAX_CLOCK_SKEW:  # guard: look_clock
        return (events.Deferred(due_at=soon, cause="CLOCK_SKEW"),)
    blocking = blocks(situation, now, policy)
    if not blocking:
        clocks = scheduling.deciding_clocks(attempt, situation.callee, now)
        leave_by = _leave_by(situation, clocks, attempt.lease_until, now, policy)
        return GoAhead(leave_by=leave_by, look=look_records.record_of(clocks, situation.callee, now, leave_by, policy))
    return _put_back(situation, blocking[0], now, soon)


def _leave_by(
    situation: Situation, clocks: Sequence[CalleeClock], lease_until: datetime, now: datetime, policy: Policy
) -> datetime:
    """Compute the earliest end of lease, interview and consent, and of the last start before closing.

    Only for an attempt without blocks at `now`. The end of consent is exact within the validity of a last look.
    """
    attempt, callee = situation.attempt, situation.callee
    ends = [lease_until, attempt.expires_at, scheduling.last_start(clocks, callee.settings, now, policy)]
    # A day ends at a whole second on every clock.
    seconds = [now.replace(microsecond=0) + timedelta(seconds=ahead) for ahead in (1, 2)]
    ends += [second for second in seconds if scheduling.consent_is_over_on_any(clocks, callee.consent_until, second)]
    return min(ends)


def _put_back(situation: Situation, block: Block, now: datetime, soon: datetime) -> tuple[Event, ...]:
    cause = block.rule.value
    match block.rule:
        case Rule.EXPIRED:
            return (events.Deferred(due_at=soon, cause=cause), events.Expired())
        case Rule.CONSENT_EXPIRED:
            return (events.Deferred(due_at=soon, cause=cause), events.ConsentEnded())
        case Rule.NOT_DUE | Rule.WINDOW_CLOSED if block.until is not None:
            # A requested time is kept exactly. An opening is at least `soon`, so that rounding cannot make it now.
            return (
                events.Deferred(
                    due_at=block.until if block.rule is Rule.NOT_DUE else max(block.until, soon), cause=cause
                ),
            )
        case (
            Rule.CARRIER_DOWN
            | Rule.VOICE_SERVER_DOWN
            | Rule.CARRIER_REFUSES_COUNTRY
            | Rule.CARRIER_REFUSES_CALLER
            | Rule.CARRIER_FAILS_CALLER
        ) if block.until is not None:
            # The wait for the carrier has this maximum: a later end was written by a wrong clock.
            return (events.Deferred(due_at=min(max(block.until, soon), now + BACK_OFF[-1]), cause=cause),)
        case (
            Rule.WINDOW_CLOSED
            | Rule.TIMEZONE_UNKNOWN
            | Rule.NUMBER_MISSING
            | Rule.NUMBER_NOT_ALLOWED
            | Rule.WRONG_NUMBER
            | Rule.OPTED_OUT
        ):
            return (events.Deferred(due_at=now + _NO_OPENING_DELAY, cause=cause),)  # held, never placed
        case Rule.COMMAND_WAITING if situation.refusal_waiting_since is not None:
            # The claim does not test it. As long again as it has waited: in quarantine it may wait for days.
            waited = min(now - situation.refusal_waiting_since, _LONGEST_RECHECK)  # guard: refusal_recheck
            return (events.Deferred(due_at=max(soon, now + waited), cause=cause),)
        case _:
            return (events.Deferred(due_at=soon, cause=cause),)


def on_answer(
    attempt: Attempt, answer: CarrierAnswer, callee: scheduling.Callee | None, now: datetime, policy: Policy
) -> tuple[Event, ...]:
    """Decide the events that follow from the answer to the POST.

    `callee` decides whether a call in the carrier's queue would ring too late. None: unknown, so it stays queued.
    """
    match answer:
        case Accepted():
            look_at = now + answer.queue_time + policy.ring_timeout + POLL_AFTER_RING
            if answer.queue_time:
                look_at = poll_of_queued(attempt, callee, look_at, now, policy)
            placed = events.Placed(call_sid=answer.call_sid, look_at=look_at)
            if answer.queue_time and _may_not_ring(attempt, callee, now + answer.queue_time, policy):
                return (placed, events.HangUpWanted(cause=HangUpCause.QUEUED_PAST_CLOSING))
            return (placed,)
        case NeverTaken():
            delay = not_placed_delay(attempt.not_placed, answer.cause)
            return (events.NotPlaced(due_at=now + delay, cause=answer.cause),)
        case Withheld():
            return (events.Deferred(due_at=now + DEFERRED_DELAY, cause=answer.cause),)
        case NumberRefused():
            reason = Reason.UNREACHABLE if answer.may_be_outage else Reason.INVALID_NUMBER
            return (events.Ended(reason=reason, ended_at=now),)
        case AnswerUnknown():
            return (events.AnswerLost(look_at=now, cause=answer.cause),)
    raise TypeError(f"no rule for {type(answer).__name__}")


def _may_not_ring(attempt: Attempt, callee: scheduling.Callee | None, turn: datetime, policy: Policy) -> bool:
    """Return whether the call leaves the carrier's queue when this person may not be called, or not long enough."""
    if callee is None:
        return False
    try:
        # The call goes to the number it was placed to, so that number's clock counts too, even if it has changed since.
        clocks = (*scheduling.deciding_clocks(attempt, callee, turn), attempt.schedule.clock)
        opens = scheduling.next_opening(clocks, callee.settings, turn, policy)
    except TimezoneUnknown:
        return True
    return (
        opens != turn
        or attempt.expires_at <= turn
        or scheduling.consent_is_over_on_any(clocks, callee.consent_until, turn)
    )


def poll_of_queued(
    attempt: Attempt, callee: scheduling.Callee | None, look_at: datetime, now: datetime, policy: Policy
) -> datetime:
    """Decide when to poll a call in the carrier's queue: by `look_at`, and before it could ring after closing."""
    if callee is None or _may_not_ring(attempt, callee, now, policy):
        return look_at
    clocks = (*scheduling.deciding_clocks(attempt, callee, now), attempt.schedule.clock)
    ends = min(scheduling.last_start(clocks, callee.settings, now, policy), attempt.expires_at)
    return min(look_at, ends + timedelta.resolution)


# ---- hear: the carrier's news of a call


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """An event that must never happen. No call of that company is claimed until an operator has checked it."""

    cause: str
    stray_sid: str | None = None
    """An unanswered stray call, which is ended."""
    live_sids: tuple[str, ...] = ()
    """Answered stray calls. They are not interrupted, and their number is not called again until they have ended."""


class AskTheCarrier:
    """The news alone is no proof, so the carrier must be polled about this call immediately."""


def on_news(
    attempt: Attempt, news: CallNews, callee: scheduling.Callee | None, now: datetime, policy: Policy
) -> tuple[Event, ...] | Alarm | AskTheCarrier:
    """Decide the events that follow from the carrier's news, in their order. News may come repeatedly and in any order.

    Old or known news causes no event. `callee` gives the openings for a call that waits in the carrier's queue, or was
    removed from it. Other news needs none: see `CallNews.is_about_queue`.
    """
    if news.token is not None and news.token != attempt.token:
        return Alarm(cause="NEWS_FOR_AN_OLD_TOKEN", stray_sid=_unanswered(news), live_sids=live_sids(news))
    if attempt.call_sid is not None and attempt.call_sid != news.call_sid:
        stray = _stray_of_two(attempt, news)
        return Alarm(cause="TWO_CALLS_FOR_ONE_TOKEN", stray_sid=stray, live_sids=live_sids(news))
    if attempt.state is AttemptState.PENDING:
        cause = "NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED"
        return Alarm(cause=cause, stray_sid=_unanswered(news), live_sids=live_sids(news))
    if attempt.hung_up_at is not None and is_busy(attempt):
        return _on_news_of_an_ended_call(attempt, news, now, policy)
    if attempt.reason is Reason.OUTCOME_UNKNOWN:
        return _late_proof(attempt, news, now, policy)
    if attempt.state is not AttemptState.IN_PROGRESS:
        return ()
    if news.status is CallStatus.CANCELLED and attempt.hang_up is not None:
        return _on_our_cancel(attempt, news, callee, now, policy)
    return _on_news_of_a_call_in_progress(attempt, news, callee, now, policy)


def _on_news_of_a_call_in_progress(
    attempt: Attempt, news: CallNews, callee: scheduling.Callee | None, now: datetime, policy: Policy
) -> tuple[Event, ...] | AskTheCarrier:
    found: list[Event] = []
    known = _with_what_was_heard(attempt, news)
    if may_lack_instructions(known, policy):  # guard: short_call
        is_named = attempt.phase is Phase.PLACED
        return AskTheCarrier() if is_named else (events.Placed(call_sid=news.call_sid, look_at=now),)
    if attempt.sip_code is not None and news.token is not None:
        return ()  # its end was heard
    if attempt.phase is not Phase.PLACED:
        look_at = now + policy.ring_timeout + POLL_AFTER_RING
        if news.status is CallStatus.QUEUED:
            look_at = poll_of_queued(attempt, callee, look_at, now, policy)
        found.append(events.Placed(call_sid=news.call_sid, look_at=look_at))
    if may_name_a_cause(known, attempt.called_number, policy):  # guard: unread_cause
        return (*found, events.CauseAwaited(sip_code=news.sip_code or 0, look_at=now))
    if news.rank is CallProgress.OVER:
        if verdicts.awaits(attempt, known, now):
            found.append(verdicts.awaited(news, look_at=now + VERDICT_WAIT))
        else:
            found.append(
                events.Ended(
                    reason=reason_of(known, attempt.called_number, attempt.outcome),
                    ended_at=now,
                    answered_by=known.answered_by,
                    instructions_failed=_newly_failed(attempt, news),
                    duration=news.duration,
                    cause_is_known=not names_no_cause(known),
                )
            )
    else:
        found += _progress(attempt, news)
    if news.status is CallStatus.QUEUED and attempt.hang_up is None and _may_not_ring(attempt, callee, now, policy):
        found.append(events.HangUpWanted(cause=HangUpCause.QUEUED_PAST_CLOSING))
    return tuple(found)


def _progress(attempt: Attempt, news: CallNews) -> tuple[Event, ...]:
    failed = _newly_failed(attempt, news)
    if news.rank <= attempt.heard_rank and not failed:  # guard: rank
        return verdicts.heard(attempt, news)
    return (events.Progressed(rank=news.rank, answered_by=news.answered_by, instructions_failed=failed),)


def _newly_failed(attempt: Attempt, news: CallNews) -> bool | None:
    """Return True if this news is the first to report that the voice server gave no instructions, or None."""
    return True if news.instructions_failed and not attempt.instructions_failed else None


def _with_what_was_heard(attempt: Attempt, news: CallNews) -> CallNews:
    """Add to the news of an end the facts that earlier news of the same call reported."""
    if attempt.sip_code is None and attempt.answered_by is None and not attempt.instructions_failed:
        return news
    return replace(
        news,
        sip_code=attempt.sip_code if news.sip_code is None else news.sip_code,
        answered_by=news.answered_by or attempt.answered_by,
        instructions_failed=True if attempt.instructions_failed else news.instructions_failed,
    )


def _on_news_of_an_ended_call(
    attempt: Attempt, news: CallNews, now: datetime, policy: Policy
) -> tuple[Event, ...] | AskTheCarrier:
    """End a call that waits for its verdict, if the news contains the verdict, or if the wait is over.

    The news of its end was heard before: whatever the status of later news is, it cannot change the end. A short call
    whose end was proven late waits for a poll, which reads its notifications.
    """
    assert attempt.hung_up_at is not None
    known = _with_what_was_heard(attempt, verdicts.heard_end(attempt, news))
    is_polled = news.token is None
    if is_over(attempt) and not is_polled and may_lack_instructions(known, policy):  # guard: late_short_call
        return AskTheCarrier()
    if verdicts.awaits(attempt, known, now):
        return ()
    reason = reason_of(known, attempt.called_number, attempt.outcome)
    facts: dict[str, Any] = {
        "reason": reason,
        "ended_at": min(attempt.hung_up_at, now),
        "answered_by": known.answered_by,
        "instructions_failed": _newly_failed(attempt, known),
        "duration": attempt.duration or news.duration,
    }
    if attempt.state is AttemptState.IN_PROGRESS:
        return (events.Ended(**facts),)
    return (events.Proven(call_sid=known.call_sid, **facts),)


def _unanswered(news: CallNews) -> str | None:
    """Find the sid if the call can be ended without interrupting a person."""
    return news.call_sid if news.rank < CallProgress.ANSWERED else None


def live_sids(*news: CallNews) -> tuple[str, ...]:
    """List the sids of the answered calls that have not ended."""
    return tuple(each.call_sid for each in news if each.rank is CallProgress.ANSWERED)


def _stray_of_two(attempt: Attempt, news: CallNews) -> str | None:
    """Choose which of two calls for one claim is ended: the unanswered one, or the new one if both are unanswered."""
    if news.rank < CallProgress.ANSWERED:
        return news.call_sid
    is_own_unanswered = attempt.state is AttemptState.IN_PROGRESS and attempt.heard_rank < CallProgress.ANSWERED
    return attempt.call_sid if is_own_unanswered else None


def _on_our_cancel(
    attempt: Attempt, news: CallNews, callee: scheduling.Callee | None, now: datetime, policy: Policy
) -> tuple[Event, ...] | AskTheCarrier:
    """Decide on a call that we removed from the carrier's queue. It uses up no retry only if it was never dialled."""
    if attempt.hang_up is HangUpCause.COMPANY_DELETED:
        return (events.Cancelled(reason=Reason.COMPANY_DELETED),)
    if attempt.heard_rank >= CallProgress.DIALLED or news.started is True:
        return (events.Ended(reason=Reason.CANCELLED_AT_CARRIER, ended_at=now),)
    if news.started is None:
        return AskTheCarrier()
    due_at = now + _NO_OPENING_DELAY
    if callee is not None:
        # Not in the rest of this opening: the queue is still as long.
        with contextlib.suppress(TimezoneUnknown):
            due_at = scheduling.opening_after_this_one(attempt, callee, now, policy) or due_at
            clocks = scheduling.deciding_clocks(attempt, callee, due_at)
            if scheduling.consent_is_over_on_any(clocks, callee.consent_until, due_at):
                return (events.NeverDialled(due_at=due_at, call_sid=news.call_sid), events.ConsentEnded())
    return (events.NeverDialled(due_at=due_at, call_sid=news.call_sid),)


def is_old_news(closed_sid: str | None, news: CallNews) -> bool:
    """Return whether the news is about the call `closed_sid`, which was proven never to have been dialled."""
    if closed_sid != news.call_sid:
        return False
    return news.status is CallStatus.CANCELLED or news.rank < CallProgress.DIALLED


def _late_proof(attempt: Attempt, news: CallNews, now: datetime, policy: Policy) -> tuple[Event, ...] | AskTheCarrier:
    known = _with_what_was_heard(attempt, news)
    if may_lack_instructions(known, policy):
        if attempt.look_at is not None:
            return AskTheCarrier()
        return (verdicts.awaited(news, look_at=now),)  # it has ended: see `_on_news_of_an_ended_call`
    if news.rank is not CallProgress.OVER:
        failed = _newly_failed(attempt, news)
        if attempt.call_sid is not None and news.rank <= attempt.heard_rank and not failed:
            return verdicts.heard(attempt, news)
        return (
            events.LegSeen(
                call_sid=news.call_sid,
                rank=news.rank,
                look_at=now + policy.ring_timeout + POLL_AFTER_RING,
                answered_by=news.answered_by,
                instructions_failed=failed,
            ),
        )
    if verdicts.awaits(attempt, known, now):
        return (verdicts.awaited(news, look_at=now + VERDICT_WAIT),)
    return (
        events.Proven(
            reason=reason_of(known, attempt.called_number, attempt.outcome),
            call_sid=news.call_sid,
            ended_at=now,
            answered_by=known.answered_by,
            instructions_failed=_newly_failed(attempt, news),
            duration=news.duration,
        ),
    )
