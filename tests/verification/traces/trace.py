"""What may become of the news of one call on their way: which come, in what order, how often; and what is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from random import Random

from tests.verification.machine.phones import ENDS

CODE_IS_TOLD_BY_CALLBACK_ALONE = ("it is declined", "there is no such number", "the carrier fails")
"""The carrier says `failed` of these when it is asked, and why only in the last callback."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Calls that end alike."""

    end: str
    """One of the carrier's `ENDS`."""
    given_up: bool = False
    """Nothing had proven anything when it was given up as unknown: all news of it come late."""
    code_is_lost: bool = False
    """The last callback never comes, and so nobody learns why the call failed."""

    def __str__(self) -> str:
        lost = ", and nobody says why" if self.code_is_lost else ""
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
    """A callback comes: of how far the call had come then, by its place among the ways to its end."""

    way: int
    anew: bool = False
    """In another form than before, as if the carrier had found something to add. The very same one is stored once."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The carrier is asked, when the call has come so far. -1: it waits in the carrier's queue."""

    way: int


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What came of the one POST is recorded; a dialler that died records nothing."""

    is_lost: bool
    """It says that nobody can tell, and else that the carrier took it."""


Step = Told | Asked | Answered
Trace = tuple[Step, ...]


def plain(kind: Kind) -> list[Trace]:
    """Each order of each choice of its callbacks, with what came of the POST at each place, or never."""
    found: list[Trace] = []
    for chosen in _orders(kind):
        told = tuple(Told(way=way) for way in chosen)
        found.append(told)
        if not kind.given_up:
            found.extend(
                (*told[:place], Answered(is_lost=is_lost), *told[place:])
                for place in range(len(told) + 1)
                for is_lost in (False, True)
            )
    return found


def _orders(kind: Kind) -> Iterator[tuple[int, ...]]:
    ways = range(kind.last if kind.code_is_lost else kind.last + 1)
    for many in range(len(ways) + 1):
        for order in permutations(ways, many):
            if kind.last not in order and kind.needs_its_last_callback:
                continue
            if not order and kind.given_up:
                continue  # nothing ever comes: it stays unknown
            yield order


def mixed(kind: Kind, dice: Random) -> Trace:
    """Some callbacks once, twice or three times, in any order, and questions in between."""
    order = dice.choice([each for each in _orders(kind) if each or not kind.given_up])
    told = [Told(way=way, anew=dice.random() < 0.5) for way in order for _ in range(dice.choice((1, 1, 2, 3)))]
    dice.shuffle(told)
    steps: list[Step] = list(told)
    if dice.random() < 0.7:
        steps.insert(dice.randrange(len(steps) + 1), Answered(is_lost=dice.random() < 0.4))
    for _ in range(dice.choice((0, 1, 1, 2, 3))):
        place = dice.randrange(len(steps) + 1)
        come = max((step.way for step in steps[:place] if isinstance(step, Told | Asked)), default=-1)
        furthest = kind.last
        if kind.needs_its_last_callback and Told(way=kind.last) not in [_as_first(step) for step in steps[:place]]:
            furthest -= 1  # asked earlier, the carrier would have told the end without its code
        later = min((step.way for step in steps[place:] if isinstance(step, Asked)), default=furthest)
        if come <= min(later, furthest):
            steps.insert(place, Asked(way=dice.randint(come, min(later, furthest))))
    return tuple(steps)


def _as_first(step: Step) -> Step:
    return Told(way=step.way) if isinstance(step, Told) else step
