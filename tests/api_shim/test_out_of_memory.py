"""An API process without memory exits and is restarted by its supervisor. It never hangs."""

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from api_shim import process
from scheduler.settings import environment
from standalone.fork_server import needed_for_imports
from standalone.private_server import free_port
from standalone.supervisor import Program, Supervisor
from tests.api_shim.intake import Intake, environment_of
from tests.conftest import wait_until
from tests.support.kept_fork_server import kept_fork_server

MANY = 40
_MEGABYTE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """The API under our supervisor."""

    supervisor: Supervisor
    url: str
    log: Path
    said: list[str]

    def pid(self) -> int | None:
        self.supervisor.restart_ended()
        return self.supervisor.pid("api")

    def is_alive(self) -> bool:
        self.supervisor.restart_ended()
        try:
            return httpx.get(f"{self.url}/healthz", timeout=30).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def has_another(self, pid: int) -> bool:
        return self.pid() not in {pid, None} and self.is_alive()

    def post_at_once(self, key: str, count: int, body: bytes = b"{}") -> None:
        """Send requests and ignore the responses."""

        def post(_: int) -> None:
            try:
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
                httpx.post(f"{self.url}/jobs", content=body, headers=headers, timeout=10)
            except httpx.TransportError:
                pass

        with ThreadPoolExecutor(count) as clients:
            list(clients.map(post, range(count)))


@pytest.fixture
def api(intake: Intake, tmp_path: Path) -> Iterator[Supervised]:
    with supervised(intake, tmp_path / "api.log") as api:
        yield api


@contextmanager
def supervised(intake: Intake, log: Path) -> Iterator[Supervised]:
    port = free_port()
    argv = (sys.executable, "-m", "tests.api_shim.short_of_memory", "--port", str(port), "--no-access-log")
    said: list[str] = []
    variables = environment(**environment_of(intake))
    supervisor = Supervisor(said.append)
    supervisor.fork_server = kept_fork_server(needed_for_imports(variables), log)
    program = Program(name="api", argv=argv, environment=variables, log=log)
    try:
        supervisor.start(program)
        api = Supervised(supervisor=supervisor, url=f"http://127.0.0.1:{port}", log=log, said=said)
        wait_until(api.is_alive, seconds=60, says="the API serves")
        yield api
    finally:
        supervisor.stop()


def test_api_serves_on_when_no_thread_can_begin(api: Supervised, intake: Intake) -> None:
    pid = api.pid()
    assert pid is not None
    os.kill(pid, signal.SIGUSR1)
    api.post_at_once(intake.key, MANY)
    wait_until(api.is_alive, seconds=60, says="the event loop does not wait for a thread")


def test_api_ends_after_a_memory_error_and_is_restarted(api: Supervised, intake: Intake) -> None:
    pid = api.pid()
    assert pid is not None
    os.kill(pid, signal.SIGUSR2)
    api.post_at_once(intake.key, 1)
    wait_until(lambda: api.has_another(pid), seconds=60, says="another process serves")
    assert f"status {process.STATUS}" in api.said[0]
    assert '"alarm": "OUT_OF_MEMORY"' in api.log.read_text()


def test_api_under_a_memory_limit_never_hangs(api: Supervised, intake: Intake) -> None:
    pid = api.pid()
    assert pid is not None
    limit = memory_of(pid) + 2 * _MEGABYTE
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))
    body = b'{"title": "' + b"x" * 60_000 + b'"}'
    for _ in range(8):
        api.post_at_once(intake.key, MANY, body)
    wait_until(api.is_alive, seconds=60, says="it serves, or another one does")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("can't start new thread"), ExceptionGroup("several", [ValueError(), MemoryError()])],
)
def test_error_without_memory_is_recognised(error: Exception) -> None:
    outer = ValueError()
    outer.__cause__ = error
    assert process.is_out_of_memory(error)
    assert process.is_out_of_memory(outer)


@pytest.mark.parametrize("error", [ValueError("memory"), RuntimeError("other"), RecursionError(), None])
def test_other_error_ends_no_process(error: Exception | None) -> None:
    assert not process.is_out_of_memory(error)


def test_embedded_api_ends_no_process() -> None:
    assert threading.current_thread() is threading.main_thread()
    process.end_if(MemoryError())


_LOOPS = """
import asyncio, sys, threading
from api_shim import process

process._CHECK_EVERY_S = 0.02
stands_still, turns = map(int, sys.argv[1:])

async def main():
    with process.ending_the_process():
        for _ in range(turns):
            beats = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(process._CHECK_EVERY_S, beats.set_result, None)
            await beats
            threading.Event().wait(stands_still * process._CHECK_EVERY_S)

asyncio.run(main())
"""


def a_loop(*, stands_still: int, turns: int) -> subprocess.CompletedProcess[str]:
    """A watched process whose loop is blocked `turns` times, each time for `stands_still` checks of the watchdog."""
    words = [sys.executable, "-c", _LOOPS, str(stands_still), str(turns)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def test_process_ends_when_its_loop_is_blocked() -> None:
    ended = a_loop(stands_still=10_000, turns=1)
    assert ended.returncode == process.STATUS, ended.stderr
    assert '"alarm": "LOOP_STUCK"' in ended.stderr


def test_process_goes_on_while_its_loop_turns_slowly() -> None:
    """All pauses together are longer than a single pause that ends the process."""
    ended = a_loop(stands_still=4, turns=10)
    assert (ended.returncode, ended.stderr) == (0, "")


def memory_of(pid: int) -> int:
    """The size of its address space in bytes."""
    [size] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmSize:")]
    return int(size.split()[1]) * 1024
