"""Fixtures: the API on the servers of all tests, and a worker for the tests that need one."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from scheduler.domain.command import Command
from scheduler.domain.principal import KeyKind
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from standalone.valkey_and_postgres import EmbeddedValkey
from tests.api_shim.calls import tenant_of
from tests.api_shim.intake import PEPPER, Intake, Worker, a_worker, settings_for
from tests.api_shim.interview_requests import Resources
from tests.api_shim.patience import patient_with_redis
from tests.api_shim.shared_api import SharedApi
from tests.api_shim.waiting_commands import a_command
from tests.conftest import Seeded
from tests.support.builders import Tenant


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    with patient_with_redis():
        yield


@pytest.fixture(scope="session")
def premises(broker: None, logins: Logins, valkey: EmbeddedValkey) -> Iterator[SharedApi]:
    premises = SharedApi(lambda: settings_for(logins, valkey.url))
    yield premises
    premises.close()


@pytest.fixture
def intake(premises: SharedApi, redis_url: str, database: Database, seeded: Seeded) -> Iterator[Intake]:
    """The API with the database roles of production. The test itself has access to all rows."""
    with premises.intake(database, seeded) as intake:
        yield intake


@pytest.fixture(scope="session")
def workers_database(logins: Logins) -> Iterator[Database]:
    """The connections of all workers of tests, because connecting takes longer than most tests."""
    database = Database(logins.worker, history_key=Hasher(PEPPER).history_key())
    yield database
    database.close()


@pytest.fixture
def worker(intake: Intake, workers_database: Database) -> Iterator[Worker]:
    with a_worker(intake.settings, database=workers_database) as worker:
        yield worker


@pytest.fixture
def tenant(intake: Intake) -> Tenant:
    return tenant_of(intake)


@pytest.fixture
def api(intake: Intake) -> Resources:
    return Resources(intake)


@pytest.fixture
def ats(intake: Intake) -> Intake:
    """Build a client with an ATS key that has no company yet."""
    return intake.with_new_key(kind=KeyKind.ATS)


@pytest.fixture
def waiting() -> Command:
    return a_command()


@pytest.fixture
def lines(intake: Intake) -> Iterator[list[dict[str, Any]]]:
    """Log lines, added as they are written."""
    root = logging.getLogger()
    [ours] = [each for each in root.handlers if isinstance(each.formatter, structlog.stdlib.ProcessorFormatter)]
    written: list[dict[str, Any]] = []
    kept = _Keeper(written)
    kept.setFormatter(ours.formatter)
    root.addHandler(kept)
    yield written
    root.removeHandler(kept)


class _Keeper(logging.Handler):
    def __init__(self, written: list[dict[str, Any]]) -> None:
        super().__init__()
        self._written = written

    def emit(self, record: logging.LogRecord) -> None:
        self._written.append(json.loads(self.format(record)))
