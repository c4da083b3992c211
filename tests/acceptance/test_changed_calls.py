"""Calls that are invoked again, moved, deleted, retried and paused, through every process."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler.domain.company import RetryPolicy
from scheduler.hashing import Hasher
from scheduler.setting_values import DEVELOPMENT_PEPPER
from standalone.demo.client import Company, DemoClient
from tests.acceptance.conftest import WholeSystem
from tests.architecture.rules import does

TALK = {"outcome": "answered", "ring_s": 0.3, "talk_s": 0.3}


@pytest.fixture(scope="module")
def second(whole: WholeSystem) -> Company:
    client = DemoClient(whole.running, Hasher(DEVELOPMENT_PEPPER), whole.now)
    company = client.another_company("Second company", "+421221020002")
    client.close()
    return company


def _asked_for(whole: WholeSystem, number: str, **more: Any) -> tuple[str, str]:
    """Return the new interview and its first attempt."""
    interview = whole.client.created(number, **more)
    return interview["id"], interview["callAttempts"][0]["id"]


def _asked_for_by(whole: WholeSystem, company: Company, number: str) -> None:
    body = {**whole.client.interview(number), "agentId": str(company.agent_id)}
    answer = whole.client.post(body, Authorization=f"Bearer {company.key}", Prefer="wait=30")
    assert answer.status_code == 201, answer.text


def _completed(whole: WholeSystem, interview_id: str) -> None:
    whole.wait_until(
        lambda: whole.client.newest(interview_id)["status"] == "COMPLETED",
        seconds=40,
        says="the newest attempt is answered",
    )


def _rung(whole: WholeSystem, number: str) -> bool:
    return any(ring["rang_at"] for ring in whole.client.rings_of(number))


@does("F4-1")
def test_invoked_call_rings_again_and_replaces_the_retry(whole: WholeSystem) -> None:
    number = "+421915100001"
    whole.client.plan(to=number, attempt=1, outcome="no_answer", ring_s=0.3)
    whole.client.plan(to=number, attempt=2, **TALK)
    interview_id, _ = _asked_for(whole, number)
    whole.wait_until(lambda: len(whole.client.attempts(interview_id)) == 2, seconds=40, says="a retry waits")
    answer = whole.client.send("POST", f"/interviews/{interview_id}/call-attempts")
    assert answer.status_code == 201
    _completed(whole, interview_id)
    assert whole.client.newest(interview_id)["id"] == answer.json()["data"]["id"]
    reasons = [attempt["reasonCode"] for attempt in whole.client.attempts(interview_id)]
    assert reasons == ["NO_ANSWER", "REPLACED", "ANSWERED"]
    assert len(whole.client.rings_of(number)) == 2


@does("F4-3")
def test_a_deleted_attempt_never_rings(whole: WholeSystem) -> None:
    deleted, later = "+421915100003", "+421915100004"
    for number in (deleted, later):
        whole.client.plan(to=number, **TALK)
    interview_id, attempt_id = _asked_for(whole, deleted, scheduledAt=whole.in_seconds(12))
    assert whole.client.send("DELETE", f"/interviews/{interview_id}/call-attempts/{attempt_id}").status_code == 204
    marker, _ = _asked_for(whole, later, scheduledAt=whole.in_seconds(13))
    _completed(whole, marker)
    assert whole.client.rings_of(deleted) == []
    assert whole.client.attempts(interview_id) == []
    assert whole.client.shown(interview_id)["status"] == "SCHEDULED"


@does("F4-2")
def test_moved_attempt_keeps_its_id_and_rings_at_its_new_time(whole: WholeSystem) -> None:
    number = "+421915100005"
    whole.client.plan(to=number, **TALK)
    interview_id, attempt_id = _asked_for(whole, number, scheduledAt=whole.in_seconds(12))
    moved_to = whole.in_seconds(16)
    path = f"/interviews/{interview_id}/call-attempts/{attempt_id}"
    assert whole.client.send("PATCH", path, {"scheduledAt": moved_to}).status_code == 204
    _completed(whole, interview_id)
    assert [attempt["id"] for attempt in whole.client.attempts(interview_id)] == [attempt_id]
    (ring,) = whole.client.rings_of(number)
    assert datetime.fromisoformat(ring["accepted_at"]) >= datetime.fromisoformat(moved_to)


@does("F4-7")
def test_busy_call_is_retried_by_the_companys_own_delays(whole: WholeSystem) -> None:
    number = "+421915100007"
    whole.set_settings(retry_policy=RetryPolicy(max_retries=1, delays={"BUSY": (timedelta(seconds=2),)}))
    whole.client.plan(to=number, attempt=1, outcome="busy", ring_s=0.3)
    whole.client.plan(to=number, attempt=2, **TALK)
    interview_id, _ = _asked_for(whole, number)
    _completed(whole, interview_id)
    told = [(each["reasonCode"], each["retryNumber"]) for each in whole.client.attempts(interview_id)]
    assert told == [("BUSY", 0), ("ANSWERED", 1)]
    assert len(whole.client.rings_of(number)) == 2


def test_pause_of_a_company_stops_its_calls_until_resumed(whole: WholeSystem, second: Company) -> None:
    paused, other = "+421915100010", "+421915100011"
    for number in (paused, other):
        whole.client.plan(to=number, **TALK)
    whole.duecall("pause", whole.running.companyId, "--reason", "a test")
    interview_id, attempt_id = _asked_for(whole, paused)
    _asked_for_by(whole, second, other)
    whole.wait_until(lambda: _rung(whole, other), seconds=40, says="the other company's call rings")
    assert whole.client.rings_of(paused) == []
    explained = json.loads(whole.duecall("explain", attempt_id, "--json"))
    assert [block["rule"] for block in explained["blocks"]] == ["COMPANY_PAUSED"]
    whole.duecall("resume", whole.running.companyId)
    _completed(whole, interview_id)
    assert len(whole.client.rings_of(paused)) == 1


def test_pause_of_everything_stops_all_calls_until_resumed(whole: WholeSystem, second: Company) -> None:
    first, other = "+421915100012", "+421915100013"
    for number in (first, other):
        whole.client.plan(to=number, **TALK)
    whole.duecall("pause", "--all", "--reason", "a drill")
    interview_id, _ = _asked_for(whole, first)
    _asked_for_by(whole, second, other)
    told = json.loads(whole.duecall("status", "--json"))
    assert [carrier["pauseReason"] for carrier in told["carriers"]] == ["a drill"]
    assert sum(company["forPlaces"] for company in told["companies"]) == 2
    assert whole.client.rings_of(first) + whole.client.rings_of(other) == []
    whole.duecall("resume", "--all")
    _completed(whole, interview_id)
    whole.wait_until(lambda: _rung(whole, other), seconds=40, says="the other company's call rings")


def test_output_of_commands_names_no_number_and_no_person(whole: WholeSystem) -> None:
    interview_id, attempt_id = _asked_for(whole, "+421915100014", scheduledAt=whole.in_seconds(3600))
    for words in (("explain", attempt_id), ("explain", interview_id), ("explain", attempt_id, "--json"), ("status",)):
        told = whole.duecall(*words)
        assert told
        for personal in ("421915100014", "915100014", "Ferdinand", "Canary"):
            assert personal not in told
