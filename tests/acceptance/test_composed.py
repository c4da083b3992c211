"""The commands, variables and health checks of docker-compose.yml, run without Docker in production mode.

Only the names of the two servers and the ports are replaced.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
import requests

from scheduler.persistence.database import Database
from scheduler.persistence.errors import WrongRole
from standalone.private_server import free_port
from standalone.valkey_and_postgres import EmbeddedPostgres, EmbeddedValkey
from tests.conftest import wait_until
from tests.containers.ats import Ats
from tests.support.compose import ROOT, composed, procfile
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier, a_carrier
from tests.test_deployment import FILLED

NUMBER = "+421915320001"


class Composition:
    """The services as processes of this machine."""

    def __init__(self, services: dict[str, Any], variables: dict[str, str], places: dict[str, str], logs: Path) -> None:
        self._services = services
        self._variables = variables
        self._places = places
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        said = {variable: str(value) for variable, value in self._services[name].get("environment", {}).items()}
        for usual, here in self._places.items():
            said = {variable: value.replace(f"@{usual}/", f"@{here}/") for variable, value in said.items()}
        shell = {"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "HOSTNAME": socket.gethostname()}
        proof = {"DUECALL_PROOF_FILE": str(self._logs / f"{name}.worked")}
        return {**shell, **proof, **said, **self._variables}

    def run(self, name: str) -> int:
        """Return the exit status of a service that ends by itself."""
        return self._execute(name, self._services[name]["command"])

    def start(self, name: str) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                self._services[name]["command"], cwd=ROOT, env=self.environment(name), stdout=log, stderr=log
            )

    def is_healthy(self, name: str) -> bool:
        kind, *words = self._services[name]["healthcheck"]["test"]
        return self._execute(name, ["sh", "-c", *words] if kind == "CMD-SHELL" else words) == 0

    def stop(self, name: str) -> int:
        """Send SIGTERM and return the exit status, within the service's grace period."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(int(self._services[name]["stop_grace_period"].removesuffix("s")))

    @property
    def secrets(self) -> set[str]:
        """Read the passwords in the services' environments."""
        return {secret for name, secret in FILLED.items() if secret.endswith("secret")} | {
            FILLED["KEY_PEPPER"],
            FILLED["WEBHOOK_KEY"],
            "an-operators-secret",
            "a-mails-secret",
        }

    def logs(self) -> list[Path]:
        """Read the output of the services and their health checks."""
        return sorted(self._logs.glob("*.log"))

    def kill(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def _execute(self, name: str, words: list[str]) -> int:
        with (self._logs / "once.log").open("ab") as log:
            done = subprocess.run(
                words,
                cwd=ROOT,
                env=self.environment(name),
                timeout=60,
                check=False,
                stdout=log,
                stderr=log,
            )
        return done.returncode


@pytest.fixture(scope="module")
def carrier() -> Iterator[SimulatedCarrier]:
    with a_carrier() as carrier:
        yield carrier


@pytest.fixture(scope="module")
def composition(carrier: SimulatedCarrier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composition]:
    folder = tmp_path_factory.mktemp("composed")
    ports = {name: str(free_port()) for name in ("PORT", "CONSOLE_PORT", "FLOWER_PORT")}
    ports["LISTEN_ON"] = "127.0.0.1"
    with ExitStack() as stack:
        postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder)
        database, broker = (urlsplit(stack.enter_context(server).url) for server in (postgres, valkey))
        filled = FILLED | {
            "POSTGRES_PASSWORD": str(database.password),
            "FLOWER_BASIC_AUTH": "operator:an-operators-secret",
            "DEFAULT_CALLER_ID": "+421221020001",
            "TWILIO_API_URL": carrier.url,
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": f"{PRIMARY},{FILLED['TWILIO_AUTH_TOKEN']}",
            "PUBLIC_URL": f"https://127.0.0.1:{ports['PORT']}",
        }
        whole = composed(filled)
        with redis.Redis.from_url(valkey.url) as operator:
            for user in whole["configs"]["users"]["content"].splitlines():
                if "duecall" in user:
                    operator.execute_command("ACL", "SETUSER", *user.split()[1:])
        places = {"postgres:5432": f"127.0.0.1:{database.port}", "valkey:6379": f"127.0.0.1:{broker.port}"}
        made = Composition(whole["services"], ports, places, folder)
        stack.callback(made.kill)
        yield made


@pytest.mark.timeout(590)
def test_compose_services_start_place_a_call_and_stop(composition: Composition, carrier: SimulatedCarrier) -> None:
    # As in the file: the schema and the logins first, and again at every later start.
    assert composition.run("migrate") == 0
    assert composition.run("migrate") == 0
    who_works = composition.environment("dial")["DATABASE_URL"]
    with psycopg.connect(composition.environment("api")["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT current_user").fetchall() == [("api",)]
    with pytest.raises(WrongRole):
        Database(who_works, bound=True).check_start()

    names = list(procfile())
    for name in names:
        composition.start(name)
    for name in names:
        wait_until(lambda name=name: composition.is_healthy(name), seconds=200, says=f"{name} is healthy")  # type: ignore[misc]

    place = f"http://127.0.0.1:{composition.environment('api')['PORT']}"
    call_a_person(composition, place)
    rung = wait_until(lambda: carrier.rings(NUMBER), seconds=60, says="the call rings")
    assert len(rung) == 1
    told = list(what_flower_and_metrics_tell(composition, place))

    # All at once, as Docker does: a worker takes seconds to stop, and the check of a stopped one waits for its answer.
    with ThreadPoolExecutor(len(names)) as pool:
        codes = dict(zip(names, pool.map(composition.stop, names), strict=True))
        # uvicorn finishes running requests and then ends by the signal.
        assert codes == {**dict.fromkeys(names, 0), "api": -signal.SIGTERM, "console": -signal.SIGTERM}
        assert not any(pool.map(composition.is_healthy, names))
    told += [log.read_text(encoding="utf-8") for log in composition.logs()]
    assert len(told) > len(names)
    for canary in (*composition.secrets, NUMBER.removeprefix("+"), "Canary", "Ferdinand"):
        assert not any(canary in text for text in told), canary


def what_flower_and_metrics_tell(composition: Composition, place: str) -> Iterator[str]:
    """Read all that Flower's API and pages show of workers to a user with the password."""
    variables = composition.environment("flower")
    flower = f"http://127.0.0.1:{variables['FLOWER_PORT']}"
    operator = tuple(variables["FLOWER_BASIC_AUTH"].split(":", 1))
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Connection"] = "close"
        assert session.get(f"{flower}/api/workers", timeout=60).status_code == 401
        for path in ("/api/workers?refresh=1", "/api/tasks", "/workers", "/tasks", "/broker", "/metrics"):
            answer = session.get(flower + path, auth=operator, timeout=60)  # type: ignore[arg-type]
            assert answer.ok, path
            yield answer.text

        def shown() -> str | None:
            """Wait until Flower lists each worker, whose first events may come later."""
            page = session.get(f"{flower}/workers?json=1", auth=operator, timeout=60)  # type: ignore[arg-type]
            names = {each["hostname"].partition("@")[0] for each in page.json()["data"]}
            return page.text if names >= {"dial", "intake"} else None

        yield wait_until(shown, seconds=60, says="Flower lists the workers")
        assert session.post(f"{flower}/api/worker/shutdown/dial", auth=operator, timeout=60).status_code == 403  # type: ignore[arg-type]
        yield session.get(f"{place}/metrics", timeout=60).text
        yield session.get(f"{place}/interviews", timeout=60).text


def call_a_person(composition: Composition, place: str) -> None:
    """Create a key by the command line and everything else over HTTP."""
    variables = composition.environment("migrate") | {"KEY_PEPPER": composition.environment("api")["KEY_PEPPER"]}
    variables["DATABASE_URL"] = variables["DATABASE_WORKER_URL"]
    made = subprocess.run(
        [sys.executable, "-m", "scheduler", "keys", "create", "--ats", "Acme ATS", "--json"],
        env=variables,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    candidate = {"firstName": "Ferdinand", "lastName": "Canary", "gdprExpiryDate": "2099-01-01"}
    Ats(json.loads(made.stdout)["key"], place).order(NUMBER, candidate=candidate | {"phoneNumber": NUMBER})
