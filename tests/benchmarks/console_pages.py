"""Server times of the console's pages and of /metrics, with many calls that are due while all calls are paused."""

import re
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import httpx
import psycopg

from console.app import create_app
from console.sessions import ConsoleSessions
from scheduler.domain.principal import OperatorRole
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.setting_values import DEVELOPMENT_PEPPER
from scheduler.use_cases.operations.pauses import Pauses
from standalone.run_file import Running
from tests.benchmarks import cloned_calls
from tests.conftest import real_now, wait_until
from tests.console.busy_installation import linked_pages

DUE = 10_000
_DUE = re.compile(r"^duecall_attempts_due\{.*\} (\S+)$", re.MULTILINE)
"""The due calls of a company in the response of /metrics."""
_TIMES = 3
_ANSWERS = (httpx.codes.OK, httpx.codes.UNPROCESSABLE_ENTITY)
"""Too many calls are due for some acts of an operator. Their forms say so."""


def measure(
    running: Running, connection: psycopg.Connection, template: UUID, progress: Callable[[str], None]
) -> dict[str, object]:
    """Measure times in ms, each of one request at a time. They include those of the client."""
    hasher = Hasher(DEVELOPMENT_PEPPER)
    database = Database(running.databaseUrl, pool_size=1)
    Pauses(database, real_now).pause(None, "the benchmark counts due calls")
    _, secret = ConsoleSessions(database, hasher, real_now).make_link(OperatorRole.ADMIN, "cli:bench@bench")
    database.close()
    cloned_calls.add_due(connection, template, hasher, [datetime.now(UTC)] * DUE)
    connection.execute("VACUUM ANALYZE")
    with httpx.Client(base_url=running.apiUrl, timeout=60) as api:
        metrics_ms = wait_until(lambda: _counting_ms(api), says="the API counts the due calls")
    with httpx.Client(base_url=running.consoleUrl, headers={"Sec-Fetch-Site": "same-origin"}, timeout=60) as client:
        assert client.post(f"/sign-in/link/{secret}").status_code == httpx.codes.SEE_OTHER
        addresses = linked_pages(client, create_app().routes, answers=_ANSWERS)
        progress(f"timing {len(addresses)} pages of the console")
        taken = {
            name: statistics.median(_answer_ms(client, address) for _ in range(_TIMES))
            for name, address in addresses.items()
        }
    slowest = sorted(taken, key=lambda name: -taken[name])
    return {
        "due while paused": DUE,
        "first /metrics ms": metrics_ms,
        "pages": len(taken),
        "slowest page ms": taken[slowest[0]],
        "slowest pages": ", ".join(f"{name} {taken[name]:.0f}" for name in slowest[:5]),
    }


def _counting_ms(api: httpx.Client) -> float | None:
    """Return the time of a request for /metrics that counted the due calls. None if it got older counts.

    The API keeps its counts for 5 s, so the first request whose response has the due calls has counted them.
    """
    began = time.monotonic()
    response = api.get("/metrics").raise_for_status()
    taken_ms = 1000 * (time.monotonic() - began)
    return taken_ms if any(float(count) >= DUE for count in _DUE.findall(response.text)) else None


def _answer_ms(client: httpx.Client, address: str) -> float:
    began = time.monotonic()
    assert client.get(address).status_code in _ANSWERS
    return 1000 * (time.monotonic() - began)
