"""`/readyz` reports what is degraded while requests are still answered."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from datetime import datetime, timedelta
from importlib import resources
from pathlib import Path
from subprocess import DEVNULL
from typing import cast

import httpx
import pytest
from redis import Redis

from api_shim.app import create_app
from api_shim.assembly import AppContext
from scheduler.clock import machine_now
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from scheduler.settings import Settings, environment
from scheduler.timing.zone_names import TZDATA_VERSION
from scheduler.use_cases.shared.hints import QUEUES
from standalone.fork_server import ForkedProcess
from standalone.supervisor import commands
from tests.api_shim.answers import data
from tests.api_shim.intake import Intake, environment_of, settings_for
from tests.conftest import wait_until
from tests.support.forked_commands import forked
from tests.support.servers import a_door, a_server, address_of, wired
from workers.liveness import LIVE_FOR_S, Presence

ALL_QUEUES = sorted(set(QUEUES.values()))
PROCESSES = "duecall:processes"
PROBLEMS = ("redis", "workers", "tzdata", "clock")
OLD = "2001a"
"""A version of the tz database that no real process has."""


@pytest.mark.usefixtures("broker", "postgres_url")
def test_readyz_reports_a_wrong_clock_and_a_redis_that_fails(logins: Logins, redis_url: str) -> None:
    settings = settings_for(logins, redis_url)
    with an_api_to_change(settings) as degraded_with:
        for seconds in (0, -1, 5, -5):
            database = Database(settings.database("api"), machine=_off_by(timedelta(seconds=seconds)))
            found = degraded_with(_with(health=database))
            database.close()
            assert ("clock" in found) is (abs(seconds) == 5), seconds
        # The subscription notices a lost Redis only a second or two later.
        unreachable = Presence("redis://127.0.0.1:9/0")
        assert degraded_with(lambda context: replace(context, presence=unreachable)) == ["redis"]
        unreachable.close()


@pytest.mark.usefixtures("broker", "postgres_url")
def test_readyz_fails_when_connections_of_requests_hang(logins: Logins, redis_url: str) -> None:
    settings = settings_for(logins, redis_url)
    app, door = create_app(settings), a_door()
    with wired(settings.database("api")) as (wire, url):
        wire.dead = lambda _: True
        hanging = Database(url)
        with a_server(app, door), httpx.Client(base_url=address_of(door), timeout=60) as client:
            app_context = app.state.app_context
            app.state.app_context = _with(database=hanging)(app_context)
            ready, alive = client.get("/readyz"), client.get("/healthz")
            app.state.app_context = app_context
        hanging.close()
    assert (ready.status_code, alive.status_code) == (503, 200)
    assert ready.json()["error"]["code"] == "DATABASE_AWAY"


def _off_by(span: timedelta) -> Callable[[], datetime]:
    return lambda: machine_now() + span


def _with(**databases: Database) -> Callable[[AppContext], AppContext]:
    def changed(context: AppContext) -> AppContext:
        use_cases = copy(context.use_cases)
        vars(use_cases).update(databases)
        return replace(context, use_cases=use_cases)

    return changed


@contextmanager
def an_api_to_change(settings: Settings) -> Iterator[Callable[[Callable[[AppContext], AppContext]], list[str]]]:
    """Serve an API. Yields a function that reads what it reports as degraded, with a changed context."""
    app, door = create_app(settings), a_door()
    with a_server(app, door), httpx.Client(base_url=address_of(door), timeout=60) as client:
        app_context = app.state.app_context

        def degraded_with(changed: Callable[[AppContext], AppContext]) -> list[str]:
            app.state.app_context = changed(app_context)
            answer, metrics = client.get("/readyz"), client.get("/metrics").text
            app.state.app_context = app_context
            degraded = list(data(answer)["degraded"])
            assert [each for each in PROBLEMS if f'duecall_degraded{{problem="{each}"}} 1.0' in metrics] == degraded
            return degraded

        yield degraded_with


def test_readyz_reports_workers_while_none_runs(intake: Intake) -> None:
    assert intake.degraded() == ["workers"]


def test_metrics_report_each_problem_of_readyz(intake: Intake) -> None:
    metrics = intake.client.get("/metrics").text
    values = {each: f'duecall_degraded{{problem="{each}"}} {float(each == "workers")}' for each in PROBLEMS}
    assert [each for each, line in values.items() if line not in metrics] == []


def test_readyz_reports_workers_for_one_unserved_queue(intake: Intake, valkey_client: Redis) -> None:
    for missing in ALL_QUEUES:
        valkey_client.delete(PROCESSES)
        announce(valkey_client, queues=[each for each in ALL_QUEUES if each != missing])
        assert intake.degraded() == ["workers"], missing


def test_readyz_reports_nothing_while_all_is_served(intake: Intake, valkey_client: Redis) -> None:
    for queue in ALL_QUEUES:
        announce(valkey_client, queues=[queue])
    announce(valkey_client, queues=[])  # a clock
    assert intake.degraded() == []


@pytest.mark.parametrize("age_s", [55, -55], ids=["old", "from the future"])
def test_readyz_ignores_announcements_of_another_time(intake: Intake, valkey_client: Redis, age_s: float) -> None:
    announce(valkey_client, queues=ALL_QUEUES, age_s=age_s)
    assert intake.degraded() == ["workers"]


def test_readyz_ignores_malformed_announcements(intake: Intake, valkey_client: Redis) -> None:
    announce(valkey_client, queues=ALL_QUEUES)
    valkey_client.zadd(PROCESSES, dict.fromkeys(("no json", "[]", "{}", "7"), valkey_client.time()[0]))
    assert intake.degraded() == []
    forged = {"token": "x", "queues": [], "tzdata": ["no", "version"]}
    valkey_client.zadd(PROCESSES, {json.dumps(forged): valkey_client.time()[0]})
    assert intake.degraded() == ["tzdata"]


@pytest.mark.parametrize("queues", [["dial"], []], ids=["a worker", "a clock"])
def test_readyz_reports_different_tzdata(intake: Intake, valkey_client: Redis, queues: list[str]) -> None:
    announce(valkey_client, queues=ALL_QUEUES)
    announce(valkey_client, queues=queues, tzdata=OLD)
    assert intake.degraded() == ["tzdata"]


def test_readyz_compares_its_own_tzdata(intake: Intake, valkey_client: Redis) -> None:
    announce(valkey_client, queues=ALL_QUEUES, tzdata=OLD)
    assert intake.degraded() == ["tzdata"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("ends", ["terminate", "kill"])
def test_real_worker_is_reported_until_it_ends(intake: Intake, valkey_client: Redis, tmp_path: Path, ends: str) -> None:
    announce(valkey_client, queues=[each for each in ALL_QUEUES if each != "callbacks"], age_s=_LASTING)
    assert intake.degraded() == ["workers"]
    with a_process("callbacks", intake, tmp_path, RING_TIMEOUT_S="31") as worker:
        wait_until(lambda: intake.degraded() == [], seconds=90, says="the worker serves the last queue")
        getattr(worker, ends)()
        worker.wait(60)
    if ends == "kill":
        [member] = [each for each in announced(valkey_client) if json.loads(each)["queues"] == ["callbacks"]]
        assert json.loads(member)["times"]["RING_TIMEOUT_S"] == 31, "it has announced the times of its dial protocol"
        # As if 55 s had passed.
        valkey_client.zincrby(PROCESSES, -55, member)
    assert intake.degraded() == ["workers"], "it has withdrawn itself, or its announcement is old"


@pytest.mark.timeout(180)
def test_real_process_with_older_tzdata_is_reported(intake: Intake, valkey_client: Redis, tmp_path: Path) -> None:
    announce(valkey_client, queues=ALL_QUEUES, age_s=_LASTING)
    assert intake.degraded() == []
    older = environment(**environment_of(intake), PYTHONPATH=str(older_tzdata(tmp_path)))
    # Started, not forked: the fork server has read the zones of this release.
    command = commands(api_port=0, console_port=0, flower_port=0)["clock"]
    with subprocess.Popen(command, env=older, stdout=DEVNULL, stderr=DEVNULL) as process:
        try:
            wait_until(lambda: intake.degraded() == ["tzdata"], seconds=90, says="its older data are reported")
        finally:
            process.terminate()
    assert intake.degraded() == [], "it has withdrawn itself"


@contextmanager
def a_process(name: str, intake: Intake, folder: Path, **variables: str) -> Iterator[ForkedProcess]:
    """One of Duecall's processes, as `duecall up` runs it."""
    command = commands(api_port=0, console_port=0, flower_port=0)[name]
    process = forked(command[1:], environment(**environment_of(intake), **variables), folder / f"{name}.log")
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


def older_tzdata(folder: Path) -> Path:
    """A folder with a copy of the package tzdata that has an older version."""
    copied = folder / "older" / "tzdata"
    with resources.as_file(resources.files("tzdata")) as package:
        shutil.copytree(package, copied, ignore=shutil.ignore_patterns("__pycache__"))
    compiled = copied / "zoneinfo" / "tzdata.zi"
    text = compiled.read_text(encoding="utf-8")
    compiled.write_text(text.replace(f"# version {TZDATA_VERSION}", f"# version {OLD}", 1), encoding="utf-8")
    return copied.parent


_LASTING = 5 - LIVE_FOR_S
"""Of the future, for a test that waits for a real process: it counts as live for almost twice the usual time."""
_token: Callable[[], str] = iter(map(str, range(10_000))).__next__


def announce(client: Redis, *, queues: Sequence[str], tzdata: str = TZDATA_VERSION, age_s: float = 0.0) -> None:
    """Write the announcement of a live process, dated `age_s` seconds ago."""
    announcement = json.dumps({"token": _token(), "queues": queues, "tzdata": tzdata})
    client.zadd(PROCESSES, {announcement: client.time()[0] - age_s})


def announced(client: Redis) -> list[str]:
    return [cast("bytes", each).decode() for each in client.zrange(PROCESSES, 0, -1)]


def test_database_of_another_installation_is_not_ready(intake: Intake) -> None:
    assert intake.client.get("/readyz").status_code == 200
    intake.change("INSERT INTO installation_marks (setting, mark, since) VALUES ('KEY_PEPPER', '\\x00', now())")
    answer = intake.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].startswith("KEY_PEPPER differ from those of the installation")
