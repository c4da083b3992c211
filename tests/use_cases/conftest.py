"""Fixtures: the use cases of one company, with a clock that only a test moves and a carrier that works."""

from collections.abc import Iterator

import pytest

from scheduler.carriers.twilio_callbacks import TwilioCallbacks
from scheduler.carriers.twilio_queries import TwilioQueries
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
from tests.support.builders import ApiWriter, RecordingHints, Tenant, a_house
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
def tenant(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock) -> Tenant:
    return a_house(database, seeded, hasher, now, account_sid=ACCOUNT_SID)


@pytest.fixture
def policy(tenant: Tenant) -> Policy:
    return tenant.policy


@pytest.fixture
def hints() -> RecordingHints:
    return RecordingHints()


@pytest.fixture
def release(tenant: Tenant, hints: RecordingHints) -> Release:
    return Release(tenant.context, hints, tenant.account_id)


@pytest.fixture
def apply(tenant: Tenant, hints: RecordingHints) -> Apply:
    return Apply(tenant.context, hints)


@pytest.fixture
def submit(tenant: Tenant, hints: RecordingHints) -> Submit:
    return Submit(tenant.database, hints, tenant.now)


@pytest.fixture
def records(tenant: Tenant, hints: RecordingHints) -> ApiWriter:
    return ApiWriter(tenant=tenant, hints=hints)


@pytest.fixture
def pauses(tenant: Tenant) -> Pauses:
    return Pauses(tenant.database, tenant.now)


@pytest.fixture
def erase(tenant: Tenant, hints: RecordingHints) -> Erase:
    """Two at a time, so that there are many batches."""
    return Erase(tenant.context, hints, batch=2)


@pytest.fixture
def explain(tenant: Tenant) -> Explain:
    return Explain(tenant.context)


@pytest.fixture
def hear(tenant: Tenant, hints: RecordingHints, carrier: SimulatedCarrier) -> Hear:
    return Hear(tenant.context, hints, TwilioCallbacks(carrier.account()))


@pytest.fixture
def settle(tenant: Tenant, carrier: SimulatedCarrier) -> Iterator[Settle]:
    desk = TwilioQueries(carrier.account(), tenant.policy)
    yield Settle(tenant.context, desk, tenant.account_id)
    desk._client.http_client.session.close()
