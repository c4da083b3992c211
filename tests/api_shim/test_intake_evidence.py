"""The evidence of a call over HTTP: what it explains, who may read it, and that it names no person."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx

from scheduler.domain.attempt import Attempt, ConversationOutcome, Ended, NotReported, Progressed, Reason
from scheduler.domain.call import AnsweredBy, CallProgress
from scheduler.domain.principal import KeyKind
from tests.api_shim.answers import data, refused
from tests.api_shim.bodies import FIRST_NAME, NUMBER, TOMORROW
from tests.api_shim.calls import a_call, tenant_of
from tests.api_shim.intake import Intake, Worker
from tests.architecture.rules import does, does_not
from tests.support.builders import Tenant, a_call_with_its_look, a_pending_attempt
from tests.verification.judge import call_evidence


def a_finished_call(tenant: Tenant) -> Attempt:
    """Call a person, who answers."""
    return tenant.take(
        a_call_with_its_look(tenant),
        Progressed(rank=CallProgress.RINGING),
        Ended(
            reason=Reason.ANSWERED, ended_at=tenant.now(), answered_by=AnsweredBy.PERSON, duration=timedelta(seconds=90)
        ),
    )


def evidence_of(intake: Intake, attempt: Attempt) -> dict[str, Any]:
    return dict(data(read(intake, attempt)))


def read(intake: Intake, attempt: Attempt) -> httpx.Response:
    return intake.get(f"/call-attempts/{attempt.id}/evidence")


@does("F9-6")
def test_evidence_explains_a_call_to_an_independent_judge(intake: Intake, tenant: Tenant) -> None:
    attempt = a_finished_call(tenant)
    found = evidence_of(intake, attempt)
    assert call_evidence.faults(found, tenant.now()) == []
    assert call_evidence.faults(found, tenant.now() + timedelta(hours=12)) != []
    assert (found["status"], found["reasonCode"], found["answeredBy"]) == ("COMPLETED", "ANSWERED", "PERSON")
    assert (found["carrier"]["callId"], found["durationSeconds"], found["reported"]) == (attempt.call_sid, 90.0, None)
    assert found["lastLook"]["facts"]["tzdataVersion"] == found["schedule"]["tzdataVersion"]
    happened = ["created", "claimed", "placed", "progressed", "ended", "outcome_awaited"]
    assert [each["event"] for each in found["history"]] == happened
    assert found["history"][-1]["detail"]["until"].endswith("Z")
    assert found["seals"] == {"state": "WHOLE", "faults": [], "unsealed": []}


@does("F9-6")
def test_evidence_has_what_the_conversation_reported(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    attempt = a_finished_call(tenant)
    outcome = f"/call-attempts/by-token/{attempt.token}/outcome"
    stored = data(intake.post(outcome, {"outcome": "CALL_BACK", "callBackAt": TOMORROW}))
    assert evidence_of(intake, attempt)["reported"] == {
        name: stored[name] for name in ("outcome", "reportedAt", "callBackAt")
    }


@does_not("F9-6")
def test_wait_that_ends_without_a_report_is_no_report(intake: Intake, tenant: Tenant) -> None:
    unreported = tenant.take(a_finished_call(tenant), NotReported())
    assert unreported.outcome is ConversationOutcome.FINISHED
    assert evidence_of(intake, unreported)["reported"] is None


@does_not("F9-6")
def test_assumed_outcome_is_no_report_without_its_history(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    """The history is deleted after 366 days. Other outcomes are never assumed."""
    assumed, reported = tenant.take(a_finished_call(tenant), NotReported()), a_finished_call(tenant)
    data(intake.post(f"/call-attempts/by-token/{reported.token}/outcome", {"outcome": "OPTED_OUT"}))
    tenant.change("DELETE FROM attempt_history")
    assert (evidence_of(intake, assumed)["reported"], evidence_of(intake, assumed)["history"]) == (None, [])
    assert evidence_of(intake, reported)["reported"]["outcome"] == "OPTED_OUT"


@does("F9-6")
def test_evidence_has_a_refusal_that_came_after_the_wait(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    attempt = tenant.take(a_finished_call(tenant), NotReported())
    data(intake.post(f"/call-attempts/by-token/{attempt.token}/outcome", {"outcome": "OPTED_OUT"}))
    assert evidence_of(intake, attempt)["reported"]["outcome"] == "OPTED_OUT"


@does("F9-6")
def test_changed_history_is_reported(intake: Intake, tenant: Tenant) -> None:
    attempt = a_finished_call(tenant)
    tenant.change(
        "UPDATE attempt_history SET at = at - interval '1 day' WHERE epoch = 2 AND attempt_id = :id", id=attempt.id
    )
    found = evidence_of(intake, attempt)
    assert found["seals"] == {"state": "BROKEN", "faults": [{"kind": "CHANGED", "number": 2}], "unsealed": []}
    assert call_evidence.faults(found, tenant.now()) != []


def test_evidence_names_who_asked_and_when(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    found = data(intake.get(f"/call-attempts/{call.attempt_id}/evidence"))
    created = data(intake.get(call.attempt))
    request = found["request"]
    assert (request["at"], request["requested"], request["invoked"]) == (created["createdAt"], TOMORROW, False)
    assert request["by"].startswith("key:")
    assert request["keyName"] == "a test"
    assert (found["lastLook"], found["carrier"]) == (None, {"callId": None, "callbacks": []})
    assert found["schedule"] == created["schedule"]
    assert found["consent"]["personErased"] is False


@does_not("F9-6")
def test_evidence_names_no_person_and_outlives_them(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    path = f"/call-attempts/{call.attempt_id}/evidence"
    before = intake.get(path)
    candidate_id = data(intake.get(call.interview))["candidateId"]
    assert intake.delete(f"/candidates/{candidate_id}").status_code == 200
    after = intake.get(path)
    for response in (before, after):
        assert response.status_code == 200
        for personal in (NUMBER, NUMBER.removeprefix("+"), FIRST_NAME):
            assert personal not in response.text
    assert data(after)["consent"]["personErased"] is True
    assert data(after)["history"][0] == data(before)["history"][0]
    assert data(after)["seals"]["state"] == "WHOLE"


def test_deleted_attempt_has_no_evidence(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    assert intake.delete(call.attempt).status_code == 204
    refused(intake.get(f"/call-attempts/{call.attempt_id}/evidence"), 404, "RESOURCE_NOT_FOUND")


def test_unknown_and_foreign_attempts_have_no_evidence(intake: Intake) -> None:
    refused(intake.get(f"/call-attempts/{uuid4()}/evidence"), 404, "RESOURCE_NOT_FOUND")
    attempt = a_pending_attempt(tenant_of(intake))
    _, secret = intake.new_key(kind=KeyKind.ATS)
    foreign = intake.with_key(secret).get(f"/call-attempts/{attempt.id}/evidence", companyId=str(uuid4()))
    refused(foreign, 403, "RESOURCE_ACCESS_DENIED")
