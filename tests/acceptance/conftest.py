"""The whole system, as `duecall up` runs it: every process, real servers, the simulated carrier."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID, uuid4

import psycopg
import pytest
import requests

from scheduler.clock import clock
from scheduler.persistence.database import Database
from scheduler.settings import Settings, environment
from standalone.fork_server import ForkServer
from standalone.run_file import Running
from standalone.system import Options, System
from standalone.valkey_and_postgres import EmbeddedPostgres, EmbeddedValkey
from tests.conftest import wait_until
from tests.support.copied_postgres import CopiedPostgres
from tests.support.forked_commands import forked_duecall
from tests.support.kept_fork_server import kept_fork_server

STARTS_AT = datetime(2026, 4, 2, 8, 0, tzinfo=UTC)
"""A Thursday, ten in the morning in Bratislava. Calling hours last for hours there."""

SCALED = {
    "CARRIER_CONNECT_TIMEOUT_S": "0.5",
    "CARRIER_TOTAL_TIMEOUT_S": "1.5",
    "DIAL_LEASE_S": "4",
    "SETTLE_S": "8",
    "SWEEP_S": "0.5",
    "RING_TIMEOUT_S": "2",
    "SHORT_CALL_S": "0",
}
"""The times of the dial protocol, all shorter and in the same order."""


def _is_applied(answer: requests.Response) -> bool:
    """While no worker has applied it, the API answers the first request with 202, and repetitions with 409."""
    if answer.status_code == requests.codes.conflict:
        return str(answer.json()["error"]["code"]) != "IDEMPOTENCY_IN_PROGRESS"
    return answer.status_code != HTTPStatus.ACCEPTED


class Client:
    """A platform's backend that repeats unanswered requests with the same idempotency key."""

    def __init__(self, running: Running, restart_ended: Callable[[], None] = lambda: None) -> None:
        self.running = running
        self._restart_ended = restart_ended
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {running.companyKey}"
        # The API closes a connection that was idle for 5 s, perhaps at the instant at which a request is sent.
        self.session.headers["Connection"] = "close"

    def post(self, body: dict[str, Any], **headers: str) -> requests.Response:
        return self.session.post(f"{self.running.apiUrl}/interviews", json=body, headers=headers, timeout=40)

    def post_impatiently(self, body: dict[str, Any]) -> requests.Response:
        """Send a request that waits longer than this client does, so it fails without an immediate answer."""
        url, headers = f"{self.running.apiUrl}/interviews", {"Prefer": "wait=30"}
        return self.session.post(url, json=body, headers=headers, timeout=20)

    def get(self, path: str) -> requests.Response:
        return self.send("GET", path)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> requests.Response:
        return self.session.request(method, f"{self.running.apiUrl}{path}", json=body, timeout=40)

    def created(self, number: str, **more: Any) -> dict[str, Any]:
        """Create an interview with a new candidate and return it.

        This method restarts processes that have ended: the API is ready before the workers, and one of them may end at
        its start. The answer to a single request would never come if its worker has ended.
        """
        body, headers = self.interview(number, **more), {"Prefer": "wait=5", "Idempotency-Key": str(uuid4())}

        def answered() -> requests.Response | None:
            self._restart_ended()
            answer = self.post(body, **headers)
            return answer if _is_applied(answer) else None

        answer = wait_until(answered, seconds=30, says="a worker has created the interview")
        assert answer.status_code == requests.codes.created, answer.text
        return dict(answer.json()["data"])

    def shown(self, interview_id: str) -> dict[str, Any]:
        return dict(self.get(f"/interviews/{interview_id}").json()["data"])

    def newest(self, interview_id: str) -> dict[str, Any]:
        """Find the newest attempt of an interview."""
        return self.attempts(interview_id)[-1]

    def attempts(self, interview_id: str) -> list[dict[str, Any]]:
        """List all attempts of an interview, oldest first."""
        return list(self.shown(interview_id)["callAttempts"])

    def interview(self, number: str, **more: object) -> dict[str, Any]:
        """Build the body of a POST /interviews with a new candidate."""
        person = {"firstName": "Ferdinand", "lastName": "Canary", "gdprExpiryDate": "2030-01-01"}
        return {"agentId": self.running.agentId, "candidate": {**person, "phoneNumber": number}, **more}

    def plan(self, **plan: object) -> None:
        self.session.post(f"{self.running.simulatorUrl}/plans", json=plan, timeout=30).raise_for_status()

    def rings_of(self, number: str) -> list[dict[str, Any]]:
        """List all calls to this number that the carrier accepted, oldest first."""
        return self._ledger(to=number)

    def rings(self) -> list[dict[str, Any]]:
        """List all rings of the carrier."""
        return [ring for ring in self._ledger() if ring["rang_at"]]

    def _ledger(self, **params: str) -> list[dict[str, Any]]:
        answer = self.session.get(f"{self.running.simulatorUrl}/ledger", params=params, timeout=30)
        return list(answer.json()["rings"])


class WholeSystem:
    """A running system with a client, and a wait that fails when one of its processes ends."""

    def __init__(self, system: System, home: Path, clock_offset_s: float) -> None:
        assert system.running is not None
        self.system = system
        self.offset_s = clock_offset_s
        self.now = clock(clock_offset_s)
        self.home = home
        self.running = system.running
        self.client = Client(system.running, system.restart_ended)
        self._connection: psycopg.Connection | None = None

    def wait_until(self, what: Callable[[], object], *, seconds: float, says: str) -> None:
        def looked() -> object:
            self.system.restart_ended()
            return what()

        wait_until(looked, seconds=seconds, says=says)

    def send_signal(self, name: str, signum: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a process once it runs, and return its pid. The supervisor restarts a killed process."""
        self.wait_until(lambda: self.system.supervisor.pid(name), seconds=60, says=f"{name} runs")
        pid = self.system.supervisor.pid(name)
        assert pid is not None
        os.kill(pid, signum)
        return pid

    def duecall(self, *words: str) -> str:
        """Run `duecall` in this system's folder and return its standard output."""
        named = environment(DUECALL_HOME=str(self.home))
        named.pop("DATABASE_URL", None)
        return forked_duecall(words, named)

    def logs(self) -> list[Path]:
        """The folder of the processes' logs."""
        return sorted((self.home / "logs").iterdir())

    def in_seconds(self, seconds: float) -> str:
        """Compute an instant ahead of the system's clock by this span, in whole seconds, as JSON."""
        instant = (self.now() + timedelta(seconds=seconds)).replace(microsecond=0)
        return instant.isoformat().replace("+00:00", "Z")

    def set_settings(self, **settings: Any) -> None:
        """Change these settings of the first company."""
        database = Database(self.running.databaseUrl, pool_size=1)
        with database.transaction() as stores:
            company = stores.companies.lock(UUID(self.running.companyId))
            assert company is not None
            stores.companies.save(replace(company, settings=replace(company.settings, **settings)))
        database.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._execute(query).fetchall()

    def change(self, statement: str) -> None:
        self._execute(statement)

    def _execute(self, statement: str) -> psycopg.Cursor[tuple[Any, ...]]:
        """Execute it over one connection: a wait that connected at each check would take more CPU than the system."""
        if self._connection is not None:
            try:
                return self._connection.execute(statement.encode())
            except psycopg.OperationalError:
                if not self._connection.closed:
                    raise
        self._connection = psycopg.connect(self.running.databaseUrl, autocommit=True)
        return self._connection.execute(statement.encode())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def hang_up(self, sid: str) -> None:
        """Hang up, as the callee."""
        names = self.system.supervisor.program("dial").environment
        account = (names["TWILIO_ACCOUNT_SID"], names["TWILIO_AUTH_TOKEN"])
        url = f"{self.running.simulatorUrl}/2010-04-01/Accounts/{account[0]}/Calls/{sid}.json"
        requests.post(url, data={"Status": "completed"}, auth=account, timeout=40).raise_for_status()

    def check_traffic(self) -> None:
        """Check that the carrier has seen no request that Twilio's published API does not know."""
        if self.running.simulatorUrl is None:
            return
        verdict = self.client.session.get(f"{self.running.simulatorUrl}/verdict", timeout=60)
        verdict.raise_for_status()
        assert verdict.json()["unlike_twilio"] == []

    def raise_limits(self) -> None:
        """Raise the company's limits, which these tests do not cover."""
        self.change("UPDATE companies SET calls_per_second = 100, concurrent_calls = 1000")


class QuickSystem(System):
    """Starts with data and imports that earlier systems of this test process have already paid for."""

    postgres_class: ClassVar = CopiedPostgres

    def fork_server(self, environment: Mapping[str, str], log: Path) -> ForkServer:
        return kept_fork_server(environment, log)


def kill_server(server: EmbeddedPostgres | EmbeddedValkey | None) -> None:
    """Kill the server, and wait until it has ended: on a busy machine it may answer for a moment longer."""
    assert server is not None
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.is_running(), says="the server has ended")


@contextmanager
def running_system(
    home: Path,
    settings: Settings | None = None,
    *,
    starts_at: datetime = STARTS_AT,
    say: Callable[[str], None] = print,
    **variables: str,
) -> Iterator[WholeSystem]:
    settings = settings or Settings(database_url=None, redis_url=None, twilio_account_sid="")
    offset = (starts_at - datetime.now(UTC)).total_seconds()
    options = Options(home=home, clock_offset_s=offset, variables={**SCALED, **variables})
    with QuickSystem(options, settings, say) as system, closing(WholeSystem(system, home, offset)) as whole:
        yield whole
        whole.check_traffic()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    """A system in a folder with a space in its name, for all tests of one module."""
    with running_system(tmp_path_factory.mktemp("the system") / "a home") as whole:
        whole.raise_limits()
        yield whole
