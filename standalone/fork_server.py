"""Starts Duecall's processes by forking one that has imported their modules."""

import importlib.util
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scheduler.clock import monotonic
from standalone.forked_program import MAX_MESSAGE

# --- Starts child processes that end with their parent, if needed as another user


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
    """Find the program in a wheel, or else the first one on PATH. The wheel is not imported."""
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        for program in sorted(Path(place).glob(inside)):
            if os.access(program, os.X_OK):
                return program.resolve()
    for name in on_path:
        if (which := shutil.which(name)) is not None:
            return Path(which).resolve()
    return None


# --- the server
#
# The fork server is a process of its own with a single thread, because this one may have threads, and a lock of
# another thread would stay locked in a forked process permanently. It ends with this process, and its processes end
# with it.


_FIRST_ANSWER_WITHIN_S = 60.0
"""Includes the imports, on a busy machine."""
_ANSWERS_WITHIN_S = 5.0
"""Time for each later answer. While one is awaited, the supervisor restarts nothing. A server that hangs is killed."""
_TELLS_WITHIN_S = 5.0
"""Time within which the server reports how a process has ended, on a busy machine."""
_IS_PLAIN = re.compile(
    r"PATH|HOME|LANG|LANGUAGE|TZ|TMPDIR|VIRTUAL_ENV|GLIBC_TUNABLES|PSYCOPG_IMPL"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|LD_BIND_NOW|(LC_|PYTHON|SSL_CERT_|OPENSSL_|MALLOC_)\w*"
)
"""Variables of the environment that importing needs."""


def needed_for_imports(environment: Mapping[str, str]) -> dict[str, str]:
    """Choose the variables for the fork server. No secrets: /proc/PID/environ of each forked process shows them."""
    return {name: value for name, value in environment.items() if _IS_PLAIN.fullmatch(name)}


class ForkedProcess:
    """A process of the fork server, with the methods of `subprocess.Popen` that a supervisor uses."""

    def __init__(self, server: "ForkServer", number: int, pid: int, descriptor: int) -> None:
        self._server = server
        self._number = number
        self.pid = pid
        self._descriptor = descriptor
        """A pidfd: a signal sent to it reaches this process or none, even if the process id is used again."""
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None and (status := self._server.status_of(self._number, self._descriptor)) is not None:
            self._status = status
            os.close(self._descriptor)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        while (status := self.poll()) is None:
            if not _is_readable(self._descriptor, timeout):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The fork server of one supervisor. Use it on one thread, which lives as long as the processes."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        """Start it. It imports in the background, and the first `start` waits for it."""
        self._ended: dict[int, int] = {}
        """Exit statuses by the numbers of processes, because a process id is used again."""
        self._connection, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(_FIRST_ANSWER_WITHIN_S)
        log.parent.mkdir(parents=True, exist_ok=True)
        with its_end, log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, without a shell
                # SIGKILL, because it has nothing to clean up, and because that ends also a process that is stopped.
                bound_to_parent(signal.SIGKILL, sys.executable, "-m", "standalone.forked_program"),
                env=dict(environment),
                stdin=its_end.fileno(),
                stdout=output,
                stderr=output,
            )
        self._is_away = False

    @staticmethod
    def is_possible() -> bool:
        """Check whether this system can hold a process by a descriptor: Linux, but not in every sandbox."""
        if sys.platform != "linux":
            return False
        try:
            os.close(os.pidfd_open(os.getpid()))
        except OSError:
            return False
        return True

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> ForkedProcess | None:
        """Start `python -m MODULE ...`. Return None for another command, or if the server has ended or cannot fork."""
        if tuple(argv[:2]) != (sys.executable, "-m") or self._is_away:
            return None
        request = {
            "name": name,
            "module": argv[2],
            "arguments": argv[3:],
            "environment": dict(environment),
            "log": str(log.absolute()),
        }
        with suppress(OSError):
            self._connection.send(json.dumps(request).encode())
            while not self._is_away:
                message, descriptors = self._received()
                if "failed" in message:
                    return None
                if "forked" in message and not descriptors:  # this process can open no further file
                    os.kill(message["pid"], signal.SIGKILL)
                    return None
                if "forked" in message:
                    return ForkedProcess(self, message["forked"], message["pid"], descriptors[0])
        self.stop()  # it might fork a process for a request that was given up
        return None

    def status_of(self, number: int, descriptor: int) -> int | None:
        """The exit status of its process of this number, or None while that runs.

        The status of a process that ended is unknown if the server has also ended, or does not answer.
        """
        while number not in self._ended and not self._is_away and _is_readable(self._connection.fileno(), 0):
            self._received()
        if number in self._ended or not _is_readable(descriptor, 0):
            return self._ended.pop(number, None)
        tells_until = monotonic() + _TELLS_WITHIN_S
        while number not in self._ended and not self._is_away:
            if not _is_readable(self._connection.fileno(), max(0.0, tells_until - monotonic())):
                break
            self._received()
        return self._ended.pop(number, -signal.SIGTERM)

    def stop(self) -> None:
        """End the server. Processes that still run receive SIGTERM."""
        self._connection.close()
        self._is_away = True
        self._process.kill()
        self._process.wait()

    def _received(self) -> tuple[dict[str, int], list[int]]:
        """Receive one message and keep its content. A server that has ended or does not answer in time is away."""
        try:
            text, descriptors, _, _ = socket.recv_fds(self._connection, MAX_MESSAGE, 1)
        except OSError:
            text, descriptors = b"", []
        if not text:
            self._is_away = True
            self._process.kill()
            self._process.wait()
            return {}, []
        self._connection.settimeout(_ANSWERS_WITHIN_S)
        message: dict[str, int] = json.loads(text)
        if "ended" in message:
            self._ended[message["ended"]] = message["status"]
        return message, descriptors


def _is_readable(descriptor: int, seconds: float | None) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(None if seconds is None else round(seconds * 1000)))
