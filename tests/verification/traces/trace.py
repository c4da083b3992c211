"""Traces: the callbacks of one call that arrive, in which order and how often, and the polls between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import permutations
from random import Random
from typing import Any

from tests.verification.carrier.scripted import ENDS

CODE_IS_TOLD_BY_CALLBACK_ALONE = ("it is declined", "there is no such number", "the carrier fails")
"""A poll returns only `failed` for these ends. Only the last callback contains the reason."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Calls with the same end."""

    end: str
    """One of the carrier's `ENDS`."""
    given_up: bool = False
    """The call was given up as unknown before any callback arrived: all of them come late."""
    code_is_lost: bool = False
    """The last callback never arrives, so the reason of the failure stays unknown."""

    def __str__(self) -> str:
        lost = ", reason lost" if self.code_is_lost else ""
        late = ", proven late" if self.given_up else ""
        return f"{self.end}{lost}{late}"

    @property
    def last(self) -> int:
        return len(ENDS[self.end]) - 1

    @property
    def needs_its_last_callback(self) -> bool:
        return self.end in CODE_IS_TOLD_BY_CALLBACK_ALONE and not self.code_is_lost


KINDS = [
    Kind(end=end, given_up=given_up, code_is_lost=code_is_lost)
    for given_up in (False, True)
    for end in ENDS
    for code_is_lost in ((False, True) if end in CODE_IS_TOLD_BY_CALLBACK_ALONE else (False,))
]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A callback arrives. `way` is the index of its status change among those of the call."""

    way: int
    is_distinct: bool = False
    """It has an additional field, because identical callbacks are stored only once."""


@dataclass(frozen=True, kw_only=True)
class Poll:
    """The carrier is polled after this status change. -1: the call still waits in the carrier's queue."""

    way: int


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answer to the POST is recorded. After a dialler died, this step is missing."""

    is_lost: bool
    """The outcome is unknown. Otherwise the carrier accepted the call."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a call, as its attempt and its arrows show it."""

    state: str
    reason: str | None
    answered_by: str | None
    duration: timedelta | None
    heard_rank: int
    is_expected: bool
    """A phase, a poll, a lease, a called number or a hang-up is left."""
    is_the_right_call: bool
    last_arrow: tuple[Any, ...]
    times_ended: int
    """Number of arrows that gave its end. The verdict that the outcome is unknown does not count."""
    went_back: bool
    """Known progress was recorded again as new."""


Step = Told | Poll | Answered
Trace = tuple[Step, ...]


def plain(kind: Kind) -> list[Trace]:
    """List each order of each selection of callbacks, with the POST's answer at each place, or never."""
    traces: list[Trace] = []
    for order in _orders(kind):
        callbacks = tuple(Told(way=way) for way in order)
        traces.append(callbacks)
        if not kind.given_up:
            traces.extend(
                (*callbacks[:place], Answered(is_lost=is_lost), *callbacks[place:])
                for place in range(len(callbacks) + 1)
                for is_lost in (False, True)
            )
    return traces


def _orders(kind: Kind) -> Iterator[tuple[int, ...]]:
    ways = range(kind.last if kind.code_is_lost else kind.last + 1)
    for count in range(len(ways) + 1):
        for order in permutations(ways, count):
            if kind.last not in order and kind.needs_its_last_callback:
                continue
            if not order and kind.given_up:
                continue  # no callback ever arrives, so the outcome stays unknown
            yield order


def mixed(kind: Kind, dice: Random) -> Trace:
    """Build some callbacks, each up to three times, in any order and with polls between them."""
    order = dice.choice([each for each in _orders(kind) if each or not kind.given_up])
    callbacks = [
        Told(way=way, is_distinct=dice.random() < 0.5) for way in order for _ in range(dice.choice((1, 1, 2, 3)))
    ]
    dice.shuffle(callbacks)
    steps: list[Step] = list(callbacks)
    if dice.random() < 0.7:
        steps.insert(dice.randrange(len(steps) + 1), Answered(is_lost=dice.random() < 0.4))
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        place = dice.randrange(len(steps) + 1)
        reached = max((step.way for step in steps[:place] if isinstance(step, Told | Poll)), default=-1)
        furthest = kind.last
        if kind.needs_its_last_callback and Told(way=kind.last) not in [_as_first(step) for step in steps[:place]]:
            furthest -= 1  # an earlier poll would return the end without its reason
        later = min((step.way for step in steps[place:] if isinstance(step, Poll)), default=furthest)
        if reached <= min(later, furthest):
            steps.insert(place, Poll(way=dice.randint(reached, min(later, furthest))))
    return tuple(steps)


def _as_first(step: Step) -> Step:
    return Told(way=step.way) if isinstance(step, Told) else step
