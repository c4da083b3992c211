"""Which sample calls the demo makes, and what must become of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

STARTS_AT = "2026-04-02T17:30+10:30"
"""07:00 UTC on a Thursday: late afternoon in Australia, morning in Europe, 3 a.m. in New York."""

VARIABLES = {
    # Shorter than in production, so that nobody waits long for a carrier that says nothing; the same order.
    "CARRIER_CONNECT_TIMEOUT_S": "1",
    "CARRIER_TOTAL_TIMEOUT_S": "3",
    "DIAL_LEASE_S": "6",
    "SETTLE_S": "30",
    "SWEEP_S": "1",
    "RING_TIMEOUT_S": "10",
}

CARRIERS: dict[str, dict[str, Any] | None] = {
    "usual": None,
    "refuse": {"outcome": "answered", "fault": "refuse"},
}
"""How the simulated carrier behaves: by the sample calls' own plans, or one plan for all."""

BUSY_RETRY_AFTER = timedelta(seconds=2)
"""The demo's company calls again so soon after a busy line; the default is a quarter of an hour."""

RESUMES_AFTER = timedelta(seconds=9)
"""How long the demo's second company is paused."""

_DUE_IN = timedelta(seconds=6)
_CHANGED_BEFORE = timedelta(seconds=12)
"""When a call is due that somebody moves or deletes at once: late enough for a slow machine."""
_MOVED_BY = timedelta(seconds=6)


class Then(Enum):
    """What the demo does with a call once it is accepted."""

    NOTHING = auto()
    MOVED = auto()
    """PATCH: to a later time."""
    DELETED = auto()
    """DELETE: before its time."""
    PAUSED = auto()
    """Its company is paused beforehand, and resumed a while later."""


def _as_soon_as_allowed(_: datetime) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class SampleCall:
    """One interview of the demo: whom, when, and what must become of it."""

    who: str
    number: str
    country: str
    ends: str
    """How it must stand in the end, in the words of `stage.Row.stands`."""
    calls: int
    """How many calls the carrier must have taken for it, by the carrier's own ledger."""
    asked: Callable[[datetime], str | None] = _as_soon_as_allowed
    """The text of scheduledAt, from the instant at which it is sent."""
    plans: tuple[Mapping[str, Any], ...] = ()
    """What the simulated carrier shall do with its first call, its second, and so on."""
    then: Then = Then.NOTHING


def moved_to(asked: str) -> str:
    """The later time to which a call is moved."""
    return _instant(datetime.fromisoformat(asked) + _MOVED_BY)


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
_ANSWERED = "COMPLETED ANSWERED"

CALLS = (
    SampleCall(
        who="Adelaide, by its offset",
        country="Australia",
        number="+61872001234",
        asked=_in_adelaide,
        plans=(_TALK,),
        ends=_ANSWERED,
        calls=1,
    ),
    SampleCall(
        who="Australian mobile",
        country="Australia",
        number="+61491570006",
        plans=(_TALK,),
        ends=_ANSWERED,
        calls=1,
    ),
    SampleCall(
        who="Slovak mobile, by a Z",
        country="Slovakia",
        number="+421915123456",
        asked=_soon,
        plans=(_TALK,),
        ends=_ANSWERED,
        calls=1,
    ),
    SampleCall(
        who="New York, for 08:00",
        country="USA",
        number="+12015550123",
        asked=lambda _: "2026-04-02T08:00:00",
        ends="PENDING until 08:00 America/New_York",
        calls=0,
    ),
    SampleCall(
        who="US toll-free number",
        country="USA",
        number="+18005550100",
        ends="PENDING until all its zones are open",
        calls=0,
    ),
    SampleCall(
        who="Bratislava, for 22:30",
        country="Slovakia",
        number="+421220902345",
        asked=lambda _: "2026-04-02T22:30:00+02:00",
        ends="REFUSED OUTSIDE_CALL_TIME_INTERVAL",
        calls=0,
    ),
    SampleCall(
        who="Mumbai, busy at first",
        country="India",
        number="+912266012345",
        plans=({"outcome": "busy", "ring_s": 1}, _TALK),
        ends="FAILED BUSY, then COMPLETED ANSWERED",
        calls=2,
    ),
    SampleCall(
        who="Berlin, nobody answers",
        country="Germany",
        number="+4930123456",
        plans=({"outcome": "no_answer", "ring_s": 3},),
        ends="FAILED NO_ANSWER, then PENDING again",
        calls=1,
    ),
    SampleCall(
        who="Warsaw, answer lost",
        country="Poland",
        number="+48221234567",
        plans=(
            {
                "outcome": "answered",
                "fault": "accept_and_silence",
                "callbacks": "none",
                "ring_s": 0.5,
                "talk_s": 0.5,
            },
        ),
        ends=_ANSWERED,
        calls=1,
    ),
    SampleCall(
        who="Tokyo, moved",
        country="Japan",
        number="+81312345678",
        asked=_to_be_changed,
        plans=({"outcome": "answered", "ring_s": 0.5, "talk_s": 1},),
        then=Then.MOVED,
        ends=_ANSWERED,
        calls=1,
    ),
    SampleCall(
        who="London, cancelled",
        country="United Kingdom",
        number="+442079460123",
        asked=_to_be_changed,
        then=Then.DELETED,
        ends="DELETED",
        calls=0,
    ),
    SampleCall(
        who="Berlin, while paused",
        country="Germany",
        number="+4930123457",
        plans=({"outcome": "answered", "ring_s": 0.5, "talk_s": 1},),
        then=Then.PAUSED,
        ends=_ANSWERED,
        calls=1,
    ),
)
