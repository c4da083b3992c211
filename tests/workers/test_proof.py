"""Health means that work is done: real workers, their proofs, and their ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from scheduler.settings import environment
from standalone.fork_server import ForkedProcess
from standalone.supervisor import commands
from tests.conftest import wait_until
from tests.support.compose import WORKERS
from tests.support.copied_postgres import CopiedPostgres
from tests.support.forked_commands import forked
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier, a_carrier
from workers.liveness import Presence

ALL = commands(api_port=0, console_port=0, flower_port=0)
PROVING = ("clock", *WORKERS)


@pytest.fixture(scope="module")
def carrier() -> Iterator[SimulatedCarrier]:
    with a_carrier() as carrier:
        yield carrier


@contextmanager
def a_process(argv: Sequence[str], folder: Path, **variables: str) -> Iterator[ForkedProcess]:
    """A process with a proof and a log in this folder, killed at the end."""
    process = forked(argv[1:], environment(DUECALL_PROOF_FILE=str(folder / "proof"), **variables), folder / "log")
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


def proves_itself(process: ForkedProcess, folder: Path) -> None:
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
def test_worker_without_its_tables_is_not_ready(variables: dict[str, str], folder: Path) -> None:
    """The schema vanishes after the start, as after a restore that failed."""
    folders = {name: folder / name for name in ("dial", "intake", "webhooks")}
    for own in folders.values():
        own.mkdir()

    def announced() -> int:
        return sum(not each.queues.isdisjoint(folders) for each in presence.live())

    with (
        closing(Presence(variables["REDIS_URL"])) as presence,
        CopiedPostgres(folder, durable=False) as server,
        ExitStack() as stack,
    ):
        running = {
            name: stack.enter_context(a_process(ALL[name], own, **variables | {"DATABASE_URL": server.url}))
            for name, own in folders.items()
        }
        all_prove_themselves(running, folders)
        wait_until(lambda: announced() == len(running), seconds=60, says="they are announced")
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("ALTER TABLE alembic_version RENAME TO hidden")
            connection.execute("ALTER TABLE events RENAME TO hidden_events")
            for own in folders.values():
                is_stale(own)
            wait_until(lambda: not announced(), seconds=90, says="they are announced no longer")
            assert [process.poll() for process in running.values()] == [None] * 3, "a restart would not help"
            connection.execute("ALTER TABLE hidden RENAME TO alembic_version")
            connection.execute("ALTER TABLE hidden_events RENAME TO events")
        all_prove_themselves(running, folders)


def all_prove_themselves(running: Mapping[str, ForkedProcess], folders: Mapping[str, Path]) -> None:
    for name, process in running.items():
        proves_itself(process, folders[name])


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
