"""Invalid requests are refused by field and code, never with the value, and are not stored."""

import json
import re
from typing import Any
from uuid import uuid4

import pytest

from scheduler.use_cases.shared.access import not_found
from scheduler.wire import json_values
from tests.api_shim.answers import refusal, refused, wrong_fields
from tests.api_shim.bodies import AN_HOUR_LATER, EMAIL, FIRST_NAME, LAST_NAME, TOMORROW, candidate
from tests.api_shim.document_operations import DOCUMENT
from tests.api_shim.intake import Intake, Worker


def person(**changes: Any) -> dict[str, Any]:
    return {"candidate": candidate(**changes)}


def consent(until: Any) -> dict[str, Any]:
    return person(gdprExpiryDate=until)


def with_keys(count: int) -> dict[str, Any]:
    return {"metadata": {str(number): 0 for number in range(count)}}


TWO_TIMES = {"scheduledAt": TOMORROW, "scheduleTime": AN_HOUR_LATER}
LATE = {"scheduledAt": "2026-04-06T09:00:00Z"}
DEEP: dict[str, Any] = {"a": {"b": {"c": {"d": {"e": {}}}}}}
BAD_FIELDS = [
    pytest.param(person(firstName=...), "candidate.firstName", "MISSING_FIELD", id="no first name"),
    pytest.param(person(firstName=""), "candidate.firstName", "TOO_SHORT", id="an empty first name"),
    pytest.param(person(firstName="   "), "candidate.firstName", "TOO_SHORT", id="a blank first name"),
    pytest.param(person(firstName="x" * 101), "candidate.firstName", "TOO_LONG", id="a long first name"),
    pytest.param(person(firstName=7), "candidate.firstName", "WRONG_TYPE", id="a number for a first name"),
    pytest.param(person(lastName=...), "candidate.lastName", "MISSING_FIELD", id="no last name"),
    pytest.param(person(lastName="x" * 101), "candidate.lastName", "TOO_LONG", id="a long last name"),
    pytest.param(person(firstName="a\x00b"), "candidate.firstName", "INVALID_CHARACTER", id="a NUL in a name"),
    pytest.param(consent(...), "candidate.gdprExpiryDate", "MISSING_FIELD", id="no consent date"),
    pytest.param(consent("2026-04-02"), "candidate.gdprExpiryDate", "NOT_IN_FUTURE", id="consent ends today"),
    pytest.param(consent("2020-01-01"), "candidate.gdprExpiryDate", "NOT_IN_FUTURE", id="consent is over"),
    pytest.param(consent("31.12.2030"), "candidate.gdprExpiryDate", "INVALID_DATE", id="no ISO date"),
    pytest.param(consent("2030-02-30"), "candidate.gdprExpiryDate", "INVALID_DATE", id="no day of a calendar"),
    pytest.param(consent(1924905600), "candidate.gdprExpiryDate", "INVALID_DATE", id="seconds"),
    pytest.param(person(phoneNumber="0915 123 456"), "candidate.phoneNumber", "NOT_E164", id="a local number"),
    pytest.param(person(phoneNumber="+0915123456"), "candidate.phoneNumber", "NOT_E164", id="country code 0"),
    pytest.param(person(phoneNumber="+421 915123456"), "candidate.phoneNumber", "NOT_E164", id="a space in it"),
    pytest.param(person(phoneNumber="+421915123456\n"), "candidate.phoneNumber", "NOT_E164", id="a line end in it"),
    pytest.param(person(phoneNumber=421915123456), "candidate.phoneNumber", "WRONG_TYPE", id="a number as number"),
    pytest.param(person(email="nobody"), "candidate.email", "INVALID_EMAIL", id="no address"),
    pytest.param(person(email="a@b\r\n.sk"), "candidate.email", "INVALID_EMAIL", id="a line end in an address"),
    pytest.param(person(email="x" * 250 + "@b.sk"), "candidate.email", "TOO_LONG", id="a long address"),
    pytest.param(person(email=..., phoneNumber=...), "candidate", "CONTACT_REQUIRED", id="neither address nor number"),
    pytest.param(person(jobIds=[str(uuid4())]), "candidate.jobIds", "UNKNOWN_FIELD", id="several jobs of a new one"),
    pytest.param(person(jobId="7"), "candidate.jobId", "INVALID_UUID", id="a job id of 7 within a candidate"),
    pytest.param({"candidate": "Jana"}, "candidate", "WRONG_TYPE", id="a candidate that is text"),
    pytest.param({"candidate": ...}, "candidate", "MISSING_FIELD", id="no candidate"),
    pytest.param({"candidateId": str(uuid4())}, "candidateId", "CONFLICTING_FIELDS", id="two candidates"),
    pytest.param({"candidate": ..., "candidateId": "7"}, "candidateId", "INVALID_UUID", id="a candidate id of 7"),
    pytest.param({"agentId": ...}, "agent", "MISSING_FIELD", id="no agent"),
    pytest.param({"agentId": "7"}, "agentId", "INVALID_UUID", id="an agent id of 7"),
    pytest.param({"agentId": 7}, "agentId", "WRONG_TYPE", id="an agent id that is a number"),
    pytest.param({"agent": "Eva"}, "agent", "WRONG_TYPE", id="an agent that is text"),
    pytest.param({"job": []}, "job", "WRONG_TYPE", id="a job that is a list"),
    pytest.param({"jobId": "7"}, "jobId", "INVALID_UUID", id="a job id of 7"),
    pytest.param({"scheduledat": "2026-04-03T07:00:00Z"}, "scheduledat", "UNKNOWN_FIELD", id="a typing error"),
    pytest.param({"agent_id": str(uuid4())}, "agent_id", "UNKNOWN_FIELD", id="a field in snake case"),
    pytest.param({"scheduledAt": 1775200000}, "scheduledAt", "WRONG_TYPE", id="seconds for a time"),
    pytest.param({"expiresAt": 1775200000}, "expiresAt", "WRONG_TYPE", id="seconds for an end"),
    pytest.param(TWO_TIMES, "scheduleTime", "CONFLICTING_FIELDS", id="two times"),
    pytest.param({"isTest": "true"}, "isTest", "WRONG_TYPE", id="a truth that is text"),
    pytest.param({"isTest": 1}, "isTest", "WRONG_TYPE", id="a truth that is a number"),
    pytest.param({"metadata": []}, "metadata", "WRONG_TYPE", id="metadata that is a list"),
    pytest.param({"metadata": DEEP}, "metadata", "METADATA_TOO_DEEP", id="metadata of six levels"),
    pytest.param(with_keys(51), "metadata", "METADATA_TOO_MANY_KEYS", id="51 keys"),
    pytest.param({"metadata": {"a": "x" * 10_240}}, "metadata", "METADATA_TOO_LARGE", id="metadata over 10 KB"),
    pytest.param({"metadata": {"a": ["\x00"]}}, "metadata.a.0", "INVALID_CHARACTER", id="a NUL in metadata"),
]


@pytest.mark.parametrize(("changes", "field", "code"), BAD_FIELDS)
def test_a_field_that_is_wrong_is_named(intake: Intake, changes: dict[str, Any], field: str, code: str) -> None:
    assert wrong_fields(intake.create(intake.body(**changes))) == [(field, code)]
    assert intake.count("inbox") == 0
    assert intake.is_untouched()


def test_all_invalid_fields_are_named_at_once(intake: Intake) -> None:
    answer = intake.create(intake.body(agentId="7", extra=1, **person(firstName="", phoneNumber="0915")))
    fields = {field for field, _ in wrong_fields(answer)}
    assert fields == {"agentId", "extra", "candidate.firstName", "candidate.phoneNumber"}


def test_refusal_never_quotes_the_rejected_value(intake: Intake) -> None:
    wrong = person(firstName=FIRST_NAME * 20, lastName=[LAST_NAME], email=EMAIL + " ", phoneNumber="+421905777888x")
    said = intake.create(intake.body(**wrong)).text
    assert not [each for each in (FIRST_NAME, LAST_NAME, EMAIL, "905777888") if each in said]


ACCEPTED = [
    pytest.param({"metadata": {"a": {"b": {"c": {"d": {}}}}}}, id="metadata of five levels"),
    pytest.param(with_keys(50), id="50 keys"),
    pytest.param({"metadata": {"a": "x" * (10_240 - 8)}}, id="metadata of 10 KB"),
    pytest.param({"scheduledAt": None, "expiresAt": None, "candidateId": None}, id="nulls for omitted fields"),
    pytest.param(person(email=...), id="a number and no address"),
    pytest.param(person(firstName="x" * 100), id="a first name of 100"),
    pytest.param(person(gdprExpiryDate="2026-04-03"), id="consent until tomorrow"),
    pytest.param(person(timezone="Europe/Bratislava"), id="a time zone"),
]


@pytest.mark.parametrize("changes", ACCEPTED)
def test_values_at_the_limits_are_accepted(intake: Intake, worker: Worker, changes: dict[str, Any]) -> None:
    assert intake.create(intake.body(**changes)).status_code == 201


REFUSED_WHEN_APPLIED = [
    pytest.param({"scheduledAt": "2026-13-01T00:00:00Z"}, "INVALID_DATE_FORMAT", id="month 13"),
    pytest.param({"scheduledAt": ""}, "INVALID_DATE_FORMAT", id="an empty time"),
    pytest.param({"scheduledAt": "2026-04-02T11:00:00Z"}, "SCHEDULE_IN_PAST", id="an hour ago"),
    pytest.param({"scheduledAt": "2026-06-01T09:00:00Z"}, "SCHEDULE_TOO_FAR", id="in two months"),
    pytest.param({"scheduledAt": "2026-04-03T02:00:00Z"}, "OUTSIDE_CALL_TIME_INTERVAL", id="at four in the morning"),
    pytest.param({"expiresAt": "2026-04-02T12:00:01Z"}, "NO_OPENING_BEFORE_EXPIRY", id="expires at once"),
    pytest.param(person(phoneNumber="+421000000000"), "PHONE_NUMBER_INVALID", id="no such number"),
    pytest.param(person(timezone="Mars/Olympus"), "TIMEZONE_INVALID", id="no such zone"),
    pytest.param(LATE | person(gdprExpiryDate="2026-04-04"), "CONSENT_EXPIRED", id="consent ends before the call"),
]


@pytest.mark.parametrize(("changes", "code"), REFUSED_WHEN_APPLIED)
def test_refusal_by_a_rule_leaves_rows_only_in_the_inbox(
    intake: Intake, worker: Worker, changes: dict[str, Any], code: str
) -> None:
    assert refusal(intake.create(intake.body(**changes))) == (400, code)
    assert intake.count("inbox") == 1
    assert intake.is_untouched()


MALFORMED = [
    pytest.param(b"", 0, id="nothing"),
    pytest.param(b'{"agentId": }', 12, id="no value"),
    pytest.param(b'{"agentId": "a"', 15, id="cut off"),
    pytest.param(b'{"agentId": "a", "agentId": "b"}', 0, id="a name twice"),
    pytest.param(b'{"metadata": {"x": NaN}}', 0, id="not a number"),
    pytest.param(b'{"agentId": "\xff"}', 13, id="not UTF-8"),
    pytest.param(b"\xef\xbb\xbf{}", 0, id="a byte order mark"),
    pytest.param(b"[" * 30_000, 0, id="nested without end"),
    pytest.param(b'{"metadata": {"x": ' + b"9" * 5_000 + b"}}", 0, id="a number without end"),
]


@pytest.mark.parametrize(("content", "position"), MALFORMED)
def test_malformed_json_is_refused_with_the_position(intake: Intake, content: bytes, position: int) -> None:
    details = refused(send(intake, content), 400, "MALFORMED_JSON")["details"]
    assert details["position"] == position
    assert details["reason"]
    assert intake.count("inbox") == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a JSON value is expected"),
        (b"tru", "a JSON value is expected"),
        (b"[1,]", "a JSON value is expected"),
        (b"{a: 1}", "a name in double quotes is expected"),
        (b'{"a": 1,}', "a name in double quotes is expected"),
        (b'{"a"}', "a colon is expected"),
        (b"[1 2]", "a comma or a closing bracket is expected"),
        (b"1 2", "there is text after the end of the value"),
        (b'"a', "a string has no closing quote"),
        (b'"\n"', "a string contains a control character that is not escaped"),
        (b'"\\x"', "a string contains an unknown escape sequence"),
        (b'"\\u12"', "a string contains an invalid \\u escape sequence"),
        (b"\xef\xbb\xbf{}", "the text begins with a byte order mark"),
    ],
)
def test_malformed_json_has_a_reason_in_plain_english(content: bytes, reason: str) -> None:
    with pytest.raises(json_values.MalformedJson) as refused_by:
        json_values.parse(content)
    assert refused_by.value.details["reason"] == reason
    assert reason in refused_by.value.message


def test_missing_resource_names_the_request_that_lists_it(intake: Intake) -> None:
    error = refused(intake.get(f"/agents/{uuid4()}"), 404, "RESOURCE_NOT_FOUND")
    assert error["message"] == (
        "There is no such agent. GET /agents lists the ids; details.resourceId is not one of them."
    )
    documented = json.loads(DOCUMENT.read_text(encoding="utf-8"))["paths"]
    for kind in ("agent", "callAttempt", "candidate", "interview", "job", "phoneNumber"):
        [path] = re.findall(r"GET (\S+) lists", not_found(kind, uuid4()).message)
        assert "get" in documented[path.replace("{id}", "{interviewId}")], path


def test_empty_body_names_the_missing_fields(intake: Intake) -> None:
    error = refused(send(intake, b"{}"), 400, "VALIDATION_ERROR")
    assert error["message"] == "Some fields are missing or invalid: candidate, agent."


@pytest.mark.parametrize("content", [b"[]", b'"text"', b"null", b"7"])
def test_body_that_is_not_an_object_is_refused(intake: Intake, content: bytes) -> None:
    assert refusal(send(intake, content)) == (400, "VALIDATION_ERROR")


def test_a_number_beyond_every_number_is_refused(intake: Intake) -> None:
    answer = send(intake, json.dumps(intake.body(metadata={"x": 7})).replace("7}", "1e999}").encode())
    assert wrong_fields(answer)[0][0] == "metadata.x"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_body_without_a_json_content_type_is_refused(intake: Intake, content_type: str) -> None:
    assert refusal(send(intake, json.dumps(intake.body()).encode(), content_type)) == (400, "CONTENT_TYPE_NOT_JSON")


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/vnd.acme+json"])
def test_body_of_any_json_content_type_is_read(intake: Intake, worker: Worker, content_type: str) -> None:
    assert send(intake, json.dumps(intake.body()).encode(), content_type).status_code == 201


@pytest.mark.parametrize("key", [b"", b"x" * 256, "po\u0159ad\u00ed".encode(), b"a\tb"])
def test_invalid_idempotency_key_is_refused(intake: Intake, key: bytes) -> None:
    headers = [(b"Idempotency-Key", key), (b"Authorization", b"Bearer " + intake.key.encode())]
    answer = intake.client.post("/interviews", json=intake.body(), headers=headers)
    assert wrong_fields(answer) == [("Idempotency-Key", "INVALID_IDEMPOTENCY_KEY")]
    assert intake.count("inbox") == 0


def test_two_idempotency_keys_are_refused(intake: Intake) -> None:
    both = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Authorization", f"Bearer {intake.key}")]
    assert intake.client.post("/interviews", json=intake.body(), headers=both).status_code == 400


def send(intake: Intake, content: bytes, content_type: str = "application/json") -> Any:
    headers = {"Content-Type": content_type} if content_type else {}
    return intake.post("/interviews", content=content, headers=headers)


@pytest.mark.parametrize(
    ("address", "field", "code", "words"),
    [
        pytest.param("/interviews?status=FOO", "status", "INVALID_VALUE", "'SCHEDULED', 'IN_PROGRESS'", id="a status"),
        pytest.param("/jobs?status=open", "status", "INVALID_VALUE", "'OPEN' or 'CLOSED'", id="another case"),
        pytest.param("/interviews?candidateId=x", "candidateId", "INVALID_UUID", "must be a UUID", id="no UUID"),
        pytest.param("/candidates?search=", "search", "TOO_SHORT", "1 characters", id="nothing to search for"),
        pytest.param(f"/candidates?search={'y' * 101}", "search", "TOO_LONG", "100 characters", id="a long search"),
        pytest.param("/candidates?search=%00", "search", "INVALID_CHARACTER", "NUL", id="NUL"),
    ],
)
def test_invalid_query_is_refused_once_by_name_with_valid_values(
    intake: Intake, address: str, field: str, code: str, words: str
) -> None:
    [wrong] = refused(intake.send("GET", address), 400, "VALIDATION_ERROR")["details"]["fields"]
    assert (wrong["field"], wrong["code"]) == (field, code)
    assert words in wrong["message"]


@pytest.mark.parametrize(
    ("number", "rule"),
    [
        pytest.param("0915123456", "begins with +", id="a national number"),
        pytest.param("+421 915 123 456", "no spaces", id="spaces"),
        pytest.param("+0915123456", "no country's calling code begins with 0", id="a leading 0"),
        pytest.param("+4219151234567890", "at most 15 digits", id="16 digits"),
        pytest.param("+42191", "too short", id="5 digits"),
    ],
)
def test_not_e164_error_names_the_broken_rule(intake: Intake, number: str, rule: str) -> None:
    [wrong] = intake.create(intake.body(**person(phoneNumber=number))).json()["error"]["details"]["fields"]
    assert rule in wrong["message"]
    assert "like +421915123456" in wrong["message"]


def test_invalid_enum_value_is_answered_with_the_valid_ones(intake: Intake) -> None:
    body = {"name": "Online", "type": "phone", "focus": "GENERIC", "language": "EN", "duration": 10}
    [wrong] = intake.create(body, path="/agents").json()["error"]["details"]["fields"]
    assert (wrong["field"], wrong["message"]) == ("type", "This must be 'PHONE' or 'ONLINE'.")
