"""The people that a soak calls: numbers, behaviour of the carrier and requests, chosen by a seed."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BRATISLAVA, KOLKATA = "Europe/Bratislava", "Asia/Kolkata"
SHORT: Mapping[str, float] = {"ring_s": 0.3, "talk_s": 1.7, "error_s": 0.2}
"""The seconds of each call at the carrier."""

BEHAVIOURS: Mapping[str, tuple[float, Sequence[Mapping[str, Any]]]] = {
    "answered": (76, []),
    "busy": (3, [{**SHORT, "outcome": "busy"}]),
    "voicemail": (2, [{**SHORT, "outcome": "voicemail"}]),
    "declined": (1, [{**SHORT, "outcome": "declined"}]),
    "bad number": (1, [{**SHORT, "fault": "refuse", "code": 21211}]),
    "slow": (2, [{**SHORT, "fault": "slow", "delay_s": 1.0}]),
    "callbacks doubled": (4, [{**SHORT, "callbacks": "doubled"}]),
    "callbacks reordered": (4, [{**SHORT, "callbacks": "reordered"}]),
    "callbacks dropped": (2, [{**SHORT, "callbacks": "none"}]),
    "429": (1, [{**SHORT, "fault": "429"}]),
    "accept then 500": (0.05, [{**SHORT, "fault": "accept_then_500"}]),
    "accept and silence": (0.05, [{**SHORT, "fault": "accept_and_silence", "callbacks": "reordered"}]),
    "late accept": (0.05, [{**SHORT, "fault": "late_accept", "delay_s": 4.0}]),
    "refuse 500": (0.05, [{**SHORT, "fault": "refuse_500"}]),
    "drop": (0.05, [{**SHORT, "fault": "drop"}]),
}
"""Weight of each behaviour, and the carrier's rules for a person's first call. Later calls are answered.

The last five are rare, because each opens the breaker and stops calling for five seconds or more."""

NEVER_LISTED = frozenset({"refuse 500", "drop"})
"""The carrier cut the POST or refused it with a 5xx, so no list and no callback ever names the call."""


@dataclass(frozen=True, kw_only=True)
class Person:
    turn: int
    behaviour: str
    asks_after_s: float
    """Delay of their POST /interviews, from the start of the load."""
    zone: str = BRATISLAVA
    due_in_s: int | None = None
    """Delay of the requested call, from that POST, or None for as soon as allowed."""
    waits: bool = False
    """True: the POST waits for its result. False: the API responds 202 at once."""
    then: str = ""
    """The follow-up request: "delete", "move", "invoke" or none."""
    then_after_s: float = 0.0
    opens_late: bool = False
    """True if their company's hours begin in the middle of the soak."""

    @property
    def number(self) -> str:
        return f"+9198{20_000_000 + self.turn:08d}" if self.zone == KOLKATA else f"+42191{5_000_000 + self.turn:07d}"

    @property
    def rules(self) -> Sequence[Mapping[str, Any]]:
        return BEHAVIOURS[self.behaviour][1]


def alike(behaviour: str, *, rate: float, seconds: float, first: int) -> Iterator[Person]:
    """Yield people in Slovakia, to be called as soon as allowed, with the same behaviour for every call."""
    for turn in range(first, first + int(rate * seconds)):
        yield Person(turn=turn, behaviour=behaviour, asks_after_s=(turn - first) / rate)


def people(*, seed: int, rate: float, seconds: float, first: int = 0) -> Iterator[Person]:
    """Yield people in the order of their requests. The same seed gives the same people."""
    dice = random.Random(seed)
    weights = [weight for weight, _ in BEHAVIOURS.values()]
    for turn in range(first, first + int(rate * seconds)):
        indian = dice.random() < 0.05
        yield Person(
            turn=turn,
            behaviour=dice.choices(list(BEHAVIOURS), weights)[0],
            asks_after_s=(turn - first) / rate,
            zone=KOLKATA if indian else BRATISLAVA,
            due_in_s=dice.choice((None, None, None, 1, 2, 5, 10)),
            waits=dice.random() < 0.5,
            then=dice.choices(("", "delete", "move", "invoke"), (85, 5, 5, 5))[0],
            then_after_s=dice.uniform(0, 6),
            opens_late=not indian and dice.random() < 0.08,
        )
