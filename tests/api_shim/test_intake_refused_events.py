"""A refusal that is the response of its request writes no event. After a 202, an event always comes."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import text

from scheduler.persistence.database import Database
from scheduler.use_cases.operations.number_events import NumberEvents
from standalone.private_server import free_port
from standalone.supervisor import commands
from tests.api_shim.answers import data, refusal
from tests.api_shim.intake import ASYNC, KEY, Intake, Worker, a_worker, an_intake, applied, environment_of, meanwhile
from tests.architecture.rules import does, does_not
from tests.conftest import Seeded, wait_until
from tests.support.builders import RecordingHints
from tests.workers.test_proof import a_process

PAST = "2026-04-02T11:00:00Z"
LONG_WAIT = {"Prefer": "wait=30"}


def refused(intake: Intake, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send a request that a worker refuses."""
    return intake.create(intake.body(scheduledAt=PAST), headers=headers)


def reported(intake: Intake) -> list[str]:
    return [row[0] for row in intake.ask("SELECT data ->> 'commandId' FROM events WHERE type = 'command.applied'")]


def reported_later(intake: Intake) -> list[str]:
    """List the commands that are reported after a sweep that no request can precede."""
    NumberEvents(intake.database, RecordingHints(), lambda: intake.now() + timedelta(minutes=2)).all()
    return reported(intake)


def accepted_commands(intake: Intake) -> list[str]:
    return [str(row[0]) for row in intake.ask("SELECT id FROM inbox")]


def is_noted(intake: Intake) -> bool:
    """Check whether the API has stored that it returned the refusal."""
    return not intake.ask("SELECT 1 FROM inbox WHERE awaited_until IS NOT NULL")


@contextmanager
def held_answers(intake: Intake, postgres_url: str) -> Iterator[Callable[[], object]]:
    """Hold the transaction in which a worker applies a command, until the function is called."""
    intake.change(
        "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " WHILE NOT pg_try_advisory_xact_lock(7) LOOP PERFORM pg_sleep_for('10 ms'); END LOOP; RETURN NEW; END $$"
    )
    intake.change(
        "CREATE TRIGGER held BEFORE UPDATE ON inbox FOR EACH ROW"
        " WHEN (OLD.applied_at IS NULL AND NEW.applied_at IS NOT NULL) EXECUTE FUNCTION held()"
    )
    with psycopg.connect(postgres_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(7)")
        try:
            yield lambda: holder.execute("SELECT pg_advisory_unlock(7)")
        finally:
            holder.execute("SELECT pg_advisory_unlock_all()")
            intake.change("DROP TRIGGER held ON inbox")
            intake.change("DROP FUNCTION held()")


@does_not("F1-1")
def test_refusal_in_the_response_writes_no_event(intake: Intake, worker: Worker) -> None:
    assert refusal(refused(intake))[0] == 400
    assert reported(intake) == []
    wait_until(lambda: is_noted(intake), says="the API has stored that it returned the refusal")
    assert reported_later(intake) == []
    assert intake.is_untouched()


def test_success_in_the_response_is_an_event(intake: Intake, worker: Worker) -> None:
    intake.interview()
    assert reported(intake) == reported_later(intake) == accepted_commands(intake)


@does("F7-1")
@pytest.mark.parametrize("prefer", ["respond-async", "wait=1"])
def test_refusal_after_a_202_is_an_event_at_once(intake: Intake, prefer: str) -> None:
    accepted = refused(intake, {"Prefer": prefer})
    with a_worker(intake.settings):
        assert applied(intake, accepted)["statusCode"] == 400
    assert reported(intake) == [data(accepted, 202)["id"]]
    assert reported_later(intake) == reported(intake)


def test_refusal_after_the_202_of_a_repeat_is_an_event(intake: Intake) -> None:
    """The first request still gets the refusal in its response."""
    with meanwhile(lambda: refused(intake, KEY | LONG_WAIT)) as first:
        wait_until(lambda: intake.count("inbox") == 1)
        repeat = refused(intake, KEY | ASYNC)
        with a_worker(intake.settings):
            assert first().status_code == 400
    assert reported(intake) == [data(repeat, 202)["id"]]


def test_repeat_that_cannot_ask_for_an_event_gets_no_202(intake: Intake) -> None:
    with meanwhile(lambda: refused(intake, KEY | LONG_WAIT)) as first:
        wait_until(lambda: intake.count("inbox") == 1)
        with intake.database.transaction() as stores:
            stores.connection.execute(text("SELECT 1 FROM inbox FOR UPDATE"))
            assert refused(intake, KEY | ASYNC).status_code == 503
        with a_worker(intake.settings):
            assert first().status_code == 400
    wait_until(lambda: is_noted(intake))
    assert reported_later(intake) == []


def test_refusal_after_the_client_has_left_is_an_event(
    broker: None, intake: Intake, database: Database, seeded: Seeded
) -> None:
    with an_intake(intake.settings, database, seeded) as api:
        headers = {"Authorization": f"Bearer {api.key}", **LONG_WAIT}
        request = api.client.build_request("POST", "/interviews", json=api.body(scheduledAt=PAST), headers=headers)
        fields = b"".join(b"%s: %s\r\n" % field for field in request.headers.raw)
        with socket.create_connection((request.url.host, request.url.port), timeout=60) as connection:
            connection.sendall(b"POST /interviews HTTP/1.1\r\n" + fields + b"\r\n" + request.content)
            wait_until(lambda: intake.count("inbox") == 1, says="the command is accepted")
        with a_worker(intake.settings):
            wait_until(lambda: intake.ask("SELECT 1 FROM inbox WHERE applied_at IS NOT NULL"))
    assert reported_later(intake) == accepted_commands(intake)


def test_refusal_after_the_api_was_killed_is_an_event(intake: Intake, tmp_path: Path) -> None:
    """A real process of the API, killed while its request waits for a real worker."""
    port = free_port()
    argv = commands(api_port=port, console_port=0, flower_port=0)["api"]
    lost: list[httpx.TransportError] = []

    def send(client: httpx.Client) -> None:
        try:
            refused(replace(intake, client=client), LONG_WAIT)
        except httpx.TransportError as error:
            lost.append(error)

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        with a_process(argv, tmp_path, **environment_of(intake)) as process:
            wait_until(lambda: is_ready(client), seconds=60, says="the API answers")
            request = threading.Thread(target=send, args=[client])
            request.start()
            wait_until(lambda: intake.count("inbox") == 1)
            process.kill()
        request.join()
    assert len(lost) == 1
    with a_worker(intake.settings):
        wait_until(lambda: intake.ask("SELECT 1 FROM inbox WHERE applied_at IS NOT NULL"))
    assert reported(intake) == []
    assert reported_later(intake) == accepted_commands(intake)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


# ---- applied exactly when the wait of the request ends


def test_command_applied_as_the_wait_ends_is_the_response(intake: Intake, worker: Worker, postgres_url: str) -> None:
    send = partial(refused, intake, {"Prefer": "wait=3"})
    with held_answers(intake, postgres_url) as release, meanwhile(send) as answer:
        wait_until(lambda: intake.ask(_API_WAITS), says="the API waits for the worker's row at the end of its wait")
        release()
        assert answer().status_code == 400
    wait_until(lambda: is_noted(intake))
    assert reported_later(intake) == []


_API_WAITS = "SELECT 1 FROM pg_stat_activity WHERE usename = 'api' AND wait_event_type = 'Lock'"


def test_refusal_that_outlasts_the_wait_for_its_lock_is_an_event(
    intake: Intake, worker: Worker, postgres_url: str
) -> None:
    """The API could not end the wait before its 202, and the worker did not know of it."""
    with held_answers(intake, postgres_url) as release:
        accepted = refused(intake, {"Prefer": "wait=2"})
        release()
        assert applied(intake, accepted)["statusCode"] == 400
    assert reported(intake) == []
    assert reported_later(intake) == [data(accepted, 202)["id"]]


def test_each_202_of_a_race_has_its_event(intake: Intake) -> None:
    """Workers begin when the waits end: each refusal is the response, or an event, and never none of both."""
    answers: list[httpx.Response] = []

    def send() -> None:
        answers.append(refused(intake, {"Prefer": "wait=1"}))

    requests = [threading.Thread(target=send) for _ in range(12)]
    for each in requests:
        each.start()
    wait_until(lambda: intake.count("inbox") == len(requests))
    wait_until(lambda: answers, says="the first wait ends")
    with a_worker(intake.settings), a_worker(intake.settings):
        for each in requests:
            each.join()
        wait_until(lambda: not intake.ask("SELECT 1 FROM inbox WHERE applied_at IS NULL"))
    promised = {data(each, 202)["id"] for each in answers if each.status_code == 202}
    assert {each.status_code for each in answers} <= {202, 400}
    wait_until(lambda: intake.count("inbox WHERE awaited_until IS NOT NULL AND applied_at < awaited_until") == 0)
    assert sorted(reported_later(intake)) == sorted(promised)
