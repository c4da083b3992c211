"""Explanations and previews over HTTP, by the rules that the dialler applies."""

from typing import Any
from uuid import uuid4

import httpx

from scheduler.domain.attempt import Progressed
from scheduler.domain.call import CallProgress
from scheduler.domain.principal import KeyKind
from tests.api_shim.answers import data, refusal, refused
from tests.api_shim.bodies import AN_HOUR_LATER, NUMBER, TOLL_FREE, TOMORROW, candidate
from tests.api_shim.calls import a_call, call_of, tenant_of
from tests.api_shim.intake import KEY, Intake, Worker
from tests.architecture.rules import does
from tests.support.builders import Tenant, a_candidate, a_pending_attempt, a_placed_attempt


def explained(intake: Intake, attempt: Any) -> dict[str, Any]:
    return dict(data(intake.get(call_of(attempt).explanation)))


def rules(content: dict[str, Any]) -> list[str]:
    return [block["rule"] for block in content["blocks"]]


# ---- explanation


def test_attempt_before_its_time_explains_the_time_and_the_clock(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    content = data(intake.get(call.explanation))
    assert content["attemptId"] == str(call.attempt_id)
    assert (content["status"], content["reasonCode"]) == ("PENDING", None)
    assert content["waitingFor"]
    assert (content["nextPossibleAt"], content["expiresAt"]) == (TOMORROW, "2026-04-10T07:00:00Z")
    block = content["blocks"][0]
    assert (block["rule"], block["until"]) == ("NOT_DUE", TOMORROW)
    assert block["detail"]
    assert content["schedule"] == data(intake.get(call.attempt))["schedule"]
    assert content["warnings"] == []
    [created] = content["history"]
    assert set(created) == {"at", "event", "from", "to", "reasonCode", "by", "keyName", "detail"}
    assert (created["event"], created["from"], created["to"]) == ("created", None, "PENDING")
    assert created["by"].startswith("key:")
    assert created["at"].endswith("Z")


def test_a_paused_company_is_named_with_the_reason(intake: Intake, tenant: Tenant) -> None:
    attempt = a_pending_attempt(tenant)
    with intake.database.transaction() as stores:
        stores.companies.pause(intake.seeded.company_id, "a holiday", intake.now())
    content = explained(intake, attempt)
    assert rules(content) == ["COMPANY_PAUSED"]
    assert "a holiday" in content["blocks"][0]["detail"]
    assert content["blocks"][0]["until"] is None


def test_call_in_progress_waits_for_its_end_and_shows_history(intake: Intake, tenant: Tenant) -> None:
    content = explained(intake, a_placed_attempt(tenant))
    assert content["status"] == "IN_PROGRESS"
    assert content["waitingFor"] == "the call's end"
    assert [each["event"] for each in content["history"]] == ["created", "claimed", "placed"]
    claimed, placed = content["history"][1:]
    assert (claimed["from"], claimed["to"]) == ("PENDING", "IN_PROGRESS")
    assert "token" not in claimed["detail"]
    assert claimed["detail"]["leaseUntil"].endswith("Z")
    assert placed["detail"]["lookAt"].endswith("Z")


def test_history_names_the_key_that_moved_the_attempt(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    assert intake.patch(call.attempt, {"scheduledAt": AN_HOUR_LATER}).status_code == 204
    history = data(intake.get(call.explanation))["history"]
    assert [each["event"] for each in history] == ["created", "rescheduled"]
    assert history[0]["by"] == history[1]["by"]
    assert (history[1]["from"], history[1]["to"]) == ("PENDING", "PENDING")


def test_progress_of_a_call_is_shown_as_a_word(intake: Intake, tenant: Tenant) -> None:
    placed = a_placed_attempt(tenant)
    for rank in (CallProgress.DIALLED, CallProgress.RINGING, CallProgress.ANSWERED):
        placed = tenant.take(placed, Progressed(rank=rank))
    history = explained(intake, placed)["history"]
    ranks = [each["detail"]["rank"] for each in history if each["event"] == "progressed"]
    assert ranks == ["DIALLED", "RINGING", "ANSWERED"]


def test_each_key_is_shown_by_its_own_id_and_name(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    first = data(intake.get(call.explanation))["history"][0]
    company_id = intake.seeded.company_id
    principal, secret = intake.keys.create(
        kind=KeyKind.REGULAR, name="the night shift", company_id=company_id, principal_id=company_id
    )
    assert intake.with_key(secret).patch(call.attempt, {"scheduledAt": AN_HOUR_LATER}).status_code == 204
    moved = data(intake.get(call.explanation))["history"][1]
    assert (moved["by"], moved["keyName"]) == (f"key:{principal.key_id}", "the night shift")
    assert first["by"] not in {moved["by"], f"key:{company_id}"}
    assert first["keyName"] == intake.ask("SELECT name FROM api_keys ORDER BY created_at, id")[0][0]


def test_key_name_with_control_characters_is_harmless(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    for kept, shown in (("night\r\n\x1b[31mshift", "night [31mshift"), ("n" * 101, "n" * 99 + "…")):
        intake.change("UPDATE api_keys SET name = :name", name=kept)
        assert data(intake.get(call.explanation))["history"][0]["keyName"] == shown


def test_command_of_the_previous_version_names_the_first_key(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    principal, _ = intake.new_key()
    change = "UPDATE attempt_history SET actor = :actor WHERE attempt_id = :id"
    intake.change(change, actor=f"key:{principal.id}", id=call.attempt_id)
    assert data(intake.get(call.explanation))["history"][0]["keyName"] == "a test"


# ---- preview


def preview(intake: Intake, **question: Any) -> httpx.Response:
    return intake.post("/call-times/preview", question)


def test_allowed_time_is_previewed_as_it_would_be_scheduled(intake: Intake, worker: Worker) -> None:
    content = data(preview(intake, phoneNumber=NUMBER, scheduledAt=TOMORROW))
    assert (content["allowed"], content["refusal"], content["warnings"]) == (True, None, [])
    assert content["nextPossibleAt"] == TOMORROW
    [attempt] = intake.interview(scheduledAt=TOMORROW)["callAttempts"]
    assert content["schedule"] == attempt["schedule"]


NOON_OF_A_CONTINENT = {"phoneNumber": TOLL_FREE, "scheduledAt": "2026-04-03T12:00:00"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"scheduledAt": "2026-04-03T21:00:00"}, "OUTSIDE_CALL_TIME_INTERVAL"),
    ({"scheduledAt": "2026-06-01T09:00:00Z"}, "SCHEDULE_TOO_FAR"),
    ({"scheduledAt": "tomorrow"}, "INVALID_DATE_FORMAT"),
    (NOON_OF_A_CONTINENT, "TIMEZONE_AMBIGUOUS"),
    ({"phoneNumber": "+19002345678"}, "NUMBER_NOT_ALLOWED"),
]


def test_rejected_request_is_previewed_with_the_same_refusal(intake: Intake, worker: Worker) -> None:
    for each, code in REFUSED:
        question = {"phoneNumber": NUMBER, **each}
        content = data(preview(intake, **question))
        assert (content["allowed"], content["schedule"], content["refusal"]["code"]) == (False, None, code)
        person = candidate(phoneNumber=question["phoneNumber"], timezone=question.get("timezone"))
        error = refused(
            intake.create(intake.body(candidate=person, scheduledAt=question.get("scheduledAt"))), 400, code
        )
        place = error["details"].pop("field")
        assert content["refusal"]["details"].pop("field") == place.removeprefix("candidate.")
        assert without_instants(content["refusal"]) == without_instants(error)


def test_rejected_time_is_previewed_with_the_next_allowed_time(intake: Intake) -> None:
    content = data(preview(intake, phoneNumber=NUMBER, scheduledAt="2026-04-03T21:00:00"))
    assert content["nextPossibleAt"] == content["refusal"]["details"]["nextAllowedAt"] == "2026-04-04T06:00:00Z"
    assert data(preview(intake, phoneNumber=NUMBER, scheduledAt=content["nextPossibleAt"]))["allowed"] is True


@does("F2-2")
def test_time_zone_resolves_an_ambiguous_number(intake: Intake) -> None:
    content = data(preview(intake, **NOON_OF_A_CONTINENT, timezone="America/New_York"))
    assert content["allowed"] is True
    assert content["schedule"]["timezoneSource"] == "CANDIDATE"
    assert content["nextPossibleAt"] == "2026-04-03T16:00:00Z"


def test_a_candidate_is_previewed_by_their_number(intake: Intake, tenant: Tenant) -> None:
    known = a_candidate(tenant)
    content = data(preview(intake, candidateId=str(known.id), scheduledAt="2026-04-03T09:00:00"))
    assert (content["allowed"], content["nextPossibleAt"]) == (True, TOMORROW)
    assert content["schedule"]["timezone"] == "Europe/Bratislava"
    assert known.phone_number is not None
    assert known.phone_number[1:] not in str(content)


def test_preview_warns_of_an_open_interview_like_a_request(intake: Intake, worker: Worker) -> None:
    known = data(intake.get(a_call(intake).interview))["candidateId"]
    content = data(preview(intake, candidateId=known, scheduledAt=TOMORROW))
    [attempt] = intake.interview(candidate=..., candidateId=known, scheduledAt=TOMORROW)["callAttempts"]
    assert content["warnings"] == attempt["warnings"] == ["CANDIDATE_HAS_OPEN_INTERVIEW"]


def test_unknown_and_foreign_candidate_get_the_same_404(intake: Intake) -> None:
    theirs = a_candidate(tenant_of(intake.with_key_of_another_company()))
    for unknown in (theirs.id, uuid4()):
        error = refused(preview(intake, candidateId=str(unknown)), 404, "RESOURCE_NOT_FOUND")
        assert error["details"] == {"resourceType": "candidate", "resourceId": str(unknown)}


def test_preview_creates_nothing_and_stores_no_key(intake: Intake) -> None:
    for at in (TOMORROW, AN_HOUR_LATER, "2026-04-03T02:00:00Z"):
        answer = intake.post("/call-times/preview", {"phoneNumber": NUMBER, "scheduledAt": at}, headers=KEY)
        assert answer.status_code == 200
        assert "Idempotent-Replayed" not in answer.headers
    assert intake.is_untouched()
    assert intake.count("inbox") == 0
    assert intake.get("/commands/k").status_code == 404


def test_an_ats_key_names_the_company_whose_hours_are_asked_for(intake: Intake) -> None:
    ats, question = intake.with_key_of_its_ats(), {"phoneNumber": NUMBER}
    mine = ats.post("/call-times/preview", question, params={"companyId": str(intake.seeded.company_id)})
    assert data(mine)["allowed"] is True
    assert refusal(preview(ats, **question)) == (400, "COMPANY_ID_REQUIRED")
    foreign = ats.post("/call-times/preview", question, params={"companyId": str(uuid4())})
    assert refusal(foreign) == (403, "RESOURCE_ACCESS_DENIED")


def without_instants(error: dict[str, Any]) -> dict[str, Any]:
    """A refusal without values that depend on the current time."""
    details = {name: value for name, value in (error["details"] or {}).items() if name not in {"receivedAt", "latest"}}
    return {"code": error["code"], "details": details}
