"""The use cases over one company, on a clock that stands until a test moves it, with a carrier that is up."""

from collections.abc import Iterator

import pytest

from scheduler.carriers.twilio import TwilioCallbacks, TwilioDesk
from scheduler.hashing import Hasher
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.erase import Erase
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.submit import Submit
from tests.conftest import Seeded, TestClock
from tests.support.builders import Clerk, House, KeptBell, a_house
from tests.support.servers import ACCOUNT_SID, SimulatedCarrier, a_carrier


@pytest.fixture(scope="session")
def the_carrier() -> Iterator[SimulatedCarrier]:
    with a_carrier() as carrier:
        yield carrier


@pytest.fixture
def carrier(the_carrier: SimulatedCarrier, now: TestClock) -> SimulatedCarrier:
    """On the test's own clock; each test calls numbers of its own."""
    the_carrier.clock = now
    the_carrier.clear()
    return the_carrier


@pytest.fixture
def house(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock) -> House:
    return a_house(database, seeded, hasher, now, account_sid=ACCOUNT_SID)


@pytest.fixture
def policy(house: House) -> Policy:
    return house.policy


@pytest.fixture
def bell() -> KeptBell:
    return KeptBell()


@pytest.fixture
def release(house: House, bell: KeptBell) -> Release:
    return Release(house.database, bell, house.account_id, house.policy, house.now)


@pytest.fixture
def apply(house: House, bell: KeptBell) -> Apply:
    return Apply(house.database, bell, house.hasher, house.consequences, house.policy, house.now)


@pytest.fixture
def submit(house: House, bell: KeptBell) -> Submit:
    return Submit(house.database, bell, house.now)


@pytest.fixture
def records(house: House, bell: KeptBell) -> Clerk:
    return Clerk(house=house, bell=bell)


@pytest.fixture
def pauses(house: House) -> Pauses:
    return Pauses(house.database, house.now)


@pytest.fixture
def erase(house: House, bell: KeptBell) -> Erase:
    """Two at a time, so that there are many batches."""
    return Erase(house.database, bell, house.consequences, house.now, batch=2)


@pytest.fixture
def explain(house: House) -> Explain:
    return Explain(house.database, house.hasher, house.policy, house.now)


@pytest.fixture
def hear(house: House, bell: KeptBell, carrier: SimulatedCarrier) -> Hear:
    return Hear(house.database, bell, TwilioCallbacks(carrier.account()), house.consequences, house.now)


@pytest.fixture
def settle(house: House, carrier: SimulatedCarrier) -> Iterator[Settle]:
    desk = TwilioDesk(carrier.account(), house.policy)
    yield Settle(house.database, desk, house.account_id, house.consequences, house.policy, house.now)
    desk._client.http_client.session.close()
