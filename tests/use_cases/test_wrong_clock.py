"""A process whose clock is not the database's releases, claims and settles nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.carriers.twilio import TwilioDesk
from scheduler.clock import machine_now
from scheduler.domain.attempt import Phase
from scheduler.persistence.database import Database
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from tests.builders import House, KeptBell, a_claimed_attempt, a_pending_attempt
from tests.conftest import TestClock
from tests.guards import guards
from tests.servers import SimulatedCarrier

SPANS = [timedelta(seconds=10), -timedelta(seconds=10), timedelta(hours=1)]


@contextmanager
def seen_from_a_machine(url: str, span: timedelta) -> Iterator[Database]:
    """The database, from a machine whose clock is `span` ahead."""
    database = Database(url, machine=lambda: machine_now() + span)
    try:
        yield database
    finally:
        database.close()


def test_a_clock_that_agrees_is_right(database: Database) -> None:
    assert database.clock_is_right()


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_a_clock_that_is_seconds_off_is_wrong(postgres_url: str, span: timedelta) -> None:
    with seen_from_a_machine(postgres_url, span) as database:
        assert not database.clock_is_right()


@pytest.mark.parametrize("span", SPANS, ids=str)
@guards("clock")
def test_on_a_wrong_clock_nothing_is_released_or_claimed(
    postgres_url: str, house: House, bell: KeptBell, span: timedelta
) -> None:
    due = a_pending_attempt(house)
    with seen_from_a_machine(postgres_url, span) as database:
        there = replace(house, database=database)
        assert Release(database, bell, house.account_id, house.policy, house.now).due() == 0
        claims = there.dial.claim([due.id])
        assert claims.claimed == ()
        assert claims.waiting == {due.id}, "the hint is kept until its release has lapsed"
    assert bell.rings == []
    assert house.attempt(due.id) == due


def test_on_a_wrong_clock_no_lease_lapses(
    postgres_url: str, house: House, carrier: SimulatedCarrier, now: TestClock
) -> None:
    claimed = a_claimed_attempt(house)
    now.move(house.policy.lease)
    with seen_from_a_machine(postgres_url, timedelta(hours=1)) as database, a_desk(carrier, house) as desk:
        Settle(database, desk, house.account_id, house.consequences, house.policy, house.now).round()
        assert house.attempt(claimed.id).phase is Phase.DIALLING
        Settle(house.database, desk, house.account_id, house.consequences, house.policy, house.now).round()
    assert house.attempt(claimed.id).phase is Phase.UNKNOWN


@contextmanager
def a_desk(carrier: SimulatedCarrier, house: House) -> Iterator[TwilioDesk]:
    desk = TwilioDesk(carrier.account(), house.policy)
    yield desk
    desk._client.http_client.session.close()
