"""The fork server: processes as if started by a command, which end with the server and are ended by their pid."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from standalone.fork_server import ForkedProcess, ForkServer, bound_to_parent, needed_for_imports
from standalone.forked_program import IMPORTED
from standalone.supervisor import Program, Supervisor
from tests.conftest import wait_until
from tests.support.descriptors import no_descriptors

EXAMPLE = (sys.executable, "-m", "tests.support.forked_example")
Told = dict[str, Any]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ForkServer]]:
    servers: list[ForkServer] = []
    yield servers
    for each in servers:
        each.stop()


@pytest.fixture
def server(servers: list[ForkServer], tmp_path: Path) -> ForkServer:
    """The server of the previous test, unless that ended it: the imports of a new one take two seconds of CPU."""
    if not servers or servers[-1]._is_away or servers[-1]._process.poll() is not None:
        servers.append(ForkServer({**os.environ, "INHERITED": "by the server"}, tmp_path / "fork-server.log"))
    return servers[-1]


Start = Callable[[str], tuple[ForkedProcess, Told]]


@pytest.fixture
def start(server: ForkServer, tmp_path: Path) -> Start:
    def started(word: str) -> tuple[ForkedProcess, Told]:
        log = tmp_path / f"{word}.log"
        environment = {name: value for name, value in os.environ.items() if name != "INHERITED"}
        process = server.start("example", (*EXAMPLE, word), {**environment, "WORD": "žluťoučký"}, log)
        assert process is not None
        wait_until(lambda: log.exists() and log.read_text().endswith("\n"), seconds=60, says="it has told")
        return process, json.loads(log.read_text().splitlines()[-1])

    return started


def test_forked_process_is_as_if_started_by_its_command(start: Start) -> None:
    process, told = start("3")
    assert process.wait(60) == 3
    assert told == {
        "name": "__main__",
        "argv": ["3"],
        "word": "žluťoučký",
        "inherited": None,
        "session": True,
        "descriptors": [0, 1, 2],
        "imported": True,
        "sigterm": True,
    }


def test_forked_process_is_ended_by_its_pid(start: Start) -> None:
    first, _ = start("wait")
    assert first.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait(60) == -signal.SIGKILL
    first.kill()  # reaches no process that has taken its id
    second, _ = start("0")
    assert second.wait(60) == 0
    assert (first.poll(), second.poll()) == (-signal.SIGKILL, 0)


def test_ends_are_told_apart_in_any_order(start: Start) -> None:
    (first, _), (second, _) = start("wait"), start("7")
    assert second.wait(60) == 7
    first.terminate()
    assert first.wait(60) == -signal.SIGTERM


def test_failed_fork_ends_no_other_process(server: ForkServer, start: Start, tmp_path: Path) -> None:
    process, _ = start("wait")
    files = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    held = max(int(each.name) for each in Path(f"/proc/{server.pid}/fd").iterdir())
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (held + 1, files[1]))
    try:
        assert server.start("example", (*EXAMPLE, "wait"), dict(os.environ), tmp_path / "another.log") is None
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, files)
    assert process.poll() is None
    another, _ = start("3")
    assert another.wait(60) == 3


def test_other_commands_are_not_forked(server: ForkServer, tmp_path: Path) -> None:
    for argv in (("/bin/true",), ("/bin/true", "-m", "true")):
        assert server.start("other", argv, {}, tmp_path / "log") is None


def test_supervisor_starts_processes_without_a_server(server: ForkServer, start: Start, tmp_path: Path) -> None:
    """A killed server ends all of its processes, and starts no other."""
    said: list[str] = []
    another, _ = start("wait")
    supervisor = Supervisor(said.append)
    supervisor.fork_server = server
    log = tmp_path / "example.log"
    supervisor.start(Program(name="example", argv=(*EXAMPLE, "wait"), environment=os.environ, log=log))
    try:
        forked = supervisor.pid("example")
        wait_until(lambda: len(log.read_text().splitlines()) == 1, seconds=60, says="it has told")
        os.kill(server.pid, signal.SIGKILL)
        assert another.wait(60) == -signal.SIGTERM
        assert server.start("example", (*EXAMPLE, "0"), os.environ, Path(os.devnull)) is None
        supervisor.run(lambda: supervisor.pid("example") not in {forked, None})
        wait_until(lambda: len(log.read_text().splitlines()) == 2, seconds=60, says="it has told again")
    finally:
        supervisor.stop()
    assert [json.loads(line)["imported"] for line in log.read_text().splitlines()] == [True, False]
    assert said == [f"example ended (signal SIGTERM) and is restarted; see {log}"]


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("is_forked", [True, False])
def test_supervisor_starts_a_process_once_it_has_descriptors(
    server: ForkServer, tmp_path: Path, *, is_forked: bool
) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append)
    supervisor.fork_server = server if is_forked else None
    supervisor.start(
        Program(name="short", argv=(*EXAMPLE, "3"), environment={**os.environ}, log=tmp_path / "short.log")
    )

    def is_said(words: str) -> bool:
        supervisor.restart_ended()
        return any(words in each for each in said)

    try:
        wait_until(lambda: is_said("is restarted"), seconds=60, says="it has ended")
        with no_descriptors():
            wait_until(lambda: is_said("short is not started yet"), seconds=60, says="its start was put off")
            assert supervisor.pid("short") is None
        said.clear()
        wait_until(lambda: is_said("is restarted"), seconds=60, says="it was started and has ended again")
    finally:
        supervisor.fork_server = None  # others use it
        supervisor.stop()


def test_forked_process_that_cannot_be_held_is_ended(server: ForkServer, start: Start, tmp_path: Path) -> None:
    with no_descriptors():
        assert server.start("example", (*EXAMPLE, "wait"), {**os.environ}, tmp_path / "lost.log") is None
    process, _ = start("3")
    assert process.wait(60) == 3, "the server goes on"


def test_processes_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, sys, threading
from standalone.fork_server import ForkServer
server = ForkServer(os.environ, pathlib.Path({str(tmp_path / "server.log")!r}))
process = server.start("example", {(*EXAMPLE, "wait")!r}, os.environ, pathlib.Path({str(tmp_path / "log")!r}))
print(server.pid, process.pid, flush=True)
threading.Event().wait()
"""
    command = bound_to_parent(signal.SIGKILL, sys.executable, "-c", program)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(word) for word in supervisor.stdout.readline().split()]
        assert len(pids) == 2
        supervisor.kill()
    wait_until(lambda: not any(map(_runs, pids)), seconds=60, says="all have ended")


def test_server_has_the_variables_of_libraries() -> None:
    """A library reads them once, when it is loaded: in a forked process it is too late."""
    read_once = {
        "PYTHONMALLOC": "malloc",
        "OPENSSL_CONF": "/etc/ssl/strict.cnf",
        "MALLOC_ARENA_MAX": "2",
        "GLIBC_TUNABLES": "glibc.malloc.arena_max=2",
        "PSYCOPG_IMPL": "python",
    }
    assert needed_for_imports({**read_once, "TWILIO_AUTH_TOKEN": "secret", "DATABASE_URL": "url"}) == read_once


def test_imported_modules_open_nothing() -> None:
    """Nothing that processes must have for themselves exists before a fork: no thread, connection or setting."""
    program = f"""
import importlib, json, os, sys
before = set(os.listdir("/proc/self/fd"))
missing = []
for module in {IMPORTED!r}:
    try:
        importlib.import_module(module)
    except ImportError:
        missing.append(module)
from kombu import common
from scheduler import settings
from workers import app
print(json.dumps(dict(
    missing=missing,
    threads=len(os.listdir("/proc/self/task")),
    descriptors=len(set(os.listdir("/proc/self/fd")) - before),
    settings=settings.settings.cache_info().currsize,
    configured=app.app.configured,
    node=common._node_id,
)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {
        "missing": [],
        "threads": 1,
        "descriptors": 0,
        "settings": 0,
        "configured": False,
        "node": None,
    }


def test_process_of_a_stopped_server_has_an_unknown_status(server: ForkServer, start: Start) -> None:
    """Seen in a review: a crash was not noticed while the server was stopped."""
    process, _ = start("wait")
    os.kill(server.pid, signal.SIGSTOP)
    process.kill()
    assert process.wait(60) == -signal.SIGTERM
    os.kill(server.pid, signal.SIGCONT)


def test_stopped_server_delays_a_start_by_seconds(
    servers: list[ForkServer], server: ForkServer, start: Start, tmp_path: Path
) -> None:
    """Only the first answer may take longer, because the server imports before it."""
    process, _ = start("wait")
    importing = ForkServer(os.environ, tmp_path / "importing.log")
    servers.append(importing)
    request = "example", (*EXAMPLE, "0"), os.environ, tmp_path / "another.log"
    for each in (importing, server):
        os.kill(each.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        first_answer = pool.submit(importing.start, *request)
        later_answer = pool.submit(server.start, *request)
        assert later_answer.result(30) is None
        assert not first_answer.done()
        os.kill(importing.pid, signal.SIGCONT)
        another = first_answer.result(60)
    assert another is not None
    assert another.wait(60) == 0
    assert process.wait(60) == -signal.SIGTERM, "it ends with the server"
