"""Health means that work is done: real workers, their proofs, and their ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from scheduler.persistence import schema
from scheduler.settings import environment
from standalone.supervisor import commands
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import wait_until
from tests.support.compose import ROOT, WORKERS
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier, a_carrier
from workers.liveness import Presence

ALL = commands(api_port=0, console_port=0, flower_port=0)
PROVING = ("clock", *WORKERS)


@pytest.fixture(scope="module")
def carrier() -> Iterator[SimulatedCarrier]:
    with a_carrier() as carrier:
        yield carrier


@contextmanager
def a_process(argv: tuple[str, ...], folder: Path, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with a proof and a log in this folder, killed at the end."""
    named = environment(DUECALL_PROOF_FILE=str(folder / "proof"), **variables)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=ROOT, env=named, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait(60)


@pytest.fixture
def variables(postgres_url: str, redis_url: str, carrier: SimulatedCarrier) -> dict[str, str]:
    return {
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_url,
        "TWILIO_API_URL": carrier.url,
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": PRIMARY,
    }


def touched_at(folder: Path) -> int:
    proof = folder / "proof"
    return proof.stat().st_mtime_ns if proof.exists() else 0


def proves_itself(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    before = touched_at(folder)
    wait_until(
        lambda: process.poll() is not None or touched_at(folder) > before, seconds=60, says="its work is proven again"
    )
    assert process.poll() is None, (folder / "log").read_text()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROVING)
def test_process_proves_its_work_until_it_stops(name: str, variables: dict[str, str], folder: Path) -> None:
    (folder / "proof").touch()  # of an earlier process
    with a_process(ALL[name], folder, **variables) as process:
        wait_until(lambda: not (folder / "proof").exists(), seconds=60, says="an old proof counts no longer")
        proves_itself(process, folder)
        wait_until(lambda: handles_sigterm(process.pid), seconds=60, says="it is ready to be stopped")
        process.terminate()
        assert process.wait(60) == 0
        assert not (folder / "proof").exists()


def handles_sigterm(pid: int) -> bool:
    """Check that a process has a handler. The loop of deliveries proves its work before Celery has set one."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["dial", "intake", "webhooks"])
def test_worker_without_its_tables_is_not_ready(name: str, variables: dict[str, str], folder: Path) -> None:
    """The schema vanishes after the start, as after a restore that failed."""
    server = EmbeddedPostgres(folder, durable=False)

    def announced() -> int:
        return sum(name in each.queues for each in presence.live())

    with (
        closing(Presence(variables["REDIS_URL"])) as presence,
        server,
        a_process(ALL[name], folder, **variables | {"DATABASE_URL": upgraded(server)}) as process,
    ):
        proves_itself(process, folder)
        wait_until(announced, seconds=60, says="it is announced")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER TABLE alembic_version RENAME TO hidden")
            connection.execute("ALTER TABLE events RENAME TO hidden_events")
            is_stale(folder)
            wait_until(lambda: not announced(), seconds=90, says="it is announced no longer")
            assert process.poll() is None, "a restart would not help"
            connection.execute("ALTER TABLE hidden RENAME TO alembic_version")
            connection.execute("ALTER TABLE hidden_events RENAME TO events")
        proves_itself(process, folder)


def upgraded(server: EmbeddedPostgres) -> str:
    schema.upgrade(server.url)
    return server.url


def is_stale(folder: Path) -> None:
    """Wait until the proof is older than two pings."""
    check = ["find", str(folder / "proof"), "-mmin", "+0.7"]
    wait_until(
        lambda: subprocess.run(check, capture_output=True, check=True).stdout, seconds=90, says="its proof is old"
    )


@pytest.mark.timeout(600)
def test_dial_worker_without_its_loop_ends(variables: dict[str, str], folder: Path) -> None:
    words = ["celery", "-A", "tests.support.dying_dialler", *ALL["dial"][5:]]
    with a_process((sys.executable, "-m", *words), folder, **variables) as process:
        assert process.wait(90) == 70, (folder / "log").read_text()
    assert "dialler_failed" in (folder / "log").read_text()
