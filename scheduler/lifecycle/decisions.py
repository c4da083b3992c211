"""What follows from what is: pure functions from a state of affairs and `now` to an event, or to nothing."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from scheduler.domain.attempt import (
    AnswerLost,
    Attempt,
    AttemptState,
    Cancelled,
    ConsentEnded,
    Deferred,
    Ended,
    Event,
    Expired,
    HangUpCause,
    HangUpWanted,
    LegSeen,
    NeverDialled,
    NotPlaced,
    Phase,
    Placed,
    Progressed,
    ProofMissing,
    Proven,
    Reason,
)
from scheduler.domain.call import (
    Accepted,
    AnsweredBy,
    AnswerUnknown,
    CallNews,
    CallProgress,
    CallStatus,
    CarrierAnswer,
    FailureCause,
    ListedCall,
    NeverTaken,
    NumberRefused,
    Withheld,
)
from scheduler.domain.command import DeleteAttempt, InvokeAttempt, Request, RescheduleAttempt, UpdateInterview
from scheduler.domain.explanation import Block, Rule
from scheduler.domain.refusals import CallAttemptInProgress, TimezoneUnknown
from scheduler.lifecycle import policy as times
from scheduler.lifecycle.blocks import Situation, blocks
from scheduler.lifecycle.breaker import BACK_OFF, not_placed_delay
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.scheduling import (
    Callee,
    consent_is_over_on_any,
    deciding_clocks,
    last_start,
    next_opening,
    opening_after_this_one,
)

_NO_OPENING_DELAY = timedelta(days=1)


# ---- submit: what cannot be done is said at once


def on_acceptance(request: Request, busy: Attempt | None) -> None:
    """Raise CallAttemptInProgress for what a call in progress forbids; `busy` is the interview's attempt with one.

    Said when the command would be accepted: whoever hears 202 instead knows that no call was in progress then, and
    none begins before the command is applied.
    """
    if busy is None:
        return
    match request:
        case RescheduleAttempt() | DeleteAttempt():
            # One that was given up and then seen to be live is over: it is not moved, and may be deleted.
            forbidden = request.attempt_id == busy.id and busy.state is AttemptState.IN_PROGRESS
        case InvokeAttempt():
            forbidden = True
        case UpdateInterview():
            forbidden = request.scheduled_at is not None or request.expires_at is not None
        case _:
            forbidden = False
    if forbidden:
        raise CallAttemptInProgress(attemptId=str(busy.id))


# ---- dial: the last look, and what the one POST brought


@dataclass(frozen=True, kw_only=True)
class GoAhead:
    """The one POST may be sent now."""

    leave_by: datetime
    """The last instant at which it may leave. Later it may not ring for long enough, or not at all."""


class NotMine:
    """Somebody else has the attempt's story now; whoever asked writes nothing and sends nothing."""


def on_last_look(
    situation: Situation, epoch: int, now: datetime, policy: Policy
) -> GoAhead | NotMine | tuple[Event, ...]:
    """May it ring, this instant? Everything that the claim asked is asked again, and the window above all.

    Events instead of a yes put it back, or end it.
    """
    attempt = situation.attempt
    if (
        attempt.state is not AttemptState.IN_PROGRESS
        or attempt.epoch != epoch  # guard: look_epoch
        or attempt.lease_until is None
        # The lapsed lease is settled, never sent.
        or attempt.lease_until <= now  # guard: look_lease
    ):
        return NotMine()
    soon = now + times.DEFERRED_DELAY
    if abs(situation.database_skew) > times.MAX_CLOCK_SKEW:  # guard: look_clock
        return (Deferred(due_at=soon, cause="CLOCK_SKEW"),)
    found = blocks(situation, now, policy)
    if not found:
        return GoAhead(leave_by=_leave_by(situation, attempt.lease_until, now, policy))
    return _put_back(found[0], now, soon)


def _leave_by(situation: Situation, lease_until: datetime, now: datetime, policy: Policy) -> datetime:
    """The earliest end of the lease, the interview, the consent, and of the room for ringing before closing.

    Only for an attempt that nothing blocks at `now`. The consent is exact for the time that a last look is good for.
    """
    attempt, callee = situation.attempt, situation.callee
    clocks = deciding_clocks(attempt, callee, now)
    ends = [lease_until, attempt.expires_at, last_start(clocks, callee.settings, now, policy)]
    # A day ends at a whole second on every clock.
    seconds = [now.replace(microsecond=0) + timedelta(seconds=ahead) for ahead in (1, 2)]
    ends += [second for second in seconds if consent_is_over_on_any(clocks, callee.consent_until, second)]
    return min(ends)


def _put_back(block: Block, now: datetime, soon: datetime) -> tuple[Event, ...]:
    cause = block.rule.value
    match block.rule:
        case Rule.EXPIRED:
            return (Deferred(due_at=soon, cause=cause), Expired())
        case Rule.CONSENT_EXPIRED:
            return (Deferred(due_at=soon, cause=cause), ConsentEnded())
        case Rule.NOT_DUE | Rule.WINDOW_CLOSED if block.until is not None:
            # A time that was asked for stands as it is; an opening is never taken for now by a rounding.
            return (
                Deferred(due_at=block.until if block.rule is Rule.NOT_DUE else max(block.until, soon), cause=cause),
            )
        case (
            Rule.CARRIER_DOWN | Rule.CARRIER_REFUSES_COUNTRY | Rule.CARRIER_REFUSES_CALLER | Rule.CARRIER_FAILS_CALLER
        ) if block.until is not None:
            # No wait for the carrier is longer: a later end was written by a wrong clock.
            return (Deferred(due_at=min(max(block.until, soon), now + BACK_OFF[-1]), cause=cause),)
        case Rule.WINDOW_CLOSED | Rule.TIMEZONE_UNKNOWN | Rule.NUMBER_MISSING | Rule.NUMBER_NOT_ALLOWED:
            return (Deferred(due_at=now + _NO_OPENING_DELAY, cause=cause),)  # held, never placed
        case _:
            return (Deferred(due_at=soon, cause=cause),)


def on_answer(
    attempt: Attempt, answer: CarrierAnswer, callee: Callee | None, now: datetime, policy: Policy
) -> tuple[Event, ...]:
    """What the one POST's answer makes of the attempt.

    `callee` says whether a call that waits in the carrier's queue would ring too late; None: nobody can tell.
    """
    match answer:
        case Accepted():
            look_at = now + answer.queue_time + policy.ring_timeout + times.POLL_AFTER_RING
            placed = Placed(call_sid=answer.call_sid, look_at=look_at)
            if answer.queue_time and _may_not_ring(attempt, callee, now + answer.queue_time, policy):
                return (placed, HangUpWanted(cause=HangUpCause.QUEUED_PAST_CLOSING))
            return (placed,)
        case NeverTaken():
            return (NotPlaced(due_at=now + not_placed_delay(attempt.not_placed), cause=answer.cause),)
        case Withheld():
            return (Deferred(due_at=now + times.DEFERRED_DELAY, cause=answer.cause),)
        case NumberRefused():
            return (Ended(reason=Reason.INVALID_NUMBER, ended_at=now),)
        case AnswerUnknown():
            return (AnswerLost(look_at=now, cause=answer.cause),)
    raise TypeError(f"no rule for {type(answer).__name__}")


def _may_not_ring(attempt: Attempt, callee: Callee | None, turn: datetime, policy: Policy) -> bool:
    """Whether its turn in the carrier's queue comes when this person may not be rung, or not for long enough."""
    if callee is None:
        return False
    try:
        # It goes to the number that it was placed to, on whose clock it was, also when that has changed since.
        clocks = (*deciding_clocks(attempt, callee, turn), attempt.schedule.clock)
        opens = next_opening(clocks, callee.settings, turn, policy)
    except TimezoneUnknown:
        return True
    return opens != turn or attempt.expires_at <= turn or consent_is_over_on_any(clocks, callee.consent_until, turn)


# ---- hear: what the carrier says of a call


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something that must never happen has; no call of that company is claimed until a person has looked."""

    cause: str
    stray_sid: str | None = None
    """A call that belongs to nobody and that nobody has answered: it is ended."""
    live_sids: tuple[str, ...] = ()
    """Calls that belong to nobody and that somebody has answered: they are left to the person, and their number is
    called by nobody else until they are over."""


class AskTheCarrier:
    """The news alone prove nothing; the carrier is asked about this call at once."""


_REASON_OF = {
    CallStatus.BUSY: Reason.BUSY,
    CallStatus.NO_ANSWER: Reason.NO_ANSWER,
    CallStatus.CANCELLED: Reason.CANCELLED_AT_CARRIER,
}
_SIP_REASONS = {
    404: Reason.INVALID_NUMBER,
    410: Reason.INVALID_NUMBER,
    484: Reason.INVALID_NUMBER,
    604: Reason.INVALID_NUMBER,
    486: Reason.BUSY,
    600: Reason.BUSY,
    603: Reason.DECLINED,
    607: Reason.DECLINED,
}
"""RFC 3261 section 21 and RFC 8197: what a final response says of the number or of the person."""


def reason_of(news: CallNews) -> Reason:
    """How the call ended, from news that it is over."""
    if news.status is CallStatus.COMPLETED:
        machine = news.answered_by in {AnsweredBy.MACHINE, AnsweredBy.FAX}
        return Reason.VOICEMAIL if machine else Reason.ANSWERED
    if news.status is CallStatus.FAILED and news.cause is FailureCause.NUMBER:
        return Reason.INVALID_NUMBER
    if news.status is CallStatus.FAILED:
        return _SIP_REASONS.get(news.sip_code or 0, Reason.CARRIER_ERROR)
    return _REASON_OF[news.status]


def names_no_cause(news: CallNews) -> bool:
    """Return whether it failed and only a callback could say why: asked, the carrier named no cause.

    A callback without a code says that there was none.
    """
    return news.status is CallStatus.FAILED and news.token is None and news.cause is None


def on_news(
    attempt: Attempt, news: CallNews, callee: Callee | None, now: datetime, policy: Policy
) -> tuple[Event, ...] | Alarm | AskTheCarrier:
    """What the carrier's news make of the attempt; order and repetition do not matter.

    The events are to be taken one after the other. No event: the news are old, or known. `callee` finds the next
    opening for a call that was taken out of the carrier's queue.
    """
    if news.token is not None and news.token != attempt.token:
        return Alarm(cause="NEWS_FOR_AN_OLD_TOKEN", stray_sid=_unanswered(news), live_sids=_live(news))
    if attempt.call_sid is not None and attempt.call_sid != news.call_sid:
        stray = _stray_of_two(attempt, news)
        return Alarm(cause="TWO_CALLS_FOR_ONE_TOKEN", stray_sid=stray, live_sids=_live(news))
    if attempt.state is AttemptState.PENDING:
        cause = "NEWS_FOR_A_CALL_THAT_WAS_NOT_PLACED"
        return Alarm(cause=cause, stray_sid=_unanswered(news), live_sids=_live(news))
    if attempt.reason is Reason.OUTCOME_UNKNOWN:
        return _late_proof(attempt, news, now, policy)
    if attempt.state is not AttemptState.IN_PROGRESS:
        return ()
    if news.status is CallStatus.CANCELLED and attempt.hang_up is not None:
        return _on_our_cancel(attempt, news, callee, now, policy)
    return _on_news_of_a_call_in_progress(attempt, news, callee, now, policy)


def _on_news_of_a_call_in_progress(
    attempt: Attempt, news: CallNews, callee: Callee | None, now: datetime, policy: Policy
) -> tuple[Event, ...]:
    events: list[Event] = []
    if attempt.phase is not Phase.PLACED:
        look_at = now + policy.ring_timeout + times.POLL_AFTER_RING
        events.append(Placed(call_sid=news.call_sid, look_at=look_at))
    answered_by = news.answered_by or attempt.answered_by
    if news.rank is CallProgress.OVER:
        known = replace(news, answered_by=answered_by)
        events.append(
            Ended(
                reason=reason_of(known),
                ended_at=now,
                answered_by=answered_by,
                duration=news.duration,
                cause_is_known=not names_no_cause(news),
            )
        )
    else:
        events += _progress(attempt, news)
    if news.status is CallStatus.QUEUED and attempt.hang_up is None and _may_not_ring(attempt, callee, now, policy):
        events.append(HangUpWanted(cause=HangUpCause.QUEUED_PAST_CLOSING))
    return tuple(events)


def _progress(attempt: Attempt, news: CallNews) -> tuple[Event, ...]:
    if news.rank <= attempt.heard_rank:  # guard: rank
        return ()
    return (Progressed(rank=news.rank, answered_by=news.answered_by),)


def _unanswered(news: CallNews) -> str | None:
    """Its name, when it is a call that may be ended without cutting a person off."""
    return news.call_sid if news.rank < CallProgress.ANSWERED else None


def _live(*news: CallNews) -> tuple[str, ...]:
    """The names of those that somebody has answered and that are not over."""
    return tuple(each.call_sid for each in news if each.rank is CallProgress.ANSWERED)


def _stray_of_two(attempt: Attempt, news: CallNews) -> str | None:
    """Which of two calls for one claim is ended: the one that nobody has answered, the newcomer before the known."""
    if news.rank < CallProgress.ANSWERED:
        return news.call_sid
    own_goes_on = attempt.state is AttemptState.IN_PROGRESS and attempt.heard_rank < CallProgress.ANSWERED
    return attempt.call_sid if own_goes_on else None


def _on_our_cancel(
    attempt: Attempt, news: CallNews, callee: Callee | None, now: datetime, policy: Policy
) -> tuple[Event, ...] | AskTheCarrier:
    """A call that we had taken out of the carrier's queue: nothing is spent only if it surely was never dialled."""
    if attempt.hang_up is HangUpCause.COMPANY_DELETED:
        return (Cancelled(reason=Reason.COMPANY_DELETED),)
    if attempt.heard_rank >= CallProgress.DIALLED or news.started is True:
        return (Ended(reason=Reason.CANCELLED_AT_CARRIER, ended_at=now),)
    if news.started is None:
        return AskTheCarrier()
    due_at = now + _NO_OPENING_DELAY
    if callee is not None:
        # Not in what is left of this opening: the queue is as long as it was.
        with contextlib.suppress(TimezoneUnknown):
            due_at = opening_after_this_one(attempt, callee, now, policy) or due_at
            clocks = deciding_clocks(attempt, callee, due_at)
            if consent_is_over_on_any(clocks, callee.consent_until, due_at):
                return (NeverDialled(due_at=due_at, call_sid=news.call_sid), ConsentEnded())
    return (NeverDialled(due_at=due_at, call_sid=news.call_sid),)


def is_old_news(closed_sid: str | None, news: CallNews) -> bool:
    """Whether these are news of a call that was proven never to have been dialled: `closed_sid` is its name."""
    if closed_sid != news.call_sid:
        return False
    return news.status is CallStatus.CANCELLED or news.rank < CallProgress.DIALLED


def _late_proof(attempt: Attempt, news: CallNews, now: datetime, policy: Policy) -> tuple[Event, ...]:
    if news.rank is not CallProgress.OVER:
        if attempt.call_sid is not None and news.rank <= attempt.heard_rank:
            return ()
        look_at = now + policy.ring_timeout + times.POLL_AFTER_RING
        return (LegSeen(call_sid=news.call_sid, rank=news.rank, look_at=look_at, answered_by=news.answered_by),)
    answered_by = news.answered_by or attempt.answered_by
    return (
        Proven(
            reason=reason_of(replace(news, answered_by=answered_by)),
            call_sid=news.call_sid,
            ended_at=now,
            answered_by=answered_by,
            duration=news.duration,
        ),
    )


# ---- settle: when nobody says anything


def on_silence(attempt: Attempt, now: datetime) -> AnswerLost | None:
    """A lease that is over without a record: nobody knows whether the POST was sent."""
    if attempt.phase is not Phase.DIALLING or attempt.lease_until is None or attempt.lease_until > now:
        return None
    return AnswerLost(look_at=now, cause="LEASE_OVER")


def on_listing(
    attempt: Attempt, listed: Sequence[ListedCall], now: datetime, policy: Policy
) -> CallNews | ProofMissing | Alarm | None:
    """Decide by the carrier's list on an attempt whose answer was lost. None: ask again later.

    `listed` are the calls between its two numbers around its claim that no other attempt has, of a list that was read
    in full and asked for at `now`. One call is the proof; that it is unique rests on one call per number. Two calls
    bind neither, and an empty list proves nothing: both end as an unknown outcome when the time for a proof is over.
    """
    if len(listed) == 1:
        return listed[0].news
    verdict = on_no_answer(replace(attempt, listed_at=now), now, policy)
    return verdict or (_alarm_of_several(listed) if listed else None)


def on_search(listed: Sequence[ListedCall]) -> CallNews | Alarm | None:
    """Decide by the carrier's list on an attempt whose outcome was given up; its call may still be found.

    `listed` is as in `on_listing`. Two calls bind neither, also when one of them is over.
    """
    if len(listed) == 1:
        return listed[0].news
    return _alarm_of_several(listed) if listed else None


def next_search(
    attempt: Attempt, listed: Sequence[ListedCall] | None, now: datetime, policy: Policy
) -> datetime | None:
    """Return when the list is searched next for a call whose outcome was given up. None: no longer.

    `listed` is what the search at `now` found; None: there was no answer, or no search yet. The search ends when the
    call must be over, and when two calls match that are both over: which of them it was can no longer be told.
    """
    assert attempt.claimed_at is not None
    if must_be_over(attempt.claimed_at + policy.lease, now, policy):
        return None
    if listed and len(listed) > 1 and all(call.news.rank is CallProgress.OVER for call in listed):
        return None
    return now + min(max(times.ASK_EVERY, (now - attempt.claimed_at) / 10), times.POLLS[-1])


def was_listed(attempt: Attempt, policy: Policy) -> bool:
    """Return whether a list was read in full that was asked for when no call of the claim could be created any more."""
    return (
        attempt.listed_at is not None
        # A POST may leave until the lease ends, and clocks differ.
        and attempt.listed_at >= listing_span(attempt, policy)[1]  # guard: listed_after_lease
    )


def line_free_at(attempt: Attempt, now: datetime, policy: Policy) -> datetime:
    """Return until when the line of an attempt that is over rests.

    Until a list was read in full, a call of an unknown outcome may still be ringing: the line rests a gap beyond the
    next search, and each search that gets no answer makes that later.
    """
    if attempt.search_at is not None and not was_listed(attempt, policy):  # guard: unlisted_line
        return max(now, attempt.search_at) + policy.line_gap
    return now + policy.line_gap


def _alarm_of_several(listed: Sequence[ListedCall]) -> Alarm:
    # Newest first; of several that nobody has answered the oldest goes on, also once the others have been ended.
    unanswered = [call.news.call_sid for call in listed if call.news.rank < CallProgress.ANSWERED]
    reached = any(call.news.status in {CallStatus.ANSWERED, CallStatus.COMPLETED} for call in listed)
    strays = unanswered if reached else unanswered[:-1]
    return Alarm(
        cause="TWO_CALLS_TO_ONE_NUMBER",
        stray_sid=strays[0] if strays else None,
        live_sids=_live(*(call.news for call in listed)),
    )


def on_no_answer(attempt: Attempt, now: datetime, policy: Policy) -> ProofMissing | None:
    """Decide on an attempt about which the carrier could not be asked, or whose call it does not know.

    A call that has a name is given up only when it must be over, however long it waited, rang and talked. One without a
    name is given up after the time for a proof if an earlier list was read in full once its lease had ended. Without
    such a list it is given up when it must have been hung up, unless it waits in the carrier's queue.
    """
    assert attempt.claimed_at is not None
    if attempt.phase is not Phase.UNKNOWN:
        return ProofMissing() if must_be_over(attempt.claimed_at, now, policy) else None
    may_go_on = now < attempt.claimed_at + policy.lease + policy.room + policy.max_call
    if may_go_on and not was_listed(attempt, policy):  # guard: answered
        return None
    if (
        attempt.unknown_at is not None
        # Not before: the carrier may list a call late.
        and now >= attempt.unknown_at + policy.settle  # guard: settle_time
    ):
        return ProofMissing(search_at=next_search(attempt, None, now, policy))
    return None


def undecided_before(now: datetime, policy: Policy) -> datetime:
    """Return since when an attempt must be unknown for its verdict to be overdue, with a minute for those in turn."""
    return now - policy.settle - times.POLLS[0]


def must_be_over(since: datetime, now: datetime, policy: Policy) -> bool:
    """Whether a call that there was by `since` is over, however long it waited, rang and talked."""
    return now >= since + times.MAX_QUEUE + policy.ring_timeout + policy.max_call


def next_look(attempt: Attempt, now: datetime) -> datetime:
    """When the carrier is asked again about an attempt, after it was asked now."""
    if attempt.phase is Phase.UNKNOWN or attempt.hang_up is not None:
        return now + times.ASK_EVERY
    return now + times.POLLS[min(attempt.looks, len(times.POLLS) - 1)]


def next_look_at_stray(seen_at: datetime, news: CallNews | None, now: datetime, policy: Policy) -> datetime | None:
    """When the carrier is asked again about a call that must not be; None: it is over, or must be."""
    if (news is not None and news.rank is CallProgress.OVER) or must_be_over(seen_at, now, policy):
        return None
    return now + min(max(times.ASK_EVERY, (now - seen_at) / 10), times.POLLS[-1])


def listing_span(attempt: Attempt, policy: Policy) -> tuple[datetime, datetime]:
    """Between which instants the carrier must have created the call, if it did."""
    assert attempt.claimed_at is not None
    lease_ended = attempt.claimed_at + policy.lease
    if attempt.unknown_at is not None:
        # An impossible lease is shortened to one from then, with a claim that is set as early as matters.
        lease_ended = max(lease_ended, attempt.unknown_at)
    return attempt.claimed_at - times.LIST_MARGIN, lease_ended + times.LIST_MARGIN
