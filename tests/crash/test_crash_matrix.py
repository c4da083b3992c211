"""Wherever a dial process dies, and whatever the carrier does then: no phone rings twice and no attempt is lost."""

import ast
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

import scheduler
from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, Phase, Reason
from scheduler.failpoints import FAILPOINTS, OF_THE_DIAL
from scheduler.lifecycle.state_machine import is_over
from tests.builders import a_number, a_pending_attempt
from tests.conftest import wait_until
from tests.crash.works import Works, ended, instant, killed, stopped, without_a_breaker, working

pytestmark = pytest.mark.crash

SHORT = {"ring_s": 0.2, "talk_s": 0.2}
BEHAVIOURS: dict[str, dict[str, Any]] = {
    "answered": {**SHORT, "callbacks": "doubled"},
    # Without callbacks: only the carrier's list can prove what became of these.
    "accept_and_silence": {**SHORT, "fault": "accept_and_silence", "callbacks": "none"},
    "accept_then_500": {**SHORT, "fault": "accept_then_500", "callbacks": "reordered"},
    "late_accept": {**SHORT, "fault": "late_accept", "delay_s": 2.0},
}
NEVER_ANSWERED = {"accept_and_silence", "late_accept"}
BETWEEN_CLAIM_AND_SEND = {"dial.claimed", "dial.looked"}
"""Died there, it has sent nothing, and nobody can tell: the outcome is unknown for good."""
CELLS = sorted(product(OF_THE_DIAL, BEHAVIOURS), key=lambda cell: cell[0] not in BETWEEN_CLAIM_AND_SEND)
"""Those that take longest go first."""
AT_ONCE = 8
AN_HOUR = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Cell:
    failpoint: str
    behaviour: str
    number: str
    first_exit: int
    other_exits: list[int]
    attempt: Attempt
    history: list[str]
    seconds: float


def play(works: Works, failpoint: str, behaviour: str) -> Cell:
    """One attempt, one process that dies at the failpoint, two that are handed the same attempt afterwards."""
    started, number = monotonic(), a_number()
    works.carrier.plan(to=number, **BEHAVIOURS[behaviour])
    attempt_id = a_pending_attempt(works.house, number).id
    first = ended(works.dialling([attempt_id], DUECALL_FAILPOINT=failpoint))
    others = [works.dialling([attempt_id]) for _ in range(2)]
    wait_until(lambda: is_over(works.house.attempt(attempt_id)), seconds=40, says=f"{failpoint} x {behaviour} ended")
    return Cell(
        failpoint=failpoint,
        behaviour=behaviour,
        number=number,
        first_exit=first,
        other_exits=stopped(*others),
        attempt=works.house.attempt(attempt_id),
        history=works.house.history(attempt_id),
        seconds=monotonic() - started,
    )


def problems(cell: Cell, works: Works, rings: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with a cell, by the carrier's own ledger."""
    legs = [ring for ring in rings if ring["to"] == cell.number]
    sends = works.carrier.requests(cell.number)
    of_attempt = {
        row[0] for row in works.house.ask("SELECT token FROM attempt_tokens WHERE attempt_id = :id", id=cell.attempt.id)
    }
    never_rang = cell.failpoint in BETWEEN_CLAIM_AND_SEND
    if cell.first_exit != -signal.SIGKILL:
        yield f"the first process ended with {cell.first_exit}, not at its failpoint"
    if cell.other_exits != [0, 0]:
        yield f"the others ended with {cell.other_exits}"
    if len(legs) != (0 if never_rang else 1):
        yield f"{len(legs)} rings"
    if len(sends) != len(legs):
        yield f"{len(sends)} requests for {len(legs)} rings"
    if any(leg["token"] not in of_attempt for leg in legs):
        yield "a ring with a token of nobody's"
    spans = sorted((instant(leg["accepted_at"]), instant(leg["ended_at"])) for leg in legs)
    if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):  # type: ignore[operator]
        yield "two legs at once"
    expected = Reason.OUTCOME_UNKNOWN if never_rang else Reason.ANSWERED
    if cell.attempt.reason is not expected:
        yield f"ended as {cell.attempt.reason}, not {expected}"
    if legs and cell.attempt.call_sid != legs[0]["sid"]:
        yield "bound to another call than its own"
    if works.house.line(cell.attempt)[0] is not None:
        yield "its line is still held"


def test_no_cell_rings_twice_or_is_lost(postgres_url: str, subtests: pytest.Subtests) -> None:
    started = monotonic()
    with working(postgres_url) as works, without_a_breaker(works.house):
        cells = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done in as_completed(pool.submit(play, works, *cell) for cell in CELLS):
                cell = done.result()
                cells.append(cell)
                print(
                    f"{len(cells):2}/{len(CELLS)} {cell.failpoint:14} x {cell.behaviour:18} {cell.seconds:5.1f} s"
                    f"  {cell.attempt.reason}  {' '.join(cell.history)}",
                    flush=True,
                )
        rings = works.carrier.rings()
        for cell in cells:
            with subtests.test(cell=f"{cell.failpoint} x {cell.behaviour}"):
                assert list(problems(cell, works, rings)) == []
        ends = Counter(str(cell.attempt.reason) for cell in cells)
        paused = works.house.ask("SELECT pause_reason FROM companies WHERE paused_at IS NOT NULL")
    print(f"{len(cells)} cells, {len(rings)} rings, {dict(ends)}, {monotonic() - started:.1f} s", flush=True)
    assert paused == [], "an alarm"
    assert len(rings) == len(BEHAVIOURS) * (len(OF_THE_DIAL) - len(BETWEEN_CLAIM_AND_SEND))


def test_every_failpoint_of_the_dial_has_its_cells() -> None:
    assert {failpoint for failpoint, _ in CELLS} == set(OF_THE_DIAL)
    assert len(CELLS) == len(set(CELLS)) == 24


def test_the_failpoints_are_those_of_the_product() -> None:
    root = Path(scheduler.__file__).parent.parent
    found: Counter[str] = Counter()
    for room in ("scheduler", "workers", "api_shim"):
        for path in (root / room).rglob("*.py"):
            found.update(_failpoints(ast.parse(path.read_text())))
    assert set(found) == set(FAILPOINTS)
    assert set(found.values()) == {1}, "each stands in one place"


def _failpoints(tree: ast.AST) -> Iterator[str]:
    """The names in `failpoint("…")`, and in `call_soon(failpoint, "…")`, which calls it a moment later."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for place, name in pairwise([call.func, *call.args]):
            if isinstance(place, ast.Name) and place.id == "failpoint":
                assert isinstance(name, ast.Constant), "a failpoint's name is written out"
                yield str(name.value)


def test_a_process_that_is_told_to_stop_records_what_it_has_sent(postgres_url: str) -> None:
    with working(postgres_url, settling=False, CARRIER_TOTAL_TIMEOUT_S="2", DIAL_LEASE_S="6", SETTLE_S="9") as works:
        number = a_number()
        works.carrier.plan(to=number, fault="slow", delay_s=1.0, callbacks="none", ring_s=60)
        attempt_id = a_pending_attempt(works.house, number).id
        process = works.dialling([attempt_id])
        wait_until(lambda: works.requests(number), says="the POST is under way")
        assert stopped(process) == [0]
        attempt = works.house.attempt(attempt_id)
        assert attempt.phase is Phase.PLACED
        assert works.house.history(attempt_id) == ["created", "claimed", "placed"]
        assert len(works.carrier.rings(number)) == 1


def test_a_process_that_is_killed_then_does_not_record_it(postgres_url: str) -> None:
    with working(postgres_url, settling=False, CARRIER_TOTAL_TIMEOUT_S="2", DIAL_LEASE_S="6", SETTLE_S="9") as works:
        number = a_number()
        works.carrier.plan(to=number, fault="slow", delay_s=1.0, callbacks="none", ring_s=60)
        attempt_id = a_pending_attempt(works.house, number).id
        process = works.dialling([attempt_id])
        wait_until(lambda: works.requests(number), says="the POST is under way")
        assert killed(process) == -signal.SIGKILL
        assert works.house.history(attempt_id) == ["created", "claimed"]


def test_a_process_that_is_told_to_stop_claims_nothing_more(postgres_url: str) -> None:
    with working(postgres_url, settling=False) as works:
        works.house.change("UPDATE carrier_accounts SET next_slot_at = :later", later=works.house.now() + AN_HOUR)
        waiting = a_pending_attempt(works.house)
        process = works.dialling([waiting.id])
        assert stopped(process) == [0]
        assert works.house.history(waiting.id) == ["created"]
