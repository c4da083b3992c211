"""Keeps the lines of the Procfile running, and finds the processes that a killed supervisor left behind."""

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scheduler.clock import monotonic
from scheduler.process import is_shortage
from standalone.fork_server import ForkServer, bound_to_parent, run_child

# --- Duecall's processes and their commands: the lines of the Procfile, for `duecall up`


_ROOT = Path(__file__).resolve().parents[1]


def commands(*, api_port: int, console_port: int, flower_port: int) -> dict[str, tuple[str, ...]]:
    """Each process's command by its name, in start order. A test compares them with the Procfile."""
    python = (sys.executable, "-m")
    worker = (*python, "celery", "-A", "workers.app", "worker")
    quiet = ("--without-gossip", "--without-mingle", "--loglevel", "INFO")
    threads = ("--pool", "threads", "--concurrency")
    return {
        "api": (
            *python,
            *("uvicorn", "api_shim.app:app", "--host", "127.0.0.1", "--port", str(api_port)),
            *("--http", "api_shim.process:Connection", "--no-access-log", "--timeout-graceful-shutdown", "15"),
        ),
        "console": (
            *python,
            *("uvicorn", "console.app:app", "--host", "127.0.0.1", "--port", str(console_port)),
            *("--http", "api_shim.process:Connection", "--no-access-log", "--timeout-graceful-shutdown", "15"),
        ),
        "clock": (
            *python,
            *("celery", "-A", "workers.app", "beat", "--scheduler", "workers.clock:Clock"),
            *("--pidfile=", "--loglevel", "INFO"),
        ),
        "dial": (*worker, "-Q", "dial", "--pool", "solo", "--hostname", "dial@%h", *quiet),
        "intake": (*worker, "-Q", "intake", *threads, "4", "--hostname", "intake@%h", *quiet),
        "bulk": (*worker, "-Q", "bulk", *threads, "2", "--hostname", "bulk@%h", *quiet),
        "callbacks": (*worker, "-Q", "callbacks", *threads, "4", "--hostname", "callbacks@%h", *quiet),
        "settle": (*worker, "-Q", "settle", *threads, "2", "--hostname", "settle@%h", *quiet),
        "webhooks": (*worker, "-Q", "webhooks", "--pool", "solo", "--hostname", "webhooks@%h", *quiet),
        "maintenance": (*worker, "-Q", "maintenance", *threads, "2", "--hostname", "maintenance@%h", *quiet),
        "flower": (
            *python,
            *("celery", "-A", "workers.app", "flower"),
            *(f"--conf={_ROOT / 'workers' / 'flowerconfig.py'}", "--address=127.0.0.1", f"--port={flower_port}"),
        ),
    }


def simulator_command(*, port: int, journal: Path, requests_instructions: bool) -> tuple[str, ...]:
    """The command of the simulated carrier, which keeps its calls in `journal` over a restart."""
    options = ("--request-instructions",) if requests_instructions else ()
    return (sys.executable, "-m", "scheduler", "simulator", "--port", str(port), "--journal", str(journal), *options)


# --- Keeps several processes running: starts them in order, restarts them with back-off, stops them together


_CHECK_EVERY_S = 0.1
_FIRST_BACK_OFF_S = 0.5
_MAX_BACK_OFF_S = 10.0
_HEALTHY_AFTER_S = 30.0
"""After running this long, a process starts again with the first back-off."""
_GRACE_S = 25.0
_MAX_LOG_BYTES = 10_000_000
_LAST_LINES = 5
_MAX_LINE = 400


@dataclass(frozen=True, kw_only=True)
class Program:
    """A process to keep running. Its output is appended to `log`."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path


class Process(Protocol):
    """A child process, or one of the fork server."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class _Supervised:
    """One program and its current process."""

    def __init__(self, program: Program, fork_server: ForkServer | None) -> None:
        self.program = program
        self.process: Process | None = None
        self._fork_server = fork_server
        self.ended_early = 0
        """Consecutive ends before `_HEALTHY_AFTER_S`."""
        self._started_at = 0.0
        self._back_off = _FIRST_BACK_OFF_S
        self._start_again_at = 0.0
        self._log_begin = 0

    def start(self) -> None:
        _rotate(self.program.log)
        with self.program.log.open("ab") as log:
            self._log_begin = log.tell()
            self.process = self._forked() or subprocess.Popen(  # noqa: S603 - our own programs, without a shell
                bound_to_parent(signal.SIGTERM, *self.program.argv),
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started_at = monotonic()

    def _forked(self) -> Process | None:
        program = self.program
        if self._fork_server is None:
            return None
        return self._fork_server.start(program.name, program.argv, program.environment, program.log)

    def check(self) -> int | None:
        """Restart an ended program after its back-off. Return the exit status when the end is first noticed."""
        if self.process is None:
            if monotonic() >= self._start_again_at:
                self.start()
            return None
        status = self.process.poll()
        if status is None:
            return None
        instant = monotonic()
        self.ended_early += 1
        if instant - self._started_at >= _HEALTHY_AFTER_S:
            self._back_off = _FIRST_BACK_OFF_S
            self.ended_early = 0
        self.process = None
        self.put_off()
        return status

    def put_off(self) -> None:
        """Start the program after its back-off."""
        self._start_again_at = monotonic() + self._back_off
        self._back_off = min(self._back_off * 2, _MAX_BACK_OFF_S)

    def last_lines(self) -> list[str]:
        """The end of its log since the last start."""
        with self.program.log.open("rb") as log:
            log.seek(self._log_begin)
            lines = log.read().decode(errors="replace").splitlines()
        return [line[:_MAX_LINE] for line in lines if line.strip()][-_LAST_LINES:]


class Supervisor:
    """Keeps programs running until `stop`. Use it on one thread: on Linux, children end with the starting thread."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.fork_server: ForkServer | None = None
        self._programs: dict[str, _Supervised] = {}
        self._wake = threading.Event()

    def start(self, program: Program) -> None:
        supervised = _Supervised(program, self.fork_server)
        self._programs[program.name] = supervised
        supervised.start()

    def program(self, name: str) -> Program:
        return self._programs[name].program

    def pid(self, name: str) -> int | None:
        """The process id of a running program; None while it waits for its restart."""
        process = self._programs[name].process
        return None if process is None else process.pid

    def gave_up(self, tries: int) -> str | None:
        """Describe a program that ended `tries` times in a row right after its start, with the end of its log."""
        for name, supervised in self._programs.items():
            if supervised.ended_early >= tries:
                log = supervised.program.log
                first = f"{name} ended {supervised.ended_early} times right after its start. The end of {log}:"
                return "\n  ".join((first, *supervised.last_lines()))
        return None

    def restart_ended(self) -> None:
        """Restart programs that have ended and whose back-off is over."""
        for name, supervised in self._programs.items():
            try:
                status = supervised.check()
            except OSError as error:
                if not is_shortage(error):
                    raise
                supervised.put_off()
                self._report(
                    f"{name} is not started yet: no file can be opened, because the limit (ulimit -n) is reached"
                )
                continue
            if status is not None:
                self._report(f"{name} ended ({_status_text(status)}) and is restarted; see {supervised.program.log}")

    def run(self, until: Callable[[], bool]) -> None:
        """Restart ended programs until `until` returns True. It is called about ten times a second."""
        while not until():
            self.restart_ended()
            self._wake.wait(_CHECK_EVERY_S)

    def stop(self) -> None:
        """End all programs: SIGTERM to each, then SIGKILL after 25 s."""
        running = [program.process for program in self._programs.values() if program.process is not None]
        self._programs.clear()
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = monotonic() + _GRACE_S
        for process in running:
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.fork_server is not None:
            self.fork_server.stop()
            self.fork_server = None


def _status_text(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_suffix(log.suffix + ".1"))


# --- Finds the processes of a server that a killed supervisor left behind


def servers_in(data: Path, programs: frozenset[str]) -> frozenset[int]:
    """Find the processes that run one of `programs` in `data`, without zombies.

    A server's working directory is its data folder. The kernel reports it, so a stale pid file or a reused process id
    cannot name another program.
    """
    if platform.system() == "Linux":
        candidates = frozenset(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return frozenset(pid for pid in candidates if _runs_in(pid, data, programs))
    listed = run_child(("/usr/sbin/lsof", "-w", "-t", "-a", "-d", "cwd", "--", str(data))).stdout.split()
    return frozenset(int(pid) for pid in listed if pid.isdecimal() and _program_name(int(pid)) in programs)


def _runs_in(pid: int, data: Path, programs: frozenset[str]) -> bool:
    """Check whether the process is such a server. For Linux. False also for processes of other users."""
    try:
        directory = Path(f"/proc/{pid}/cwd").readlink()
        program = Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return False
    return directory == data and program.name.removesuffix(" (deleted)") in programs


def _program_name(pid: int) -> str:
    return Path(run_child(("/bin/ps", "-p", str(pid), "-o", "comm=")).stdout.strip()).name


def read_pid(file: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return int(file.read_text(encoding="ascii", errors="replace").split()[0])
    return None


def lives(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


def send_signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
