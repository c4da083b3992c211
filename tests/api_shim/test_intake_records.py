"""Companies, jobs, candidates and agents over HTTP: created once for a key, listed, changed, deleted."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from scheduler.domain.principal import KeyKind, Principal
from scheduler.use_cases.resources.keys import ALL_SCOPES
from tests.api_shim.answers import data, pagination, refusal, refused, wrong_fields
from tests.api_shim.bodies import EMAIL, EVERY_DAY, FIRST_NAME, JOB, NUMBER, ONLINE_AGENT, TOMORROW, candidate
from tests.api_shim.calls import a_call
from tests.api_shim.intake import KEY, Intake, Worker
from tests.architecture.rules import does, does_not
from tests.conftest import wait_until
from tests.support.builders import ApiWriter, RecordingHints, Tenant


@dataclass(frozen=True)
class Noun:
    """A kind of resource: its path, a valid body and a valid change."""

    path: str
    body: Mapping[str, Any]
    change: Mapping[str, Any]
    refused: Mapping[str, Any] = field(default_factory=dict)
    """An invalid field."""


NOUNS = [
    pytest.param(Noun("/jobs", JOB, {"status": "CLOSED"}, {"title": "x"}), id="job"),
    pytest.param(Noun("/candidates", candidate(), {"status": "IN_PROCESS"}, {"phoneNumber": "0915"}), id="candidate"),
    pytest.param(Noun("/agents", ONLINE_AGENT, {"duration": 45}, {"duration": 0}), id="agent"),
]
each_noun = pytest.mark.parametrize("noun", NOUNS)


def made(intake: Intake, noun: Noun, **headers: str) -> httpx.Response:
    return intake.post(noun.path, dict(noun.body), headers=headers)


# ---- the five verbs


@each_noun
def test_resource_is_created_found_listed_changed_and_deleted(intake: Intake, noun: Noun) -> None:
    one = data(made(intake, noun), 201)
    address = f"{noun.path}/{one['id']}"
    assert data(intake.get(address)) == one
    assert data(intake.get(noun.path))["items"][0] == one
    assert one["id"] not in intake.with_key_of_another_company().ids(noun.path)
    changed = data(intake.patch(address, dict(noun.change)))
    assert changed == one | dict(noun.change) | {"updatedAt": changed["updatedAt"]}
    assert data(intake.get(address)) == changed
    assert data(intake.delete(address)) is True
    assert refusal(intake.get(address)) == (404, "RESOURCE_NOT_FOUND")
    assert one["id"] not in intake.ids(noun.path)
    for method, more in (("PATCH", {"json": dict(noun.change)}), ("DELETE", {})):
        assert refusal(intake.send(method, address, **more)) == (404, "RESOURCE_NOT_FOUND")


@each_noun
def test_invalid_field_is_refused_by_name_and_nothing_is_created(intake: Intake, noun: Noun) -> None:
    before = data(intake.get(noun.path))["pagination"]["total"]
    for wrong, field_code in ((noun.refused, None), ({"titel": 1}, "UNKNOWN_FIELD")):
        [(name, code)] = wrong_fields(intake.post(noun.path, {**noun.body, **wrong}))
        assert name == next(iter(wrong))
        assert field_code in {None, code}
    assert data(intake.get(noun.path))["pagination"]["total"] == before


@each_noun
def test_required_field_of_a_change_may_be_omitted_but_not_null(intake: Intake, noun: Noun) -> None:
    address = f"{noun.path}/{data(made(intake, noun), 201)['id']}"
    required = next(iter(noun.body))
    assert refusal(intake.patch(address, {required: None})) == (400, "VALIDATION_ERROR")
    assert intake.patch(address, {}).status_code == 200


@each_noun
def test_metadata_is_merged_and_null_removes_a_key(intake: Intake, noun: Noun) -> None:
    one = intake.made(noun.path, {**noun.body, "metadata": {"a": 1, "b": {"c": 2}}})
    address, merged = f"{noun.path}/{one['id']}", {"b": {"c": 2, "d": 3}}
    assert data(intake.patch(address, {"metadata": {"a": None, "b": {"d": 3}}}))["metadata"] == merged
    assert refusal(intake.patch(address, {"metadata": {"e": "x" * 10_225}})) == (400, "METADATA_TOO_LARGE")
    assert data(intake.get(address))["metadata"] == merged


@each_noun
def test_a_list_has_pages_newest_first(intake: Intake, noun: Noun) -> None:
    there = data(intake.get(noun.path))["pagination"]["total"]
    ids = [data(made(intake, noun), 201)["id"] for _ in range(3)]
    first, second = (intake.ids(noun.path, page=page, limit=2) for page in (1, 2))
    assert [*first, *second][:3] == ids[::-1]
    shown = data(intake.get(noun.path, limit=2))["pagination"]
    cursor = shown.pop("nextCursor", None)
    assert shown == pagination(there + 3, limit=2)
    assert (cursor is None) == (noun.path == "/agents")
    assert data(intake.get(noun.path, page=9999))["items"] == []
    for wrong in ({"page": 0}, {"page": 10_001}, {"limit": 0}, {"limit": 101}, {"limit": "x"}):
        assert refusal(intake.get(noun.path, **wrong)) == (400, "VALIDATION_ERROR")


# ---- once for an idempotency key


@each_noun
def test_the_same_key_and_request_get_the_same_answer_once(intake: Intake, noun: Noun) -> None:
    first, again = made(intake, noun, **KEY), made(intake, noun, **KEY)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert data(again, 201) == data(first, 201)
    other = intake.post(noun.path, {**noun.body, "metadata": {"x": 1}}, headers=KEY)
    assert refusal(other) == (422, "IDEMPOTENCY_KEY_REUSED")


@each_noun
def test_replay_after_the_deletion_has_no_personal_data(intake: Intake, noun: Noun) -> None:
    one = data(made(intake, noun, **KEY), 201)
    assert intake.delete(f"{noun.path}/{one['id']}").status_code == 200
    created = made(intake, noun, **KEY)
    again = data(created, 201)
    assert (again["id"], again["createdAt"]) == (one["id"], one["createdAt"])
    kept = "".join(str(row[0]) for row in intake.ask("SELECT answer::text || coalesce(body::text, '') FROM inbox"))
    for word in (FIRST_NAME, NUMBER, EMAIL, JOB["title"], str(ONLINE_AGENT["name"])):
        assert word not in kept
        assert word not in created.text


def test_fifty_requests_with_one_key_create_one_resource(intake: Intake) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: intake.post("/jobs", JOB, headers=KEY), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({str(answer.json()["data"]) for answer in answers}) == 1
    assert intake.count("jobs") == 1


def test_refusal_by_a_rule_is_repeated_unchanged(intake: Intake) -> None:
    unknown = {**candidate(), "jobIds": [str(uuid4())]}
    first, again = (intake.post("/candidates", unknown, headers=KEY) for _ in range(2))
    assert refusal(first) == refusal(again) == (400, "JOB_NOT_FOUND")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert intake.count("candidates") == 0


def test_answer_to_an_unauthorized_request_is_not_stored(intake: Intake, ats: Intake) -> None:
    for _ in range(2):
        denied = ats.post("/jobs", JOB, headers=KEY, params={"companyId": str(uuid4())})
        assert refusal(denied) == (403, "RESOURCE_ACCESS_DENIED")
        assert refusal(ats.post("/jobs", JOB, headers=KEY)) == (400, "COMPANY_ID_REQUIRED")
    assert intake.count("inbox") == 0


def test_one_key_for_two_kinds_of_request_is_reused(intake: Intake) -> None:
    assert intake.post("/jobs", JOB, headers=KEY).status_code == 201
    assert refusal(intake.post("/agents", ONLINE_AGENT, headers=KEY)) == (422, "IDEMPOTENCY_KEY_REUSED")


@each_noun
def test_result_of_a_write_is_readable_with_the_read_scope(intake: Intake, noun: Noun) -> None:
    principal, secret = intake.new_key()
    writer = intake.with_key(secret)
    one = data(made(writer, noun, **{"Idempotency-Key": "made"}), 201)
    address = f"{noun.path}/{one['id']}"
    assert writer.patch(address, dict(noun.change), headers={"Idempotency-Key": "changed"}).status_code == 200
    wrong = {**noun.body, **noun.refused}
    assert writer.post(noun.path, wrong, headers={"Idempotency-Key": "wrong"}).status_code == 400
    assert writer.delete(address, headers={"Idempotency-Key": "deleted"}).status_code == 200
    missing = writer.delete(address, headers={"Idempotency-Key": "missing"})
    ids = {"id": one["id"], "companyId": str(intake.seeded.company_id)}
    reader = rotated(intake, principal, f"read:{noun.path.strip('/')}")
    for key, status, result in (
        ("made", 201, ids),
        ("changed", 200, ids),
        ("deleted", 200, True),
        ("missing", 404, missing.json()["error"]),
    ):
        command = data(reader.get(f"/commands/{key}"))
        assert (command["status"], command["statusCode"], command["result"]) == ("APPLIED", status, result)
        assert data(reader.get(f"/commands/{command['id']}")) == command
    assert refusal(reader.get("/commands/wrong")) == (404, "RESOURCE_NOT_FOUND"), "unauthorized requests are not stored"


@each_noun
def test_result_of_a_write_is_hidden_without_the_read_scope(intake: Intake, noun: Noun) -> None:
    principal, secret = intake.new_key()
    data(made(intake.with_key(secret), noun, **{"Idempotency-Key": "made"}), 201)
    scope = f"read:{noun.path.strip('/')}"
    answer = rotated(intake, principal, *ALL_SCOPES - {scope}).get("/commands/made")
    assert refused(answer, 403, "INSUFFICIENT_PERMISSIONS")["details"] == {"missingScopes": [scope]}


def test_result_of_a_company_write_contains_its_id(intake: Intake) -> None:
    principal, secret = intake.new_key(kind=KeyKind.ATS)
    ats, reader = intake.with_key(secret), rotated(intake, principal, "read:companies")
    company = ats.made("/company", {"name": "Acme"}, headers={"Idempotency-Key": "made"})
    assert data(reader.get("/commands/made"))["result"] == {"id": company["id"], "companyId": None}
    address = f"/company/{company['id']}"
    assert ats.delete(address, headers={"Idempotency-Key": "gone"}).status_code == 200
    assert data(reader.get("/commands/gone"))["result"] is True
    assert data(reader.get("/commands/made"))["result"] == {"id": company["id"], "companyId": None}


def rotated(intake: Intake, principal: Principal, *scopes: str) -> Intake:
    """A key of this principal with only these scopes."""
    return intake.with_key(intake.keys.rotate(principal.key_id, {"scopes": frozenset(scopes)})[1])


def test_running_write_is_waited_for_and_then_in_progress(intake: Intake) -> None:
    assert intake.post("/jobs", JOB, headers=KEY).status_code == 201
    with _holding_the_key(intake):
        answer = intake.post("/jobs", JOB, headers=KEY)
    assert refusal(answer) == (409, "IDEMPOTENCY_IN_PROGRESS")


def test_request_waits_for_its_key_beyond_one_lock_timeout(intake: Intake) -> None:
    assert intake.post("/jobs", JOB, headers=KEY).status_code == 201
    with ThreadPoolExecutor(1) as pool:
        with _holding_the_key(intake):
            again = pool.submit(intake.send, "POST", "/jobs", json=JOB, headers=KEY)
            first = wait_until(lambda: _waiting_transactions(intake), says="the request waits for its key")
            wait_until(
                lambda: again.done() or _waiting_transactions(intake) - first, says="it waits in another transaction"
            )
        assert again.result().status_code == 201


def _waiting_transactions(intake: Intake) -> set[str]:
    return {str(row[0]) for row in intake.ask("SELECT virtualtransaction FROM pg_locks WHERE NOT granted")}


# ---- jobs


def test_every_documented_field_of_a_job_is_kept_and_shown(intake: Intake) -> None:
    details: dict[str, Any] = {
        "jobUrl": "https://example.com/job",
        "descriptionUrl": "https://example.com/description",
        "benefits": "Meal vouchers",
        "requiredSkills": ["forklift"],
        "niceToHaveSkills": ["English"],
        "languageRequirements": [{"language": "SK", "proficiency": "B2"}],
        "education": ["SECONDARY_WITH_DIPLOMA"],
        "experience": "ONE_TO_3_YEARS",
        "contractType": "FULL_TIME",
        "location": {"workMode": "ONSITE", "street": "1", "city": "Trnava", "postalCode": "91701", "countryCode": "SK"},
        "salary": {"min": 1200.0, "max": 1500.0, "currency": "EUR", "period": "MONTHLY"},
        "metadata": {"ref": "J-1"},
    }
    job = intake.made("/jobs", JOB | details)
    assert {name: job[name] for name in details} == details
    assert job["status"] == "OPEN"
    address = f"/jobs/{job['id']}"
    changed = data(intake.patch(address, {"workMode": "REMOTE", "benefits": None}))
    assert changed["location"] == details["location"] | {"workMode": "REMOTE"}
    assert changed["benefits"] is None
    for wrong in (
        {"status": "UNDEFINED"},
        {"requiredSkills": ["x"] * 11},
        {"languageRequirements": [{"language": "SK", "proficiency": "D1"}]},
        {"location": {"countryCode": "XX"}},
        {"education": ["UNDEFINED"]},
        {"description": "too short"},
        {"jobUrl": "javascript:alert(1)"},
    ):
        assert refusal(intake.patch(address, wrong)) == (400, "VALIDATION_ERROR"), wrong


def test_jobs_are_listed_by_status(intake: Intake) -> None:
    open_job, closed = intake.made("/jobs", JOB), intake.made("/jobs", JOB | {"status": "CLOSED"})
    for status, one in (("OPEN", open_job), ("CLOSED", closed)):
        assert intake.ids("/jobs", status=status) == [one["id"]]
    assert refusal(intake.get("/jobs", status="UNDEFINED")) == (400, "VALIDATION_ERROR")


def test_deleted_job_has_no_candidates(intake: Intake) -> None:
    job = intake.made("/jobs", JOB)
    person = intake.made("/candidates", candidate(jobIds=[job["id"]]))
    assert person["jobIds"] == [job["id"]]
    intake.delete(f"/jobs/{job['id']}")
    assert data(intake.get(f"/candidates/{person['id']}"))["jobIds"] == []
    assert refusal(intake.patch(f"/candidates/{person['id']}", {"jobIds": [job["id"]]})) == (400, "JOB_NOT_FOUND")


# ---- candidates


def test_jobs_of_a_candidate_are_replaced_and_must_exist(intake: Intake) -> None:
    jobs = [intake.made("/jobs", JOB)["id"] for _ in range(3)]
    person = intake.made("/candidates", candidate(jobId=jobs[0]))
    assert (person["jobIds"], person["jobId"], person["status"]) == ([jobs[0]], jobs[0], "APPLIED")
    address = f"/candidates/{person['id']}"
    changed = data(intake.patch(address, {"jobIds": jobs[1:], "jobId": jobs[0]}))
    assert set(changed["jobIds"]) == set(jobs[1:]), "jobIds win if both are sent"
    theirs = intake.with_key_of_another_company().made("/jobs", JOB)["id"]
    error = refused(intake.patch(address, {"jobIds": [theirs]}), 400, "JOB_NOT_FOUND")
    assert error["details"] == {"jobIds": [theirs], "field": "jobIds"}
    assert data(intake.get(address)) == changed
    assert data(intake.patch(address, {"jobIds": []}))["jobIds"] == []


def test_candidates_are_found_by_job_status_name_and_address(intake: Intake) -> None:
    job = intake.made("/jobs", JOB)["id"]
    zuzana = intake.made("/candidates", candidate(jobId=job))["id"]
    other = candidate(firstName="Percy", lastName="100%_x", email="PERCY@example.org", status="REJECTED")
    percy = intake.made("/candidates", other)["id"]
    for filters, expected in (
        ({"jobId": job}, [zuzana]),
        ({"status": "REJECTED"}, [percy]),
        ({"search": "percy@"}, [percy]),
        ({"search": "ZUZANA t"}, [zuzana]),
        ({"search": "100%_"}, [percy]),
        ({"search": "1%x"}, []),
        ({"search": "example", "status": "APPLIED"}, [zuzana]),
        ({"jobId": str(uuid4())}, []),
    ):
        assert intake.ids("/candidates", **filters) == expected, filters


def test_a_candidate_keeps_a_way_to_be_reached(intake: Intake) -> None:
    person = intake.made("/candidates", candidate())
    address = f"/candidates/{person['id']}"
    assert data(intake.patch(address, {"email": None}))["email"] is None
    assert refusal(intake.patch(address, {"phoneNumber": None})) == (400, "CONTACT_REQUIRED")
    assert refusal(intake.post("/candidates", candidate(email=..., phoneNumber=...)))[0] == 400
    for wrong in (
        {"gdprExpiryDate": "2020-01-01"},
        {"timezone": "Europe/Atlantis"},
        {"phoneNumber": "+42191512345x"},
        {"phoneNumber": "0915123456"},
        {"status": "UNDEFINED"},
    ):
        assert refusal(intake.patch(address, wrong))[0] == 400, wrong
    assert data(intake.get(address))["phoneNumber"] == NUMBER


@does("F2-11")
def test_a_new_number_moves_the_pending_call_to_its_clock(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    call = a_call(intake)
    person = data(intake.get(call.interview))["candidateId"]
    in_adelaide = {"phoneNumber": "+61870701234", "timezone": None}
    assert intake.patch(f"/candidates/{person}", in_adelaide).status_code == 200
    ApiWriter(tenant=tenant, hints=RecordingHints()).recompute()
    attempt = data(intake.get(call.attempt))
    assert attempt["schedule"]["timezone"] == "Australia/Adelaide, Australia/Perth"
    assert attempt["warnings"] == ["MOVED_BY_SETTINGS"]


@does("F4-8")
def test_deleted_candidate_is_not_called_and_interviews_remain(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    call = a_call(intake)
    person = data(intake.get(call.interview))["candidateId"]
    assert data(intake.get(f"/candidates/{person}"))["interviewCount"] == 1
    assert data(intake.delete(f"/candidates/{person}")) is True
    interview = data(intake.get(call.interview))
    assert (interview["status"], interview["candidateId"]) == ("CANCELLED", person)
    [attempt] = interview["callAttempts"]
    assert (attempt["status"], attempt["reasonCode"]) == ("CANCELLED", "CANDIDATE_DELETED")
    rows = intake.ask("SELECT first_name, last_name, email, phone_number, timezone FROM candidates")
    assert [tuple(row) for row in rows] == [(None,) * 5]
    assert not tenant.dial.claim([call.attempt_id]).claimed
    assert refusal(intake.create(intake.body(candidate=..., candidateId=person)))[0] == 404


# ---- agents and numbers


def test_a_phone_agent_needs_a_number_of_its_company(intake: Intake) -> None:
    phone = ONLINE_AGENT | {"type": "PHONE"}
    assert refusal(intake.post("/agents", phone)) == (400, "COMPANY_PHONE_NUMBER_REQUIRED")
    [number] = data(intake.get("/phone-numbers"))["items"]
    assert (number["number"], number["provider"], number["capabilities"]) == ("+421221020001", "TWILIO", "OUTBOUND")
    agent = intake.made("/agents", phone | {"companyPhoneNumberId": number["id"]})
    assert agent["companyPhoneNumberId"] == number["id"]
    borrowed = intake.with_key_of_another_company().post("/agents", phone | {"companyPhoneNumberId": number["id"]})
    assert refusal(borrowed) == (404, "RESOURCE_NOT_FOUND")
    taken_away = intake.patch(f"/agents/{agent['id']}", {"companyPhoneNumberId": None})
    assert refusal(taken_away) == (400, "COMPANY_PHONE_NUMBER_REQUIRED")
    online = intake.made("/agents", ONLINE_AGENT)["id"]
    assert refusal(intake.patch(f"/agents/{online}", {"type": "PHONE"})) == (400, "COMPANY_PHONE_NUMBER_REQUIRED")


def test_every_documented_field_of_an_agent_is_kept_and_shown(intake: Intake) -> None:
    details: dict[str, Any] = {"questions": ["Why us?"], "instructions": "Be kind.", "voiceId": "EVA"}
    details |= {"cefrLevel": "B2", "metadata": {"ref": "A-1"}}
    agent = intake.made("/agents", ONLINE_AGENT | details)
    assert {name: agent[name] for name in details | ONLINE_AGENT} == ONLINE_AGENT | details
    address = f"/agents/{agent['id']}"
    assert data(intake.patch(address, {"voiceId": None}))["voiceId"] is None
    for wrong in (
        {"language": "XX"},
        {"type": "UNDEFINED"},
        {"duration": 181},
        {"duration": "30"},
        {"questions": ["q"] * 51},
        {"instructions": "x" * 2001},
        {"cefrLevel": "D1"},
        {"name": "x"},
    ):
        assert refusal(intake.patch(address, wrong)) == (400, "VALIDATION_ERROR"), wrong


@does_not("F4-8")
def test_changed_or_deleted_agent_leaves_its_interviews_alone(intake: Intake, worker: Worker) -> None:
    call = a_call(intake)
    agent = f"/agents/{intake.seeded.agent_id}"
    assert intake.patch(agent, {"duration": 90}).status_code == 200
    assert intake.delete(agent).status_code == 200
    assert data(intake.get(call.interview))["callAttempts"][0]["status"] == "PENDING"
    assert intake.ask("SELECT duration FROM interviews")[0][0] == timedelta(minutes=10)
    assert refusal(intake.create())[0] == 404, "it is no longer used for interviews"


# ---- companies


def test_an_ats_key_makes_companies_and_reaches_them_alone(intake: Intake) -> None:
    ats, other = (intake.with_new_key(kind=KeyKind.ATS) for _ in range(2))
    body = {
        "name": "Acme",
        "description": "Makes anvils",
        "website": "https://acme.example",
        "industry": "Tools",
        "size": "51-200",
        "location": {"city": "Trnava", "countryCode": "SK"},
        "metadata": {"ref": "C-1"},
        "settings": {"timezone": "Europe/Bratislava", "locale": "sk-SK"},
    }
    company = ats.made("/company", body)
    assert {**company, **body, "settings": company["settings"]} == company
    assert company["settings"] == {
        "timezone": "Europe/Bratislava",
        "locale": "sk-SK",
        "callTimeIntervals": [{"days": EVERY_DAY, "start": "08:00", "end": "20:00"}],
        "retryPolicy": {
            "maxRetries": 3,
            "delays": {"BUSY": [900], "NO_ANSWER": [7200, "NEXT_DAY"], "VOICEMAIL": [14400], "CARRIER_ERROR": [300]},
        },
        "limits": {"concurrentCalls": 10, "callsPerSecond": 1.0},
        "machineDetection": "ASYNC",
        "machineDetectionTuning": NOT_TUNED,
        "offsetMustMatchNumber": False,
        "allowedCountries": None,
    }
    address, nowhere = f"/company/{company['id']}", f"/company/{uuid4()}"
    assert data(ats.get(address)) == company
    assert data(ats.get(f"/v1{address}")) == company
    assert ats.ids("/company") == [company["id"]]
    assert data(other.get("/company"))["items"] == []
    for stranger in (other, intake):
        for method, more in (("GET", {}), ("PATCH", {"json": {"name": "Mine now"}})):
            assert refusal(stranger.send(method, address, **more)) == (403, "RESOURCE_ACCESS_DENIED")
            assert refusal(stranger.send(method, nowhere, **more)) == (403, "RESOURCE_ACCESS_DENIED")
    assert ats.made("/jobs", JOB, params={"companyId": company["id"]})["companyId"] == company["id"]


def test_regular_key_sees_its_own_company_and_creates_none(intake: Intake) -> None:
    [own] = data(intake.get("/company"))["items"]
    assert own["id"] == str(intake.seeded.company_id)
    assert refusal(intake.post("/company", {"name": "Acme"})) == (403, "INSUFFICIENT_PERMISSIONS")
    assert data(intake.patch(f"/company/{own['id']}", {"name": "New name"}))["name"] == "New name"


def test_sent_setting_is_replaced_and_null_restores_the_default(intake: Intake) -> None:
    intervals = [{"days": ["MON"], "start": "22:00", "end": "02:00"}]
    changed = {
        "callTimeIntervals": intervals,
        "retryPolicy": {"maxRetries": 1, "delays": {"BUSY": ["NEXT_DAY"]}},
        "limits": {"concurrentCalls": 3},
        "allowedCountries": ["SK", "AU"],
        "machineDetection": False,
        "offsetMustMatchNumber": True,
    }
    settings = data(intake.set_settings(**changed))["settings"]
    assert settings["callTimeIntervals"] == intervals
    assert settings["retryPolicy"]["delays"]["BUSY"] == ["NEXT_DAY"]
    assert settings["retryPolicy"]["delays"]["VOICEMAIL"] == [14400]
    assert settings["limits"] == {"concurrentCalls": 3, "callsPerSecond": 1.0}
    assert settings["allowedCountries"] == ["AU", "SK"]
    assert (settings["machineDetection"], settings["offsetMustMatchNumber"]) == ("OFF", True)
    back = data(intake.set_settings(**dict.fromkeys(changed)))["settings"]
    assert back["limits"]["concurrentCalls"] == 10
    assert back["allowedCountries"] is None
    assert (back["machineDetection"], back["offsetMustMatchNumber"]) == ("ASYNC", False)
    assert data(intake.set_settings(locale="en"))["settings"] == back | {"locale": "en"}


NOT_TUNED = dict.fromkeys(("timeout", "speechThreshold", "speechEndThreshold", "silenceTimeout"))
RANGES = {
    "timeout": (3, 59),
    "speechThreshold": (1000, 6000),
    "speechEndThreshold": (500, 5000),
    "silenceTimeout": (2000, 10_000),
}
"""Twilio's documented ranges, copied by hand."""


@does("F9-4")
def test_machine_detection_has_three_modes_and_old_words(intake: Intake) -> None:
    """A boolean means what it meant before there were three."""
    for sent, shown in (("OFF", "OFF"), ("SYNC", "SYNC"), ("ASYNC", "ASYNC"), (True, "SYNC"), (False, "OFF")):
        assert data(intake.set_settings(machineDetection=sent))["settings"]["machineDetection"] == shown
    assert data(intake.set_settings(locale="en"))["settings"]["machineDetection"] == "OFF", "it is kept"


@does_not("F9-4")
@pytest.mark.parametrize("name", RANGES)
def test_machine_detection_is_not_tuned_beyond_the_ranges(intake: Intake, name: str) -> None:
    least, most = RANGES[name]
    for value in (least, most, None):
        tuned = data(intake.set_settings(machineDetectionTuning={name: value}))["settings"]
        assert tuned["machineDetectionTuning"] == NOT_TUNED | {name: value}
    for wrong in (least - 1, most + 1, str(least), float(least) + 0.5, True):
        assert refusal(intake.set_settings(machineDetectionTuning={name: wrong})) == (400, "VALIDATION_ERROR"), wrong
    assert data(intake.set_settings(machineDetectionTuning=None))["settings"]["machineDetectionTuning"] == NOT_TUNED


def test_setting_of_the_wrong_form_is_refused(intake: Intake) -> None:
    """`test_intake_named_fields.py` has the settings that are refused with a code of their own."""
    wrong: list[dict[str, Any]] = [
        {"limits": {"concurrentCalls": 0}},
        {"limits": {"callsPerSecond": 0}},
        {"allowedCountries": ["XX"]},
        {"machineDetection": "yes"},
        {"machineDetection": "sync"},
        {"machineDetectionTuning": {"timeouts": 5}},
        {"locale": "slovak!"},
        {"callTimeInterval": []},
    ]
    for settings in wrong:
        assert refusal(intake.set_settings(**settings)) == (400, "VALIDATION_ERROR"), settings


@does("F2-11")
def test_pending_call_outside_new_hours_is_rescheduled(intake: Intake, worker: Worker, tenant: Tenant) -> None:
    call = a_call(intake)
    hours = [{"days": EVERY_DAY, "start": "12:00", "end": "20:00"}]
    assert intake.set_settings(callTimeIntervals=hours).status_code == 200
    ApiWriter(tenant=tenant, hints=RecordingHints()).recompute()
    attempt = data(intake.get(call.attempt))
    assert attempt["scheduledAt"] == "2026-04-03T10:00:00Z", f"before, it was {TOMORROW}, 09:00 local time"
    assert attempt["warnings"] == ["MOVED_BY_SETTINGS"]


@contextmanager
def _holding_the_key(intake: Intake) -> Iterator[None]:
    """Hold an uncommitted change of the key in another transaction."""
    with intake.database.transaction() as stores:
        stores.connection.execute(text("UPDATE inbox SET idempotency_key = 'another' WHERE idempotency_key = 'k'"))
        yield
