"""One company on a clock that a test moves, and a carrier on the same clock whose calls take no time."""

from collections.abc import Iterator

import pytest

from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.release import Release
from tests.conftest import Seeded, TestClock
from tests.support.builders import RecordingHints, Tenant, a_tenant
from tests.support.servers import ACCOUNT_SID, SimulatedCarrier, a_carrier

CPS = 50.0


@pytest.fixture
def carrier(now: TestClock) -> Iterator[SimulatedCarrier]:
    with a_carrier(calls_per_second=1_000_000_000.0) as carrier:
        carrier.clock = now
        carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        yield carrier


@pytest.fixture
def tenant(database: Database, seeded: Seeded, hasher: Hasher, now: TestClock) -> Tenant:
    return a_tenant(database, seeded, hasher, now, account_sid=ACCOUNT_SID, calls_per_second=CPS)


@pytest.fixture
def release(tenant: Tenant, hints: RecordingHints) -> Release:
    return Release(tenant.context, hints, tenant.account_id)
