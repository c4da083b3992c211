"""The demo's sample calls, with the expected result of each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

STARTS_AT = "2026-04-02T17:30+10:30"
"""07:00 UTC on a Thursday: late afternoon in Australia, morning in Europe, 3 a.m. in New York."""

VARIABLES = {
    # Shorter than in production, so that a carrier that does not answer delays the demo little.
    "CARRIER_CONNECT_TIMEOUT_S": "1",
    "CARRIER_TOTAL_TIMEOUT_S": "3",
    "DIAL_LEASE_S": "6",
    "SETTLE_S": "30",
    "SWEEP_S": "1",
    "RING_TIMEOUT_S": "10",
    # The sample calls last a second or two.
    "SHORT_CALL_S": "0",
}

CARRIERS: dict[str, dict[str, Any] | None] = {"usual": None, "refuse": {"outcome": "answered", "fault": "refuse"}}
"""Behaviours of the simulated carrier: the plans of the sample calls, or one plan for all."""

BUSY_RETRY_AFTER = timedelta(seconds=2)
"""Retry delay of the demo's company after a busy line. The default is a quarter of an hour."""

RESUMES_AFTER = timedelta(seconds=9)
"""Length of the pause of the demo's second company."""

_DUE_IN = timedelta(seconds=6)
_CHANGED_BEFORE = timedelta(seconds=12)
"""A call that is moved or deleted is due this much later: late enough for a slow machine."""
_MOVED_BY = timedelta(seconds=6)


class Then(Enum):
    """Next action of the demo, after a call is accepted."""

    NOTHING = auto()
    MOVED = auto()
    """Moved to a later time, with PATCH."""
    DELETED = auto()
    """Deleted before it is due, with DELETE."""
    PAUSED = auto()
    """Its company is paused before, and resumed a few seconds later."""


def _as_soon_as_allowed(_: datetime) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class SampleCall:
    """An interview of the demo: callee, time, and expected result."""

    label: str
    number: str
    country: str
    expected: str = "COMPLETED ANSWERED"
    """Expected result, as in `DemoCall.result`."""
    carrier_calls: int = 1
    """Expected number of calls in the carrier's ledger."""
    scheduled_at: Callable[[datetime], str | None] = _as_soon_as_allowed
    """Returns the text of scheduledAt, from the time of sending."""
    plans: tuple[Mapping[str, Any], ...] = ()
    """Behaviour of the simulated carrier for the first call, the second, and so on."""
    then: Then = Then.NOTHING
    asks_for_call_in: timedelta | None = None
    """In the first conversation the person asks to be called again after this time."""


def moved_to(scheduled_at: str) -> str:
    """Compute the later time to which a call is moved."""
    return _instant(datetime.fromisoformat(scheduled_at) + _MOVED_BY)


def _in_adelaide(now: datetime) -> str:
    return _whole(now + _DUE_IN).astimezone(datetime.fromisoformat(STARTS_AT).tzinfo).isoformat()


def _soon(now: datetime) -> str:
    return _instant(now + _DUE_IN)


def _to_be_changed(now: datetime) -> str:
    return _instant(now + _CHANGED_BEFORE)


def _whole(instant: datetime) -> datetime:
    return instant.replace(microsecond=0)


def _instant(instant: datetime) -> str:
    return _whole(instant).isoformat().replace("+00:00", "Z")


_TALK = {"outcome": "answered", "ring_s": 1.5, "talk_s": 3}

CALLS = (
    SampleCall(
        label="Adelaide, by its offset",
        country="Australia",
        number="+61872001234",
        scheduled_at=_in_adelaide,
        plans=(_TALK,),
    ),
    SampleCall(label="Australian mobile", country="Australia", number="+61491570006", plans=(_TALK,)),
    SampleCall(
        label="Slovak mobile, by a Z", country="Slovakia", number="+421915123456", scheduled_at=_soon, plans=(_TALK,)
    ),
    SampleCall(
        label="New York, for 08:00",
        country="USA",
        number="+12015550123",
        scheduled_at=lambda _: "2026-04-02T08:00:00",
        expected="PENDING until 08:00 America/New_York",
        carrier_calls=0,
    ),
    SampleCall(
        label="US toll-free number",
        country="USA",
        number="+18005550100",
        expected="PENDING until all its zones are open",
        carrier_calls=0,
    ),
    SampleCall(
        label="Bratislava, for 22:30",
        country="Slovakia",
        number="+421220902345",
        scheduled_at=lambda _: "2026-04-02T22:30:00+02:00",
        expected="REFUSED OUTSIDE_CALL_TIME_INTERVAL",
        carrier_calls=0,
    ),
    SampleCall(
        label="Mumbai, busy at first",
        country="India",
        number="+912266012345",
        plans=({"outcome": "busy", "ring_s": 1}, _TALK),
        expected="FAILED BUSY, then COMPLETED ANSWERED",
        carrier_calls=2,
    ),
    SampleCall(
        label="Mumbai, call me later",
        country="India",
        number="+912266012346",
        plans=(_TALK,),
        asks_for_call_in=timedelta(seconds=12),
        expected="COMPLETED CALL_BACK, then COMPLETED ANSWERED",
        carrier_calls=2,
    ),
    SampleCall(
        label="Berlin, unanswered",
        country="Germany",
        number="+4930123456",
        plans=({"outcome": "no_answer", "ring_s": 3},),
        expected="FAILED NO_ANSWER, then PENDING again",
    ),
    SampleCall(
        label="Warsaw, answer lost",
        country="Poland",
        number="+48221234567",
        plans=(
            {"outcome": "answered", "fault": "accept_and_silence", "callbacks": "none", "ring_s": 0.5, "talk_s": 0.5},
        ),
    ),
    SampleCall(
        label="Tokyo, moved",
        country="Japan",
        number="+81312345678",
        scheduled_at=_to_be_changed,
        plans=({"outcome": "answered", "ring_s": 0.5, "talk_s": 1},),
        then=Then.MOVED,
    ),
    SampleCall(
        label="London, cancelled",
        country="United Kingdom",
        number="+442079460123",
        scheduled_at=_to_be_changed,
        then=Then.DELETED,
        expected="DELETED",
        carrier_calls=0,
    ),
    SampleCall(
        label="Berlin, while paused",
        country="Germany",
        number="+4930123457",
        plans=({"outcome": "answered", "ring_s": 0.5, "talk_s": 1},),
        then=Then.PAUSED,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Calls to one place in the next 24 hours, so that the console has a full day to show."""

    first_number: str
    """The other numbers follow it. No network has them."""
    opens: str
    """The earliest of its times, on the callees' own clocks."""
    hours: int
    calls: int = 20

    def all(self) -> Iterator[tuple[str, str]]:
        """Yield each number with its scheduledAt. Half of the calls are within the first hour, as people book."""
        earliest = datetime.fromisoformat(self.opens)
        for index in range(self.calls):
            minutes = 60 if index % 2 else 60 * self.hours
            at = earliest + timedelta(minutes=index * _SPREAD_MINUTES % minutes)
            yield f"+{int(self.first_number) + index}", at.isoformat()


_SPREAD_MINUTES = 37

FULL_DAY = (
    Place(first_number="+81312340000", opens="2026-04-03T09:00:00", hours=6),
    Place(first_number="+6566123000", opens="2026-04-03T09:00:00", hours=5),
    Place(first_number="+912266012000", opens="2026-04-02T13:00:00", hours=6, calls=40),
    Place(first_number="+97142123000", opens="2026-04-02T12:00:00", hours=6),
    Place(first_number="+493023125000", opens="2026-04-02T10:00:00", hours=9, calls=60),
    Place(first_number="+48221230000", opens="2026-04-02T10:00:00", hours=8),
    Place(first_number="+442079460000", opens="2026-04-02T09:00:00", hours=9, calls=40),
    Place(first_number="+27112340000", opens="2026-04-02T10:00:00", hours=8),
    Place(first_number="+551123450000", opens="2026-04-02T09:00:00", hours=9),
    Place(first_number="+12015550150", opens="2026-04-02T09:00:00", hours=9, calls=40),
    Place(first_number="+13125550150", opens="2026-04-02T09:00:00", hours=9, calls=30),
    Place(first_number="+12135550150", opens="2026-04-02T09:00:00", hours=9, calls=30),
)
