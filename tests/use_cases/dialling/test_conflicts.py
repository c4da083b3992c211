"""Rows that another transaction has locked, and how much one transaction takes: neither stops anything else."""

import asyncio
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import event
from structlog.testing import capture_logs

from scheduler.carriers.interface import Gate
from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.clock import monotonic
from scheduler.domain.attempt import Phase
from scheduler.domain.call import Accepted, AnswerUnknown, CallOrder, CarrierAnswer, NeverTaken, Withheld
from scheduler.domain.command import Command
from scheduler.domain.company import CallLimits
from scheduler.lifecycle.breaker import BACK_OFF
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION
from scheduler.persistence.database import BATCH_LOCK_S, LOCK_S
from scheduler.persistence.errors import DatabaseAway, StatementFailed
from scheduler.use_cases.dial import Dialler
from scheduler.use_cases.dialling.watch import LOCK_LASTS_S, LockWatch
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared.conflicts import blaming, together
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_sid,
    a_waiting_command,
    of_company,
)
from tests.support.servers import SimulatedCarrier
from tests.support.statements import statements_of
from tests.use_cases.conftest import breaker_of, is_claimed
from tests.verification.world.bulk_attempts import bulk_attempts
from workers.tasks import _each, _together

STATEMENTS_OF_A_CLAIM = 6
IDS = [UUID(int=each) for each in range(200)]
LOCK_ATTEMPT = "SELECT FROM attempts WHERE id = %(id)s FOR UPDATE"


@contextmanager
def locked(url: str, statement: str, key: UUID | int) -> Iterator[int]:
    """A forgotten session that holds a row until the end. Gives its process id."""
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode(), {"id": key})
        yield connection.info.backend_pid


def locked_company(url: str, company_id: UUID, strength: str = "FOR UPDATE") -> AbstractContextManager[int]:
    return locked(url, f"SELECT FROM companies WHERE id = %(id)s {strength}", company_id)


@pytest.mark.parametrize("strength", ["FOR UPDATE", "FOR NO KEY UPDATE"])
def test_locked_company_stops_no_other_company(tenant: Tenant, other: Tenant, postgres_url: str, strength: str) -> None:
    stuck, free = a_pending_attempt(tenant), a_pending_attempt(other)
    with locked_company(postgres_url, tenant.company_id, strength):
        claims = tenant.dial.claim([stuck.id, free.id])
        assert [each.attempt.id for each in claims.claimed] == [free.id]
        assert claims.waiting == {stuck.id}, "it is tried again"
        assert claims.locked == {tenant.company_id}
    assert tenant.attempt(stuck.id) == stuck
    assert is_claimed(tenant, stuck)


def test_company_paused_under_a_lock_is_not_claimed_after_it(tenant: Tenant, postgres_url: str) -> None:
    attempt = a_pending_attempt(tenant)
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "UPDATE companies SET paused_at = %(at)s, pause_reason = 'a test' WHERE id = %(id)s",
            {"at": tenant.now(), "id": tenant.company_id},
        )
        assert tenant.dial.claim([attempt.id]).waiting == {attempt.id}
        connection.commit()
    claims = tenant.dial.claim([attempt.id])
    assert (claims.claimed, claims.waiting) == ((), frozenset())


def test_long_lock_raises_one_alarm(tenant: Tenant, postgres_url: str) -> None:
    watch, company_id = LockWatch(tenant.dial.lock_holder), tenant.company_id
    with locked_company(postgres_url, company_id) as pid, capture_logs() as logs:
        for instant in (100.0, 100.0 + LOCK_LASTS_S):
            watch.saw({company_id}, set(), instant)
        assert logs == [], "a lock of a moment is usual"
        for instant in (111.0, 112.0, 200.0):
            watch.saw({company_id}, set(), instant)
        [alarm] = logs
    assert (alarm["alarm"], alarm["company_id"], alarm["pid"]) == ("LOCK_HELD", str(company_id), pid)
    with capture_logs() as logs:
        watch.saw(set(), {company_id}, 201.0)
        watch.saw({company_id}, set(), 202.0)
        watch.saw({company_id}, set(), 202.0 + LOCK_LASTS_S)
        assert logs == [], "counted from the beginning"
        watch.saw({company_id}, set(), 213.0)
        assert len(logs) == 1


def test_two_short_locks_raise_no_alarm(tenant: Tenant) -> None:
    """In between no claim met the company: its call was cancelled, or another worker claimed it."""
    watch = LockWatch(tenant.dial.lock_holder)
    with capture_logs() as logs:
        watch.saw({tenant.company_id}, set(), 100.0)
        watch.saw({tenant.company_id}, set(), 3700.0)
    assert logs == []


def test_company_whose_row_is_free_is_reported_free(tenant: Tenant, postgres_url: str) -> None:
    """Also while its call waits for something else, such as its number."""
    busy = a_number()
    a_claimed_attempt(tenant, busy)
    stuck = a_pending_attempt(tenant, busy)
    with locked_company(postgres_url, tenant.company_id):
        assert tenant.dial.claim([stuck.id]).unlocked == frozenset()
    assert tenant.dial.claim([stuck.id]).unlocked == {tenant.company_id}


def test_dialler_forgets_a_lock_when_the_row_is_free(tenant: Tenant, dialler: Dialler, postgres_url: str) -> None:
    busy = a_number()
    a_claimed_attempt(tenant, busy)
    stuck = a_pending_attempt(tenant, busy)

    def learns_of_a_lock() -> bool:
        claims = tenant.dial.claim([stuck.id])
        dialler._loop.run_until_complete(dialler.claimer.learn([stuck.id], claims))
        return bool(dialler.claimer.locks)

    with locked_company(postgres_url, tenant.company_id):
        assert learns_of_a_lock()
    assert not learns_of_a_lock()


def test_full_company_is_retried_though_another_is_slow(tenant: Tenant, dialler: Dialler) -> None:
    """The end of its call is no event. It must not wait for the pace of the other company."""
    full, slow = (
        of_company(tenant, seed(tenant.database, tenant.now(), limits=limits))
        for limits in (CallLimits(concurrent_calls=1, calls_per_second=100.0), CallLimits(calls_per_second=0.1))
    )
    attempts = [a_pending_attempt(company) for company in (full, full, slow, slow)]
    ids = [each.id for each in attempts]
    dialler.claimer.hand.take(ids, monotonic())
    dialler.claimer.hand.give_turns(ids, tenant.dial.hinted(ids))
    claims = tenant.dial.claim(ids)
    assert claims.full == {full.company_id, slow.company_id}
    dialler._loop.run_until_complete(dialler.claimer.learn(ids, claims))
    [retried] = dialler.claimer.hand.next(monotonic() + 1.0, 10)
    assert retried in claims.waiting
    assert tenant.attempt(retried).company_id == full.company_id


# ---- a carrier in doubt


@pytest.mark.usefixtures("fresh_looks")
@pytest.mark.parametrize("in_doubt", [True, False])
def test_claimed_call_is_sent_unless_the_carrier_is_in_doubt(
    tenant: Tenant, carrier: SimulatedCarrier, in_doubt: bool
) -> None:
    """It was claimed, and has looked, before an answer arrived that will open the breaker."""
    sent: list[CallOrder] = []

    class Recording(TwilioCallPlacer):
        async def place(self, order: CallOrder, gate: Gate | None = None) -> CarrierAnswer:  # noqa: ARG002 - the interface
            sent.append(order)
            return Accepted(call_sid=a_sid())

    line = Recording(carrier.account(), tenant.policy)
    dialler = Dialler(tenant.dial, line, tenant.now)
    [claim] = tenant.dial.claim([a_pending_attempt(tenant).id]).claimed
    if in_doubt:
        dialler.recorder.add(a_claimed_attempt(tenant), AnswerUnknown(cause="HTTP_500"))
    answer = dialler._loop.run_until_complete(dialler.sender.dial_once(claim))
    dialler._loop.close()
    assert (answer == Withheld(cause="CARRIER_IN_DOUBT"), len(sent)) == ((True, 0) if in_doubt else (False, 1))


# ---- a dial loop that ends


@pytest.mark.parametrize("fails", [True, False])
def test_dialler_reports_a_loop_that_ended_with_an_error(
    tenant: Tenant, carrier: SimulatedCarrier, fails: bool
) -> None:
    failed = threading.Event()

    def no_memory() -> datetime:
        raise MemoryError

    line = TwilioCallPlacer(carrier.account(), tenant.policy)
    dialler = Dialler(tenant.dial, line, no_memory, on_failure=failed.set)
    # Not `start`: the alarm that it prepares would end the process of all tests.
    dialler._thread.start()
    if fails:
        dialler.take([a_pending_attempt(tenant).id])
        dialler._thread.join(60)
    else:
        dialler.stop()
    assert not dialler._thread.is_alive()
    assert failed.is_set() == fails
    for task in asyncio.all_tasks(dialler._loop):
        task.cancel()
    dialler._loop.run_until_complete(line.close())
    dialler._loop.close()


# ---- a lock timeout is a conflict


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(LOCK_ATTEMPT, id="attempt"),
        pytest.param(
            "SELECT FROM interviews i JOIN attempts a ON a.interview_id = i.id WHERE a.id = %(id)s FOR UPDATE OF i",
            id="interview",
        ),
    ],
)
def test_locked_attempt_does_not_delay_settling_of_others(
    tenant: Tenant, settle: Settle, now: TestClock, postgres_url: str, statement: str
) -> None:
    first, *others = sorted(a_claimed_attempt(tenant).id for _ in range(3))
    now.move(tenant.policy.lease)
    with locked(postgres_url, statement, first):
        with capture_logs() as logs:
            settle.round()
        assert not [each for each in logs if "conflict" in each["event"]], "no step waited for the lock"
        phases = dict(tenant.ask("SELECT id, phase FROM attempts"))
        assert phases == {first: Phase.DIALLING.value} | dict.fromkeys(others, Phase.UNKNOWN.value)
    settle.round()
    assert tenant.attempt(first).phase is Phase.UNKNOWN


def test_locked_account_raises_an_alarm_and_gets_no_probe(
    tenant: Tenant, settle: Settle, now: TestClock, postgres_url: str
) -> None:
    tenant.dial.record([(a_claimed_attempt(tenant), NeverTaken(cause="CREDENTIALS"))])
    now.move(BACK_OFF[0])
    lock = "SELECT FROM carrier_accounts WHERE id = %(id)s FOR UPDATE"
    with locked(postgres_url, lock, tenant.account_id), capture_logs() as logs:
        settle.round()
    assert [each["alarm"] for each in logs if "alarm" in each] == ["LOCK_HELD"]
    assert breaker_of(tenant).is_down
    settle.round()
    assert breaker_of(tenant).is_on_trial


@guards("lock_taken")
def test_task_retries_a_conflict_and_goes_on_with_other_ids(broker: None, tenant: Tenant, postgres_url: str) -> None:
    stuck, free = a_pending_attempt(tenant).id, a_pending_attempt(tenant).id
    seen: list[UUID] = []

    def verb(attempt_id: UUID) -> None:
        seen.append(attempt_id)
        with tenant.database.transaction() as stores:
            stores.attempts.lock(attempt_id)

    with locked(postgres_url, LOCK_ATTEMPT, stuck):
        _each([stuck, free], verb)
    assert seen == [stuck, stuck, stuck, free]


def test_unavailable_database_is_not_a_conflict(broker: None) -> None:
    seen: list[UUID] = []

    def verb(attempt_id: UUID) -> None:
        seen.append(attempt_id)
        raise DatabaseAway("a test")

    with pytest.raises(DatabaseAway):
        _each([UUID(int=1), UUID(int=2)], verb)
    assert seen == [UUID(int=1)]


def test_conflict_of_one_of_several_is_tried_once(broker: None, tenant: Tenant, postgres_url: str) -> None:
    """Locked rows of one company would otherwise delay the commands and callbacks of all others."""
    stuck, free = a_pending_attempt(tenant).id, a_pending_attempt(tenant).id
    seen: list[tuple[UUID, float]] = []

    def alone(attempt_id: UUID, *, lock_s: float = LOCK_S) -> None:
        seen.append((attempt_id, lock_s))
        with tenant.database.transaction(lock_s=lock_s) as stores:
            stores.attempts.lock(attempt_id)

    with locked(postgres_url, LOCK_ATTEMPT, stuck):
        _together([stuck, free], list, alone)
    assert seen == [(stuck, BATCH_LOCK_S), (free, BATCH_LOCK_S)]


def test_failed_statements_end_the_task_only_in_a_row(broker: None) -> None:
    bad = {UUID(int=each) for each in (0, 1, 3, 4, 5)}
    seen: list[UUID] = []

    def verb(attempt_id: UUID) -> None:
        seen.append(attempt_id)
        if attempt_id in bad:
            raise StatementFailed

    with pytest.raises(StatementFailed):
        _each(IDS, verb)
    assert seen == IDS[:6]


# ---- batches


def test_batch_with_a_slow_statement_is_done_alone() -> None:
    tried = []

    def act(ids: Sequence[UUID]) -> Collection[UUID]:
        tried.append(ids)
        raise StatementFailed

    assert together(IDS, act) == IDS
    assert len(tried) == 1, "halves of halves would wait for the limit each time"


def test_batch_of_failing_items_is_not_repeated_for_each() -> None:
    done: list[UUID] = []
    sizes = []

    def act(ids: Sequence[UUID]) -> Collection[UUID]:
        sizes.append(len(ids))
        for each in ids:
            with blaming([each], of=len(ids)):
                if each in failing:
                    raise ValueError
        done.extend(ids)
        return ()

    failing = set(IDS[:100])
    assert together(IDS, act) == IDS[:100]
    assert sorted(done) == IDS[100:]
    assert sum(sizes) < 2500, "with one more transaction an item it would be 15,000"


# ---- limits of a transaction


@guards("claim_size")
def test_claim_takes_at_most_two_hundred_attempts(tenant: Tenant, postgres_url: str) -> None:
    ids = bulk_attempts(postgres_url, tenant, AT_MOST_A_TRANSACTION + 20, due_at=tenant.now())
    claims = tenant.dial.claim(ids)
    assert {each.attempt.id for each in claims.claimed} == set(ids[:AT_MOST_A_TRANSACTION])
    assert claims.waiting == set(ids[AT_MOST_A_TRANSACTION:])


@guards("record_size")
def test_transaction_records_at_most_two_hundred_answers(tenant: Tenant, postgres_url: str) -> None:
    ids = bulk_attempts(postgres_url, tenant, AT_MOST_A_TRANSACTION + 2, due_at=tenant.now())
    mine = [
        each.attempt
        for start in range(0, len(ids), AT_MOST_A_TRANSACTION)
        for each in tenant.dial.claim(ids[start : start + AT_MOST_A_TRANSACTION]).claimed
    ]
    twice = a_sid()
    sids = [*(a_sid() for _ in mine[:AT_MOST_A_TRANSACTION]), twice, twice]
    answers: list[tuple[object, CarrierAnswer]] = [
        (attempt, Accepted(call_sid=sid)) for attempt, sid in zip(mine, sids, strict=True)
    ]
    with pytest.raises(Exception, match="uq_attempts_call_sid"):
        tenant.dial.record(answers)  # type: ignore[arg-type]
    [[placed]] = tenant.ask("SELECT count(*) FROM attempts WHERE phase = 'PLACED'")
    assert placed == AT_MOST_A_TRANSACTION


@pytest.mark.parametrize("number", [1, 10, AT_MOST_A_TRANSACTION])
def test_claim_needs_the_same_statements_for_any_number(tenant: Tenant, postgres_url: str, number: int) -> None:
    ids = bulk_attempts(postgres_url, tenant, number, due_at=tenant.now())
    with statements_of(tenant.database) as sent:
        assert len(tenant.dial.claim(ids).claimed) == number
    assert len(sent) == STATEMENTS_OF_A_CLAIM


def test_claim_sees_commands_committed_before_its_lock(tenant: Tenant) -> None:
    pending = a_pending_attempt(tenant)
    commands: list[Command] = []

    def note(*seen: Any) -> None:
        if "SKIP LOCKED" in seen[2] and "JOIN lines" in seen[2]:
            commands.append(a_waiting_command(tenant, pending.interview_id))

    event.listen(tenant.database._engine, "before_cursor_execute", note)
    try:
        assert not is_claimed(tenant, pending)
    finally:
        event.remove(tenant.database._engine, "before_cursor_execute", note)
    assert len(commands) == 1, "it was stored between the lock of the company and that of the attempt"


def test_claim_clears_what_a_former_version_left(tenant: Tenant) -> None:
    pending = a_pending_attempt(tenant)
    tenant.change("UPDATE attempts SET released_until = :at, listed_at = :at, search_at = :at", at=tenant.now())
    [claim] = tenant.dial.claim([pending.id]).claimed
    assert tenant.attempt(pending.id) == claim.attempt
    assert tenant.ask("SELECT released_until, listed_at, search_at FROM attempts") == [(None, None, None)]


def test_claim_counts_the_calls_of_each_company(tenant: Tenant, other: Tenant) -> None:
    for each in (tenant, tenant, other):
        a_claimed_attempt(each)
    with tenant.database.reading() as stores:
        ids = [a_pending_attempt(tenant).id, a_pending_attempt(other).id]
        facts = stores.attempt_claims.facts(tenant.account_id, ids, [tenant.company_id], [])
    assert facts.calls_by_company == {tenant.company_id: 2}, "only those of the claim"
    assert (facts.calls, facts.calls_being_placed) == (3, 3)
    assert facts.companies == {tenant.company_id, other.company_id}
