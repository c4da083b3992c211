"""Debian's PgBouncer in front of a PostgreSQL."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psycopg
import pytest
from sqlalchemy import make_url

from standalone.private_server import free_port
from tests.conftest import wait_until

needs_pgbouncer = pytest.mark.skipif(
    shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None
    and os.environ.get("CI") != "true",
    reason="needs Debian's pgbouncer: `make debian` as root; CI has it",
)
_PROGRAM = "/usr/sbin/pgbouncer"
_OF_ROOT = "nobody"
"""PgBouncer does not run as root."""


class PgBouncer:
    """A running PgBouncer. `url_of` a direct URL leads through it, as the same user."""

    def __init__(self, port: int) -> None:
        self._port = port

    def url_of(self, url: str) -> str:
        return make_url(url).set(port=self._port).render_as_string(hide_password=False)


@contextmanager
def pgbouncer(urls: Sequence[str], mode: Literal["transaction", "session"]) -> Iterator[PgBouncer]:
    """Run PgBouncer for the users in these URLs of one server. It supports no prepared statements."""
    port = free_port()
    users = {(str(each.username), str(each.password)) for each in map(make_url, urls)}
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder = Path(name)
        (folder / "users").write_text("".join(f'"{user}" "{password}"\n' for user, password in users), "ascii")
        (folder / "settings").write_text(_settings(folder, port, make_url(urls[0]).port or 5432, mode), "ascii")
        with _running(folder) as process:
            bouncer = PgBouncer(port)
            try:
                wait_until(lambda: _answers(bouncer.url_of(urls[0])), says="PgBouncer answers")
                yield bouncer
            finally:
                process.kill()


def _running(folder: Path) -> subprocess.Popen[bytes]:
    command = [_PROGRAM, "--quiet", str(folder / "settings")]
    if os.geteuid() != 0:
        return subprocess.Popen(command)
    account = pwd.getpwnam(_OF_ROOT)
    for path in (folder, *folder.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    return subprocess.Popen(command, user=account.pw_uid, group=account.pw_gid, extra_groups=[])


def _settings(folder: Path, port: int, server_port: int, mode: str) -> str:
    return f"""
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder / "users"}
logfile = {folder / "log"}
pool_mode = {mode}
default_pool_size = 20
max_client_conn = 500
max_prepared_statements = 0
"""


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
