"""Without Redis everything is accepted, without PostgreSQL nothing. Both are answered immediately."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psycopg
import pytest
from sqlalchemy import text

from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from standalone.fork_server import ForkedProcess
from standalone.private_server import free_port
from standalone.valkey_and_postgres import EmbeddedPostgres, EmbeddedValkey
from tests.api_shim.answers import data, refusal
from tests.api_shim.bodies import JOB
from tests.api_shim.calls import a_call, tenant_of
from tests.api_shim.carrier_callbacks import call_back, changed, token_of
from tests.api_shim.intake import (
    KEY,
    Intake,
    a_worker,
    an_intake,
    environment_of,
    meanwhile,
    settings_for,
    slow_insert,
    taking_less_than,
)
from tests.conftest import NOON, Seeded, seed, wait_until
from tests.support.builders import Tenant, a_claimed_attempt
from tests.support.copied_postgres import CopiedPostgres
from tests.support.forked_commands import forked

PATIENT = {"Prefer": "wait=30"}


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path, port=free_port()) as valkey:
        yield valkey


@pytest.fixture
def on_own_valkey(
    broker: None, logins: Logins, own_valkey: EmbeddedValkey, database: Database, seeded: Seeded
) -> Iterator[Intake]:
    with an_intake(settings_for(logins, own_valkey.url), database, seeded) as intake:
        yield intake


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    with CopiedPostgres(tmp_path, port=free_port(), durable=False) as postgres:
        yield postgres


@pytest.fixture
def on_own_postgres(broker: None, own_postgres: EmbeddedPostgres, redis_url: str) -> Iterator[Intake]:
    settings = settings_for(schema.make_logins(own_postgres.url), redis_url)
    database = Database(own_postgres.url)
    with an_intake(settings, database, seed(database, NOON)) as intake:
        yield intake
    database.close()


@pytest.fixture
def without_redis(on_own_valkey: Intake, own_valkey: EmbeddedValkey) -> Intake:
    own_valkey.stop()
    wait_until(lambda: on_own_valkey.degraded() == ["redis"])
    return on_own_valkey


def test_commands_without_redis_are_accepted_until_it_is_back(
    without_redis: Intake, own_valkey: EmbeddedValkey
) -> None:
    with taking_less_than(20):
        first, second = (without_redis.create(headers=PATIENT | KEY) for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert second.headers["Location"] == first.headers["Location"]
    assert without_redis.count("inbox") == 1
    assert "duecall_redis_away 1.0" in without_redis.client.get("/metrics").text
    own_valkey.start()
    wait_until(lambda: without_redis.degraded() == ["workers"], says="Redis is back, and no worker runs here")
    with a_worker(without_redis.settings):
        assert without_redis.create(headers=PATIENT).status_code == 201


def test_waiting_request_is_released_when_redis_goes_away(on_own_valkey: Intake, own_valkey: EmbeddedValkey) -> None:
    with meanwhile(lambda: on_own_valkey.create(headers=PATIENT)) as answer:
        wait_until(lambda: on_own_valkey.count("inbox") == 1)
        with taking_less_than(20):
            own_valkey.stop()
            assert answer().status_code == 202


def test_nothing_is_accepted_while_postgres_is_away(on_own_postgres: Intake, own_postgres: EmbeddedPostgres) -> None:
    token = token_of(a_claimed_attempt(tenant_of(on_own_postgres)))
    forms = [changed(SequenceNumber=str(number)) for number in range(10)]

    def call_back_all() -> list[tuple[int, str | None]]:
        with ThreadPoolExecutor(len(forms)) as clients:
            answers = list(clients.map(lambda form: call_back(on_own_postgres, token, form), forms))
        return [(each.status_code, each.headers.get("Retry-After")) for each in answers]

    assert on_own_postgres.client.get("/readyz").status_code == 200
    own_postgres.stop()
    for path in ("/readyz", "/metrics", "/readyz"):  # the pool's old connections are found broken when they are used
        assert on_own_postgres.client.get(path).status_code == 503
    with taking_less_than(5):
        answer = on_own_postgres.create()
    assert refusal(answer) == (503, "DATABASE_AWAY")
    assert answer.headers["Retry-After"] == "1"
    assert call_back_all() == [(503, "1")] * len(forms)
    assert on_own_postgres.client.get("/healthz").status_code == 200
    own_postgres.start()
    assert on_own_postgres.count("inbox") == 0
    assert call_back_all() == [(204, None)] * len(forms), "the carrier sends them again"
    numbers = [int(row[0]) for row in on_own_postgres.ask("SELECT raw->>'SequenceNumber' FROM carrier_events")]
    assert sorted(numbers) == list(range(len(forms)))
    with a_worker(on_own_postgres.settings):
        assert on_own_postgres.create(headers=PATIENT).status_code == 201


def test_503_after_a_lock_timeout_names_another_change(intake: Intake) -> None:
    job = f"/jobs/{data(intake.send('POST', '/jobs', json=JOB), 201)['id']}"
    with intake.database.transaction() as stores:
        stores.connection.execute(text("SELECT FROM jobs FOR UPDATE"))
        answer = intake.send("PATCH", job, json={"status": "CLOSED"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    error = answer.json()["error"]
    assert error["code"] == "DATABASE_AWAY"
    assert error["message"] == "Another change holds the data. Nothing was changed. Send the request again."
    assert data(intake.get(job))["status"] == "OPEN"


def test_frozen_postgres_delays_no_request_for_long(on_own_postgres: Intake, own_postgres: EmbeddedPostgres) -> None:
    # A worker of autovacuum may end before it is frozen.
    found = on_own_postgres.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'")
    backends = [pid for (pid,) in found]
    assert own_postgres.pid is not None
    frozen = [own_postgres.pid, *backends]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        with taking_less_than(15):
            assert on_own_postgres.create().status_code == 503
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


def test_applied_command_is_never_reported_as_not_applied(intake: Intake) -> None:
    change = {"metadata": {"ref": "A-18"}}
    with a_worker(intake.settings):
        call = a_call(intake)
        assert intake.patch(call.interview, change).status_code == 200
    patient = {**PATIENT, **KEY}
    with meanwhile(lambda: intake.patch(call.interview, change, headers=patient)) as answer:
        wait_until(lambda: intake.count("inbox") == 3)
        with intake.database.transaction() as stores:
            stores.connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            stores.connection.execute(text("LOCK TABLE interviews IN ACCESS EXCLUSIVE MODE"))
            intake.change(_AS_THE_ONE_BEFORE, now=NOON)
            done = answer()
    assert (done.status_code, done.json()["data"]["status"]) == (202, "APPLIED")
    command = data(intake.get(done.headers["Location"]))
    assert (command["statusCode"], command["result"]["metadata"]) == (200, {"ref": "A-18"})


_AS_THE_ONE_BEFORE = """
    UPDATE inbox SET applied_at = :now, body = NULL, answer = before.answer
    FROM (SELECT answer FROM inbox WHERE kind = 'update_interview' AND applied_at IS NOT NULL) before
    WHERE applied_at IS NULL
"""
"""Applied while no interview can be read."""


def test_waiting_request_is_released_on_a_stop_signal(intake: Intake) -> None:
    port = free_port()
    command = f"-m uvicorn api_shim.app:app --port {port} --no-access-log --timeout-graceful-shutdown 15"
    with a_process(intake, command) as api, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        theirs = replace(intake, client=client)
        wait_until(lambda: answers(client), seconds=60, says="the process serves")
        with meanwhile(lambda: theirs.create(headers=PATIENT)) as answer:
            wait_until(lambda: intake.count("inbox") == 1)
            api.terminate()
            # The server aborts waiting requests after 15 s, so a response shows that this one was released before.
            assert answer().status_code == 202
            assert api.wait(60) in {0, -signal.SIGTERM}


def test_process_counts_before_it_serves_but_not_for_long(intake: Intake, postgres_url: str) -> None:
    """The first count reads the catalogue of its tables, so that no request waits for that."""
    port, a_wait = free_port(), "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with psycopg.connect(postgres_url) as owner:
        owner.execute("LOCK TABLE carrier_backoffs")
        with a_process(intake, f"-m uvicorn api_shim.app:app --port {port} --no-access-log"):
            wait_until(lambda: intake.ask(a_wait), seconds=60, says="the count waits for the table")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_until(lambda: answers(client), seconds=60, says="the process serves without the count")


def test_callback_is_stored_although_the_server_stops(intake: Intake, tenant: Tenant) -> None:
    """The server cancels its request, because storing takes longer than the time for open requests."""
    token, port = token_of(a_claimed_attempt(tenant)), free_port()
    command = f"-m uvicorn api_shim.app:app --port {port} --no-access-log --timeout-graceful-shutdown 1"
    with slow_insert(intake, "carrier_events"), a_process(intake, command) as api:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            theirs = replace(intake, client=client)
            wait_until(lambda: answers(client), seconds=60, says="the process serves")
            with ThreadPoolExecutor(1) as clients:
                clients.submit(call_back, theirs, token)
                wait_until(lambda: intake.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
                api.terminate()
        assert api.wait(60) in {0, -signal.SIGTERM}
        assert intake.count("carrier_events") == 1


def test_real_worker_applies_accepted_commands(intake: Intake) -> None:
    with a_process(intake, "-m celery -A workers.app worker -Q intake --pool threads --concurrency 2"):
        wait_until(lambda: intake.create(headers=PATIENT).status_code == 201, seconds=90, says="the worker has begun")
        with taking_less_than(20):
            assert intake.create(headers=PATIENT).status_code == 201


@contextmanager
def a_process(intake: Intake, command: str) -> Iterator[ForkedProcess]:
    """A process of the product on the same servers and at the same time of day."""
    with TemporaryDirectory() as folder:
        process = forked(command.split(), {**os.environ, **environment_of(intake)}, Path(folder, "log"))
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
