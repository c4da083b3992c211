"""How many processes are kept running as one: started in order, restarted with back-off, stopped together."""

import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scheduler.clock import monotonic
from scheduler.local.child_process import bound_to_parent

_LOOK_EVERY_S = 0.1
_FIRST_BACK_OFF_S = 0.5
_LONGEST_BACK_OFF_S = 10.0
_HEALTHY_AFTER_S = 30.0
"""A process that ran so long starts its back-off anew."""
_GRACE_S = 25.0
_LARGEST_LOG_BYTES = 10_000_000
_LAST_LINES = 5
_LONGEST_LINE = 400


@dataclass(frozen=True, kw_only=True)
class Program:
    """A process to keep running. What it prints goes to `log`."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path


class _Kept:
    """One program and its present process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.ended_early = 0
        """How often in a row it ended before it was healthy."""
        self._started_at = 0.0
        self._back_off = _FIRST_BACK_OFF_S
        self._start_again_at = 0.0
        self._log_begin = 0

    def start(self) -> None:
        _rotate(self.program.log)
        with self.program.log.open("ab") as log:
            self._log_begin = log.tell()
            self.process = subprocess.Popen(  # noqa: S603 - our own programs, without a shell
                bound_to_parent(signal.SIGTERM, *self.program.argv),
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started_at = monotonic()

    def look(self) -> int | None:
        """Start it again when it has ended and its back-off is over. The status it ended with, when just noticed."""
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
        self._start_again_at = instant + self._back_off
        self._back_off = min(self._back_off * 2, _LONGEST_BACK_OFF_S)
        return status

    def last_words(self) -> list[str]:
        """The end of what it has logged since it was started last."""
        with self.program.log.open("rb") as log:
            log.seek(self._log_begin)
            lines = log.read().decode(errors="replace").splitlines()
        return [line[:_LONGEST_LINE] for line in lines if line.strip()][-_LAST_LINES:]


class Supervisor:
    """Keeps programs running until `stop`. Run everything on the thread that made it: children die with it."""

    def __init__(self, said: Callable[[str], None]) -> None:
        self._said = said
        self._kept: dict[str, _Kept] = {}
        self._wake = threading.Event()

    def start(self, program: Program) -> None:
        kept = _Kept(program)
        self._kept[program.name] = kept
        kept.start()

    def program(self, name: str) -> Program:
        """What is kept running under this name."""
        return self._kept[name].program

    def pid(self, name: str) -> int | None:
        """The process id of a program that runs; None while it waits to be started again."""
        process = self._kept[name].process
        return None if process is None else process.pid

    def gave_up(self, tries: int) -> str | None:
        """Of a program that ended so often in a row right after its start: which, and its last words."""
        for name, kept in self._kept.items():
            if kept.ended_early >= tries:
                first = f"{name} ended {kept.ended_early} times right after its start. The end of {kept.program.log}:"
                return "\n  ".join((first, *kept.last_words()))
        return None

    def look(self) -> None:
        """Look after every program once."""
        for name, kept in self._kept.items():
            status = kept.look()
            if status is not None:
                self._said(f"{name} ended ({_how(status)}) and is started again; see {kept.program.log}")

    def run(self, until: Callable[[], bool]) -> None:
        """Look after the programs until `until` is true; it is asked about ten times a second."""
        while not until():
            self.look()
            self._wake.wait(_LOOK_EVERY_S)

    def stop(self) -> None:
        """End all of them: asked to at once, waited for together, by force after 25 s."""
        running = [kept.process for kept in self._kept.values() if kept.process is not None]
        self._kept.clear()
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


def _how(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(log.suffix + ".1"))
