"""Tallies: counters and histograms that are kept in rows, and the amounts that are added to them.

An amount is added in the transaction that it counts. The sum is the same in any order, so each process adds its own.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeAlias

from scheduler.domain.alarm import KINDS, RaisedAlarm
from scheduler.domain.attempt import Attempt, Deferred, Event, Reason
from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NeverTaken, NumberRefused
from scheduler.domain.explanation import Rule
from scheduler.lifecycle.state_machine import is_over

OTHER = "OTHER"
"""The label of everything that has no label of its own."""
_BETWEEN_LABELS = "\t"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """A counter, or a histogram if it has bounds.

    Give a histogram another name if its bounds change: stored buckets are added by their place.
    """

    name: str
    """The name in `/metrics`, without the suffix that Prometheus adds."""
    documentation: str
    labels: tuple[str, ...] = ()
    known: tuple[str, ...] | None = None
    """The values of the label. Others count as OTHER. None: the code has few values, none of which clients choose."""
    bounds: tuple[float, ...] = ()
    """Upper bounds of the buckets, in seconds. The last bucket is unlimited."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """An amount of a tally. `buckets` counts values by their bucket, each value once."""

    n: int
    seconds: float = 0.0
    buckets: tuple[int, ...] = ()

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            n=self.n + other.n,
            seconds=self.seconds + other.seconds,
            buckets=tuple(a + b for a, b in zip_longest(self.buckets, other.buckets, fillvalue=0)),
        )


Key: TypeAlias = tuple[str, str]
"""The name of a tally, and the values of its labels as one text."""

CALLS = Tally(
    name="duecall_calls",
    documentation="Attempts that have ended, by reason. A later proof of an unknown outcome is not counted again.",
    labels=("outcome",),
    known=tuple(reason.value for reason in Reason),
)
DEFERRED = Tally(
    name="duecall_deferred",
    documentation="Claimed attempts that returned to PENDING because a rule or the load forbade to send them.",
    labels=("rule",),
    known=(
        *(rule.value for rule in Rule if rule not in {Rule.COMPANY_LIMIT, Rule.ACCOUNT_LIMIT}),
        *("CLOCK_SKEW", "CARRIER_IN_DOUBT", "TOO_SLOW", "SLOW_LOOK"),
    ),
)
DIAL_LATENESS = Tally(
    name="duecall_dial_lateness_seconds",
    documentation="Time from when a call was due and its number was free until the first byte of its POST.",
    bounds=(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0),
)
CARRIER_ANSWER = Tally(
    name="duecall_carrier_answer_seconds",
    documentation="Time from the first byte of a POST until the carrier's answer, by its class.",
    labels=("class",),
    known=("accepted", "refused", "number_refused", "unknown"),
    bounds=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0),
)
COMMAND = Tally(
    name="duecall_command_seconds",
    documentation="Time from when a command was received until it was applied or refused.",
    bounds=(0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0),
)
ALARMS = Tally(
    name="duecall_alarms",
    documentation="Alarms that were raised, by kind, repetitions included.",
    labels=("kind",),
    known=KINDS,
)
WEBHOOK_DELIVERIES = Tally(
    name="duecall_webhook_deliveries",
    documentation="Tries to deliver an event to a webhook, by result: delivered, failed and tried again, failed.",
    labels=("outcome",),
    known=("DELIVERED", "RETRIED", "FAILED"),
)
BATCH_ITEMS = Tally(
    name="duecall_batch_items",
    documentation="Items of batches that have an outcome: created, existing, refused, cancelled.",
    labels=("outcome",),
    known=("CREATED", "EXISTING", "REFUSED", "CANCELLED"),
)
HTTP_REQUESTS = Tally(
    name="duecall_http_requests",
    documentation="Answered requests, by method and path template, and by status.",
    labels=("route", "status"),
)
HTTP_SECONDS = Tally(
    name="duecall_http_request_seconds",
    documentation="Time until a request was answered, by method and path template.",
    labels=("route",),
    bounds=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 6.0),
)
TALLIES = (
    CALLS,
    DEFERRED,
    DIAL_LATENESS,
    CARRIER_ANSWER,
    COMMAND,
    ALARMS,
    WEBHOOK_DELIVERIES,
    BATCH_ITEMS,
    HTTP_REQUESTS,
    HTTP_SECONDS,
)
ONE = Amount(n=1)


def key_of(tally: Tally, *labels: str) -> Key:
    """Build the key of one row of a tally. An unknown label becomes OTHER."""
    if tally.known is not None:
        labels = tuple(each if each in tally.known else OTHER for each in labels)
    return tally.name, _BETWEEN_LABELS.join(labels)


def labels_of(key: Key) -> tuple[str, ...]:
    """List the values of a key's labels."""
    return tuple(key[1].split(_BETWEEN_LABELS)) if key[1] else ()


def seconds_of(tally: Tally, value: timedelta | float) -> Amount:
    """Convert one value of a histogram to an amount. A negative value, of two clocks that differ, counts as 0."""
    seconds = max(0.0, value.total_seconds() if isinstance(value, timedelta) else value)
    place = bisect_left(tally.bounds, seconds)
    return Amount(n=1, seconds=seconds, buckets=tuple(int(each == place) for each in range(len(tally.bounds) + 1)))


def folded(parts: Iterable[tuple[Key, Amount]]) -> dict[Key, Amount]:
    """Add the amounts of each key."""
    sums: dict[Key, Amount] = {}
    for key, amount in parts:
        sums[key] = sums[key] + amount if key in sums else amount
    return sums


def of_event(before: Attempt, after: Attempt, event: Event) -> tuple[Key, ...]:
    """List the counters that an event of an attempt increases by one."""
    if isinstance(event, Deferred):
        return (key_of(DEFERRED, event.cause),)
    if is_over(after) and not is_over(before):
        return (key_of(CALLS, after.reason.value if after.reason else OTHER),)
    return ()


def of_alarms(raised: Sequence[RaisedAlarm]) -> Mapping[Key, Amount]:
    """Count alarms with their repetitions."""
    return folded((key_of(ALARMS, each.key.kind), Amount(n=each.count)) for each in raised)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """Measured times of a POST whose first byte was sent. `answered_after` is in seconds."""

    lateness: timedelta
    answered_after: float
    look: Mapping[str, Any] | None = field(default=None, repr=False)
    """The record of the last look that permitted it. Not measured, but it comes and goes with the times."""


def of_post(answer: CarrierAnswer, sent: Sent) -> Mapping[Key, Amount]:
    """Compute the amounts of one POST."""
    return {
        key_of(DIAL_LATENESS): seconds_of(DIAL_LATENESS, sent.lateness),
        key_of(CARRIER_ANSWER, _class_of(answer)): seconds_of(CARRIER_ANSWER, sent.answered_after),
    }


def _class_of(answer: CarrierAnswer) -> str:
    match answer:
        case Accepted():
            return "accepted"
        case NeverTaken():
            return "refused"
        case NumberRefused():
            return "number_refused"
        case AnswerUnknown():
            return "unknown"
    return OTHER
