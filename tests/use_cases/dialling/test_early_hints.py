"""Hints that a dial worker receives before their attempts are due: nothing is claimed early, and no hint is lost."""

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest
from redis import Redis
from structlog.testing import capture_logs

from scheduler.lifecycle.capacity import Pace
from scheduler.lifecycle.policy import MAX_CLOCK_SKEW, RELEASE_AHEAD, RELEASE_SPAN
from scheduler.persistence.stores import DUE_CHANNEL
from scheduler.settings import settings as of_this_process
from scheduler.use_cases.dial import Dialler
from scheduler.use_cases.dialling import claimer, hand, sender
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.batch import callee_from
from tests.architecture.guards import guards
from tests.conftest import TestClock, wait_until
from tests.support.builders import Tenant, a_pending_attempt
from tests.support.servers import SimulatedCarrier
from tests.support.statements import statements_of
from tests.use_cases.conftest import MonotonicClock, a_dialler, is_claimed
from tests.use_cases.dialling.test_conflicts import STATEMENTS_OF_A_CLAIM
from tests.use_cases.test_wrong_clock import AN_HOUR, Machine, seen_from
from workers import tasks as worker_tasks
from workers.app import DUE_AT, app
from workers.hints import RedisHintPublisher

A_SECOND, A_MOMENT = timedelta(seconds=1), timedelta(microseconds=1)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> MonotonicClock:
    """The monotonic clock of the dialler: no hint becomes due while a test is stalled."""
    clock = MonotonicClock(0)  # differences are exact: after some uptimes, 0.2 s later is rounded to more than that
    for module in (claimer, hand, sender):
        monkeypatch.setattr(module, "monotonic", clock)
    return clock


def a_pass(dialler: Dialler) -> float | None:
    """Run one pass of the loop, which must claim nothing. Return the seconds until the next one."""
    pause = dialler._loop.run_until_complete(dialler.claim_and_send())
    assert not dialler.sender.calls
    return pause


# ---- the claim


@guards("due_at")
def test_claim_returns_attempts_that_are_due_soon(tenant: Tenant, now: TestClock) -> None:
    early = a_pending_attempt(tenant, due_at=now() + A_SECOND)
    due = a_pending_attempt(tenant)
    claims = tenant.dial.claim([early.id, due.id])
    assert [each.attempt.id for each in claims.claimed] == [due.id]
    assert (claims.early, claims.waiting) == ({early.id: early.due_at}, frozenset())
    assert tenant.attempt(early.id) == early
    now.instant = early.due_at
    assert is_claimed(tenant, early)


def test_attempt_due_after_its_release_is_not_early(tenant: Tenant, now: TestClock) -> None:
    """The clock sends its hint again by then."""
    last = a_pending_attempt(tenant, due_at=now() + RELEASE_SPAN)
    later = a_pending_attempt(tenant, due_at=now() + RELEASE_SPAN + A_MOMENT)
    assert tenant.dial.claim([last.id, later.id]).early == {last.id: last.due_at}


# ---- the dial loop


def test_early_hint_costs_no_statement_before_it_is_due(
    tenant: Tenant, dialler: Dialler, now: TestClock, clock: MonotonicClock
) -> None:
    soon = a_pending_attempt(tenant, due_at=now() + A_SECOND)
    dialler._take((soon.id,), {soon.id: soon.due_at})
    with statements_of(tenant.database) as sent:
        pause = a_pass(dialler)
    assert sent == []
    assert pause is not None
    assert 0 < pause <= 1
    due_at = dialler.claimer.hand.due_at()
    assert due_at is not None
    assert due_at <= clock() + 1


def test_loop_wakes_when_the_next_hint_becomes_due(tenant: Tenant, dialler: Dialler, now: TestClock) -> None:
    """Otherwise a call would wait until the loop looks by itself, for a quarter of a second."""
    dialler._take((UUID(int=1),), {UUID(int=1): now() + timedelta(milliseconds=200)})
    pause = a_pass(dialler)
    assert pause is not None
    assert pause <= 0.2


def test_next_hint_is_of_the_company_whose_last_call_is_oldest(
    tenant: Tenant, other: Tenant, dialler: Dialler, now: TestClock, clock: MonotonicClock
) -> None:
    """A claim of an account with one call a second takes one hint, or all of the company that is due first."""
    first = a_pending_attempt(tenant, due_at=now() - A_SECOND)
    theirs = a_pending_attempt(other)
    last_starts = {tenant.company_id: now(), other.company_id: now() - A_SECOND}
    paces = {key: Pace(next_slot_at=at + A_SECOND, per_second=1, room=9) for key, at in last_starts.items()}
    dialler.claimer.paces.learn(None, paces)
    dialler._take((first.id, theirs.id), {})
    dialler._loop.run_until_complete(dialler.claimer.give_turns())
    assert dialler.claimer.hand.next(clock(), 1) == [theirs.id]


def test_hint_that_becomes_due_during_a_claim_is_next(
    tenant: Tenant, dialler: Dialler, now: TestClock, clock: MonotonicClock
) -> None:
    dialler._take((UUID(int=1),), {UUID(int=1): now() + timedelta(microseconds=1)})
    assert dialler.claimer.hand.due_at() is not None
    clock.at += 1
    assert dialler.claimer.pause() == 0.0


def test_attempts_due_right_after_each_other_share_a_claim(
    tenant: Tenant, dialler: Dialler, now: TestClock, clock: MonotonicClock
) -> None:
    due_at = {a_pending_attempt(tenant, due_at=now() + each).id: now() + each for each in (A_MOMENT, 2 * A_MOMENT)}
    dialler._take(tuple(due_at), due_at)
    now.move(A_SECOND)
    clock.at += 1
    assert dialler.claimer.pause() == 0.0, "both are due"
    with statements_of(tenant.database) as sent:
        dialler._loop.run_until_complete(dialler.claim_and_send())
    calls = set(dialler.sender.calls)
    assert len(calls) == len(due_at)
    assert len(sent) == STATEMENTS_OF_A_CLAIM
    for each in calls:
        each.cancel()
    dialler._loop.run_until_complete(asyncio.wait(calls))
    dialler._alarm.clear()  # of calls that were cancelled before they began


@pytest.mark.parametrize("unsent", [0, 100])
def test_sent_call_wakes_only_a_loop_that_waits_for_room(tenant: Tenant, dialler: Dialler, unsent: int) -> None:
    """Waking it after each call would take more time than the call."""
    for number in range(unsent):
        dialler.room.fill(UUID(int=number))
    dialler._take((a_pending_attempt(tenant, due_at=tenant.now() + A_SECOND).id,), {})
    a_pass(dialler)
    dialler._wake.clear()
    dialler.room.free(UUID(int=1))
    assert dialler._wake.is_set() is bool(unsent)


def test_failed_claim_keeps_early_hints_and_drops_others(
    tenant: Tenant, dialler: Dialler, now: TestClock, clock: MonotonicClock
) -> None:
    soon, no_id = UUID(int=1), cast("UUID", "this is not an id")
    dialler._take((no_id, soon), {soon: now() + timedelta(milliseconds=200)})
    with capture_logs() as logs:
        pause = a_pass(dialler)
    assert [each["event"].partition(":")[0] for each in logs] == ["claim_failed"]
    assert pause is not None
    assert pause <= 0.2, "the loop wakes when it becomes due"
    dialler.claimer.hand.become_due(clock() + 1)
    assert list(dialler.claimer.hand.without_a_turn()) == [soon]


def test_loop_waits_for_a_hint_after_a_failed_claim(dialler: Dialler) -> None:
    dialler._take((cast("UUID", "this is not an id"),), {})
    with capture_logs() as logs:
        assert a_pass(dialler) is None
    assert len(logs) == 1, "it has failed"
    assert not dialler.claimer.hand


def test_early_hint_claimed_too_early_is_tried_when_due(
    tenant: Tenant, dialler: Dialler, now: TestClock, clock: MonotonicClock
) -> None:
    """The worker's clock may have been behind for a moment. It would lose the hint for the rest of its release."""
    soon = a_pending_attempt(tenant, due_at=now() + A_SECOND)
    dialler._take((soon.id,), {})
    a_pass(dialler)
    assert tenant.attempt(soon.id) == soon
    instant = clock()
    due_at = dialler.claimer.hand.due_at()
    assert due_at is not None
    assert instant < due_at <= instant + 1
    dialler.claimer.hand.become_due(due_at)
    assert dialler.claimer.hand.untried(10) == [soon.id]
    now.instant = soon.due_at
    assert is_claimed(tenant, soon)


def test_hint_of_an_attempt_moved_to_tomorrow_is_dropped(tenant: Tenant, dialler: Dialler, now: TestClock) -> None:
    moved = a_pending_attempt(tenant, due_at=now() + timedelta(days=1))
    dialler._take((moved.id,), {moved.id: now()})
    a_pass(dialler)
    assert not dialler.claimer.hand


def test_early_hint_outlasts_a_pause_before_it_is_due(
    tenant: Tenant, dialler: Dialler, now: TestClock, clock: MonotonicClock
) -> None:
    due, soon = a_pending_attempt(tenant), a_pending_attempt(tenant, due_at=now() + A_SECOND)
    with tenant.database.transaction() as stores:
        stores.carrier_accounts.pause("a test", now())
    dialler._take((due.id, soon.id), {soon.id: soon.due_at})
    a_pass(dialler)
    assert dialler.claimer.hand.untried(10) == []
    dialler.claimer.hand.become_due(clock() + 1)
    assert dialler.claimer.hand.untried(10) == [soon.id]


@pytest.mark.parametrize("ahead", [AN_HOUR, -AN_HOUR], ids=str)
def test_wrong_clock_neither_hastens_nor_forgets_a_hint(
    tenant: Tenant,
    carrier: SimulatedCarrier,
    postgres_url: str,
    now: TestClock,
    ahead: timedelta,
    clock: MonotonicClock,
) -> None:
    soon = a_pending_attempt(tenant, due_at=now() + A_SECOND)
    machine = Machine(ahead)
    with seen_from(postgres_url, machine) as database:
        there = replace(tenant, database=database, now=lambda: now() + machine.ahead)
        dialler = a_dialler(there, carrier)
        dialler._take((soon.id,), {soon.id: soon.due_at})
        longest = (RELEASE_AHEAD + MAX_CLOCK_SKEW).total_seconds()
        due_at = dialler.claimer.hand.due_at()
        assert due_at is None or due_at <= clock() + longest, "not an hour"
        dialler.claimer.hand.become_due(clock() + longest)
        a_pass(dialler)
        assert tenant.attempt(soon.id) == soon
        machine.ahead = timedelta()
        claims = there.dial.claim([soon.id])
        assert (claims.claimed, claims.early) == ((), {soon.id: soon.due_at})
        assert list(dialler.claimer.hand.without_a_turn()) == [soon.id], "it is tried again"
        dialler._loop.close()


def test_stopped_dialler_leaves_its_hints_to_another(tenant: Tenant, dialler: Dialler, now: TestClock) -> None:
    soon = a_pending_attempt(tenant, due_at=now() + timedelta(hours=1))
    dialler._thread.start()  # without `start`, whose alarm would end the process of all tests
    dialler.take([soon.id], {soon.id: soon.due_at})
    wait_until(lambda: dialler.claimer.hand.due_at() is not None, says="the hint is taken")
    assert dialler.left() == [], "it may still claim"
    dialler.stop()
    assert dialler.left() == [soon.id]


# ---- the messages


@pytest.fixture
def message(broker: None, redis_url: str, tenant: Tenant) -> Iterator[Any]:
    """The message with a hint for a due attempt and for an early one."""
    hints = RedisHintPublisher(app, redis_url)
    hints.start()
    with Redis.from_url(redis_url) as redis:
        hints.send(tasks.DIAL, [UUID(int=1), UUID(int=2)], {UUID(int=2): tenant.now()})
        wait_until(lambda: redis.llen("duecall:dial") == 1, says="the hint is sent")
        [sent] = redis.lrange("duecall:dial", 0, -1)
    yield json.loads(sent)
    hints.stop()


def test_due_times_travel_in_a_header(message: Any, tenant: Tenant) -> None:
    """A worker of the previous release ignores it, and accepts no other argument than the ids."""
    assert message["headers"][DUE_AT] == {str(UUID(int=2)): tenant.now().isoformat()}


def test_stopping_worker_sends_its_hints_to_another(
    message: Any, dialler: Dialler, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_tasks._Dialler, "one", dialler)
    monkeypatch.setenv("REDIS_URL", redis_url)
    of_this_process.cache_clear()
    worker_tasks._hints.cache_clear()
    dialler._thread.start()
    dialler.take([UUID(int=3)], {UUID(int=3): datetime.max.replace(tzinfo=UTC)})
    worker_tasks._stop()
    with Redis.from_url(redis_url) as redis:
        bodies = [
            json.loads(base64.b64decode(json.loads(each)["body"])) for each in redis.lrange("duecall:dial", 0, -1)
        ]
    assert [str(UUID(int=3))] in [args[0] for args, *_ in bodies]
    worker_tasks._hints.cache_clear()
    of_this_process.cache_clear()


def test_worker_reads_the_due_times(
    message: Any, dialler: Dialler, now: TestClock, monkeypatch: pytest.MonkeyPatch, clock: MonotonicClock
) -> None:
    monkeypatch.setattr(worker_tasks._Dialler, "one", dialler)
    now.move(-A_SECOND)
    worker_tasks.dial.push_request(**message["headers"])
    try:
        worker_tasks.dial.run([str(UUID(int=1)), str(UUID(int=2))])
    finally:
        worker_tasks.dial.pop_request()
    dialler._loop.run_until_complete(asyncio.sleep(0))
    assert dialler.claimer.hand.untried(10) == [UUID(int=1)]
    dialler.claimer.hand.become_due(clock() + 1)
    assert list(dialler.claimer.hand.without_a_turn()) == [UUID(int=1), UUID(int=2)]


# ---- the notification of the clock


@pytest.mark.parametrize(
    ("due_in", "notified"), [(timedelta(), 1), (RELEASE_AHEAD, 1), (RELEASE_AHEAD + A_MOMENT, 0)], ids=str
)
def test_clock_is_notified_of_attempts_due_soon(
    tenant: Tenant, postgres_url: str, now: TestClock, due_in: timedelta, notified: int
) -> None:
    """Its next look may be a second away."""
    attempt = a_pending_attempt(tenant, due_at=now() + timedelta(days=1))
    with psycopg.connect(postgres_url, autocommit=True) as clock:
        received: list[str] = []
        clock.add_notify_handler(lambda each: received.append(each.payload))
        clock.execute(f"LISTEN {DUE_CHANNEL}".encode())
        move(tenant, attempt.id, now() + due_in)
        clock.execute("SELECT pg_notify(%s, 'last')", [DUE_CHANNEL])
        wait_until(lambda: clock.execute("SELECT 1") and "last" in received, says="all notifications have arrived")
        assert received == [""] * notified + ["last"]


def move(tenant: Tenant, attempt_id: UUID, due_at: datetime) -> None:
    attempt = tenant.attempt(attempt_id)
    schedule = replace(attempt.schedule, due_at=due_at)
    with tenant.database.transaction() as stores:
        stores.interviews.lock(attempt.interview_id)
        locked = stores.attempts.lock(attempt.id)
        callee = callee_from(stores.attempts.callee_of(attempt.interview_id))
        tenant.effects.move(stores, locked, schedule, callee, tenant.now())
