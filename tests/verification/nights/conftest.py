"""One company on a clock that a test moves, and a carrier on the same clock whose calls take no time."""

from collections.abc import Iterator

import pytest

from scheduler.carriers.twilio import TwilioDesk
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from tests.conftest import Seeded, TestClock
from tests.support.builders import House, KeptBell, a_house
from tests.support.servers import ACCOUNT_SID, SimulatedCarrier, a_carrier

CPS = 50.0


@pytest.fixture
def carrier(now: TestClock) -> Iterator[SimulatedCarrier]:
    with a_carrier(calls_per_second=1_000_000_000.0) as carrier:
        carrier.clock = now
        carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        yield carrier


@pytest.fixture
def house(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock) -> House:
    return a_house(database, seeded, hasher, now, account_sid=ACCOUNT_SID, calls_per_second=CPS)


@pytest.fixture
def bell() -> KeptBell:
    return KeptBell()


@pytest.fixture
def release(house: House, bell: KeptBell) -> Release:
    return Release(house.database, bell, house.account_id, house.policy, house.now)


@pytest.fixture
def settle(house: House, carrier: SimulatedCarrier) -> Iterator[Settle]:
    desk = TwilioDesk(carrier.account(), house.policy)
    yield Settle(house.database, desk, house.account_id, house.consequences, house.policy, house.now)
    desk._client.http_client.session.close()
