"""A process whose clock is not the database's writes no time, and says so once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from scheduler.carriers.twilio import TwilioDesk
from scheduler.clock import machine_now
from scheduler.domain.attempt import AttemptState, Phase
from scheduler.domain.call import NeverTaken
from scheduler.persistence.database import ClockWrong, Database
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from tests.builders import House, KeptBell, a_claimed_attempt, a_pending_attempt
from tests.conftest import TestClock
from tests.guards import guards
from tests.servers import SimulatedCarrier

SPANS = [timedelta(seconds=10), -timedelta(seconds=10), timedelta(hours=1)]
AN_HOUR = timedelta(hours=1)


@dataclass
class Machine:
    """The wall clock of a machine, `ahead` of the real one; a test may set it meanwhile."""

    ahead: timedelta

    def __call__(self) -> object:
        return machine_now() + self.ahead


@contextmanager
def seen_from_a_machine(url: str, span: timedelta) -> Iterator[Database]:
    """The database, from a machine whose clock is `span` ahead."""
    with seen_from(url, Machine(span)) as database:
        yield database


@contextmanager
def seen_from(url: str, machine: Machine) -> Iterator[Database]:
    database = Database(url, machine=machine)  # type: ignore[arg-type]
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
        with pytest.raises(ClockWrong):
            Release(database, bell, house.account_id, house.policy, house.now).due()
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
        with pytest.raises(ClockWrong):
            Settle(database, desk, house.account_id, house.consequences, house.policy, house.now).round()
        assert house.attempt(claimed.id).phase is Phase.DIALLING
        Settle(house.database, desk, house.account_id, house.consequences, house.policy, house.now).round()
    assert house.attempt(claimed.id).phase is Phase.UNKNOWN


@guards("clock_step")
@pytest.mark.parametrize("step", [AN_HOUR, -AN_HOUR], ids=str)
def test_clock_set_within_a_transaction_writes_nothing(
    postgres_url: str, house: House, now: TestClock, step: timedelta
) -> None:
    machine = Machine(timedelta())

    def pause(database: Database) -> None:
        with database.transaction() as stores:
            assert stores.instant(now) == now()
            machine.ahead = step
            stores.companies.pause(house.company_id, "a pause at a wrong time", stores.instant(now))

    with seen_from(postgres_url, machine) as database, pytest.raises(ClockWrong):
        pause(database)
    assert house.ask("SELECT 1 FROM companies WHERE paused_at IS NOT NULL") == []


def test_clock_set_back_right_writes_again(postgres_url: str, now: TestClock) -> None:
    machine = Machine(AN_HOUR)
    with seen_from(postgres_url, machine) as database:
        assert not database.clock_is_right()
        machine.ahead = timedelta()
        with database.transaction() as stores:
            assert stores.instant(now) == now()


def test_wrong_clock_is_said_once_and_again_when_it_changes(
    postgres_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(AN_HOUR)
    with seen_from(postgres_url, machine) as database:
        for ahead in (AN_HOUR, AN_HOUR, timedelta(), timedelta(), -AN_HOUR, -AN_HOUR):
            machine.ahead = ahead
            database.clock_is_right()
    said = "".join(capfd.readouterr())
    assert said.count("CLOCK_SKEW") == 2
    assert said.count("clock_right") == 1


def test_reading_goes_on_with_a_wrong_clock(postgres_url: str, house: House) -> None:
    with seen_from_a_machine(postgres_url, AN_HOUR) as database, database.reading() as stores:
        assert stores.companies.is_there(house.company_id)


@pytest.mark.parametrize("span", [AN_HOUR, -AN_HOUR], ids=str)
def test_unsent_claim_is_given_back_at_a_right_time(
    postgres_url: str, house: House, now: TestClock, span: timedelta
) -> None:
    """The clock was set after the claim. Nothing was sent, and no other process knows that."""
    mine = a_claimed_attempt(house)
    with seen_from_a_machine(postgres_url, span) as database:
        there = replace(house, database=database, now=lambda: now() + span)
        there.dial.record([(mine, NeverTaken(cause="NOT_SENT"))])
    back = house.attempt(mine.id)
    assert back.state is AttemptState.PENDING
    assert abs(back.due_at - now()) < timedelta(seconds=30)
    assert abs(back.updated_at - now()) < timedelta(seconds=30)


@pytest.mark.parametrize("span", [AN_HOUR, -AN_HOUR], ids=str)
def test_last_look_on_a_wrong_clock_defers_to_a_right_time(
    postgres_url: str, house: House, now: TestClock, span: timedelta
) -> None:
    mine = a_claimed_attempt(house)
    with seen_from_a_machine(postgres_url, span) as database:
        there = replace(house, database=database, now=lambda: now() + span)
        assert there.dial.last_look(mine) is None
    back = house.attempt(mine.id)
    assert back.state is AttemptState.PENDING
    assert abs(back.due_at - now()) < timedelta(seconds=30)


@contextmanager
def a_desk(carrier: SimulatedCarrier, house: House) -> Iterator[TwilioDesk]:
    desk = TwilioDesk(carrier.account(), house.policy)
    yield desk
    desk._client.http_client.session.close()
