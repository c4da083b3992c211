"""What a running system writes into its folder, and how other commands read it."""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scheduler.clock import monotonic
from scheduler.local.errors import HomeUnusable

RUN_FILE, OFFSET_FILE, SETTINGS_FILE, LOCK_FILE = "run.json", "clock_offset_s", "settings.json", "up.lock"
READY_WITHIN_S = 90.0
BETWEEN_LOOKS_S = 0.05
_never = threading.Event()


@dataclass(frozen=True, kw_only=True)
class Running:
    """What run.json says. Keys are secrets; the file is readable by its owner alone."""

    apiUrl: str  # noqa: N815 - the names of run.json
    simulatorUrl: str | None  # noqa: N815
    flowerUrl: str  # noqa: N815
    databaseUrl: str  # noqa: N815
    redisUrl: str  # noqa: N815
    atsKey: str  # noqa: N815
    companyKey: str  # noqa: N815
    companyId: str  # noqa: N815
    agentId: str  # noqa: N815
    phoneNumberId: str  # noqa: N815


@dataclass(frozen=True, kw_only=True)
class Found:
    """A system that runs in a folder. `settings` are those that its processes use, the pepper among them."""

    home: Path
    run_file: Mapping[str, str]
    database_url: str
    clock_offset_s: float
    settings: Mapping[str, str]


def running_in(home: Path, say: Callable[[str], None]) -> Found | None:
    """Return the system that runs in this folder; None without one.

    One that is being started is waited for, and `say` hears of it. Raises HomeUnusable.
    """
    deadline = monotonic() + READY_WITHIN_S
    waits = False
    while True:
        try:
            running = json.loads((home / RUN_FILE).read_text(encoding="utf-8"))
            return Found(
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
        if not waits:
            say(f"Duecall is being started or stopped in {home}; waiting for it")
            waits = True
        _never.wait(BETWEEN_LOOKS_S)


def _settings_in(home: Path) -> Mapping[str, str]:
    """Nothing where the release before runs: it does not write them."""
    file = home / SETTINGS_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def is_running(home: Path) -> bool:
    """Whether a system is up in this folder, ready or not."""
    try:
        with (home / LOCK_FILE).open(encoding="ascii") as lock:
            return not locked(lock, fcntl.LOCK_SH)
    except (FileNotFoundError, NotADirectoryError):
        return False


def locked(lock: IO[str], how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unusable(home: Path, error: Exception) -> str:
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{home} cannot be used: {what.lower()}. Name a folder that you may write with DUECALL_HOME=/some/folder."


def write_private_json(file: Path, what: Mapping[str, Any]) -> None:
    """Replace the file as a whole; only its owner can read it."""
    partial = file.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as written:
        json.dump(what, written, indent=2)
    partial.replace(file)
