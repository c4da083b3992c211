"""Interviews over HTTP: created once, and shown only to keys with access."""

from datetime import timedelta

from scheduler.domain.attempt import Cancelled, Reason
from scheduler.hashing import Hasher
from tests.api_shim.answers import data, pagination, refusal, refused, without_now, wrong_fields
from tests.api_shim.bodies import AN_HOUR_LATER, NUMBER, TOMORROW, candidate
from tests.api_shim.calls import a_call
from tests.api_shim.intake import ASYNC, KEY, Intake, Worker
from tests.conftest import TestClock
from tests.support.builders import a_pending_attempt, a_tenant


def test_an_interview_is_answered_with_its_first_attempt(intake: Intake, worker: Worker) -> None:
    interview = intake.interview(scheduledAt=TOMORROW, metadata={"ref": "A-17"})
    ids = {"companyId": str(intake.seeded.company_id), "agentId": str(intake.seeded.agent_id), "jobId": None}
    times = {"scheduledAt": TOMORROW, "expiresAt": "2026-04-10T07:00:00Z", "finishedDate": None}
    kind = {"status": "SCHEDULED", "type": "PHONE", "isTest": False, "durationMinutes": None}
    assert interview == interview | ids | times | kind | {"metadata": {"ref": "A-17"}}
    [attempt] = interview["callAttempts"]
    state = {"status": "PENDING", "reasonCode": None, "retryNumber": 0, "calledAt": None, "waitingFor": "its time"}
    assert attempt == attempt | state | {"interviewId": interview["id"], "direction": "OUTBOUND"}
    assert attempt["schedule"] == {
        "requested": TOMORROW,
        "timezone": "Europe/Bratislava",
        "timezoneSource": "PHONE_NUMBER",
        "utcOffset": "+02:00",
        "localTime": "2026-04-03T09:00:00",
        "tzdataVersion": attempt["schedule"]["tzdataVersion"],
    }


def test_consent_in_the_far_future_is_accepted_and_explained(intake: Intake, worker: Worker) -> None:
    call = a_call(intake, candidate=candidate(gdprExpiryDate="9999-12-31"))
    assert intake.get(call.explanation).status_code == 200
    assert intake.post(call.attempts, {"scheduledAt": AN_HOUR_LATER}).status_code == 201


def test_schedule_time_is_an_alias_of_scheduled_at(intake: Intake, worker: Worker) -> None:
    for times in ({"scheduleTime": TOMORROW}, {"scheduleTime": TOMORROW, "scheduledAt": TOMORROW}):
        assert intake.interview(**times)["scheduledAt"] == TOMORROW


def test_get_returns_the_created_interview(intake: Intake, worker: Worker) -> None:
    made = intake.interview(metadata={"a": [1, {"b": None}]})
    assert without_now(data(intake.get(f"/interviews/{made['id']}"))) == without_now(made)


def test_get_interview_contains_no_personal_data(intake: Intake, worker: Worker) -> None:
    made = intake.interview()
    shown = intake.get(f"/interviews/{made['id']}").text
    assert not [each for each in ("Zuzana", "Tajomn", "zuzana@", NUMBER[1:]) if each in shown]


def test_attempts_are_listed_newest_first(intake: Intake, hasher: Hasher, now: TestClock) -> None:
    tenant = a_tenant(intake.database, intake.seeded, hasher, now)
    first = a_pending_attempt(tenant)
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    now.move(timedelta(hours=1))
    a_pending_attempt(tenant, interview_id=first.interview_id)
    path = f"/interviews/{first.interview_id}/call-attempts"
    both = data(intake.get(path))
    assert [each["status"] for each in both["items"]] == ["PENDING", "CANCELLED"]
    assert both["pagination"] == pagination(2)
    second = data(intake.get(path, page=2, limit=1))
    assert [each["status"] for each in second["items"]] == ["CANCELLED"]
    assert second["pagination"] == pagination(2, page=2, limit=1)


def test_an_ats_key_names_the_company(intake: Intake, worker: Worker) -> None:
    ats = intake.with_key_of_its_ats()
    mine = str(intake.seeded.company_id)
    made = data(ats.create(companyId=mine), 201)["id"]
    assert ats.get(f"/interviews/{made}", companyId=mine).status_code == 200
    for unnamed in (ats.create(), ats.get(f"/interviews/{made}")):
        assert refusal(unnamed) == (400, "COMPANY_ID_REQUIRED")
    assert [name for name, _ in wrong_fields(ats.create(companyId="acme"))] == ["companyId"]
    assert intake.count("inbox") == 1


def test_every_path_works_under_v1(intake: Intake, worker: Worker) -> None:
    made = data(intake.create(path="/v1/interviews"), 201)
    assert intake.get(f"/v1/interviews/{made['id']}").status_code == 200
    for nowhere in ("/v1/v1/healthz", "/v1healthz"):
        assert intake.get(nowhere).status_code == 404


def test_a_command_is_found_by_its_id_and_by_its_key(intake: Intake, worker: Worker) -> None:
    accepted = intake.create(intake.body(metadata={"ref": 1}), headers={**ASYNC, "Idempotency-Key": "order/17 a"})
    command_id = data(accepted, 202)["id"]
    replayed = intake.create(intake.body(metadata={"ref": 1}), headers={"Idempotency-Key": "order/17 a"})
    for reference in (command_id, "order/17%20a", "order%2F17%20a"):
        command = data(intake.get(f"/commands/{reference}"))
        assert (command["id"], command["kind"]) == (command_id, "create_interview")
        assert (command["status"], command["statusCode"]) == ("APPLIED", 201)
        assert without_now(command["result"]) == without_now(replayed.json()["data"])
        assert command["receivedAt"] <= command["appliedAt"]


def test_refused_command_contains_the_reason(intake: Intake, worker: Worker) -> None:
    error = refused(intake.create(intake.body(scheduledAt="tomorrow"), headers=KEY), 400, "INVALID_DATE_FORMAT")
    command = data(intake.get("/commands/k"))
    assert (command["status"], command["statusCode"], command["result"]) == ("APPLIED", 400, error)
