"""The times and limits of the dial protocol, how long a claim gathers attempts, and the latest possible instants."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from scheduler.domain.attempt import Attempt, Phase
from scheduler.lifecycle.breaker import BACK_OFF

RELEASE_SPAN = timedelta(seconds=15)
"""The time after which a due attempt is released again."""
RELEASE_AHEAD = timedelta(seconds=2)
"""The longest time between the release of an attempt and its due time. Its dial worker waits for the rest of it.

Longer than the interval of the clock, so that the clock need not wake for each attempt.
"""
EARLY_RELEASE_LASTS = timedelta(seconds=3)
"""The time after its due time at which an attempt that was released early is released again.

Shorter than `RELEASE_SPAN`: the dial worker that held its hint until then may have died.
"""
UNREADABLE_FOR = timedelta(seconds=30)
"""The time for which an attempt is not released after a dial worker could not read it."""
BATCH_RETRIED_AFTER = timedelta(seconds=5)
"""The delay until an item of a batch that has failed, or whose rows are locked, is tried again."""
SEND_SPAN = timedelta(seconds=1)
"""A claim takes only as many attempts as can be sent within this span."""
AT_MOST_A_TRANSACTION = 200
"""Maximum number of attempts that one transaction claims or records."""
COMMANDS_A_TRANSACTION = 20
"""Maximum number of new interviews that one transaction creates. Each takes about 2 ms of it."""
RECORD_SPAN = timedelta(milliseconds=500)
"""Target duration of a transaction that records answers. Its size follows from the last durations."""
LOOK_TO_SEND = timedelta(milliseconds=200)
"""The validity of a last look."""
LOOKS_TOGETHER = timedelta(milliseconds=25)
"""Calls of one claim that are sent within this span share a last look. Well below its validity."""
LOOK_TO_END = timedelta(seconds=2)
"""The time after its last look at which the kernel kills a process that still holds an unsent call."""
DEFERRED_DELAY = timedelta(seconds=5)
MAX_AHEAD = timedelta(days=30)
PAST_ALLOWANCE = timedelta(seconds=60)
CALL_BACK_GAP = timedelta(minutes=1)
"""The time after a report from which another call is offered, if the time that it names is over."""
DEFAULT_LIFE = timedelta(days=7)
"""The time from an interview's first due time to its expiry."""
TOKEN_LASTS = timedelta(hours=1)
"""The time after the end of its call for which a token names it. An unknown end counts as the latest possible one."""
MAX_CLOCK_SKEW = timedelta(seconds=2)
NOTICED_CLOCK_SKEW = timedelta(milliseconds=250)
"""A clock that is ahead by more than this makes no call earlier. A comparison of clocks is less exact than this."""
RING_MARGIN = timedelta(seconds=5)
"""The time that a carrier may ring beyond the requested timeout."""
ASK_EVERY = timedelta(seconds=10)
"""The interval of polls about an attempt whose answer was lost."""
POLL_AFTER_RING = timedelta(seconds=15)
POLLS = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10))
"""A placed call without an end is polled 15 s after its ring time, then at these intervals; the last one repeats."""
VERDICT_WAIT = timedelta(seconds=15)
"""The time for which an ended call waits for the verdict of asynchronous machine detection.

The carrier sends it within a second of the end, since there is nothing left to listen to. The rest is for its retries.
"""
MAX_QUEUE = timedelta(days=1)
"""The longest wait in a carrier's queue. Twilio's queue holds the calls that an account can start within a day."""
LIST_MARGIN = timedelta(seconds=5)
"""The margin around claim and lease for searches of the carrier's list: its times are whole seconds, clocks differ."""

REPORT_FIRST = timedelta(hours=1)
"""The longest time after the receipt of a report for which the end of its call waits until it is applied."""
MAX_AWAITED = timedelta(minutes=1)
"""The longest time after its receipt for which a command is awaited by its request."""
OWED_AFTER = timedelta(seconds=10)
"""The time after the end of a wait after which the clock reports a refusal that no request has returned."""

QUARANTINED_AFTER = 5
"""The number of failures for an unknown reason after which a command is set aside until an operator checks it."""


class UnsafeTimes(Exception):
    """The times of the dial protocol contradict each other: `longer` must exceed `shorter` by at least `by`."""

    def __init__(self, shorter: str, longer: str, by: timedelta, why: str) -> None:
        self.shorter, self.longer, self.by, self.why = shorter, longer, by, why
        super().__init__(f"{shorter} must be shorter than {longer}: {why}.")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The times that an operator can set. All are spans."""

    lease: timedelta = timedelta(seconds=60)
    settle: timedelta = timedelta(seconds=300)
    sweep: timedelta = timedelta(seconds=10)
    ring_timeout: timedelta = timedelta(seconds=30)
    line_gap: timedelta = timedelta(seconds=600)
    connect_timeout: timedelta = timedelta(seconds=3)
    total_timeout: timedelta = timedelta(seconds=13)
    max_call: timedelta = timedelta(seconds=11400)
    short_call: timedelta = timedelta(seconds=20)
    """The notifications of a shorter answered call are read: it may have got no instructions. Zero: of none."""
    outcome_wait: timedelta = timedelta(seconds=120)
    """The time after the end of an answered call within which its conversation may report an outcome."""

    def __post_init__(self) -> None:
        """Raise UnsafeTimes with the names of two settings whose order would break the protocol."""
        zero = timedelta()
        for shorter, longer, by, why in (
            ("connect_timeout", "total_timeout", zero, "connecting is a part of the whole request"),
            (
                "total_timeout",
                "lease",
                SEND_SPAN,
                "a POST must end before its lease, even if it is sent at the end of a claim's second",
            ),
            ("lease", "settle", zero, "a call must have time to appear before its outcome is given up"),
        ):
            if getattr(self, shorter) >= getattr(self, longer) or getattr(self, shorter) + by > getattr(self, longer):
                raise UnsafeTimes(shorter, longer, by, why)

    @property
    def send_within(self) -> timedelta:
        """The time after the start of its claim within which a call may be sent. Later it is put back.

        The rest of the lease is for the POST, and for putting back unsent calls.
        """
        return min(self.lease / 2, max(self.lease - self.total_timeout, 1.5 * SEND_SPAN))

    @property
    def room(self) -> timedelta:
        """The time before closing at which a phone must start to ring at the latest."""
        return self.ring_timeout + RING_MARGIN

    @property
    def longest_call(self) -> timedelta:
        """The time after its claim by which a call must have been hung up, unless it waits in the carrier's queue."""
        return self.lease + self.room + self.max_call


# --- Gathering: how long a claim waits for attempts that become due soon, so that one claim serves several calls
# A claim, its last look and its record cost about the same for one call as for ten. All instants are seconds on the
# monotonic clock. Nothing is claimed before it is due.


BUSY_PER_S = 40
"""From this rate on calls wait for each other. Below, few would come within `LONGEST_S`."""
LONGEST_S = 0.08
"""The longest wait of a call that is due, at a busy rate."""
SHORT_S = 0.005
"""The same at a lower rate: less than the claim of one call takes."""
ENOUGH = 20
"""A claim of this many calls is not worth waiting for more. The rate is measured over as many."""


def claim_at(due_at: Sequence[float]) -> float:
    """Compute when to claim the first attempts: when the last one is due that is worth waiting for.

    `due_at`: the known due times of unclaimed attempts, at least one, sorted. Those after the first `ENOUGH` make no
    difference. Only attempts whose due times are known are waited for, so a call without company is claimed when it is
    due.
    """
    first = due_at[0]
    is_busy = len(due_at) >= ENOUGH and due_at[ENOUGH - 1] <= first + ENOUGH / BUSY_PER_S
    last = first + (LONGEST_S if is_busy else SHORT_S)
    return due_at[min(ENOUGH, bisect_right(due_at, last)) - 1]


# --- Bounds: the latest instants that the rules can produce. A later one was written by a wrong clock
# A comparison of clocks cannot detect every wrong clock: PostgreSQL and a worker on one host step together. Work then
# waits for the instant that the wrong clock wrote. By these rules other processes recognise and correct such instants.


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


def latest_outcome(now: datetime, policy: Policy) -> datetime:
    """Compute the latest instant until which the outcome of an answered call is awaited."""
    return now + policy.outcome_wait + SLACK


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


def call_bounds(now: datetime, policy: Policy) -> CallBounds:
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
    bounds = call_bounds(now, policy)
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
    elif attempt.schedule.requested is not None:
        return attempt.due_at
    elif attempt.retry_number > 0 and attempt.created_at > latest_written(now):
        waits = max(attempt.due_at - attempt.created_at, timedelta())
    elif attempt.retry_number == 0:
        waits = timedelta()  # as soon as may be
    else:
        return attempt.due_at
    return min(attempt.due_at, now + waits)
