"""Decisions while no news of a call arrives: lapsed leases, lists of the carrier, searches, polls and their end."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from scheduler.domain.attempt import AnswerLost, Attempt, Phase, ProofMissing
from scheduler.domain.call import CallNews, CallProgress, CallStatus, ListedCall
from scheduler.lifecycle import verdicts
from scheduler.lifecycle.call_reasons import may_lack_instructions
from scheduler.lifecycle.decisions import Alarm, live_sids
from scheduler.lifecycle.policy import ASK_EVERY, LIST_MARGIN, MAX_QUEUE, POLLS, Policy
from scheduler.lifecycle.state_machine import is_over


def on_lapsed_lease(attempt: Attempt, now: datetime) -> AnswerLost | None:
    """Decide the event for a lease that lapsed without a record, so that it is unknown whether the POST was sent."""
    if attempt.phase is not Phase.DIALLING or attempt.lease_until is None or attempt.lease_until > now:
        return None
    return AnswerLost(look_at=now, cause="LEASE_OVER")


def on_listing(
    attempt: Attempt, listed: Sequence[ListedCall], now: datetime, policy: Policy
) -> CallNews | ProofMissing | Alarm | None:
    """Decide by the carrier's list about an attempt whose answer was lost. None: poll again later.

    `listed` are the calls between its two numbers around its claim that belong to no other attempt, from a list that
    was requested at `now` and read in full. A single call is proof, because each number has only one call at a time.
    Several calls or none are no proof: when the time for a proof is over, the outcome is unknown.
    """
    if len(listed) == 1:
        return listed[0].news
    verdict = on_no_answer(replace(attempt, listed_at=now), now, policy)
    return verdict or (_alarm_of_several(listed) if listed else None)


def on_search(listed: Sequence[ListedCall]) -> CallNews | Alarm | None:
    """Decide by the carrier's list about an attempt whose outcome was given up, but whose call may still be found.

    `listed` is as in `on_listing`. Two calls are no proof, even if one of them has ended.
    """
    if len(listed) == 1:
        return listed[0].news
    return _alarm_of_several(listed) if listed else None


def next_search(
    attempt: Attempt, listed: Sequence[ListedCall] | None, now: datetime, policy: Policy
) -> datetime | None:
    """Compute the time of the next search for a call whose outcome was given up. None: the search is over.

    `listed` is the result of the search at `now`, or None without an answer or search. The search ends when the call
    must have ended, or when several matching calls have all ended, because the right one cannot be identified then.
    """
    assert attempt.claimed_at is not None
    if must_be_over(attempt.claimed_at + policy.lease, now, policy):
        return None
    if listed and len(listed) > 1 and all(call.news.rank is CallProgress.OVER for call in listed):
        return None
    return now + min(max(ASK_EVERY, (now - attempt.claimed_at) / 10), POLLS[-1])


def was_listed(attempt: Attempt, policy: Policy) -> bool:
    """Return whether a complete list was requested after the last moment at which the claim could create a call."""
    return (
        attempt.listed_at is not None
        # A POST may be sent until the lease ends, and clocks differ.
        and attempt.listed_at >= listing_span(attempt, policy)[1]  # guard: listed_after_lease
    )


def line_free_at(attempt: Attempt, now: datetime, policy: Policy) -> datetime:
    """Compute when the line of a finished attempt becomes free.

    Until a list was read in full, a call with an unknown outcome may still be ringing. Then the line stays blocked for
    a gap after the next search, which each unanswered search postpones.
    """
    if attempt.search_at is not None and not was_listed(attempt, policy):  # guard: unlisted_line
        return max(now, attempt.search_at) + policy.line_gap
    return now + policy.line_gap


def _alarm_of_several(listed: Sequence[ListedCall]) -> Alarm:
    # Newest first. The oldest of several unanswered calls continues, also after the others have been ended.
    unanswered = [call.news.call_sid for call in listed if call.news.rank < CallProgress.ANSWERED]
    reached = any(call.news.status in {CallStatus.ANSWERED, CallStatus.COMPLETED} for call in listed)
    strays = unanswered if reached else unanswered[:-1]
    return Alarm(
        cause="TWO_CALLS_TO_ONE_NUMBER",
        stray_sid=strays[0] if strays else None,
        live_sids=live_sids(*(call.news for call in listed)),
    )


def on_no_answer(attempt: Attempt, now: datetime, policy: Policy) -> ProofMissing | CallNews | None:
    """Decide about an attempt after a failed poll, or if the carrier does not know its call.

    A call whose end was heard lacks only its verdict or its cause, for which it is polled once: its end is repeated.

    A call with a sid is given up only when it must have ended, after the longest queueing, ringing and talking. A call
    without a sid is given up after the time for a proof, if a complete list was read after the end of its lease.
    Without such a list it is given up when it must have been hung up, unless it waits in the carrier's queue.
    """
    assert attempt.claimed_at is not None
    if attempt.hung_up_at is not None:
        end = verdicts.heard_end(attempt)
        if not (is_over(attempt) and may_lack_instructions(end, policy)):  # guard: verdict_without_carrier
            return end
        # Only a poll can return whether the short call got instructions. It was proven late, and holds no line.
    if attempt.sip_code is not None and attempt.call_sid is not None:  # guard: cause_without_carrier
        return CallNews(call_sid=attempt.call_sid, status=CallStatus.FAILED, sip_code=attempt.sip_code)
    if attempt.phase is not Phase.UNKNOWN:
        return ProofMissing() if must_be_over(attempt.claimed_at, now, policy) else None
    may_go_on = now < attempt.claimed_at + policy.longest_call
    if may_go_on and not was_listed(attempt, policy):  # guard: answered
        return None
    if (
        attempt.unknown_at is not None
        # Not earlier, because the carrier may list a call late.
        and now >= attempt.unknown_at + policy.settle  # guard: settle_time
    ):
        return ProofMissing(search_at=next_search(attempt, None, now, policy))
    return None


def undecided_before(now: datetime, policy: Policy) -> datetime:
    """Compute the latest `unknown_at` of an overdue verdict, with one minute more for attempts still in turn."""
    return now - policy.settle - POLLS[0]


def must_be_over(since: datetime, now: datetime, policy: Policy) -> bool:
    """Return whether a call created by `since` must have ended, after the longest queueing, ringing and talking."""
    return now >= since + MAX_QUEUE + policy.ring_timeout + policy.max_call


def next_poll_at(attempt: Attempt, now: datetime) -> datetime:
    """Compute the time of the next poll about an attempt, after a poll at `now`."""
    if attempt.phase is Phase.UNKNOWN or attempt.hang_up is not None:
        return now + ASK_EVERY
    return now + POLLS[min(attempt.looks, len(POLLS) - 1)]


def next_stray_poll_at(seen_at: datetime, news: CallNews | None, now: datetime, policy: Policy) -> datetime | None:
    """Compute the time of the next poll about a stray call. None: it has ended, or must have."""
    if (news is not None and news.rank is CallProgress.OVER) or must_be_over(seen_at, now, policy):
        return None
    return now + min(max(ASK_EVERY, (now - seen_at) / 10), POLLS[-1])


def listing_span(attempt: Attempt, policy: Policy) -> tuple[datetime, datetime]:
    """Compute the first and last instant at which the carrier can have created the call."""
    assert attempt.claimed_at is not None
    lease_ended = attempt.claimed_at + policy.lease
    if attempt.unknown_at is not None:
        # An impossible lease was shortened to one that begins then, and its claim set as early as matters.
        lease_ended = max(lease_ended, attempt.unknown_at)
    return attempt.claimed_at - LIST_MARGIN, lease_ended + LIST_MARGIN
