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


DEEP: dict[str, Any] = {"a": {"b": {"c": {"d": {"e": {}}}}}}
BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    (person(firstName=...), "candidate.firstName", "MISSING_FIELD"),
    (person(firstName=""), "candidate.firstName", "TOO_SHORT"),
    (person(firstName="   "), "candidate.firstName", "TOO_SHORT"),
    (person(firstName="x" * 101), "candidate.firstName", "TOO_LONG"),
    (person(firstName=7), "candidate.firstName", "WRONG_TYPE"),
    (person(lastName=...), "candidate.lastName", "MISSING_FIELD"),
    (person(lastName="x" * 101), "candidate.lastName", "TOO_LONG"),
    (person(firstName="a\x00b"), "candidate.firstName", "INVALID_CHARACTER"),
    (consent(...), "candidate.gdprExpiryDate", "MISSING_FIELD"),
    (consent("2026-04-02"), "candidate.gdprExpiryDate", "NOT_IN_FUTURE"),
    (consent("2020-01-01"), "candidate.gdprExpiryDate", "NOT_IN_FUTURE"),
    (consent("31.12.2030"), "candidate.gdprExpiryDate", "INVALID_DATE"),
    (consent("2030-02-30"), "candidate.gdprExpiryDate", "INVALID_DATE"),
    (consent(1924905600), "candidate.gdprExpiryDate", "INVALID_DATE"),
    (person(phoneNumber="+0915123456"), "candidate.phoneNumber", "NOT_E164"),
    (person(phoneNumber="+421 915123456"), "candidate.phoneNumber", "NOT_E164"),
    (person(phoneNumber="+421915123456\n"), "candidate.phoneNumber", "NOT_E164"),
    (person(phoneNumber=421915123456), "candidate.phoneNumber", "WRONG_TYPE"),
    (person(email="nobody"), "candidate.email", "INVALID_EMAIL"),
    (person(email="a@b\r\n.sk"), "candidate.email", "INVALID_EMAIL"),
    (person(email="x" * 250 + "@b.sk"), "candidate.email", "TOO_LONG"),
    (person(email=..., phoneNumber=...), "candidate", "CONTACT_REQUIRED"),
    (person(jobIds=[str(uuid4())]), "candidate.jobIds", "UNKNOWN_FIELD"),
    (person(jobId="7"), "candidate.jobId", "INVALID_UUID"),
    ({"candidate": "Jana"}, "candidate", "WRONG_TYPE"),
    ({"candidate": ...}, "candidate", "MISSING_FIELD"),
    ({"candidateId": str(uuid4())}, "candidateId", "CONFLICTING_FIELDS"),
    ({"candidate": ..., "candidateId": "7"}, "candidateId", "INVALID_UUID"),
    ({"agentId": ...}, "agent", "MISSING_FIELD"),
    ({"agentId": "7"}, "agentId", "INVALID_UUID"),
    ({"agentId": 7}, "agentId", "WRONG_TYPE"),
    ({"agent": "Eva"}, "agent", "WRONG_TYPE"),
    ({"job": []}, "job", "WRONG_TYPE"),
    ({"jobId": "7"}, "jobId", "INVALID_UUID"),
    ({"scheduledat": "2026-04-03T07:00:00Z"}, "scheduledat", "UNKNOWN_FIELD"),
    ({"agent_id": str(uuid4())}, "agent_id", "UNKNOWN_FIELD"),
    ({"scheduledAt": 1775200000}, "scheduledAt", "WRONG_TYPE"),
    ({"expiresAt": 1775200000}, "expiresAt", "WRONG_TYPE"),
    ({"scheduledAt": TOMORROW, "scheduleTime": AN_HOUR_LATER}, "scheduleTime", "CONFLICTING_FIELDS"),
    ({"isTest": "true"}, "isTest", "WRONG_TYPE"),
    ({"isTest": 1}, "isTest", "WRONG_TYPE"),
    ({"metadata": []}, "metadata", "WRONG_TYPE"),
    ({"metadata": DEEP}, "metadata", "METADATA_TOO_DEEP"),
    (with_keys(51), "metadata", "METADATA_TOO_MANY_KEYS"),
    ({"metadata": {"a": "x" * 10_240}}, "metadata", "METADATA_TOO_LARGE"),
    ({"metadata": {"a": ["\x00"]}}, "metadata.a.0", "INVALID_CHARACTER"),
    ({"metadata": {"a\x00b": 1}}, "metadata", "INVALID_CHARACTER"),
    (person(**{"a\x00b": 1}), "candidate", "INVALID_CHARACTER"),
    ({"items": [{"a\x00b": 1}]}, "items.0", "INVALID_CHARACTER"),
]


def test_wrong_field_of_an_interview_is_named(intake: Intake) -> None:
    for changes, field, code in BAD_FIELDS:
        assert wrong_fields(intake.create(intake.body(**changes))) == [(field, code)], changes
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


ACCEPTED: list[dict[str, Any]] = [
    {"metadata": {"a": {"b": {"c": {"d": {}}}}}},
    with_keys(50),
    {"metadata": {"a": "x" * (10_240 - 8)}},
    {"scheduledAt": None, "expiresAt": None, "candidateId": None},
    person(email=...),
    person(firstName="x" * 100),
    person(gdprExpiryDate="2026-04-03"),
    person(timezone="Europe/Bratislava"),
]


def test_values_at_the_limits_are_accepted(intake: Intake, worker: Worker) -> None:
    for changes in ACCEPTED:
        assert intake.create(intake.body(**changes)).status_code == 201, changes


MALFORMED = [
    (b"", 0),
    (b'{"agentId": }', 12),
    (b'{"agentId": "a"', 15),
    (b'{"agentId": "a", "agentId": "b"}', 0),
    (b'{"metadata": {"x": NaN}}', 0),
    (b'{"agentId": "\xff"}', 13),
    (b"\xef\xbb\xbf{}", 0),
    (b"[" * 30_000, 0),
    (b'{"metadata": {"x": ' + b"9" * 5_000 + b"}}", 0),
]
"""Bodies, each with the position at which reading ended."""


def test_malformed_json_is_refused_with_the_position(intake: Intake) -> None:
    for content, position in MALFORMED:
        details = refused(send(intake, content), 400, "MALFORMED_JSON")["details"]
        assert details["position"] == position, content[:40]
        assert details["reason"]
    for content in (b"[]", b'"text"', b"null", b"7"):
        assert refusal(send(intake, content)) == (400, "VALIDATION_ERROR"), "no object"
    assert intake.count("inbox") == 0


REASONS = (
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
)


def test_malformed_json_has_a_reason_in_plain_english() -> None:
    for content, reason in REASONS:
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


def test_a_number_beyond_every_number_is_refused(intake: Intake) -> None:
    answer = send(intake, json.dumps(intake.body(metadata={"x": 7})).replace("7}", "1e999}").encode())
    assert wrong_fields(answer)[0][0] == "metadata.x"


def test_body_is_read_only_with_a_json_content_type(intake: Intake, worker: Worker) -> None:
    content = json.dumps(intake.body()).encode()
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert refusal(send(intake, content, content_type)) == (400, "CONTENT_TYPE_NOT_JSON")
    for content_type in ("application/json; charset=utf-8", "application/vnd.acme+json"):
        assert send(intake, content, content_type).status_code == 201


def test_nul_in_a_name_or_value_is_refused_by_each_write(intake: Intake) -> None:
    """The items of a batch are refused one by one. Its other fields are refused here."""
    for path, operations in json.loads(DOCUMENT.read_text())["paths"].items():
        address = re.sub(r"\{(\w+)\}", lambda _: str(uuid4()), path)
        for method in {"post", "put", "patch"} & set(operations):
            for body in ({"a\x00b": {"c": "\x00"}}, {"a": {"b\x00": 1}}, {"a": [{"b": "\x00"}]}):
                answer = intake.send(method.upper(), address, json={"items": [{}], **body})
                assert "INVALID_CHARACTER" in {code for _, code in wrong_fields(answer)}, (method, path, body)
                assert "\\u0000" not in answer.text, (method, path, body)
    assert intake.is_untouched()


def test_invalid_idempotency_key_is_refused(intake: Intake) -> None:
    for keys in ([b""], [b"x" * 256], ["po\u0159ad\u00ed".encode()], [b"a\tb"], [b"a", b"b"]):
        headers = [(b"Authorization", b"Bearer " + intake.key.encode())] + [(b"Idempotency-Key", key) for key in keys]
        answer = intake.client.post("/interviews", json=intake.body(), headers=headers)
        assert wrong_fields(answer)[0][0] == "Idempotency-Key", keys
    assert intake.count("inbox") == 0


def send(intake: Intake, content: bytes, content_type: str = "application/json") -> Any:
    headers = {"Content-Type": content_type} if content_type else {}
    return intake.post("/interviews", content=content, headers=headers)


def test_invalid_query_is_refused_once_by_name_with_valid_values(intake: Intake) -> None:
    for address, field, code, words in (
        ("/interviews?status=FOO", "status", "INVALID_VALUE", "'SCHEDULED', 'IN_PROGRESS'"),
        ("/jobs?status=open", "status", "INVALID_VALUE", "'OPEN' or 'CLOSED'"),
        *(
            (f"/interviews?{name}=x", name, "INVALID_UUID", "must be a UUID")
            for name in ("candidateId", "agentId", "jobId")
        ),
        ("/candidates?search=", "search", "TOO_SHORT", "1 characters"),
        (f"/candidates?search={'y' * 101}", "search", "TOO_LONG", "100 characters"),
        ("/candidates?search=%00", "search", "INVALID_CHARACTER", "NUL"),
    ):
        [wrong] = refused(intake.send("GET", address), 400, "VALIDATION_ERROR")["details"]["fields"]
        assert (wrong["field"], wrong["code"]) == (field, code), address
        assert words in wrong["message"]


def test_not_e164_error_names_the_broken_rule(intake: Intake) -> None:
    for number, rule in (
        ("0915123456", "begins with +"),
        ("+421 915 123 456", "no spaces"),
        ("+0915123456", "no country's calling code begins with 0"),
        ("+4219151234567890", "at most 15 digits"),
        ("+42191", "too short"),
    ):
        [wrong] = intake.create(intake.body(**person(phoneNumber=number))).json()["error"]["details"]["fields"]
        assert rule in wrong["message"]
        assert "like +421915123456" in wrong["message"]


def test_invalid_enum_value_is_answered_with_the_valid_ones(intake: Intake) -> None:
    body = {"name": "Online", "type": "phone", "focus": "GENERIC", "language": "EN", "duration": 10}
    [wrong] = intake.create(body, path="/agents").json()["error"]["details"]["fields"]
    assert (wrong["field"], wrong["message"]) == ("type", "This must be 'PHONE' or 'ONLINE'.")
