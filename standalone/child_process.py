"""Starts child processes that end with their parent, if needed as another user."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHILD_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}
_LAUNCHER = """
import ctypes, os, signal, sys

parent, death_signal, identity, *command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
if os.getpgrp() != os.getpid():
    os.setsid()
os.chdir("/")
for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(ignored_by_python, signal.SIG_DFL)
kind, _, ids = identity.partition(":")
if kind != "self":
    uid, gid = map(int, ids.split(":"))
if kind == "user":
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
if kind == "namespace":
    maps = {"setgroups": "deny", "uid_map": f"{uid} {os.geteuid()} 1", "gid_map": f"{gid} {os.getegid()} 1"}
    new_user_namespace = 0x10000000
    if libc.unshare(new_user_namespace):
        sys.exit("no user namespace: " + os.strerror(ctypes.get_errno()))
    for name, text in maps.items():
        with open("/proc/self/" + name, "w") as file:
            file.write(text)
if sys.platform == "linux":
    set_parent_death_signal = 1
    libc.prctl(set_parent_death_signal, int(death_signal), 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit("the parent has ended")
try:
    os.execv(command[0], command)
except OSError as error:
    sys.exit(f"{command[0]} cannot be run by the owner of the data: {error.strerror}")
"""
"""Becomes the server, with the same process id.

It has its own session, so that Ctrl-C reaches only the supervisor. It may change the user. It receives a signal when
the parent ends, which is set last, because a change of user clears it.

It is a program and not a `preexec_fn`, which would run Python between fork and exec, where a lock of another thread
stays locked permanently.
"""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The user of a server process: our own, another user, or another user in name only (a user namespace)."""

    kind: str
    uid: int
    gid: int
    owner: int
    """User id, outside the namespace, that must own the server's data."""

    def __str__(self) -> str:
        return self.kind if self.kind == "self" else f"{self.kind}:{self.uid}:{self.gid}"


def ourselves() -> Identity:
    return Identity(kind="self", uid=os.geteuid(), gid=os.getegid(), owner=os.geteuid())


def bound_to_parent(death_signal: signal.Signals, *argv: str) -> tuple[str, ...]:
    """Wrap `argv`: in its own session, it receives `death_signal` when the calling process ends. Run it as a child."""
    return launch(ourselves(), death_signal, *argv)


def launch(identity: Identity, death_signal: signal.Signals, *argv: str) -> tuple[str, ...]:
    # -I -S: the environment, the working directory and site-packages cannot change the launcher.
    launcher = (sys.executable, "-I", "-S", "-c", _LAUNCHER)
    return (*launcher, str(os.getpid()), str(int(death_signal)), str(identity), *argv)


def run_child(argv: tuple[str, ...], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - a program of ours, without a shell
        argv,
        env=CHILD_ENVIRONMENT,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "no output"


def ends_within(seconds: float, process: subprocess.Popen[bytes]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
        return True
    return False


def find_program(package: str, inside: str, *on_path: str) -> Path | None:
    """Return the program in a wheel, or else the first one on PATH. The wheel is not imported."""
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        for program in sorted(Path(place).glob(inside)):
            if os.access(program, os.X_OK):
                return program.resolve()
    for name in on_path:
        if (which := shutil.which(name)) is not None:
            return Path(which).resolve()
    return None
