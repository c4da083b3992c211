"""Interviews are changed and deleted over HTTP. Only the named fields change, and a deleted interview is gone."""

from typing import Any

import pytest

from scheduler.domain.attempt import Reason
from tests.api_shim.answers import data, refusal
from tests.api_shim.bodies import AN_HOUR_LATER, TOMORROW, candidate
from tests.api_shim.calls import Call, a_call, an_online_agent, call_of, ended
from tests.api_shim.intake import Intake, Worker
from tests.architecture.rules import does, does_not
from tests.support.builders import Tenant, a_placed_attempt


def change(intake: Intake, call: Call, **fields: Any) -> Any:
    return intake.patch(call.interview, fields)


# ---- PHONE


@does("F4-10")
@pytest.mark.parametrize("name", ["scheduledAt", "scheduleTime"])
def test_moving_an_interview_moves_its_pending_attempt(intake: Intake, worker: Worker, name: str) -> None:
    call = a_call(intake)
    interview = data(change(intake, call, **{name: AN_HOUR_LATER}))
    assert interview["scheduledAt"] == AN_HOUR_LATER
    assert interview["expiresAt"] == "2026-04-10T08:00:00Z"
    [attempt] = interview["callAttempts"]
    assert (attempt["id"], attempt["scheduledAt"]) == (str(call.attempt_id), AN_HOUR_LATER)
    assert data(intake.get(call.interview)) == interview


@does_not("F4-10")
def test_interview_without_a_pending_attempt_is_not_moved(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    placed = call_of(a_placed_attempt(tenant))
    assert refusal(change(intake, placed, scheduledAt=TOMORROW)) == (409, "CALL_ATTEMPT_IN_PROGRESS")
    over = call_of(ended(tenant, Reason.DECLINED))
    assert refusal(change(intake, over, scheduledAt=TOMORROW)) == (409, "CALL_ATTEMPT_NOT_PENDING")


@does_not("F4-10")
def test_refused_change_of_an_interview_changes_nothing(intake: Intake, worker: Worker) -> None:
    """`test_intake_named_fields.py` has all times that are refused."""
    call = a_call(intake, metadata={"ref": 1})
    before = data(intake.get(call.interview))
    for text, code in (("", "INVALID_DATE_FORMAT"), ("2026-04-03T02:00:00Z", "OUTSIDE_CALL_TIME_INTERVAL")):
        assert refusal(change(intake, call, scheduledAt=text, metadata={"ref": 2})) == (400, code)
        assert data(intake.get(call.interview)) == before


@does("F4-10")
def test_metadata_is_merged_and_null_takes_a_key_away(intake: Intake, worker: Worker) -> None:
    call = a_call(intake, metadata={"a": 1, "b": {"c": 1, "d": 2}, "e": [1, 2]})
    merged = {"b": {"c": 3, "d": 2}, "e": [3], "f": "new"}
    for metadata in ({"a": None, "b": {"c": 3}, "e": [3], "f": "new", "absent": None}, {}):
        assert data(change(intake, call, metadata=metadata))["metadata"] == merged


@does("F4-10", "F2-7")
def test_the_end_of_an_interview_is_moved_with_its_attempt(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    answer = change(intake, call, expiresAt="2026-04-04T12:00:00Z")
    assert answer.json()["data"]["expiresAt"] == "2026-04-04T12:00:00Z"
    assert data(intake.get(call.explanation))["expiresAt"] == "2026-04-04T12:00:00Z"
    moved = change(intake, call, scheduledAt=AN_HOUR_LATER).json()["data"]
    assert moved["expiresAt"] == "2026-04-04T12:00:00Z", "an explicit expiry does not move with the first call"


@does_not("F2-7", "F4-10")
def test_an_end_before_the_call_is_refused(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    assert refusal(change(intake, call, expiresAt=TOMORROW)) == (400, "NO_OPENING_BEFORE_EXPIRY")
    for text in ("", "never"):
        invalid = change(intake, call, expiresAt=text)
        assert refusal(invalid) == (400, "INVALID_DATE_FORMAT")
        assert invalid.json()["error"]["details"]["field"] == "expiresAt"


@does_not("F4-10")
def test_the_status_of_a_phone_interview_cannot_be_set(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    for status in ("COMPLETED", "CANCELLED"):
        assert refusal(change(intake, call, status=status)) == (400, "STATUS_NOT_SETTABLE")
    assert data(intake.get(call.interview))["status"] == "SCHEDULED"


# ---- ONLINE


def an_online_interview(intake: Intake, **changes: Any) -> dict[str, Any]:
    body = intake.body(agentId=str(an_online_agent(intake)), candidate=candidate(phoneNumber=...), **changes)
    return dict(data(intake.create(body), 201))


@does("F4-10")
def test_an_online_interview_is_moved_and_ended_by_a_change(intake: Intake, worker: Worker) -> None:
    path = f"/interviews/{an_online_interview(intake, scheduledAt=TOMORROW)['id']}"
    moved = intake.patch(path, {"scheduledAt": AN_HOUR_LATER}).json()["data"]
    assert (moved["scheduledAt"], moved["status"]) == (AN_HOUR_LATER, "SCHEDULED")
    over = data(intake.patch(path, {"status": "COMPLETED"}))
    assert over["status"] == "COMPLETED"
    assert over["finishedDate"] is not None
    assert refusal(intake.patch(path, {"status": "CANCELLED"})) == (409, "INTERVIEW_FINISHED")
    assert intake.patch(path, {"metadata": {"late": 1}}).status_code == 200


# ---- DELETE


@does("F4-8")
def test_deleted_interview_can_no_longer_be_read(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    assert data(intake.delete(call.interview)) is True
    read = [("GET", path) for path in (call.interview, call.attempts, call.attempt, call.explanation)]
    for method, path in (*read, ("POST", call.attempts), ("DELETE", call.attempt), ("DELETE", call.interview)):
        assert refusal(intake.send(method, path)) == (404, "RESOURCE_NOT_FOUND"), (method, path)
    assert refusal(change(intake, call, metadata={"a": 1})) == (404, "RESOURCE_NOT_FOUND")
    [[state, reason]] = intake.ask("SELECT state, reason FROM attempts")
    assert (state, reason) == ("CANCELLED", "INTERVIEW_DELETED")


@does_not("F4-8")
def test_deleting_an_interview_does_not_end_its_ringing_call(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    attempt = a_placed_attempt(tenant)
    call = call_of(attempt)
    assert intake.delete(call.interview).status_code == 200
    assert intake.get(call.interview).status_code == 404
    assert tenant.attempt(attempt.id).state == attempt.state
