"""Each refusal with its own code names the field, under the name by which it was sent."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.api_shim import answers
from tests.api_shim.answers import data, wrong_fields
from tests.api_shim.bodies import AN_HOUR_LATER, JOB, NUMBER, TOLL_FREE, TOMORROW, candidate
from tests.api_shim.calls import a_call
from tests.api_shim.intake import ASYNC, KEY, Intake, Worker, applied
from tests.api_shim.interview_requests import AT_NIGHT, Ask, Resources, known, new, online

PREMIUM, NO_NUMBER, NOWHERE = "+19002345678", "+421000000000", "+80012345678"
AN_HOUR_AGO, IN_TWO_MONTHS = "2026-04-02T11:00:00Z", "2026-06-01T09:00:00Z"
MORNINGS = [{"days": ["MON", "TUE", "WED", "THU", "FRI"], "start": "08:00", "end": "09:00"}]
METADATA = {"metadata": {"a": "x" * 10_225}}
"""Valid by itself, but too large when merged with the existing metadata."""
TIMES = [
    ("INVALID_DATE_FORMAT", "2026-13-01T09:00:00Z"),
    ("INVALID_DATE_FORMAT", "tomorrow"),
    ("INVALID_DATE_FORMAT", "2026-04-03T09:00\x00:00Z"),
    ("SCHEDULE_IN_PAST", AN_HOUR_AGO),
    ("SCHEDULE_TOO_FAR", IN_TWO_MONTHS),
]
"""Invalid times for calls of any candidate."""
OF_A_CALL = [*TIMES, ("OUTSIDE_CALL_TIME_INTERVAL", AT_NIGHT)]
NAMES = ("scheduledAt", "scheduleTime")


def refused(answer: Any, code: str, field: str) -> dict[str, Any]:
    """Read the details of a refusal that names this field."""
    details: dict[str, Any] = answers.refused(answer, 400, code)["details"]
    assert details["field"] == field, details
    return details


# ---- the time, under either of its names


@pytest.mark.parametrize("name", NAMES)
def test_refused_time_is_named_as_sent(intake: Intake, worker: Worker, api: Resources, name: str) -> None:
    call = a_call(intake)
    web = data(intake.create(online(api)), 201)["id"]
    for code, text in OF_A_CALL:
        body = {name: text}
        refused(intake.create(intake.body(**body)), code, name)
        refused(intake.post(call.attempts, body), code, name)
        refused(intake.patch(call.interview, body), code, name)
        refused(intake.patch(call.attempt, {"scheduledAt": text}), code, "scheduledAt")
    for code, text in TIMES:
        refusal = intake.create(online(api, **{name: text}))
        refused(refusal, code, name)
        if code == "INVALID_DATE_FORMAT":
            assert refusal.json()["error"]["message"].startswith(f"{name} is not a valid date")
        refused(intake.patch(f"/interviews/{web}", {name: text}), code, name)


def test_command_applied_later_names_the_field_as_sent(intake: Intake, worker: Worker) -> None:
    accepted = intake.create(intake.body(scheduleTime=AN_HOUR_AGO), headers=ASYNC)
    assert applied(intake, accepted)["result"]["details"]["field"] == "scheduleTime"


def test_replayed_refusal_names_the_same_field(intake: Intake, worker: Worker) -> None:
    for _ in range(2):
        refused(intake.create(intake.body(scheduleTime=AT_NIGHT), headers=KEY), "OUTSIDE_CALL_TIME_INTERVAL", NAMES[1])


def test_character_that_cannot_be_stored_is_a_bad_date(intake: Intake) -> None:
    """The text after the character is not quoted."""
    details = refused(intake.create(intake.body(scheduledAt="2026\x00secret")), "INVALID_DATE_FORMAT", "scheduledAt")
    assert set(details) == {"field", "value", "reason", "position"}
    assert (details["position"], details["value"]) == (4, "2026\N{REPLACEMENT CHARACTER}\N{HORIZONTAL ELLIPSIS}")
    refused(intake.create(intake.body(expiresAt="\x00")), "INVALID_DATE_FORMAT", "expiresAt")
    half_of_a_pair = json.dumps(intake.body(scheduleTime="2026-04-03T09\ud800"))
    headers = {"Content-Type": "application/json"}
    answer = intake.post("/interviews", content=half_of_a_pair, headers=headers)
    refused(answer, "INVALID_DATE_FORMAT", "scheduleTime")
    previewed = intake.post("/call-times/preview", {"phoneNumber": NUMBER, "scheduledAt": "\x00"})
    refused(previewed, "INVALID_DATE_FORMAT", "scheduledAt")


def test_character_that_cannot_be_stored_is_named_elsewhere(intake: Intake) -> None:
    [(name, _)] = wrong_fields(intake.create(intake.body(metadata={"scheduledAt": "\x00"})))
    assert name == "metadata.scheduledAt"


# ---- other fields of an interview


def _person(api: Resources, **changes: Any) -> dict[str, Any]:
    return {"candidateId": api.person(**changes), "agentId": api.agent("GENERIC")}


def _new_person(api: Resources, **changes: Any) -> dict[str, Any]:
    return {"candidate": candidate(**changes), "agentId": api.agent("GENERIC")}


AT_NOON, LATE = {"scheduledAt": "2026-04-03T12:00:00"}, {"scheduledAt": "2026-04-06T09:00:00Z"}
WITH_AN_OFFSET = {"scheduledAt": "2026-04-03T09:00:00+10:30"}
OF_INTERVIEWS: list[tuple[str, str, Ask]] = [
    ("PHONE_NUMBER_REQUIRED", "candidateId", lambda api: _person(api, phoneNumber=...)),
    ("PHONE_NUMBER_INVALID", "candidateId", lambda api: _person(api, phoneNumber=NO_NUMBER)),
    ("NUMBER_NOT_ALLOWED", "candidateId", lambda api: _person(api, phoneNumber=PREMIUM)),
    ("TIMEZONE_INVALID", "candidate.timezone", lambda api: _new_person(api, timezone="Mars/Olympus")),
    ("TIMEZONE_UNKNOWN", "candidate.timezone", lambda api: _new_person(api, phoneNumber=NOWHERE)),
    ("TIMEZONE_UNKNOWN", "candidateId", lambda api: _person(api, phoneNumber=NOWHERE)),
    ("TIMEZONE_UNKNOWN", "scheduleTime", lambda api: _person(api, phoneNumber=NOWHERE) | {"scheduleTime": TOMORROW}),
    ("TIMEZONE_AMBIGUOUS", "scheduledAt", lambda api: _new_person(api, phoneNumber=TOLL_FREE) | AT_NOON),
    (
        "OFFSET_DIFFERS_FROM_PHONE_NUMBER",
        "scheduledAt",
        lambda api: _new_person(api.with_settings(offsetMustMatchNumber=True)) | WITH_AN_OFFSET,
    ),
    (
        "NO_COMMON_OPENING",
        "candidate.timezone",
        lambda api: _new_person(api.with_settings(callTimeIntervals=MORNINGS), phoneNumber=TOLL_FREE),
    ),
    (
        "NO_COMMON_OPENING",
        "candidateId",
        lambda api: _person(api.with_settings(callTimeIntervals=MORNINGS), phoneNumber=TOLL_FREE),
    ),
    ("CONSENT_EXPIRED", "scheduledAt", lambda api: _new_person(api, gdprExpiryDate="2026-04-04") | LATE),
    ("NO_OPENING_BEFORE_EXPIRY", "expiresAt", lambda api: _new_person(api) | {"expiresAt": "2026-04-02T12:00:20Z"}),
    ("INVALID_DATE_FORMAT", "expiresAt", lambda api: _new_person(api) | {"expiresAt": "never"}),
    (
        "TIMEZONE_UNKNOWN",
        "expiresAt",
        lambda api: online(api, candidate=candidate(phoneNumber=...), expiresAt="2026-04-05T12:00:00"),
    ),
    ("JOB_REQUIRED", "jobId", new),
    ("JOB_AMBIGUOUS", "jobId", lambda api: known(api, api.job(), api.job())),
    ("JOB_NOT_ASSIGNED", "jobId", lambda api: known(api, api.job(), jobId=api.job())),
]


def test_refused_interview_names_the_field(intake: Intake, worker: Worker, api: Resources) -> None:
    usual = data(intake.get(intake.company))["settings"]
    for code, field, ask in OF_INTERVIEWS:
        refused(intake.create(ask(api)), code, field)
        intake.set_settings(**{each: usual[each] for each in ("offsetMustMatchNumber", "callTimeIntervals")})


def test_refused_change_of_an_interview_names_the_field(intake: Intake, worker: Worker) -> None:
    call = a_call(intake, metadata={"b": "x" * 100})
    for code, field, body in (
        ("STATUS_NOT_SETTABLE", "status", {"status": "COMPLETED"}),
        ("METADATA_TOO_LARGE", "metadata", METADATA),
        ("NO_OPENING_BEFORE_EXPIRY", "expiresAt", {"expiresAt": "2026-04-02T12:30:00Z"}),
        ("INVALID_DATE_FORMAT", "expiresAt", {"expiresAt": "never"}),
    ):
        refused(intake.patch(call.interview, body), code, field)
    data(intake.patch(call.interview, {"expiresAt": "2026-04-03T07:30:00Z"}))
    for name in NAMES:
        refused(intake.patch(call.interview, {name: AN_HOUR_LATER}), "NO_OPENING_BEFORE_EXPIRY", name)


# ---- previews


def test_previewed_refusal_names_the_field(intake: Intake, worker: Worker, api: Resources) -> None:
    for code, field, body in (
        ("PHONE_NUMBER_INVALID", "phoneNumber", {"phoneNumber": NO_NUMBER}),
        ("NUMBER_NOT_ALLOWED", "phoneNumber", {"phoneNumber": PREMIUM}),
        ("NUMBER_NOT_ALLOWED", "candidateId", {"candidateId": api.person(phoneNumber=PREMIUM)}),
        ("PHONE_NUMBER_REQUIRED", "candidateId", {"candidateId": api.person(phoneNumber=...)}),
        ("TIMEZONE_INVALID", "timezone", {"phoneNumber": NUMBER, "timezone": "Mars/Olympus"}),
        ("TIMEZONE_UNKNOWN", "phoneNumber", {"phoneNumber": NOWHERE}),
        ("SCHEDULE_IN_PAST", "scheduledAt", {"phoneNumber": NUMBER, "scheduledAt": AN_HOUR_AGO}),
        ("INVALID_DATE_FORMAT", "scheduledAt", {"phoneNumber": NUMBER, "scheduledAt": "tomorrow"}),
    ):
        refusal = data(intake.post("/call-times/preview", body))["refusal"]
        assert (refusal["code"], refusal["details"]["field"]) == (code, field)


# ---- writes of the API itself


AT_NINE = {"days": ["MON"], "start": "9", "end": "10:00"}
COMPANY = [
    ("TIMEZONE_INVALID", "settings.timezone", {"timezone": "Europe/Atlantis"}),
    ("NEVER_OPEN", "settings.callTimeIntervals", {"callTimeIntervals": []}),
    ("CALL_TIME_INTERVALS_INVALID", "settings.callTimeIntervals", {"callTimeIntervals": "always"}),
    ("CALL_TIME_INTERVALS_INVALID", "settings.callTimeIntervals[0].start", {"callTimeIntervals": [AT_NINE]}),
    ("RETRY_POLICY_INVALID", "settings.retryPolicy.maxRetries", {"retryPolicy": {"maxRetries": 11}}),
    ("RETRY_POLICY_INVALID", "settings.retryPolicy.delays.BUSY[0]", {"retryPolicy": {"delays": {"BUSY": [0]}}}),
]


def test_refused_setting_of_a_company_is_named(intake: Intake, ats: Intake) -> None:
    before = data(intake.get(intake.company))
    for code, field, settings in COMPANY:
        refused(ats.post("/company", {"name": "Acme", "settings": settings}), code, field)
        refused(intake.patch(intake.company, {"settings": settings, "name": "Other"}), code, field)
    assert data(intake.get(intake.company)) == before


def _records(api: Resources) -> Iterator[tuple[str, str, dict[str, Any], str, str]]:
    """Requests with their bodies, and the code and field of their refusals."""
    stranger = str(UUID(int=7))
    person, job, agent = (f"/candidates/{api.person()}", f"/jobs/{api.job()}", f"/agents/{api.agent()}")
    phone, mail = (f"/candidates/{api.person(**{each: ...})}" for each in ("email", "phoneNumber"))
    for address in (person, job, agent, f"/company/{api.intake.seeded.company_id}"):
        api.intake.patch(address, {"metadata": {"b": "x" * 100}})
        yield "PATCH", address, METADATA, "METADATA_TOO_LARGE", "metadata"
    for method, address, rest in (("POST", "/candidates", candidate()), ("PATCH", person, {})):
        yield method, address, {**rest, "timezone": "Etc/GMT-1"}, "TIMEZONE_INVALID", "timezone"
        yield method, address, {**rest, "jobIds": [stranger]}, "JOB_NOT_FOUND", "jobIds"
        yield method, address, {**rest, "jobId": stranger}, "JOB_NOT_FOUND", "jobId"
        yield method, address, {**rest, "jobId": stranger, "jobIds": None}, "JOB_NOT_FOUND", "jobId"
    yield "PATCH", phone, {"phoneNumber": None}, "CONTACT_REQUIRED", "phoneNumber"
    yield "PATCH", mail, {"email": None}, "CONTACT_REQUIRED", "email"
    without = api.an_agent(companyPhoneNumberId=...)
    needed = "COMPANY_PHONE_NUMBER_REQUIRED"
    yield "POST", "/agents", without, needed, "companyPhoneNumberId"
    yield "PATCH", agent, {"companyPhoneNumberId": None}, needed, "companyPhoneNumberId"


def test_refused_write_names_the_field(intake: Intake, api: Resources) -> None:
    for method, address, body, code, field in _records(api):
        for key in ({}, {"Idempotency-Key": str(uuid4())}):
            refused(intake.send(method, address, json=body, headers=key), code, field)


def test_missing_company_of_an_ats_key_is_named(ats: Intake) -> None:
    refused(ats.get("/jobs"), "COMPANY_ID_REQUIRED", "companyId")
    refused(ats.post("/jobs", JOB), "COMPANY_ID_REQUIRED", "companyId")
    refused(ats.create(), "COMPANY_ID_REQUIRED", "companyId")


def test_refused_period_of_usage_is_named(intake: Intake) -> None:
    refused(intake.get("/billing/usage", start="yesterday"), "INVALID_DATE_FORMAT", "start")
    refused(intake.get("/billing/usage", end="2020-01-01\x00"), "INVALID_DATE_FORMAT", "end")
    refused(intake.get("/billing/usage", start="2026-04-02", end="2026-04-01"), "INVALID_PERIOD", "end")
