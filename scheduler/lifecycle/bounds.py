"""Bounds: the latest instants that the rules can produce. A later one was written by a wrong clock.

A comparison of clocks cannot detect every wrong clock: PostgreSQL and a worker on one host step together. Work then
waits for the instant that the wrong clock wrote. By these rules other processes recognise and correct such instants.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from scheduler.domain.attempt import Attempt, Phase
from scheduler.lifecycle.breaker import BACK_OFF
from scheduler.lifecycle.policy import (
    ASK_EVERY,
    BATCH_RETRIED_AFTER,
    MAX_AWAITED,
    MAX_CLOCK_SKEW,
    MAX_QUEUE,
    POLL_AFTER_RING,
    POLLS,
    RELEASE_SPAN,
    SEND_SPAN,
    Policy,
)

SLACK = 2 * MAX_CLOCK_SKEW + timedelta(seconds=1)
"""The maximum difference of two clocks that may write: each differs by at most 2 s from the database's."""


def latest_written(now: datetime) -> datetime:
    """Compute the latest instant that can have been recorded for an event, a hint or a write."""
    return now + SLACK


def latest_release(now: datetime) -> datetime:
    """Compute the latest instant until which an attempt can be released."""
    return now + RELEASE_SPAN + SLACK


def latest_slot(now: datetime, per_second: float) -> datetime:
    """Compute the latest next slot of an account or company: claims reserve at most a second and one step ahead."""
    return now + SEND_SPAN + timedelta(seconds=1 / per_second) + SLACK


def latest_recomputation(now: datetime) -> datetime:
    """Compute the latest instant to which a recomputation of pending attempts is postponed."""
    return now + timedelta(seconds=30)


def latest_batch_work(now: datetime) -> datetime:
    """Compute the latest instant until which a batch is put off."""
    return now + BATCH_RETRIED_AFTER + SLACK


def latest_awaited(now: datetime) -> datetime:
    """Compute the latest instant until which a request waits for its command."""
    return now + MAX_AWAITED + SLACK


def latest_stray_look(now: datetime) -> datetime:
    """Compute the latest time of the next poll about a stray call."""
    return now + POLLS[-1] + SLACK


@dataclass(frozen=True, kw_only=True)
class CallBounds:
    """The latest instants of an attempt that is in progress, or whose call is searched for."""

    written: datetime
    lease_until: datetime
    look_at_asked: datetime
    """For polls every ten seconds: the answer was lost, or the call must be ended."""
    look_at_queued: datetime
    """For a call that may wait in the carrier's queue and was not polled yet."""
    look_at: datetime
    """For every other call. Also the latest `search_at`."""


def of_calls(now: datetime, policy: Policy) -> CallBounds:
    """Compute the bounds for attempts that are in progress at `now`."""
    after_ring = policy.ring_timeout + POLL_AFTER_RING
    return CallBounds(
        written=latest_written(now),
        lease_until=now + policy.lease + SLACK,
        look_at_asked=now + ASK_EVERY + SLACK,
        look_at_queued=now + MAX_QUEUE + after_ring + SLACK,
        look_at=now + max(after_ring, POLLS[-1]) + SLACK,
    )


def latest_look(attempt: Attempt, bounds: CallBounds) -> datetime:
    """Compute the latest `look_at` of this attempt."""
    if attempt.phase is Phase.UNKNOWN or attempt.hang_up is not None:
        return bounds.look_at_asked
    if attempt.looks == 0 and attempt.updated_at <= bounds.written:
        return bounds.look_at_queued
    return bounds.look_at


def call_corrected(attempt: Attempt, now: datetime, policy: Policy) -> Attempt:
    """Replace each impossible instant of the attempt by a possible one of its rule.

    An impossible lease now ends one lease from `now`. By then its holder has sent its POST or never will, so the
    attempt is settled as unknown as usual and its number does not ring twice. An impossible claim time is set as early
    as matters, because the carrier's list is searched from there.
    """
    bounds = of_calls(now, policy)
    rules: dict[str, tuple[datetime, datetime | None]] = {
        "claimed_at": (bounds.written, now - policy.lease - policy.settle),
        "unknown_at": (bounds.written, now),
        "listed_at": (bounds.written, None),  # otherwise a list read too early would count
        "lease_until": (bounds.lease_until, now + policy.lease),  # guard: impossible_lease
        "look_at": (latest_look(attempt, bounds), now),  # guard: impossible_look
        "search_at": (bounds.look_at, now),
    }
    corrected: dict[str, Any] = {
        name: instead
        for name, (latest, instead) in rules.items()
        if (instant := getattr(attempt, name)) is not None and instant > latest
    }
    return replace(attempt, **corrected, updated_at=min(attempt.updated_at, now)) if corrected else attempt


def due_corrected(attempt: Attempt, now: datetime) -> datetime:
    """Correct the due time of a pending attempt whose last writer's clock is still ahead of `now`.

    A requested time is kept. A wait that began at the wrong instant is counted from `now`, which is never too early,
    because the row was written before. The last look checks the opening again.
    """
    waits = max(attempt.due_at - attempt.updated_at, timedelta())
    if attempt.due_at != attempt.schedule.due_at:
        waits = min(waits, BACK_OFF[-1])  # deferred, or not placed
    elif attempt.retry_number > 0 and attempt.created_at > latest_written(now):
        waits = max(attempt.due_at - attempt.created_at, timedelta())
    elif attempt.retry_number == 0 and attempt.schedule.requested is None:
        waits = timedelta()  # as soon as may be
    else:
        return attempt.due_at
    return min(attempt.due_at, now + waits)


def latest_line_rest(now: datetime, policy: Policy) -> datetime:
    """Compute the latest end of the gap on a line after a call of one interview."""
    return now + policy.line_gap + SLACK


def latest_line_kept(now: datetime, policy: Policy) -> datetime:
    """Compute the latest end of the gap on a line for all interviews: one gap after the next poll about its call."""
    return now + POLLS[-1] + policy.line_gap + SLACK
