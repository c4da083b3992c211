"""Holds of deliveries: what waits behind another leaves the range that looks read, and returns when it may be sent."""

import random
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.domain.delivery_history import ReplayFilter
from scheduler.domain.webhook import ClaimedDelivery
from scheduler.persistence.webhook_deliveries import LEASE
from scheduler.persistence.webhook_holds import LONGEST_HOLD
from scheduler.rules.webhooks import WAITS_AT_MOST, QueuedDelivery, sendable
from scheduler.use_cases.webhooks.deliver import Deliver
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support import exhaustive
from tests.support.builders import Tenant
from tests.use_cases.webhooks.endpoints import ACCEPTED, EVERYTHING, FAILED, ScriptedSender, Webhooks

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def events_of_one_interview(webhooks: Webhooks, count: int) -> list[UUID]:
    interview_id = uuid4()
    found = [webhooks.event(interview_id) for _ in range(count)]
    webhooks.number()
    return found


def sent_by(deliver: Deliver, webhooks: Webhooks) -> list[UUID]:
    """Claim, send and record once. Return the events, in the order of their claims."""
    claims = deliver.claim(EVERYTHING)
    assert not deliver.record([deliver.send(each) for each in claims])
    return [each.delivery.event_id for each in claims]


def held(webhooks: Webhooks) -> list[bool]:
    return [row.held_until is not None for row in webhooks.deliveries()]


# ---- set and ended


@guards("hook_hold_ends", "hook_lease")
def test_next_event_is_sent_right_after_the_first(webhooks: Webhooks, accepting: Deliver) -> None:
    webhooks.endpoint()
    _, second, third = events_of_one_interview(webhooks, 3)
    claims = accepting.claim(EVERYTHING)
    assert accepting.claim(EVERYTHING) == ()
    assert held(webhooks) == [False, True, True]
    accepting.record([accepting.send(each) for each in claims])
    assert held(webhooks) == [False, False, True]
    assert [sent_by(accepting, webhooks) for _ in range(3)] == [[second], [third], []]


@guards("hook_hold_ends")
def test_next_event_is_sent_a_minute_after_a_failure(webhooks: Webhooks, now: TestClock, failing: Deliver) -> None:
    webhooks.endpoint()
    first, second = events_of_one_interview(webhooks, 2)
    assert sent_by(failing, webhooks) == [first]
    assert sent_by(failing, webhooks) == []
    [_, row] = webhooks.deliveries()
    assert row.held_until == now() + WAITS_AT_MOST
    now.move(WAITS_AT_MOST - SECOND)
    assert second not in sent_by(failing, webhooks)
    now.move(SECOND)
    assert second in sent_by(failing, webhooks)


@guards("hook_hold_is_over", "hook_hold_looked_at")
def test_hold_without_its_cause_ends_after_an_hour(webhooks: Webhooks, now: TestClock, accepting: Deliver) -> None:
    """A process of the release before records the first one. It ends no holds, and sends held ones itself."""
    webhooks.endpoint()
    first, second = events_of_one_interview(webhooks, 2)
    accepting.claim(EVERYTHING)
    accepting.claim(EVERYTHING)
    values = "state = 'DELIVERED', finished_at = :now, claim = NULL, lease_until = NULL"
    webhooks.tenant.change(f"UPDATE webhook_deliveries SET {values} WHERE event_id = :id", now=now(), id=first)
    now.move(LONGEST_HOLD - SECOND)
    assert sent_by(accepting, webhooks) == []
    now.move(SECOND)
    assert sent_by(accepting, webhooks) == [second]


def test_hold_that_is_over_is_set_again_behind_its_cause(
    webhooks: Webhooks, now: TestClock, accepting: Deliver
) -> None:
    webhooks.endpoint()
    first, second = events_of_one_interview(webhooks, 2)
    webhooks.tenant.change(
        "UPDATE webhook_deliveries SET send_at = :at WHERE sequence = 1", at=now() + 2 * LONGEST_HOLD
    )
    for _ in range(2):
        assert sent_by(accepting, webhooks) == []
        assert held(webhooks) == [False, True]
        now.move(LONGEST_HOLD)
    assert sent_by(accepting, webhooks) == [first]
    assert sent_by(accepting, webhooks) == [second]


def test_hold_left_by_another_release_delays_no_retry_or_replay(
    webhooks: Webhooks, tenant: Tenant, now: TestClock, accepting: Deliver, failing: Deliver
) -> None:
    endpoint_id = webhooks.endpoint()
    event_id = webhooks.numbered_event(uuid4())
    claims = failing.claim(EVERYTHING)
    tenant.change("UPDATE webhook_deliveries SET held_until = :at", at=now() + LONGEST_HOLD)
    failing.record([failing.send(each) for each in claims])
    now.move(6 * SECOND)
    assert sent_by(accepting, webhooks) == [event_id]
    for replayed in (replay_one, replay_range):
        tenant.change("UPDATE webhook_deliveries SET held_until = :at", at=now() + LONGEST_HOLD)
        replayed(webhooks, endpoint_id, event_id)
        assert sent_by(accepting, webhooks) == [event_id]


def replay_one(webhooks: Webhooks, endpoint_id: UUID, event_id: UUID) -> None:
    with webhooks.tenant.database.transaction() as stores:
        stores.webhook_history.replay_one(endpoint_id, event_id, webhooks.tenant.now())


def replay_range(webhooks: Webhooks, endpoint_id: UUID, _: UUID) -> None:
    now = webhooks.tenant.now()
    with webhooks.tenant.database.transaction() as stores:
        receiver = stores.webhook_history.receiver(endpoint_id, None)
        assert receiver is not None
        stores.webhook_history.replay(receiver, ReplayFilter(since=now - timedelta(days=1)), 0, 200, now)


def test_reset_makes_a_failed_event_first_again(webhooks: Webhooks, now: TestClock, failing: Deliver) -> None:
    endpoint_id = webhooks.endpoint()
    first, second = events_of_one_interview(webhooks, 2)
    assert sent_by(failing, webhooks) == [first]
    sent_by(failing, webhooks)
    with webhooks.tenant.database.transaction() as stores:
        stores.webhook_history.send_waiting(endpoint_id, now())
    webhooks.change(endpoint_id, "consecutive_failures = 0")
    claims = failing.claim(EVERYTHING)
    assert [each.delivery.event_id for each in claims] == [first]
    now.move(WAITS_AT_MOST)
    assert second not in [each.delivery.event_id for each in failing.claim(EVERYTHING)], (
        "the first has not failed again"
    )


def test_results_of_two_webhooks_end_the_holds_of_both(webhooks: Webhooks, now: TestClock, accepting: Deliver) -> None:
    """One batch has the first event of one webhook, and the second event of the other one."""
    ahead, behind = webhooks.endpoint(), webhooks.endpoint(is_active=True)
    events_of_one_interview(webhooks, 3)
    webhooks.change(behind, "is_active = false")
    sent_by(accepting, webhooks)
    webhooks.change(behind, "is_active = true")
    claims = accepting.claim(EVERYTHING)
    assert sorted((each.delivery.endpoint_id == ahead, each.message.sequence) for each in claims) == [
        (False, 1),
        (True, 2),
    ]
    assert accepting.claim(EVERYTHING) == ()
    assert not accepting.record([accepting.send(each) for each in claims])
    assert {(row.endpoint_id, row.sequence) for row in webhooks.deliveries() if row.held_until is not None} == {
        (behind, 3)
    }


# ---- backlogs


def test_backlog_of_one_webhook_delays_no_other(webhooks: Webhooks, now: TestClock, accepting: Deliver) -> None:
    webhooks.endpoint()
    events_of_one_interview(webhooks, 100)
    webhooks.tenant.change("UPDATE webhook_deliveries SET send_at = :at WHERE sequence = 1", at=now() + MINUTE)
    webhooks.endpoint(claimed_at=now())
    event_id = webhooks.numbered_event(uuid4())
    found = [each.delivery.event_id for each in accepting.claim(EVERYTHING)]
    assert event_id in found


@guards("hook_order")
def test_look_follows_at_once_while_whole_windows_are_held(
    webhooks: Webhooks, now: TestClock, accepting: Deliver
) -> None:
    webhooks.endpoint()
    events_of_one_interview(webhooks, 450)
    webhooks.tenant.change("UPDATE webhook_deliveries SET send_at = :at WHERE sequence = 1", at=now() + MINUTE)
    looks: list[int] = []
    behind: list[None] = []
    while len(behind) == len(looks):
        assert accepting.claim(EVERYTHING, on_backlog=lambda: behind.append(None)) == ()
        looks.append(sum(held(webhooks)))
    assert looks == [116, 232, 348, 449, 449]


# ---- the rule is the oracle


class World:
    """Random steps of receivers, partners and clocks on two webhooks with five interviews."""

    def __init__(self, webhooks: Webhooks, now: TestClock, seed: int) -> None:
        self.webhooks, self.now, self.choose = webhooks, now, random.Random(seed)
        self.endpoints = [webhooks.endpoint(), webhooks.endpoint()]
        self.interviews = [uuid4() for _ in range(5)]
        self.claims: list[ClaimedDelivery] = []
        self.receivers = {answer: webhooks.deliver(ScriptedSender(answer)) for answer in (ACCEPTED, FAILED)}

    def steps(self) -> list[Callable[[], object]]:
        return [self.happen, self.claim, self.claim, self.answer, self.answer, self.wait, self.reset, self.replay]

    def happen(self) -> None:
        for _ in range(self.choose.randint(1, 6)):
            self.webhooks.event(self.choose.choice(self.interviews))
        self.webhooks.number()

    def claim(self) -> None:
        by_rule = self.by_rule()
        found = self.receivers[ACCEPTED].claim(EVERYTHING)
        assert {(each.delivery.endpoint_id, each.delivery.event_id) for each in found} <= by_rule
        self.claims += found

    def answer(self) -> None:
        """Some answers arrive, and some never do: their leases end."""
        self.choose.shuffle(self.claims)
        deliver = self.receivers[self.choose.choice([ACCEPTED, FAILED])]
        count = self.choose.randint(1, 6)
        answered, self.claims = self.claims[:count], self.claims[count:]
        deliver.record([deliver.send(each) for each in answered])

    def wait(self) -> None:
        self.now.move(self.choose.choice([SECOND, 6 * SECOND, 30 * SECOND, LEASE, 6 * MINUTE]))

    def reset(self) -> None:
        endpoint_id = self.choose.choice(self.endpoints)
        self.webhooks.change(
            endpoint_id, "consecutive_failures = 0, circuit_opened_at = NULL, probe_at = NULL, failing_since = NULL"
        )
        if self.choose.random() < 0.5:
            with self.webhooks.tenant.database.transaction() as stores:
                stores.webhook_history.send_waiting(endpoint_id, self.now())

    def replay(self) -> None:
        rows = self.webhooks.deliveries()
        if rows:
            row = self.choose.choice(rows)
            replay_one(self.webhooks, row.endpoint_id, row.event_id)

    def look(self) -> None:
        """Set and end holds, and claim nothing."""
        with self.webhooks.tenant.database.transaction() as stores:
            for _ in range(4):
                stores.webhook_deliveries.hold_blocked(self.endpoints, self.now())

    def by_rule(self) -> set[Any]:
        """List the keys of the deliveries that the rule finds."""
        queues: dict[Any, dict[UUID, QueuedDelivery]] = defaultdict(dict)
        for row in self.webhooks.deliveries():
            queues[row.endpoint_id, row.interview_id][row.event_id] = QueuedDelivery(
                sequence=row.sequence,
                is_waiting=row.state == "WAITING",
                first_failed_at=row.first_failed_at,
                send_at=row.send_at,
                lease_until=row.lease_until,
                is_replay=row.is_replay,
            )
        return {
            (endpoint_id, event_id)
            for (endpoint_id, _), queue in queues.items()
            for event_id, each in queue.items()
            if each in sendable(list(queue.values()), self.now())
        }

    def in_range(self) -> set[Any]:
        now = self.now()
        return {
            (row.endpoint_id, row.event_id)
            for row in self.webhooks.deliveries()
            if row.state == "WAITING"
            and row.held_until is None
            and row.send_at <= now
            and (row.lease_until is None or row.lease_until <= now)
        }


@guards("hook_hold_ends", "hook_lease")
@pytest.mark.parametrize("seed", exhaustive.every(2, range(4)))
def test_range_has_what_the_rule_finds_after_any_steps(webhooks: Webhooks, now: TestClock, seed: int) -> None:
    world = World(webhooks, now, seed)
    found = 0
    for _ in range(120):
        world.choose.choice(world.steps())()
        if world.choose.random() < 0.5:
            world.look()
            assert world.in_range() == world.by_rule()
            found += len(world.in_range())
    assert found > 50


@pytest.mark.parametrize("seed", exhaustive.every(2, range(2)))
def test_receiver_that_accepts_again_gets_all(webhooks: Webhooks, now: TestClock, seed: int) -> None:
    """No delivery stays held, whatever happened before."""
    world = World(webhooks, now, 100 + seed)
    for _ in range(80):
        world.choose.choice(world.steps())()
    now.move(LEASE)
    for endpoint_id in world.endpoints:
        webhooks.change(endpoint_id, "consecutive_failures = 0, circuit_opened_at = NULL, probe_at = NULL")
        with webhooks.tenant.database.transaction() as stores:
            stores.webhook_history.send_waiting(endpoint_id, now())
    while sent_by(world.receivers[ACCEPTED], webhooks):
        pass
    assert set(webhooks.states()) <= {"DELIVERED", "FAILED"}
