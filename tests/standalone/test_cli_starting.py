"""The start of Duecall, or its error in one line; as separate processes, as an operator starts them."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests
from pydantic import SecretStr

from scheduler.persistence.schema import Logins
from scheduler.settings import Settings
from standalone.private_server import free_port
from standalone.run_file import NotReady, PortTaken
from standalone.supervisor import Program, Supervisor, commands
from standalone.system import Options, System, _instance_in
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.acceptance.conftest import Client, QuickSystem
from tests.conftest import wait_until
from tests.support.forked_commands import forked, forked_command, run_forked
from tests.support.servers import a_door
from tests.test_settings import PRODUCTION

NOWHERE = "postgresql://user@127.0.0.1:1/nothing"
NO_REDIS = "redis://127.0.0.1:1/0"
PRIVATE = Settings(database_url=None, redis_url=None, twilio_account_sid="")


def _environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
    return {**kept, **variables}


def _run(argv: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as it is typed."""
    environment, command = _environment(**variables), [sys.executable, *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _interrupted(words: str, home: Path, reached: Path) -> subprocess.CompletedProcess[str]:
    """Run `duecall`, and send Ctrl-C when this file exists."""
    argv = ("-m", "scheduler", *words.split())
    with forked_command(argv, _environment(DUECALL_HOME=str(home))) as command:
        wait_until(reached.exists, seconds=60, says=f"there is {reached}")
        command.process.send_signal(signal.SIGINT)
        return command.ended()


# ---- refusals before anything starts


ENTRY_POINTS: Mapping[str, Sequence[str]] = {
    **{
        name: argv[1:]
        for name, argv in commands(api_port=free_port(), console_port=free_port(), flower_port=free_port()).items()
    },
    **{words: ("-m", "scheduler", *words.split()) for words in ("up", "demo", "status", "simulator")},
}


WITHOUT_SERVERS = {
    "DATABASE_URL": NOWHERE,
    "REDIS_URL": NO_REDIS,
    "TWILIO_ACCOUNT_SID": "AC1",
    "TWILIO_AUTH_TOKEN": "a token",
}


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_process_refuses_unsafe_times_at_start(name: str, tmp_path: Path) -> None:
    variables = _environment(DIAL_LEASE_S="1", DUECALL_HOME=str(tmp_path), **WITHOUT_SERVERS)
    process = forked(ENTRY_POINTS[name], variables, tmp_path / "log")
    assert process.wait(60) not in {0, -signal.SIGTERM}
    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert "DIAL_LEASE_S=1 is too short for CARRIER_TOTAL_TIMEOUT_S=13" in said
    assert "Set DIAL_LEASE_S to at least 14" in said
    assert "Traceback" not in said
    assert not (tmp_path / "up.lock").exists()


@pytest.mark.parametrize("name", ["dial", "clock"])
def test_process_without_database_ends_with_one_error_line(name: str) -> None:
    """Celery ignores an error in a worker's start: the worker would take hints and place no calls."""
    done = _run(ENTRY_POINTS[name], **WITHOUT_SERVERS)
    assert done.returncode == 1
    assert "the database cannot be reached: " in done.stderr
    assert "Traceback" not in done.stderr


def test_command_with_the_role_of_another_prints_one_line(logins: Logins, redis_url: str) -> None:
    """`tests/acceptance/test_failed_starts.py` shows it of each process."""
    urls = {
        "DATABASE_URL": logins.worker,
        "DATABASE_WORKER_URL": logins.api,
        "DATABASE_OPERATOR_URL": logins.api,
        "REDIS_URL": redis_url,
        "CONSOLE_URL": "https://console.example.com",
    }
    done = run_forked(ENTRY_POINTS["status"], _environment(**{**PRODUCTION, **urls}))
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "IN ROLE duecall_" in said
    assert "Traceback" not in said


def test_taken_port_is_refused_with_its_number(tmp_path: Path) -> None:
    with a_door() as door:
        port = door.getsockname()[1]
        said: list[str] = []
        with (
            pytest.raises(PortTaken, match=rf"Port {port} on 127\.0\.0\.1 cannot be used for the API: address"),
            System(Options(home=tmp_path, port=port), PRIVATE, said.append),
        ):
            pytest.fail("it runs on another program's port")
    assert said == [], "nothing was begun"


# ---- what does not stay up


class _OtherApi(BaseHTTPRequestHandler):
    """The API of another Duecall, as far as clients can see."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"success": true, "data": {"status": "ok", "instance": "another"}}')

    def log_message(self, *_: object) -> None:
        pass


def test_foreign_api_on_the_port_is_not_announced(tmp_path: Path) -> None:
    port = free_port()
    others: list[HTTPServer] = []

    def say(line: str) -> None:
        if line == "starting the processes":  # the port was looked at before
            others.append(HTTPServer(("127.0.0.1", port), _OtherApi))
            threading.Thread(target=others[0].serve_forever, daemon=True).start()

    with pytest.raises(NotReady) as why, QuickSystem(Options(home=tmp_path, port=port), PRIVATE, say):
        pytest.fail("it announced another program's API")
    assert requests.get(f"http://127.0.0.1:{port}/readyz", timeout=30).ok
    others[0].shutdown()
    others[0].server_close()
    assert "api ended 3 times right after its start" in str(why.value)
    assert "address already in use" in str(why.value)
    assert not (tmp_path / "run.json").exists()


def test_running_system_restarts_a_process_that_keeps_ending(tmp_path: Path) -> None:
    said: list[str] = []
    supervisor = Supervisor(said.append)
    argv = (sys.executable, "-c", "print('its last words')")
    log = tmp_path / "brief.log"
    supervisor.start(Program(name="brief", argv=argv, environment=_environment(), log=log))
    try:
        supervisor.run(lambda: len(said) >= 3)
        assert supervisor.gave_up(4) is None
        told = supervisor.gave_up(3)
        assert told is not None
        assert told.startswith("brief ended 3 times")
        assert told.endswith("its last words")
        supervisor.run(lambda: len(said) >= 4)
    finally:
        supervisor.stop()


# ---- the settings of the start


def test_private_system_uses_only_its_own_database_and_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_WORKER_URL", "DATABASE_OWNER_URL", "DATABASE_LISTEN_URL"):
        monkeypatch.setenv(name, NOWHERE)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with QuickSystem(Options(home=tmp_path, ephemeral=True), Settings(), print) as system:
        assert system.running is not None
        client = Client(system.running)
        assert _instance_in(client.get("/readyz")) == system._instance
        assert _instance_in(client.get("/healthz")) == system._instance
        # A worker with another database would never answer. On a busy machine, one may answer late.
        numbers = (f"+4219153000{number}" for number in range(10, 100))
        wait_until(lambda: client.post(client.interview(next(numbers))).status_code == 201, seconds=60)


def test_up_without_redis_warns_and_status_counts_commands(
    tmp_path: Path, postgres: EmbeddedPostgres, postgres_url: str
) -> None:
    chosen = Settings(database_url=SecretStr(postgres_url), redis_url=SecretStr(NO_REDIS), twilio_account_sid="")
    said: list[str] = []
    with QuickSystem(Options(home=tmp_path), chosen, said.append) as system:
        assert system.running is not None
        client = Client(system.running)
        assert client.get("/readyz").json()["data"]["degraded"] == ["redis"]
        assert client.post(client.interview("+421915300001")).status_code == 202
        done = run_forked(("-m", "scheduler", "--home", str(tmp_path), "status"), _environment())
    assert done.returncode == 0
    (warning,) = [line for line in said if line.startswith("WARNING")]
    assert "Redis (REDIS_URL) does not answer" in warning
    assert "Connection refused" in warning
    assert "1 accepted and not applied yet, the oldest for" in done.stdout


# ---- Ctrl-C


@pytest.mark.parametrize("imported", ["typer", "alembic"])
def test_ctrl_c_during_imports_prints_no_traceback(imported: str, tmp_path: Path) -> None:
    """A signal from here would arrive after the import: a package of the same name sends it."""
    package = tmp_path / "packages" / imported
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_INTERRUPTS)
    done = _run(("-m", "scheduler", "demo"), DUECALL_HOME=str(tmp_path), PYTHONPATH=str(package.parent))
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "demo").exists()


_INTERRUPTS = """
import os, signal, threading
os.kill(os.getpid(), signal.SIGINT)
threading.Event().wait()
"""
STOPPED = "stopped: all processes and private servers have ended"


@pytest.mark.parametrize("reached", ["run.json", "up.lock"])
def test_ctrl_c_stops_the_demo_without_a_result(reached: str, tmp_path: Path) -> None:
    done = _interrupted("demo", tmp_path, tmp_path / "demo" / reached)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].endswith(STOPPED)
    for verdict in ("as expected", "expected ", "no phone rang twice", "Traceback"):
        assert verdict not in done.stdout + done.stderr, done.stdout + done.stderr


def test_ctrl_c_ends_up_with_a_last_line_that_says_so(tmp_path: Path) -> None:
    done = _interrupted("up --ephemeral", tmp_path, tmp_path / "run.json")
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1].endswith(STOPPED)
    assert f'export DUECALL_HOME={tmp_path}; eval "$(duecall env)"' in done.stderr, "the next step"
    assert (tmp_path / "up.lock").read_text() == "", "no process id is left"
