"""Wherever a dial process dies, and whatever the carrier does then: no phone rings twice and no attempt is lost."""

import ast
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

import scheduler
from scheduler.domain.attempt import Phase
from scheduler.failpoints import FAILPOINTS, OF_THE_DIAL
from tests.conftest import wait_until
from tests.support.builders import a_number, a_pending_attempt
from tests.verification.crash import matrix
from tests.verification.crash.matrix import CELLS, CLOCK_CELLS, SOME_CLOCK_CELLS, WHOLE, is_chosen, one_of_each
from tests.verification.crash.works import killed, stopped, working
from tests.verification.crash.wrong_clock import AHEAD, BEHIND, SET_AHEAD, SET_BACK

pytestmark = pytest.mark.crash


@pytest.mark.timeout(1800 if WHOLE else 300)
def test_wherever_a_process_dies_nobody_is_rung_twice_and_nobody_is_lost(
    postgres_url: str, aloud: Callable[[str], None], subtests: pytest.Subtests
) -> None:
    every = (*CELLS, *CLOCK_CELLS) if WHOLE else (*one_of_each(CELLS), *SOME_CLOCK_CELLS)
    cells = [cell for cell in every if is_chosen(cell)]
    for result in matrix.run(postgres_url, cells, aloud if WHOLE else print):
        with subtests.test(cell=str(result.cell)):
            assert result.faults == []


def test_every_failpoint_has_its_cells() -> None:
    assert {cell.failpoint for cell in CELLS} == set(FAILPOINTS) == {cell.failpoint for cell in one_of_each(CELLS)}
    assert len(FAILPOINTS) == len(set(FAILPOINTS)) >= 30
    assert len(CELLS) == len(set(CELLS)) >= 300


def test_every_part_has_cells_of_each_wrong_clock() -> None:
    parts = ("apply", "cancel", "dial", "hear", "message", "release", "settle", "submit", "write")
    found = {(cell.failpoint.split(".")[0], cell.clock) for cell in CLOCK_CELLS}
    set_within = {(part, clock) for part in parts for clock in (SET_AHEAD, SET_BACK)}
    wrong_before = {(part, clock) for part in parts if part != "cancel" for clock in (AHEAD, BEHIND)}
    assert found == set_within | wrong_before
    assert {cell.failpoint for cell in CLOCK_CELLS} >= set(OF_THE_DIAL)
    assert set(SOME_CLOCK_CELLS) <= set(CLOCK_CELLS)
    assert len(CLOCK_CELLS) == len(set(CLOCK_CELLS))


def test_the_failpoints_are_those_of_the_product() -> None:
    root = Path(scheduler.__file__).parent.parent
    found: Counter[str] = Counter()
    for room in ("scheduler", "workers", "api_shim"):
        for path in (root / room).rglob("*.py"):
            found.update(_failpoints(ast.parse(path.read_text())))
    assert set(found) == set(FAILPOINTS)
    assert set(found.values()) == {1}, "each stands in one place"


def test_a_failpoint_that_stands_inside_a_transaction_says_so() -> None:
    root = Path(scheduler.__file__).parent
    inside = {name for path in root.rglob("*.py") for name in _in_transactions(ast.parse(path.read_text()))}
    assert inside == {name for name in FAILPOINTS if name.endswith("ing")}


def _in_transactions(tree: ast.AST) -> Iterator[str]:
    """Below a `with ….transaction()`, or where the stores of one are given."""
    for node in ast.walk(tree):
        opens = isinstance(node, ast.With) and any(".transaction(" in ast.unparse(item) for item in node.items)
        given = isinstance(node, ast.FunctionDef) and {"stores", "turn"} & {each.arg for each in node.args.args}
        if opens or given:
            yield from _failpoints(node)


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
        attempt_id = a_pending_attempt(works.tenant, number).id
        process = works.dialling([attempt_id])
        wait_until(lambda: works.requests(number), says="the POST is under way")
        assert stopped(process) == [0]
        attempt = works.tenant.attempt(attempt_id)
        assert attempt.phase is Phase.PLACED
        assert works.tenant.history(attempt_id) == ["created", "claimed", "placed"]
        assert len(works.carrier.rings(number)) == 1


def test_a_process_that_is_killed_then_does_not_record_it(postgres_url: str) -> None:
    with working(postgres_url, settling=False, CARRIER_TOTAL_TIMEOUT_S="2", DIAL_LEASE_S="6", SETTLE_S="9") as works:
        number = a_number()
        works.carrier.plan(to=number, fault="slow", delay_s=1.0, callbacks="none", ring_s=60)
        attempt_id = a_pending_attempt(works.tenant, number).id
        process = works.dialling([attempt_id])
        wait_until(lambda: works.requests(number), says="the POST is under way")
        assert killed(process) == -signal.SIGKILL
        assert works.tenant.history(attempt_id) == ["created", "claimed"]


def test_a_process_that_is_told_to_stop_claims_nothing_more(postgres_url: str) -> None:
    # A call every fifty seconds: at a faster pace no claim can have taken a slot so far away, and it is ignored.
    with working(postgres_url, settling=False, TWILIO_CPS="0.02") as works:
        later = works.tenant.now() + timedelta(seconds=50)
        works.tenant.change("UPDATE carrier_accounts SET next_slot_at = :later", later=later)
        waiting = a_pending_attempt(works.tenant)
        assert works.tenant.dial.claim([waiting.id]).claimed == (), "it waits for its slot"
        process = works.dialling([waiting.id])
        assert stopped(process) == [0]
        assert works.tenant.history(waiting.id) == ["created"]
