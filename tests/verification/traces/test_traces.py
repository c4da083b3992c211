"""Callbacks in any order, repeated or missing, with answers and polls between them, lead to one end.

    DUECALL_TRACES=all python -m pytest tests/verification/traces     # `make proof`

The pure decisions play them without stores. A few traces of each kind are played over the real stores too. `make test`
plays a sample, the same in each run.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduler.clock import monotonic
from scheduler.persistence.database import Database
from tests.conftest import NOON, TestClock
from tests.verification.carrier.scripted import ScriptedCarrier
from tests.verification.traces.play import PureCall
from tests.verification.traces.trace import KINDS, Answered, Kind, Outcome, Told, Trace, mixed, plain
from tests.verification.traces.trace_setup import End, TraceSetup

WHOLE = bool(os.environ.get("DUECALL_TRACES"))
SEED = int(os.environ.get("DUECALL_SEED") or (random.SystemRandom().randrange(10**6) if WHOLE else 20))
DECIDED, STORED = ((10**6, 400), (10**6, 40)) if WHOLE else ((10, 5), (1, 1))
"""Traces per kind, by decisions alone and over the stores: orders of its callbacks, and traces with repetitions."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Expected result of calls with one kind of end at the carrier."""

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
            # After an unknown outcome the line blocks its own interview too, even when the end is proven later.
            line=(False, not kind.given_up, timedelta(minutes=10)),
            follows=(("1", "PENDING", None, self.retried_after),) if is_retried else (),
            usage=(("minutes", "interview_minutes", "00:01:00"),) if is_answered else (),
            unheard=0,
        )


CARRIER_ERROR = Ending(reason="CARRIER_ERROR", retried_after="00:05:00")
REASON_IS_LOST = Ending(reason="CARRIER_ERROR")
"""The person may have declined, or the number may not exist, so there is no automatic retry."""
ENDINGS: Mapping[str, Ending] = {
    "a person answers": Ending(reason="ANSWERED", answered_by="PERSON"),
    "it is unclear who answers": Ending(reason="ANSWERED", answered_by="UNKNOWN"),
    "a machine answers": Ending(reason="VOICEMAIL", answered_by="MACHINE", retried_after="04:00:00"),
    "there is no answer": Ending(reason="NO_ANSWER", retried_after="02:00:00"),
    "it is busy": Ending(reason="BUSY", retried_after="00:15:00"),
    "it is declined": Ending(reason="DECLINED"),
    "there is no such number": Ending(reason="INVALID_NUMBER"),
    "the carrier fails": CARRIER_ERROR,
    "the carrier cancels it": Ending(reason="CANCELLED_AT_CARRIER"),
}


def the_one_end(kind: Kind) -> End:
    return (REASON_IS_LOST if kind.code_is_lost else ENDINGS[kind.end]).of(kind)


def differences(kind: Kind, end: Outcome) -> dict[str, tuple[Any, Any]]:
    """List the fields of this end that differ, with their actual and expected values."""
    expected = the_one_end(kind)
    pairs = {each.name: (getattr(end, each.name), getattr(expected, each.name)) for each in fields(end)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def strayed(setup: TraceSetup, played: Mapping[UUID, tuple[Kind, Trace]]) -> list[str]:
    """Describe each trace whose stored end is not the expected end of its kind."""
    lines = []
    for attempt_id, end in setup.ends().items():
        kind, trace = played[attempt_id]
        if different := differences(kind, end):
            lines.append(f"{kind}: {different} after {trace}")
    return lines


def traces_of(kind: Kind, dice: random.Random, ordered: int, more: int) -> list[Trace]:
    """List orders of its callbacks, at most as many, and traces with repetitions and polls."""
    orders = plain(kind)
    return [*dice.sample(orders, min(ordered, len(orders))), *(mixed(kind, dice) for _ in range(more))]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_decisions_end_a_call_the_same_after_any_trace(kind: Kind) -> None:
    print(f"DUECALL_SEED={SEED} repeats this run")
    for trace in traces_of(kind, random.Random(SEED), *DECIDED):
        end = PureCall(TestClock(NOON), ScriptedCarrier()).ended(kind, trace)
        assert differences(kind, end) == {}, f"after {trace}"


@pytest.mark.timeout(1800)
def test_stored_call_ends_the_same_after_any_trace(database: Database, aloud: Callable[[str], None]) -> None:
    print(f"DUECALL_SEED={SEED} repeats this run")
    began = monotonic()
    setup, dice = TraceSetup(database), random.Random(SEED)
    played = {setup.play(kind, trace): (kind, trace) for kind in KINDS for trace in traces_of(kind, dice, *STORED)}
    assert setup.ends().keys() == played.keys()
    aloud(f"{len(played)} traces of {len(KINDS)} kinds, {monotonic() - began:.0f} s, seed {SEED}")
    assert strayed(setup, played) == []
    assert setup.troubles() == []
    assert len(played) >= (2_000 if WHOLE else len(KINDS) * sum(STORED))


# ---- checks of this test itself


def test_trace_with_a_wrong_end_is_reported(database: Database) -> None:
    setup = TraceSetup(database)
    person, machine = Kind(end="a person answers"), Kind(end="a machine answers")
    trace: Trace = (Told(way=3), Told(way=1), Answered(is_lost=False))
    honest = setup.play(person, trace)
    lie = setup.play(machine, trace)
    [line] = strayed(setup, {honest: (person, trace), lie: (person, trace)})
    assert "'reason': ('VOICEMAIL', 'ANSWERED')" in line


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_field_of_an_end_is_compared(kind: Kind) -> None:
    end = the_one_end(kind)
    assert differences(kind, end) == {}
    for each in fields(End):
        other: Any = {each.name: "something else"}
        assert list(differences(kind, replace(end, **other))) == [each.name]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_plain_traces_cover_every_order_and_selection(kind: Kind) -> None:
    orders = [tuple(step.way for step in trace if isinstance(step, Told)) for trace in plain(kind)]
    assert len(plain(kind)) == len(set(plain(kind)))
    if not kind.needs_its_last_callback and not kind.code_is_lost:
        choices = {frozenset(order) for order in orders}
        assert len(choices) == 2 ** (kind.last + 1) - kind.given_up, "each callback may be missing"


@pytest.mark.parametrize("seed", range(50))
def test_mixed_traces_contain_only_what_their_kind_allows(seed: int) -> None:
    dice = random.Random(seed)
    for kind in KINDS:
        trace: Sequence[Any] = mixed(kind, dice)
        delivered = [step.way for step in trace if isinstance(step, Told)]
        assert max(delivered, default=-1) <= (kind.last - 1 if kind.code_is_lost else kind.last)
        assert kind.last in delivered or not kind.needs_its_last_callback
        assert delivered or not kind.given_up
