"""Invalid fields of requests about calls, changes and call times are named before anything is accepted."""

from typing import Any
from uuid import uuid4

from tests.api_shim.answers import refusal, wrong_fields
from tests.api_shim.bodies import AN_HOUR_LATER, NUMBER, TOMORROW
from tests.api_shim.intake import Intake

INTERVIEW = f"/interviews/{uuid4()}"
ATTEMPTS = f"{INTERVIEW}/call-attempts"
ATTEMPT = f"{ATTEMPTS}/{uuid4()}"
PREVIEW = "/call-times/preview"
NINE = TOMORROW
TWO_TIMES = {"scheduledAt": NINE, "scheduleTime": AN_HOUR_LATER}
OVER_10_KB = {"metadata": {"a": "x" * 10_240}}
A_CANDIDATE = str(uuid4())
TWO_PEOPLE = {"phoneNumber": NUMBER, "candidateId": A_CANDIDATE}

BAD_FIELDS: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("POST", ATTEMPTS, {"when": NINE}, "when", "UNKNOWN_FIELD"),
    ("POST", ATTEMPTS, {"scheduledAt": 7}, "scheduledAt", "WRONG_TYPE"),
    ("POST", ATTEMPTS, TWO_TIMES, "scheduleTime", "CONFLICTING_FIELDS"),
    ("PATCH", ATTEMPT, {}, "scheduledAt", "MISSING_FIELD"),
    ("PATCH", ATTEMPT, {"scheduledAt": None}, "scheduledAt", "WRONG_TYPE"),
    ("PATCH", ATTEMPT, {"scheduledAt": NINE, "status": "X"}, "status", "UNKNOWN_FIELD"),
    ("DELETE", ATTEMPT, {"scheduledAt": NINE}, "scheduledAt", "UNKNOWN_FIELD"),
    ("DELETE", INTERVIEW, {"reason": "x"}, "reason", "UNKNOWN_FIELD"),
    ("PATCH", INTERVIEW, {}, "", "NOTHING_TO_CHANGE"),
    ("PATCH", INTERVIEW, {"agentId": A_CANDIDATE}, "agentId", "UNKNOWN_FIELD"),
    ("PATCH", INTERVIEW, {"scheduledAt": None, "status": None}, "", "NOTHING_TO_CHANGE"),
    ("PATCH", INTERVIEW, {"status": "SCHEDULED"}, "status", "INVALID_VALUE"),
    ("PATCH", INTERVIEW, {"status": "completed"}, "status", "INVALID_VALUE"),
    ("PATCH", INTERVIEW, {"expiresAt": 7}, "expiresAt", "WRONG_TYPE"),
    ("PATCH", INTERVIEW, OVER_10_KB, "metadata", "METADATA_TOO_LARGE"),
    ("PATCH", INTERVIEW, TWO_TIMES, "scheduleTime", "CONFLICTING_FIELDS"),
    ("POST", PREVIEW, {}, "phoneNumber", "MISSING_FIELD"),
    ("POST", PREVIEW, TWO_PEOPLE, "candidateId", "CONFLICTING_FIELDS"),
    ("POST", PREVIEW, {"phoneNumber": "0915 123"}, "phoneNumber", "NOT_E164"),
    ("POST", PREVIEW, {"candidateId": "7"}, "candidateId", "INVALID_UUID"),
    ("POST", PREVIEW, {"phoneNumber": NUMBER, "timezone": ""}, "timezone", "TOO_SHORT"),
    ("POST", PREVIEW, {"phoneNumber": NUMBER, "agentId": "x"}, "agentId", "UNKNOWN_FIELD"),
]


def test_wrong_field_of_a_request_is_named(intake: Intake) -> None:
    for method, path, body, field, code in BAD_FIELDS:
        assert wrong_fields(intake.send(method, path, json=body)) == [(field, code)], (method, path, body)
    assert intake.count("inbox") == 0


def test_delete_names_every_unknown_field(intake: Intake) -> None:
    answer = intake.delete(ATTEMPT, json={"a": 1, "body": 2})
    assert [field for field, _ in wrong_fields(answer)] == ["a", "body"]


def test_invalid_status_is_answered_with_the_valid_ones(intake: Intake) -> None:
    [field] = intake.patch(INTERVIEW, {"status": "FAILED"}).json()["error"]["details"]["fields"]
    named = [each for each in ("COMPLETED", "CANCELLED", "FAILED") if each in field["message"]]
    assert named == ["COMPLETED", "CANCELLED"]


BODIES = [
    (b'{"scheduledAt": ', "application/json", "MALFORMED_JSON"),
    (b"[]", "application/json", "VALIDATION_ERROR"),
    (b"null", "application/json", "VALIDATION_ERROR"),
    (b"{}", "text/plain", "CONTENT_TYPE_NOT_JSON"),
]
WITH_A_BODY = [("POST", ATTEMPTS), ("PATCH", ATTEMPT), ("PATCH", INTERVIEW), ("POST", PREVIEW)]


def test_unreadable_body_is_refused(intake: Intake) -> None:
    for method, path in (*WITH_A_BODY, ("DELETE", ATTEMPT), ("DELETE", INTERVIEW)):
        for content, content_type, code in BODIES:
            answer = intake.send(method, path, content=content, headers={"Content-Type": content_type})
            assert refusal(answer) == (400, code), (method, path, content)
    for method, path in WITH_A_BODY[1:]:
        assert refusal(intake.send(method, path)) == (400, "MALFORMED_JSON"), "no body"
    assert intake.count("inbox") == 0


CONDITIONS = ["", "12", '"12', '"a"b"', 'w/"12"', '"1" "2"', '*, "1"', "**", ",", '"1" ,' + " ," * 20_000 + "x"]
"""The last one has forty thousand characters and is wrong at its end."""


def test_invalid_condition_is_refused(intake: Intake) -> None:
    for condition in CONDITIONS:
        for method, body in (("PATCH", {"json": {"scheduledAt": NINE}}), ("DELETE", {})):
            answer = intake.send(method, ATTEMPT, headers={"If-Match": condition}, **body)
            assert wrong_fields(answer) == [("If-Match", "INVALID_IF_MATCH")], condition[:20]
    assert intake.count("inbox") == 0


def test_invalid_id_in_the_path_is_named(intake: Intake) -> None:
    for path, field in (
        ("/interviews/7", "interviewId"),
        ("/interviews/7/call-attempts", "interviewId"),
        (f"{ATTEMPTS}/7", "attemptId"),
        (f"{ATTEMPTS}/7/explanation", "attemptId"),
    ):
        assert wrong_fields(intake.get(path)) == [(field, "INVALID_UUID")]
