"""Callbacks that come in any order, more than once, or never, with answers and questions between them: one end.

    DUECALL_TRACES=all python -m pytest tests/verification/traces     # `make proof`

`make test` plays some of them, and others each time.
"""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduler.clock import monotonic
from scheduler.persistence.database import Database
from tests.verification.traces.stage import End, Stage
from tests.verification.traces.trace import KINDS, Answered, Kind, Told, Trace, mixed, plain

WHOLE = bool(os.environ.get("DUECALL_TRACES"))
SEED = int(os.environ.get("DUECALL_SEED") or random.SystemRandom().randrange(10**6))
PLAIN, MIXED = (10**6, 40) if WHOLE else (5, 4)
"""So many traces of a kind: of the orders of its callbacks, and of those with repetitions and questions."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How calls end that end so at the carrier."""

    reason: str
    answered_by: str | None = None
    retried_after: str | None = None

    def of(self, kind: Kind) -> End:
        is_answered = self.reason == "ANSWERED"
        state = "COMPLETED" if is_answered else "FAILED"
        is_retried = self.retried_after is not None and not kind.given_up
        return End(
            state=state,
            reason=self.reason,
            answered_by=self.answered_by,
            duration=timedelta(seconds=60 if self.answered_by else 0),
            heard_rank=4,
            is_expected=False,
            is_the_right_call=True,
            last_arrow=("proven", "FAILED", state, self.reason)
            if kind.given_up
            else ("ended", "IN_PROGRESS", state, self.reason),
            times_ended=1,
            went_back=False,
            interview="SCHEDULED" if is_retried else state,
            # While it was unknown its own interview had to wait too, and still has to.
            line=(False, not kind.given_up, timedelta(minutes=10)),
            follows=(("1", "PENDING", None, self.retried_after),) if is_retried else (),
            usage=(("minutes", "interview_minutes", "00:01:00"),) if is_answered else (),
            unheard=0,
        )


CARRIER_ERROR = Ending(reason="CARRIER_ERROR", retried_after="00:05:00")
NOBODY_SAYS_WHY = Ending(reason="CARRIER_ERROR")
"""The person may have declined, or the number may not exist: nobody is called again by itself."""
ENDINGS: Mapping[str, Ending] = {
    "a person answers": Ending(reason="ANSWERED", answered_by="PERSON"),
    "nobody can tell who answers": Ending(reason="ANSWERED", answered_by="UNKNOWN"),
    "a machine answers": Ending(reason="VOICEMAIL", answered_by="MACHINE", retried_after="04:00:00"),
    "nobody answers": Ending(reason="NO_ANSWER", retried_after="02:00:00"),
    "it is busy": Ending(reason="BUSY", retried_after="00:15:00"),
    "it is declined": Ending(reason="DECLINED"),
    "there is no such number": Ending(reason="INVALID_NUMBER"),
    "the carrier fails": CARRIER_ERROR,
    "the carrier cancels it": Ending(reason="CANCELLED_AT_CARRIER"),
}


def the_one_end(kind: Kind) -> End:
    return (NOBODY_SAYS_WHY if kind.code_is_lost else ENDINGS[kind.end]).of(kind)


def differences(kind: Kind, end: End) -> dict[str, tuple[Any, Any]]:
    """What is otherwise than it must be: how it is, and how it must be."""
    must_be = the_one_end(kind)
    pairs = {each.name: (getattr(end, each.name), getattr(must_be, each.name)) for each in fields(End)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def strayed(stage: Stage, played: Mapping[UUID, tuple[Kind, Trace]]) -> list[str]:
    """A line for each trace that did not lead to its kind's one end."""
    found = []
    for attempt_id, end in stage.ends().items():
        kind, trace = played[attempt_id]
        if otherwise := differences(kind, end):
            found.append(f"{kind}: {otherwise} after {trace}")
    return found


def traces_of(kind: Kind, dice: random.Random) -> list[Trace]:
    orders = plain(kind)
    return [*dice.sample(orders, min(PLAIN, len(orders))), *(mixed(kind, dice) for _ in range(MIXED))]


@pytest.mark.timeout(1800)
def test_whatever_becomes_of_its_news_a_call_ends_in_one_way(database: Database, aloud: Callable[[str], None]) -> None:
    print(f"DUECALL_SEED={SEED} runs the same again")
    began = monotonic()
    stage, dice = Stage(database), random.Random(SEED)
    played = {stage.play(kind, trace): (kind, trace) for kind in KINDS for trace in traces_of(kind, dice)}
    ends = stage.ends()
    assert ends.keys() == played.keys()
    seen = defaultdict[str, Counter[End]](Counter)
    for attempt_id, (kind, _) in played.items():
        seen[str(kind)][ends[attempt_id]] += 1
    for name, counted in seen.items():
        (aloud if WHOLE else print)(f"{name}: {counted.total()} traces, {len(counted)} end")
    aloud(
        f"{len(played)} traces of {len(KINDS)} kinds, {stage.letters} callbacks, {stage.questions} questions,"
        f" {monotonic() - began:.0f} s, seed {SEED}"
    )
    assert strayed(stage, played) == []
    assert stage.troubles() == []
    assert len(played) >= (2_000 if WHOLE else len(KINDS) * MIXED)


# ---- would it be noticed?


def test_a_carrier_that_says_now_this_and_now_that_is_noticed(database: Database) -> None:
    stage = Stage(database)
    person, machine = Kind(end="a person answers"), Kind(end="a machine answers")
    trace: Trace = (Told(way=3), Told(way=1), Answered(is_lost=False))
    honest = stage.play(person, trace)
    lie = stage.play(machine, trace)
    [line] = strayed(stage, {honest: (person, trace), lie: (person, trace)})
    assert "'reason': ('VOICEMAIL', 'ANSWERED')" in line


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nothing_of_an_end_is_passed_over(kind: Kind) -> None:
    end = the_one_end(kind)
    assert differences(kind, end) == {}
    for each in fields(End):
        other: Any = {each.name: "something else"}
        assert list(differences(kind, replace(end, **other))) == [each.name]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_news_of_a_call_are_told_in_every_order_and_left_out_in_every_way(kind: Kind) -> None:
    orders = [tuple(step.way for step in trace if isinstance(step, Told)) for trace in plain(kind)]
    assert len(plain(kind)) == len(set(plain(kind)))
    if not kind.needs_its_last_callback and not kind.code_is_lost:
        choices = {frozenset(order) for order in orders}
        assert len(choices) == 2 ** (kind.last + 1) - kind.given_up, "each may be missing"


@pytest.mark.parametrize("seed", range(50))
def test_a_call_that_is_mixed_up_is_told_of_as_its_kind_allows(seed: int) -> None:
    dice = random.Random(seed)
    for kind in KINDS:
        trace: Sequence[Any] = mixed(kind, dice)
        told = [step.way for step in trace if isinstance(step, Told)]
        assert max(told, default=-1) <= (kind.last - 1 if kind.code_is_lost else kind.last)
        assert kind.last in told or not kind.needs_its_last_callback
        assert told or not kind.given_up
