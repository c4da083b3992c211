"""Crash matrix: a process may die at any failpoint. No phone rings twice and no attempt is lost."""

import ast
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

import scheduler
from scheduler.domain.attempt import Phase
from scheduler.failpoints import FAILPOINTS, OF_THE_DIAL
from tests.conftest import wait_until
from tests.support.builders import Tenant, a_number, a_pending_attempt
from tests.verification.crash import matrix
from tests.verification.crash.matrix import CELLS, CLOCK_CELLS, SOME_CLOCK_CELLS, WHOLE, is_chosen, one_of_each
from tests.verification.world.installation import ended
from tests.verification.world.workers import Dialled, dialled, is_stopped, killed, stopped, working
from tests.verification.world.wrong_clock import AHEAD, BEHIND, SET_AHEAD, SET_BACK

pytestmark = pytest.mark.crash


@pytest.mark.timeout(1800 if WHOLE else 300)
def test_killed_process_loses_no_call_and_rings_no_phone_twice(
    postgres_url: str, aloud: Callable[[str], None], subtests: pytest.Subtests
) -> None:
    every = (*CELLS, *CLOCK_CELLS) if WHOLE else (*one_of_each(CELLS), *SOME_CLOCK_CELLS)
    cells = [cell for cell in every if is_chosen(cell)]
    for result in matrix.run(postgres_url, cells, aloud if WHOLE else print):
        with subtests.test(cell=str(result.cell)):
            assert result.faults == []


def test_every_failpoint_has_cells() -> None:
    assert {cell.failpoint for cell in CELLS} == set(FAILPOINTS) == {cell.failpoint for cell in one_of_each(CELLS)}
    assert len(FAILPOINTS) == len(set(FAILPOINTS)) >= 30
    assert len(CELLS) == len(set(CELLS)) >= 300


def test_every_component_has_cells_for_each_wrong_clock() -> None:
    parts = ("apply", "cancel", "dial", "hear", "message", "release", "settle", "submit", "write")
    found = {(cell.failpoint.split(".")[0], cell.clock) for cell in CLOCK_CELLS}
    set_within = {(part, clock) for part in parts for clock in (SET_AHEAD, SET_BACK)}
    wrong_before = {(part, clock) for part in parts if part != "cancel" for clock in (AHEAD, BEHIND)}
    assert found == set_within | wrong_before
    assert {cell.failpoint for cell in CLOCK_CELLS} >= set(OF_THE_DIAL)
    assert set(SOME_CLOCK_CELLS) <= set(CLOCK_CELLS)
    assert len(CLOCK_CELLS) == len(set(CLOCK_CELLS))


def test_failpoint_list_matches_the_source_code() -> None:
    root = Path(scheduler.__file__).parent.parent
    found: Counter[str] = Counter()
    for package in ("scheduler", "workers", "api_shim", "console", "standalone", "command_line"):
        for path in (root / package).rglob("*.py"):
            found.update(_failpoints(ast.parse(path.read_text())))
    assert set(found) == set(FAILPOINTS)
    assert set(found.values()) == {1}, "each failpoint occurs exactly once"


def test_failpoint_inside_a_transaction_ends_in_ing() -> None:
    root = Path(scheduler.__file__).parent
    inside = {name for path in root.rglob("*.py") for name in _in_transactions(ast.parse(path.read_text()))}
    assert inside == {name for name in FAILPOINTS if name.endswith("ing")}


def _in_transactions(tree: ast.AST) -> Iterator[str]:
    """Yield failpoints below a `with ….transaction()`, or in a function that gets a transaction's stores."""
    for node in ast.walk(tree):
        opens = isinstance(node, ast.With) and any(".transaction(" in ast.unparse(item) for item in node.items)
        given = isinstance(node, ast.FunctionDef) and {"stores", "turn"} & {each.arg for each in node.args.args}
        if opens or given:
            yield from _failpoints(node)


def _failpoints(tree: ast.AST) -> Iterator[str]:
    """Yield the names in `failpoint("…")`, and in `call_soon(failpoint, "…")`, which calls it a moment later."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for place, name in pairwise([call.func, *call.args]):
            if isinstance(place, ast.Name) and place.id == "failpoint":
                assert isinstance(name, ast.Constant), "the name of a failpoint is a literal"
                yield str(name.value)


@contextmanager
def a_call_without_an_answer(postgres_url: str, *, answers_after_s: float) -> Iterator[Dialled]:
    """Dial through a slow carrier, until it has received the POST."""
    with working(postgres_url, settling=False, CARRIER_TOTAL_TIMEOUT_S="60", DIAL_LEASE_S="90", SETTLE_S="99") as setup:
        setup.carrier.plan(fault="slow", delay_s=answers_after_s, callbacks="none", ring_s=60)
        call = dialled(setup)
        wait_until(lambda: call.requests, says="the carrier has received the POST")
        yield call


def test_stopping_dialler_records_the_call_that_it_has_sent(postgres_url: str) -> None:
    with a_call_without_an_answer(postgres_url, answers_after_s=1) as call:
        assert stopped(call.process) == [0]
        assert call.attempt.phase is Phase.PLACED
        assert call.history == ["created", "claimed", "placed"]
        assert len(call.setup.carrier.rings(call.number)) == 1


def test_killed_dialler_does_not_record_the_call(postgres_url: str) -> None:
    with a_call_without_an_answer(postgres_url, answers_after_s=50) as call:
        assert killed(call.process) == -signal.SIGKILL
        assert call.history == ["created", "claimed"]


def test_stopping_dialler_claims_no_further_attempts(postgres_url: str) -> None:
    # One call every fifty seconds. At a faster pace, claims ignore a slot that far in the future as impossible.
    with working(postgres_url, settling=False, TWILIO_CPS="0.02") as setup:
        later = setup.tenant.now() + timedelta(seconds=50)
        setup.tenant.change("UPDATE carrier_accounts SET next_slot_at = :later", later=later)
        waiting = a_pending_attempt(setup.tenant)
        assert setup.tenant.dial.claim([waiting.id]).claimed == (), "the attempt waits for its slot"
        process = setup.dialling([waiting.id])
        assert stopped(process) == [0]
        assert setup.tenant.history(waiting.id) == ["created"]


_WAITING_SINCE = """
    SELECT max(xact_start) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INTO inbox%'
"""


def test_client_repeats_a_request_that_is_still_running(postgres_url: str) -> None:
    with working(postgres_url, settling=False) as setup:
        tenant, number = setup.tenant, a_number()
        candidate_id = tenant.interview(a_pending_attempt(tenant).interview_id).candidate_id
        words = ("change_candidate", tenant.principal, str(uuid4()), candidate_id, {"phone_number": number})
        first = setup.doing(*words, DUECALL_FAILPOINT="write.answering:stop")
        try:
            wait_until(lambda: is_stopped(first), says="the first request holds the idempotency key")
            second = setup.doing(*words)
            [[since]] = wait_until(lambda: _waiting_since(tenant), says="the second request waits for the first one")
            wait_until(lambda: [(since,)] < _waiting_since(tenant), says="it is repeated")
        finally:
            assert killed(first) == -signal.SIGKILL
        assert ended(second) == 0
        assert tenant.ask("SELECT phone_number FROM candidates WHERE id = :id", id=candidate_id) == [(number,)]


def _waiting_since(tenant: Tenant) -> list[tuple[datetime]]:
    """Return when the transaction began that waits for an idempotency key. Empty: no transaction waits."""
    return [(since,) for [since] in tenant.ask(_WAITING_SINCE) if since is not None]
