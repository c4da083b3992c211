"""The whole system, as `duecall up` runs it: every process, real servers, the simulated carrier."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from scheduler.settings import Settings
from scheduler.system import Options, Running, System
from tests.conftest import wait_until

STARTS_AT = datetime(2026, 4, 2, 8, 0, tzinfo=UTC)
"""A Thursday, ten in the morning in Bratislava: everybody there may be called for hours."""

SCALED = {
    "CARRIER_CONNECT_TIMEOUT_S": "0.5",
    "CARRIER_TOTAL_TIMEOUT_S": "1.5",
    "DIAL_LEASE_S": "4",
    "SETTLE_S": "8",
    "SWEEP_S": "0.5",
    "RING_TIMEOUT_S": "2",
}
"""The times of the dial protocol, shorter all together and in the same order."""


class Client:
    """A platform's backend: it repeats what was not answered, under the same key."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {running.companyKey}"

    def post(self, body: dict[str, Any], **headers: str) -> requests.Response:
        return self.session.post(f"{self.running.apiUrl}/interviews", json=body, headers=headers, timeout=40)

    def get(self, path: str) -> requests.Response:
        return self.session.get(f"{self.running.apiUrl}{path}", timeout=10)

    def interview(self, number: str, **more: object) -> dict[str, Any]:
        """The body of a POST /interviews for somebody new."""
        return {
            "agentId": self.running.agentId,
            "candidate": {
                "firstName": "Ferdinand",
                "lastName": "Canary",
                "phoneNumber": number,
                "gdprExpiryDate": "2030-01-01",
            },
            **more,
        }

    def plan(self, **plan: object) -> None:
        self.session.post(f"{self.running.simulatorUrl}/plans", json=plan, timeout=5).raise_for_status()

    def rings(self) -> list[dict[str, Any]]:
        """Every ring that the carrier made."""
        ledger: list[dict[str, Any]] = self.session.get(f"{self.running.simulatorUrl}/ledger", timeout=5).json()[
            "rings"
        ]
        return [ring for ring in ledger if ring["rang_at"]]


class WholeSystem:
    """A running system, what a client of it needs, and a wait that looks after its processes meanwhile."""

    def __init__(self, system: System) -> None:
        assert system.running is not None
        self.system = system
        self.running = system.running
        self.client = Client(system.running)

    def wait_until(self, what: Callable[[], object], *, seconds: float, says: str) -> None:
        def looked() -> object:
            self.system.look()
            return what()

        wait_until(looked, seconds=seconds, says=says)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.running.databaseUrl, autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def change(self, statement: str) -> None:
        with psycopg.connect(self.running.databaseUrl, autocommit=True) as connection:
            connection.execute(statement.encode())

    def raise_limits(self) -> None:
        """What one company may call at once is not what these tests are about."""
        self.change("UPDATE companies SET calls_per_second = 100, concurrent_calls = 1000")


@contextmanager
def running_system(home: Path, **variables: str) -> Iterator[WholeSystem]:
    settings = Settings(database_url=None, redis_url=None, twilio_account_sid="")
    offset = (STARTS_AT - datetime.now(UTC)).total_seconds()
    options = Options(home=home, clock_offset_s=offset, variables={**SCALED, **variables})
    with System(options, settings, print) as system:
        yield WholeSystem(system)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    """A system in a folder with a space in its name, for all tests of one module."""
    with running_system(tmp_path_factory.mktemp("the system") / "a home") as whole:
        whole.raise_limits()
        yield whole
