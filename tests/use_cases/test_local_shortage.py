"""A worker without a free descriptor loses no call, and its failures count against no carrier and no receiver."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from scheduler import process
from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.clock import monotonic
from scheduler.domain.attempt import AttemptState
from scheduler.domain.call import Accepted, CarrierAnswer
from scheduler.lifecycle.breaker import OPENS_AFTER, Breaker
from scheduler.rules.webhooks import NOT_SENT_AGAIN_AFTER
from scheduler.use_cases.dial import Dialler
from scheduler.use_cases.settle import Settle
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_claimed_attempt, a_pending_attempt
from tests.support.descriptors import no_descriptors
from tests.support.servers import SimulatedCarrier
from tests.support.webhook_receivers import a_webhook_receiver, answers
from tests.use_cases.conftest import a_backoff, breaker_of
from tests.use_cases.webhooks.endpoints import Webhooks

# ---- calls


def test_unopened_connections_open_no_breaker(tenant: Tenant, carrier: SimulatedCarrier) -> None:
    attempts = [a_claimed_attempt(tenant) for _ in range(2 * OPENS_AFTER)]
    orders = [tenant.dial.last_look(each) for each in attempts]

    async def placed() -> list[CarrierAnswer]:
        line = TwilioCallPlacer(carrier.account(), tenant.policy)
        line._open()
        with no_descriptors():
            answers = [await line.place(order) for order in orders if order is not None]
        await line.close()
        return answers

    given = asyncio.run(placed())
    for attempt, answer in zip(attempts, given, strict=True):
        tenant.dial.record([(attempt, answer)])
    assert breaker_of(tenant) == Breaker()
    after = [tenant.attempt(each.id) for each in attempts]
    assert {each.state for each in after} == {AttemptState.PENDING}
    assert {each.not_placed for each in after} == {0}, "a try was used"
    assert {each.due_at for each in after} == {tenant.now() + timedelta(seconds=5)}
    assert not any(carrier.rings(order.to) for order in orders if order is not None)


@guards("no_descriptor")
def test_dialler_claims_nothing_without_a_descriptor(dialler: Dialler) -> None:
    with no_descriptors(), capture_logs() as lines:
        assert dialler.claimer.limit() == 0
    assert [line["alarm"] for line in lines] == ["OUT_OF_DESCRIPTORS"]
    assert dialler.claimer.limit() > 0


def test_dialler_has_fewer_posts_than_descriptors(dialler: Dialler) -> None:
    """Slow answers of a carrier must not take the descriptors of everything else."""
    with a_limit_of(process.ENOUGH):
        most = process.most_posts()
        assert most < process.ENOUGH
        dialler._alarm._ends = {uuid4(): monotonic() for _ in range(most - 1)}
        assert dialler.claimer.limit() == 1
        dialler._alarm._ends[uuid4()] = monotonic()
        assert dialler.claimer.limit() == 0


@contextmanager
def a_limit_of(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# ---- probes


def be_down(tenant: Tenant, now: TestClock) -> Breaker:
    tenant.change("UPDATE carrier_accounts SET failures = 5, down_until = :at, down_cause = 'HTTP_500'", at=now())
    now.move(timedelta(seconds=1))
    return breaker_of(tenant)


def test_probe_is_left_to_processes_with_descriptors(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    before = be_down(tenant, now)
    with no_descriptors():
        settle.round()
    assert breaker_of(tenant) == before, "another process would probe later"
    settle.round()
    assert breaker_of(tenant).is_on_trial


class Unsent(TwilioQueries):
    """Queries of a process that runs out of descriptors after the check."""

    def probe(self) -> None:
        with no_descriptors():
            super().probe()


@guards("local_probe")
def test_probe_that_was_not_sent_opens_no_breaker(tenant: Tenant, carrier: SimulatedCarrier, now: TestClock) -> None:
    a_backoff(tenant, down_until=now() + timedelta(seconds=5))
    Settle(tenant.context, Unsent(carrier.account(), tenant.policy), tenant.account_id).round()
    assert breaker_of(tenant) == Breaker()


# ---- webhooks


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@guards("hook_shortage")
def test_unopened_connection_is_no_failure_of_the_receiver(
    tenant: Tenant, hints: RecordingHints, now: TestClock, host: str
) -> None:
    webhooks = Webhooks(tenant=tenant, hints=hints)
    deliver = webhooks.deliver()
    with a_webhook_receiver(answers(200)) as receiver:
        endpoint = webhooks.endpoint(receiver.url.replace("127.0.0.1", host))
        webhooks.numbered_event()
        with no_descriptors():
            webhooks.send_all(deliver)
        [row] = webhooks.deliveries()
        assert (row.state, row.tries, row.send_at) == ("WAITING", 0, now() + NOT_SENT_AGAIN_AFTER)
        assert webhooks.row(endpoint).consecutive_failures == 0
        assert receiver.visits == []
        now.move(NOT_SENT_AGAIN_AFTER)
        webhooks.send_all(deliver)
        assert (webhooks.states(), len(receiver.visits)) == (["DELIVERED"], 1)


def test_dialled_call_is_accepted_after_a_shortage(tenant: Tenant, carrier: SimulatedCarrier) -> None:
    """It is sent by the client whose connection could not be opened."""
    attempt = a_pending_attempt(tenant)
    [claim] = tenant.dial.claim([attempt.id]).claimed
    order = tenant.dial.last_look(claim.attempt)
    assert order is not None

    async def placed() -> CarrierAnswer:
        line = TwilioCallPlacer(carrier.account(), tenant.policy)
        line._open()
        with no_descriptors():
            await line.place(order)
        answer = await line.place(order)
        await line.close()
        return answer

    assert isinstance(asyncio.run(placed()), Accepted)
    assert len(carrier.rings(order.to)) == 1
