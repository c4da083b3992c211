"""Finds the processes of a server that a killed supervisor left behind."""

import os
import platform
import signal
from contextlib import suppress
from pathlib import Path

from standalone.fork_server import run_child


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
