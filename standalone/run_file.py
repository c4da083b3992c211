"""Files of a running system in its folder (run.json, clock offset, settings), and the reasons for which none runs."""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import SecretStr

from scheduler.clock import monotonic

if TYPE_CHECKING:  # `duecall --help` imports this module, and the settings import the libraries of a running system
    from scheduler.settings import Settings


# --- Reasons for which a server or a system does not run on this machine


class ServerUnavailable(Exception):
    """A private server cannot run here. The message contains the reason and a remedy."""


class Stopped(Exception):
    """The system was stopped before it was ready."""


class CannotRun(Exception):
    """The system cannot run here. The message contains the reason and a remedy."""


class AlreadyRunning(CannotRun):
    """Another system runs in this folder."""


class PortTaken(CannotRun):
    """The requested port cannot be used."""


class NotReady(CannotRun):
    """The system did not become ready. Its logs contain the reason."""


class HomeUnusable(CannotRun):
    """The system's folder cannot be created, written or read."""


# --- Files of a running system in its folder


RUN_FILE, OFFSET_FILE, SETTINGS_FILE, LOCK_FILE = "run.json", "clock_offset_s", "settings.json", "up.lock"
READY_WITHIN_S = 90.0
CHECK_EVERY_S = 0.05
_never = threading.Event()


@dataclass(frozen=True, kw_only=True)
class Running:
    """The content of run.json. It contains secret keys, so only its owner can read the file."""

    apiUrl: str  # noqa: N815 - the names of run.json
    simulatorUrl: str | None  # noqa: N815
    consoleUrl: str  # noqa: N815
    flowerUrl: str  # noqa: N815
    databaseUrl: str  # noqa: N815
    redisUrl: str  # noqa: N815
    atsKey: str  # noqa: N815
    companyKey: str  # noqa: N815
    companyId: str  # noqa: N815
    agentId: str  # noqa: N815
    phoneNumberId: str  # noqa: N815


@dataclass(frozen=True, kw_only=True)
class RunningSystem:
    """A system that runs in a folder. `settings` are those of its processes, including the secret pepper."""

    home: Path
    run_file: Mapping[str, str]
    database_url: str
    clock_offset_s: float
    settings: Mapping[str, str]


def running_in(home: Path, report: Callable[[str], None]) -> RunningSystem | None:
    """Find the system that runs in this folder, or None. Waits for a system that is starting. Raises HomeUnusable."""
    deadline = monotonic() + READY_WITHIN_S
    is_reported = False
    while True:
        try:
            running = json.loads((home / RUN_FILE).read_text(encoding="utf-8"))
            return RunningSystem(
                home=home,
                run_file=running,
                database_url=running["databaseUrl"],
                clock_offset_s=float((home / OFFSET_FILE).read_text(encoding="ascii")),
                settings=_settings_in(home),
            )
        except (FileNotFoundError, NotADirectoryError):
            if not is_running(home) or monotonic() > deadline:
                return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise HomeUnusable(unusable(home, error)) from error
        if not is_reported:
            report(f"Duecall is starting or stopping in {home}; waiting for it")
            is_reported = True
        _never.wait(CHECK_EVERY_S)


def _settings_in(home: Path) -> Mapping[str, str]:
    """Read the settings of the running system. The previous version does not write the file."""
    file = home / SETTINGS_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def is_running(home: Path) -> bool:
    """Check whether a system runs in this folder, ready or not."""
    try:
        with (home / LOCK_FILE).open(encoding="ascii") as lock:
            return not try_lock(lock, fcntl.LOCK_SH)
    except (FileNotFoundError, NotADirectoryError):
        return False


def try_lock(lock: IO[str], mode: int) -> bool:
    try:
        fcntl.flock(lock, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unusable(home: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{home} cannot be used: {reason.lower()}. Set DUECALL_HOME to a writable folder."


def write_private_json(file: Path, values: Mapping[str, Any]) -> None:
    """Replace the file atomically. Only its owner can read it."""
    partial = file.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        json.dump(values, written, indent=2)
    partial.replace(file)


# --- Settings that a command takes from the running system, because its own environment may differ


def kept(chosen: "Settings", variables: Mapping[str, str]) -> dict[str, str]:
    """Collect the pepper and the times by their environment names, as processes with these variables see them.

    The pepper is a secret.
    """
    written = {"KEY_PEPPER": chosen.key_pepper.get_secret_value()}
    written |= {name: repr(seconds) for name, seconds in chosen.times.items()}
    return {name: variables.get(name) or value for name, value in written.items()}


def as_kept(chosen: "Settings", written: Mapping[str, str | float]) -> "Settings":
    """Add the settings that `kept` has written to `chosen`. Raises ValueError for a value that is not a number."""
    update: dict[str, object] = {name.lower(): float(written[name]) for name in chosen.times if name in written}
    if "KEY_PEPPER" in written:
        update["key_pepper"] = SecretStr(str(written["KEY_PEPPER"]))
    return chosen.model_copy(update=update)
