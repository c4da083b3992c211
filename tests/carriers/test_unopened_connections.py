"""A process without a free descriptor: its failures are its own, not the carrier's."""

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from scheduler.carriers.interface import CarrierUnavailable, QueryNotSent
from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.call import Accepted, CallOrder, CarrierAnswer, MachineDetection, NeverTaken, Withheld
from scheduler.exchange import Exchange
from scheduler.lifecycle import breaker
from scheduler.lifecycle.policy import Policy
from scheduler.process import is_shortage
from tests.architecture.guards import guards
from tests.support.builders import a_number
from tests.support.descriptors import no_descriptors
from tests.support.servers import SimulatedCarrier, a_carrier, a_closed_port

POLICY = Policy(connect_timeout=timedelta(seconds=15), total_timeout=timedelta(seconds=30))


@pytest.fixture(scope="module")
def carrier() -> Iterator[SimulatedCarrier]:
    with a_carrier() as carrier:
        yield carrier


def an_order(number: str) -> CallOrder:
    return CallOrder(
        to=number,
        caller="+421221020001",
        token=f"a-token-for-{number[1:]}",
        ring_timeout=timedelta(seconds=30),
        time_limit=timedelta(seconds=720),
        machine_detection=MachineDetection.OFF,
    )


async def placed_twice(url: str, carrier: SimulatedCarrier) -> tuple[CarrierAnswer, CarrierAnswer]:
    """Place one call without a free descriptor, and another one with them."""
    placer = TwilioCallPlacer(carrier.account(url=url), POLICY)
    placer._open()
    with no_descriptors():
        first = await placer.place(an_order(a_number()))
    second = await placer.place(an_order(a_number()))
    await placer.close()
    return first, second


@guards("local_shortage")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_missing_descriptor_is_no_answer_of_the_carrier(carrier: SimulatedCarrier, host: str) -> None:
    first, second = await placed_twice(carrier.url.replace("127.0.0.1", host), carrier)
    assert first == Withheld(cause="NO_DESCRIPTORS")
    assert breaker.cause_of(first) is None, "it counts against the carrier"
    assert not breaker.shows_that_it_works(first)
    assert isinstance(second, Accepted)


async def test_refused_connection_is_no_shortage(carrier: SimulatedCarrier) -> None:
    placer = TwilioCallPlacer(carrier.account(url=a_closed_port()), POLICY)
    assert await placer.place(an_order(a_number())) == NeverTaken(cause="NEVER_CONNECTED")
    await placer.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_query_without_a_descriptor_is_not_sent(carrier: SimulatedCarrier, host: str) -> None:
    queries = TwilioQueries(carrier.account(url=carrier.url.replace("127.0.0.1", host)), POLICY)
    with no_descriptors(), pytest.raises(QueryNotSent):
        queries.probe()
    queries.probe()


def test_connection_that_cannot_be_cut_later_is_closed() -> None:
    """It takes the last free descriptor, and the exchange needs one more."""
    connection, other = socket.socketpair()
    with other, Exchange(30) as exchange, no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        exchange.hold(connection)
    assert connection.fileno() == -1


def test_unanswered_query_is_sent(carrier: SimulatedCarrier) -> None:
    with pytest.raises(CarrierUnavailable) as raised:
        TwilioQueries(carrier.account(url=a_closed_port()), POLICY).probe()
    assert not isinstance(raised.value, QueryNotSent)


def test_address_that_this_machine_cannot_reach_is_no_shortage() -> None:
    """On a machine without IPv6 each connection to an IPv6 address fails so, also of a carrier that is down."""
    assert not is_shortage(ConnectionError(OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")))


def test_shortage_is_reported_once_a_minute(carrier: SimulatedCarrier) -> None:
    queries = TwilioQueries(carrier.account(), POLICY)
    with capture_logs() as lines, no_descriptors():
        for _ in range(3):
            with suppress(QueryNotSent):
                queries.probe()
    assert [line["alarm"] for line in lines] == ["OUT_OF_DESCRIPTORS"]
