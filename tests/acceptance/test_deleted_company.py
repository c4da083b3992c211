"""Deletion of a company during its calls, through every process, with a kill of the erasing worker (F6)."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from scheduler.use_cases.shared.hints import ERASE, QUEUES
from tests.acceptance.conftest import WholeSystem, running_system
from tests.architecture.rules import does
from tests.verification.crash.canaries import in_dump, in_redis

NAME, ADDRESS, WORDS = "Kanárikovská", "canary@example.com", "canary-words"
RINGS, TALKS, WAITS = "+421915770001", "+421915770002", "+421915770003"
CANARIES = (NAME, ADDRESS, WORDS, RINGS, TALKS, WAITS)
FOR_HOURS = 7200.0


@pytest.fixture
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeSystem]:
    with running_system(tmp_path_factory.mktemp("deleted"), RING_TIMEOUT_S="600") as whole:
        whole.raise_limits()
        yield whole


def person(whole: WholeSystem, number: str, **more: object) -> dict[str, Any]:
    body = whole.client.interview(number, metadata={"note": WORDS}, **more)
    body["candidate"] |= {"lastName": NAME, "email": ADDRESS}
    return body


@does("F6-2", "F6-3")
def test_deletion_ends_calls_and_erases_database_redis_and_logs(whole: WholeSystem) -> None:
    whole.client.plan(to=RINGS, ring_s=FOR_HOURS)
    whole.client.plan(to=TALKS, outcome="answered", ring_s=0.2, talk_s=FOR_HOURS)
    company = f"/company/{whole.running.companyId}"
    named = {"name": NAME, "website": "https://example.com/" + WORDS, "metadata": {"note": WORDS}}
    assert whole.client.send("PATCH", company, named).status_code == 200
    for body in (person(whole, RINGS), person(whole, TALKS), person(whole, WAITS, scheduledAt=whole.in_seconds(3600))):
        answer = whole.client.post(
            body, **{"Idempotency-Key": f"{ADDRESS} {body['candidate']['phoneNumber']}", "Prefer": "wait=30"}
        )
        assert answer.status_code == 201, answer.text
    whole.wait_until(
        lambda: (status(whole, RINGS), status(whole, TALKS)) == ("ringing", "in-progress"),
        seconds=60,
        says="one phone rings, and one is answered",
    )
    assert in_dump(whole.running.databaseUrl, CANARIES)

    assert whole.client.send("DELETE", company).json()["data"] is True
    assert whole.client.get(company).status_code == 401
    for _ in range(2):
        kill(whole, QUEUES[ERASE])
    whole.wait_until(
        lambda: whole.rows("SELECT 1 FROM erasures WHERE finished_at IS NOT NULL"), seconds=90, says="it is erased"
    )

    assert (status(whole, RINGS), status(whole, TALKS)) == ("canceled", "completed")
    assert whole.client.rings_of(WAITS) == []
    assert in_dump(whole.running.databaseUrl, CANARIES) == {}
    assert in_redis(whole.running.redisUrl, CANARIES) == {}
    logs = {log.name: log.read_text() for log in whole.logs() if not log.name.startswith("simulator")}
    assert [(name, each) for name, text in logs.items() for each in CANARIES if each.lstrip("+") in text] == []
    used = of_ats_key(whole, "/billing/usage")["companies"]
    assert [(each["companyId"], each["companyName"], each["totalInterviews"]) for each in used] == [
        (whole.running.companyId, None, 1)
    ], "the usage of the calls is booked"
    [[erased]] = whole.rows("SELECT erased FROM erasures")
    print(f"certificate: {erased}")


def status(whole: WholeSystem, number: str) -> str | None:
    legs = whole.client.rings_of(number)
    return legs[0]["status"] if legs else None


def kill(whole: WholeSystem, name: str) -> None:
    """Kill the process by SIGKILL. Its supervisor starts it again."""
    victim = whole.send_signal(name)
    whole.wait_until(
        lambda: whole.system.supervisor.pid(name) not in {None, victim}, seconds=60, says="it is started again"
    )


def of_ats_key(whole: WholeSystem, path: str) -> Any:
    answer = requests.get(
        f"{whole.running.apiUrl}{path}", headers={"Authorization": f"Bearer {whole.running.atsKey}"}, timeout=40
    )
    assert answer.status_code == 200
    return answer.json()["data"]
