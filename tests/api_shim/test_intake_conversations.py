"""The voice server finds its call by the call's token, and reports the outcome of its conversation."""

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from scheduler.domain.attempt import Attempt, Deferred, Deleted, Ended, Progressed, Reason
from scheduler.domain.call import CallProgress
from tests.api_shim.answers import data, refused
from tests.api_shim.bodies import PERSONAL
from tests.api_shim.calls import call_of, talk, tenant_of
from tests.api_shim.document_operations import DOCUMENT
from tests.api_shim.intake import ASYNC, Intake, Worker
from tests.architecture.rules import does, does_not
from tests.support.builders import (
    Tenant,
    a_claimed_attempt,
    a_placed_attempt,
    a_sid,
    an_attempt_of_unknown_outcome,
)

NOTE = "Starts in May"
NO_CALL = 404, "RESOURCE_NOT_FOUND"


def of_token(token: str | None) -> str:
    assert token is not None
    return f"/call-attempts/by-token/{token}"


def found(intake: Intake, token: str | None) -> dict[str, Any]:
    return dict(data(intake.get(of_token(token))))


@does("F9-2")
def test_token_of_a_live_call_names_ids_times_and_settings(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    assert intake.set_settings(locale="sk-SK", timezone="Europe/Bratislava").is_success
    placed = a_placed_attempt(tenant)
    interview = tenant.interview(placed.interview_id)
    content = found(intake.with_new_key("voice"), placed.token)
    shown = data(intake.get(call_of(placed).attempt))
    same = {"status", "reasonCode", "retryNumber", "scheduledAt", "calledAt", "endedAt", "schedule"}
    assert {name: content[name] for name in same} == {name: shown[name] for name in same}
    assert {name: value for name, value in content.items() if name not in same} == {
        "callAttemptId": str(placed.id),
        "interviewId": str(placed.interview_id),
        "companyId": str(tenant.company_id),
        "candidateId": str(interview.candidate_id),
        "agentId": str(tenant.agent_id),
        "jobId": None,
        "focus": interview.focus.value,
        "outcome": None,
        "longestSeconds": int(interview.duration.total_seconds()),
        "machineDetection": "SYNC",
        "answeredBy": None,
        "settings": {
            "timezone": "Europe/Bratislava",
            "locale": "sk-SK",
            "callTimeIntervals": data(intake.get(intake.company))["settings"]["callTimeIntervals"],
        },
    }


@does_not("F9-2")
def test_token_shows_nothing_about_the_person(intake: Intake, worker: Worker) -> None:
    tenant = tenant_of(intake)
    placed = a_placed_attempt(tenant, "+421915123456")
    text = intake.get(of_token(placed.token)).text
    assert not [each for each in (*PERSONAL, "Ada", "Byron") if each in text]


def test_ats_key_finds_the_call_of_its_company_without_naming_it(intake: Intake, tenant: Tenant) -> None:
    placed = a_placed_attempt(tenant)
    assert found(intake.with_key_of_its_ats(), placed.token)["companyId"] == str(tenant.company_id)


def test_token_is_not_shown_to_a_key_without_the_scope(intake: Intake, tenant: Tenant) -> None:
    placed = a_placed_attempt(tenant)
    usual = intake.with_new_key("read:interviews", "write:interviews")
    refused(usual.get(of_token(placed.token)), 403, "INSUFFICIENT_PERMISSIONS")


def test_documented_403_of_a_token_is_the_one_that_is_returned(intake: Intake, tenant: Tenant) -> None:
    token, usual = a_placed_attempt(tenant).token, intake.with_new_key("read:interviews")
    paths = json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]
    for method, path in (("get", of_token("{token}")), ("post", of_token("{token}") + "/outcome")):
        response = usual.send(method.upper(), path.format(token=token), json={"outcome": "FINISHED"})
        documented = paths[path][method]["responses"]["403"]["content"]["application/json"]["examples"]
        refused(response, 403, *documented)


def test_unknown_token_and_token_of_another_company_are_the_same(intake: Intake, tenant: Tenant) -> None:
    placed = a_placed_attempt(tenant)
    foreign = intake.with_key_of_another_company().get(of_token(placed.token))
    missing = intake.get(of_token("a" * 32))
    refused(foreign, *NO_CALL)
    refused(missing, *NO_CALL)
    assert foreign.json()["error"] == missing.json()["error"]


@pytest.mark.parametrize("token", ["a" * 65, "a%00b", "a.b", "%F0%9F%93%9E"])
def test_malformed_token_is_rejected(intake: Intake, token: str) -> None:
    refused(intake.get(of_token(token)), 400, "VALIDATION_ERROR")


def ended_ago(tenant: Tenant, ago: timedelta) -> str | None:
    attempt = talk(tenant)
    tenant.change("UPDATE attempts SET ended_at = :at WHERE id = :id", at=tenant.now() - ago, id=attempt.id)
    return attempt.token


@does("F9-2")
@does_not("F9-2")
def test_token_is_valid_until_one_hour_after_its_call(intake: Intake, tenant: Tenant) -> None:
    assert found(intake, ended_ago(tenant, timedelta(minutes=59)))["status"] == "COMPLETED"
    refused(intake.get(of_token(ended_ago(tenant, timedelta(minutes=61)))), *NO_CALL)


def test_token_of_a_call_found_late_is_valid_while_it_is_live(intake: Intake, tenant: Tenant) -> None:
    lost = an_attempt_of_unknown_outcome(tenant)
    tenant.change(
        "UPDATE attempts SET ended_at = ended_at - interval '5 hours', claimed_at = claimed_at - interval '5 hours'"
        " WHERE id = :id",
        id=lost.id,
    )
    refused(intake.get(of_token(lost.token)), *NO_CALL)
    sid = a_sid()
    tenant.change("UPDATE attempts SET look_at = now(), call_sid = :sid WHERE id = :id", id=lost.id, sid=sid)
    assert found(intake, lost.token)["reasonCode"] == "OUTCOME_UNKNOWN"


def test_token_of_a_claim_that_became_no_call_names_none(intake: Intake, tenant: Tenant) -> None:
    claimed = a_claimed_attempt(tenant)
    tenant.take(claimed, Deferred(due_at=tenant.now(), cause="A_TEST"))
    refused(intake.get(of_token(claimed.token)), *NO_CALL)
    again = tenant.dial.claim([claimed.id]).claimed[0].attempt
    refused(intake.get(of_token(claimed.token)), *NO_CALL)
    assert found(intake, again.token)["callAttemptId"] == str(claimed.id)


def test_token_of_a_deleted_attempt_or_interview_names_none(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    deleted = tenant.take(talk(tenant), Deleted())
    refused(intake.get(of_token(deleted.token)), *NO_CALL)
    placed = a_placed_attempt(tenant)
    assert intake.delete(call_of(placed).interview).is_success
    refused(intake.get(of_token(placed.token)), *NO_CALL)


# ---- reports


def answered(tenant: Tenant) -> Attempt:
    return tenant.take(a_placed_attempt(tenant), Progressed(rank=CallProgress.ANSWERED))


def report(intake: Intake, attempt: Attempt, **body: Any) -> httpx.Response:
    return intake.post(f"{of_token(attempt.token)}/outcome", body)


@does("F9-3")
def test_call_back_is_reported_shown_and_answered_the_same_again(
    intake: Intake, tenant: Tenant, worker: Worker
) -> None:
    attempt = answered(tenant)
    voice = intake.with_new_key("voice")
    first = data(report(voice, attempt, outcome="CALL_BACK", callBackAt="2026-04-03T18:00:00"))
    assert first == {
        "callAttemptId": str(attempt.id),
        "interviewId": str(attempt.interview_id),
        "outcome": "CALL_BACK",
        "reportedAt": first["reportedAt"],
        "callBackAt": "2026-04-03T16:00:00Z",
    }
    assert data(report(voice, attempt, outcome="CALL_BACK", callBackAt="2026-04-03T18:00:00")) == first
    refused(report(voice, attempt, outcome="FINISHED"), 409, "OUTCOME_REPORTED")
    tenant.take(tenant.attempt(attempt.id), Ended(reason=Reason.ANSWERED, ended_at=tenant.now()))
    shown = data(intake.get(call_of(attempt).interview))
    assert shown["status"] == "SCHEDULED"
    assert [(each["status"], each["outcome"]) for each in shown["callAttempts"]] == [
        ("COMPLETED", "CALL_BACK"),
        ("PENDING", None),
    ]
    assert shown["callAttempts"][1]["scheduledAt"] == first["callBackAt"]
    history = data(intake.get(call_of(attempt).explanation))["history"]
    [reported] = [each for each in history if each["event"] == "reported"]
    assert reported["detail"] == {"outcome": "CALL_BACK", "callBackAt": "2026-04-03T16:00:00Z"}
    assert reported["by"].startswith("key:")


@does("F9-3")
@does_not("F9-3")
def test_note_of_a_report_is_shown_with_its_attempt_only(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    attempt = answered(tenant)
    body = {"outcome": "FINISHED", "note": f" {NOTE}\n"}
    first = report(intake, attempt, **body)
    assert report(intake, attempt, **body).json()["data"] == data(first)
    other = report(intake, attempt, outcome="FINISHED", note="Another note")
    assert refused(other, 409, "OUTCOME_REPORTED")["details"] == {"outcome": "FINISHED", "callBackAt": None}
    call = call_of(attempt)
    assert data(intake.get(call.attempt))["outcomeNote"] == NOTE
    assert data(intake.get("/call-attempts"))["items"][0]["outcomeNote"] == NOTE
    moved = intake.patch(call.interview, {"metadata": {"a": "b"}})
    assert data(moved)["callAttempts"][0]["outcomeNote"] == NOTE
    paths = (call.explanation, f"/call-attempts/{attempt.id}/evidence", of_token(attempt.token), "/events")
    assert not [each for each in (first, other, *map(intake.get, paths)) if NOTE in each.text]
    [[kept]] = tenant.ask("SELECT string_agg(t::text, '') FROM inbox t")
    assert NOTE not in kept


@does("F9-3")
def test_person_opts_out_of_a_call_that_counts_as_voicemail(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    attempt = answered(tenant)
    tenant.take(tenant.attempt(attempt.id), Ended(reason=Reason.VOICEMAIL, ended_at=tenant.now()))
    first = data(report(intake, attempt, outcome="OPTED_OUT"))
    assert data(report(intake, attempt, outcome="OPTED_OUT")) == first
    shown = data(intake.get(call_of(attempt).interview))["callAttempts"][0]
    assert (shown["status"], shown["reasonCode"], shown["outcome"]) == ("FAILED", "VOICEMAIL", "OPTED_OUT")
    refused(report(intake, attempt, outcome="WRONG_PERSON"), 409, "OUTCOME_REPORTED")


@does("F9-3")
@does_not("F9-3")
def test_person_opts_out_of_a_deleted_call(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    attempt = answered(tenant)
    assert intake.delete(call_of(attempt).interview).is_success
    refused(report(intake, attempt, outcome="FINISHED"), *NO_CALL)
    refused(report(intake.with_key_of_another_company(), attempt, outcome="OPTED_OUT"), *NO_CALL)
    first = data(report(intake, attempt, outcome="OPTED_OUT"))
    assert data(report(intake, attempt, outcome="OPTED_OUT")) == first
    assert first["outcome"] == "OPTED_OUT"
    refused(intake.get(of_token(attempt.token)), *NO_CALL)
    refused(intake.get(call_of(attempt).interview), 404, "RESOURCE_NOT_FOUND")


@does_not("F9-3")
def test_verdict_of_a_machine_is_only_overruled_by_a_refusal(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    attempt = answered(tenant)
    tenant.take(tenant.attempt(attempt.id), Ended(reason=Reason.VOICEMAIL, ended_at=tenant.now()))
    refused(report(intake, attempt, outcome="FINISHED"), 409, "CALL_NOT_ANSWERED")


@does_not("F9-3")
def test_closed_time_is_refused_with_the_next_open_one(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    attempt = answered(tenant)
    refusal = refused(
        report(intake, attempt, outcome="CALL_BACK", callBackAt="2026-04-03T22:00:00"),
        400,
        "OUTSIDE_CALL_TIME_INTERVAL",
    )
    assert refusal["details"]["field"] == "callBackAt"
    following = refusal["details"]["nextAllowedScheduledAt"]
    assert following == "2026-04-04T08:00:00"
    again = report(intake, attempt, outcome="CALL_BACK", callBackAt=following)
    assert data(again)["callBackAt"] == "2026-04-04T06:00:00Z"


@does_not("F9-3")
def test_report_before_the_answer_is_refused(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    refused(report(intake, a_placed_attempt(tenant), outcome="FINISHED"), 409, "CALL_NOT_ANSWERED")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outcome": "finished"},
        {"outcome": "CALL_BACK"},
        {"outcome": "FINISHED", "callBackAt": "2026-04-03T18:00:00"},
        {"outcome": "FINISHED", "notes": "an unknown field"},
        {"outcome": "FINISHED", "note": " "},
        {"outcome": "FINISHED", "note": 1},
        {"outcome": "FINISHED", "note": "a" * 1001},
        {"outcome": "FINISHED", "note": "a\0b"},
    ],
)
def test_malformed_report_is_refused(intake: Intake, tenant: Tenant, body: dict[str, Any]) -> None:
    refused(report(intake, answered(tenant), **body), 400, "VALIDATION_ERROR")


@does_not("F9-3")
def test_outcome_is_not_reported_by_other_keys(intake: Intake, tenant: Tenant) -> None:
    attempt = answered(tenant)
    usual = intake.with_new_key("read:interviews", "write:interviews")
    refused(report(usual, attempt, outcome="FINISHED"), 403, "INSUFFICIENT_PERMISSIONS")
    refused(report(intake.with_key_of_another_company(), attempt, outcome="FINISHED"), *NO_CALL)
    assert tenant.attempt(attempt.id) == attempt


def test_voice_key_reads_the_command_of_its_report(intake: Intake, tenant: Tenant) -> None:
    voice = intake.with_new_key("voice")
    attempt = answered(tenant)
    accepted = voice.post(f"{of_token(attempt.token)}/outcome", {"outcome": "FINISHED"}, headers=ASYNC)
    assert accepted.status_code == 202
    assert data(voice.get(accepted.headers["Location"]))["status"] == "WAITING"
