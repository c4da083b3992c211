"""The deliverer: several at once keep the order, and a receiver that hangs delays no other."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from uuid import UUID, uuid4

import pytest

from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.webhook_deliveries import Work
from scheduler.use_cases.operations import number_events
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.webhooks.deliver import Deliver, Result
from scheduler.use_cases.webhooks.deliverer import Deliverer
from tests.conftest import wait_until
from tests.support.webhook_receivers import Behaviour, Visit, a_webhook_receiver, answers
from tests.use_cases.webhooks.endpoints import Webhooks

EVENTS = 24


@contextmanager
def running(webhooks: Webhooks, *, count: int = 1, threads: int = 16) -> Iterator[list[Deliverer]]:
    deliverers = [Deliverer(webhooks.deliver(), threads=threads) for _ in range(count)]
    for each in deliverers:
        each.start()
    try:
        yield deliverers
    finally:
        for each in deliverers:
            each.stop()


def done(webhooks: Webhooks, endpoint_id: UUID, deliverers: list[Deliverer]) -> bool:
    """Check that all deliveries of the endpoint were accepted. Otherwise wake the deliverers, as the clock does."""
    if set(webhooks.states(endpoint_id)) == {"DELIVERED"}:
        return True
    for each in deliverers:
        each.wake()
    return False


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set at the end, so that no test waits for a deadline."""
    event = threading.Event()
    yield event
    event.set()


def holds(release: threading.Event) -> Behaviour:
    """Read the request and answer nothing."""

    def behave(_: Visit) -> None:
        release.wait(60)

    return behave


def test_dead_receiver_delays_no_other(webhooks: Webhooks, release: threading.Event) -> None:
    with a_webhook_receiver(holds(release)) as dead, a_webhook_receiver(answers(200)) as alive:
        webhooks.endpoint(dead.url)
        healthy = webhooks.endpoint(alive.url)
        for _ in range(EVENTS):
            webhooks.event(uuid4())
        webhooks.number()
        with running(webhooks) as deliverers:
            wait_until(lambda: done(webhooks, healthy, deliverers), says="the healthy one has received all")
            wait_until(lambda: len(dead.visits) >= 4, says="it has received what it may")
            assert len(dead.visits) == 4
            assert not dead.left.is_set(), "it still hangs"
            release.set()
    assert len(alive.visits) == EVENTS


def test_many_slow_receivers_delay_no_other(webhooks: Webhooks, release: threading.Event) -> None:
    """Those that answered late before share a half of the threads."""
    with ExitStack() as stack:
        slow = [stack.enter_context(a_webhook_receiver(holds(release))) for _ in range(6)]
        alive = stack.enter_context(a_webhook_receiver(answers(200)))
        for each in slow:
            webhooks.endpoint(each.url, is_slow=True)
        for _ in range(4):
            webhooks.event(uuid4())
        webhooks.number()
        with running(webhooks, threads=6) as deliverers:
            wait_until(lambda: sum(len(each.visits) for each in slow) == 3, says="the slow ones have their threads")
            healthy = webhooks.endpoint(alive.url, principal_id=uuid4())
            for _ in range(EVENTS):
                webhooks.event(uuid4())
            webhooks.number()
            wait_until(lambda: done(webhooks, healthy, deliverers), says="the healthy one has received all")
            assert sum(len(each.visits) for each in slow) == 3
            release.set()
    assert len(alive.visits) == EVENTS


def test_owner_of_slow_receivers_leaves_half_to_others(webhooks: Webhooks, release: threading.Event) -> None:
    """None of them is known to be slow yet, so each may have four messages in flight."""
    with ExitStack() as stack:
        hanging = [stack.enter_context(a_webhook_receiver(holds(release))) for _ in range(6)]
        alive = stack.enter_context(a_webhook_receiver(answers(200)))
        for each in hanging:
            webhooks.endpoint(each.url)
        for _ in range(4):
            webhooks.event(uuid4())
        webhooks.number()
        with running(webhooks, threads=8) as deliverers:
            wait_until(lambda: sum(len(each.visits) for each in hanging) == 4, says="the owner has its threads")
            other = webhooks.endpoint(alive.url, principal_id=uuid4())
            for _ in range(EVENTS):
                webhooks.event(uuid4())
            webhooks.number()
            wait_until(lambda: done(webhooks, other, deliverers), says="the other owner has received all")
            assert sum(len(each.visits) for each in hanging) == 4
            release.set()
    assert len(alive.visits) == EVENTS


def test_webhook_is_noticed_without_a_hint(webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch) -> None:
    """While no webhook is active, the process looks less often, and goes on looking."""
    monkeypatch.setattr("scheduler.use_cases.webhooks.deliverer.LOOK_WITHOUT_WEBHOOKS_EVERY_S", 0.01)
    looks: list[Work] = []
    numbering = NumberEvents(webhooks.tenant.database, webhooks.hints, webhooks.tenant.now)

    def look() -> Work:
        looks.append(numbering.look())
        return looks[-1]

    with a_webhook_receiver(answers(200)) as receiver:
        deliverer = Deliverer(webhooks.deliver(), look=look)
        deliverer.start()
        try:
            wait_until(lambda: len(looks) > 1, says="it has looked again")
            assert not looks[0].is_one_active
            endpoint_id = webhooks.endpoint(receiver.url)
            webhooks.event(uuid4())
            wait_until(lambda: webhooks.states(endpoint_id) == ["DELIVERED"], says="it is delivered")
        finally:
            deliverer.stop()


def test_look_numbers_the_rest_in_its_next_turn(
    webhooks: Webhooks, short_turns: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_events, "EVENTS_A_BATCH", 4)
    numbering = NumberEvents(webhooks.tenant.database, webhooks.hints, webhooks.tenant.now)
    endpoint_id = webhooks.endpoint()
    for _ in range(6):
        webhooks.event(uuid4())
    for numbered in (4, 6):
        assert numbering.look().is_one_due
        assert len(webhooks.deliveries(endpoint_id)) == numbered
    assert webhooks.hints.rings == [], "the process itself looks again"


def test_several_processes_keep_the_order_of_each_interview(webhooks: Webhooks) -> None:
    interviews = [uuid4() for _ in range(6)]
    with a_webhook_receiver(answers(200)) as receiver:
        endpoint_id = webhooks.endpoint(receiver.url)
        for _ in range(5):
            for each in interviews:
                webhooks.event(each)
        webhooks.number()
        with running(webhooks, count=3, threads=4) as deliverers:
            wait_until(lambda: done(webhooks, endpoint_id, deliverers), says="all are delivered")
    bodies = [json.loads(visit.body) for visit in receiver.visits]
    for each in interviews:
        own = [body["sequence"] for body in bodies if body["data"]["interviewId"] == str(each)]
        assert own == [1, 2, 3, 4, 5]


def test_stopping_deliverer_records_what_it_has_sent(webhooks: Webhooks) -> None:
    may_answer = threading.Event()

    def answers_later(visit: Visit) -> None:
        may_answer.wait(60)
        answers(200)(visit)

    with a_webhook_receiver(answers_later) as receiver:
        webhooks.endpoint(receiver.url)
        webhooks.numbered_event(uuid4())
        [deliverer] = [Deliverer(webhooks.deliver())]
        deliverer.start()
        wait_until(lambda: receiver.visits, says="it is sent")
        deliverer.stop_claiming()
        webhooks.numbered_event(uuid4())
        deliverer.wake()
        may_answer.set()
        deliverer.stop()
    assert webhooks.states() == ["DELIVERED", "WAITING"]


def test_result_is_kept_while_the_database_is_away(webhooks: Webhooks, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = webhooks.deliver()
    failures = iter([DatabaseAway("a test"), ZeroDivisionError()])

    def fails_first(results: Sequence[Result]) -> Sequence[Result]:
        error = next(failures, None)
        if error is not None:
            raise error
        return Deliver.record(deliver, results)

    monkeypatch.setattr(deliver, "record", fails_first)
    with a_webhook_receiver(answers(200)) as receiver:
        endpoint_id = webhooks.endpoint(receiver.url)
        webhooks.numbered_event(uuid4())
        deliverer = Deliverer(deliver)
        deliverer.start()
        wait_until(lambda: webhooks.states(endpoint_id) == ["DELIVERED"], says="it is recorded")
        deliverer.stop()
        assert receiver.connections == 1
