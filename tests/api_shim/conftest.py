"""The intake on the servers of all tests; a worker only where a test asks for one."""

from collections.abc import Iterator

import pytest

from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from tests.api_shim.intake import PEPPER, Intake, Worker, a_worker, an_intake, settings_for
from tests.builders import House, a_house
from tests.conftest import Seeded


@pytest.fixture
def intake(broker: None, logins: Logins, redis_url: str, database: Database, seeded: Seeded) -> Iterator[Intake]:
    """As in production: the API and its worker log in as what they are. The test itself sees everything."""
    with an_intake(settings_for(logins, redis_url), database, seeded) as intake:
        yield intake


@pytest.fixture
def worker(intake: Intake) -> Iterator[Worker]:
    with a_worker(intake.settings) as worker:
        yield worker


@pytest.fixture
def house(intake: Intake) -> House:
    """The company of the intake, on its clock."""
    return a_house(intake.database, intake.seeded, Hasher(PEPPER), intake.now)
