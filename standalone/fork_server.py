"""Starts Duecall's processes by forking one that has imported their modules, which saves each of them a second of CPU.

The fork server is a process of its own with a single thread, because this one may have threads, and a lock of another
thread would stay locked in a forked process permanently. It ends with this process, and its processes end with it.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from scheduler.clock import monotonic
from standalone.child_process import bound_to_parent
from standalone.forked_program import MAX_MESSAGE

_FIRST_ANSWER_WITHIN_S = 60.0
"""Includes the imports, on a busy machine."""
_ANSWERS_WITHIN_S = 5.0
"""Time for each later answer. While one is awaited, the supervisor restarts nothing. A server that hangs is killed."""
_TELLS_WITHIN_S = 5.0
"""Time within which the server tells how a process has ended, on a busy machine."""
_IS_PLAIN = re.compile(
    r"PATH|HOME|LANG|LANGUAGE|TZ|TMPDIR|VIRTUAL_ENV|GLIBC_TUNABLES|PSYCOPG_IMPL"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|LD_BIND_NOW|(LC_|PYTHON|SSL_CERT_|OPENSSL_|MALLOC_)\w*"
)
"""Variables of the environment that importing needs."""


def needed_for_imports(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for the fork server. No secrets: /proc/PID/environ of each forked process shows them."""
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
        """Return whether this system can hold a process by a descriptor: Linux, but not in every sandbox."""
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
        """Return the exit status of its process of this number, or None while that runs.

        The status of a process that ended is unknown if the server has ended, too, or does not tell.
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
        """Receive one message and keep what it tells. A server that has ended or does not answer in time is away."""
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
