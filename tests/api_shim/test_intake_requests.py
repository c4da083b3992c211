"""Invalid fields of requests about calls, changes and call times are named before anything is accepted."""

from typing import Any
from uuid import uuid4

import pytest

from tests.api_shim.answers import refusal, wrong_fields
from tests.api_shim.bodies import AN_HOUR_LATER, NUMBER, TOMORROW
from tests.api_shim.intake import Intake

INTERVIEW = f"/interviews/{uuid4()}"
ATTEMPTS = f"{INTERVIEW}/call-attempts"
ATTEMPT = f"{ATTEMPTS}/{uuid4()}"
PREVIEW = "/call-times/preview"
NINE = TOMORROW
TWO_TIMES = {"scheduledAt": NINE, "scheduleTime": AN_HOUR_LATER}
SIX_LEVELS: dict[str, Any] = {"metadata": {"a": {"b": {"c": {"d": {"e": {}}}}}}}
MANY_KEYS = {"metadata": {str(number): None for number in range(51)}}
OVER_10_KB = {"metadata": {"a": "x" * 10_240}}
A_CANDIDATE = str(uuid4())
TWO_PEOPLE = {"phoneNumber": NUMBER, "candidateId": A_CANDIDATE}

BAD_FIELDS = [
    pytest.param("POST", ATTEMPTS, {"when": NINE}, "when", "UNKNOWN_FIELD", id="invoke: no such field"),
    pytest.param("POST", ATTEMPTS, {"scheduledAt": 7}, "scheduledAt", "WRONG_TYPE", id="invoke: seconds for a time"),
    pytest.param("POST", ATTEMPTS, TWO_TIMES, "scheduleTime", "CONFLICTING_FIELDS", id="invoke: two times"),
    pytest.param("PATCH", ATTEMPT, {}, "scheduledAt", "MISSING_FIELD", id="move: no time"),
    pytest.param("PATCH", ATTEMPT, {"scheduledAt": None}, "scheduledAt", "WRONG_TYPE", id="move: null for a time"),
    pytest.param("PATCH", ATTEMPT, {"scheduledAt": [NINE]}, "scheduledAt", "WRONG_TYPE", id="move: a list of times"),
    pytest.param(
        "PATCH", ATTEMPT, {"scheduledAt": NINE, "status": "X"}, "status", "UNKNOWN_FIELD", id="move: a status, too"
    ),
    pytest.param("DELETE", ATTEMPT, {"scheduledAt": NINE}, "scheduledAt", "UNKNOWN_FIELD", id="delete: with a field"),
    pytest.param("DELETE", INTERVIEW, {"reason": "x"}, "reason", "UNKNOWN_FIELD", id="delete interview: with a field"),
    pytest.param("PATCH", INTERVIEW, {}, "", "NOTHING_TO_CHANGE", id="change: nothing"),
    pytest.param(
        "PATCH", INTERVIEW, {"scheduledAt": None, "status": None}, "", "NOTHING_TO_CHANGE", id="change: only nulls"
    ),
    pytest.param("PATCH", INTERVIEW, {"agentId": A_CANDIDATE}, "agentId", "UNKNOWN_FIELD", id="change: the agent"),
    pytest.param("PATCH", INTERVIEW, {"status": "UNDEFINED"}, "status", "INVALID_VALUE", id="change: no such status"),
    pytest.param("PATCH", INTERVIEW, {"status": "SCHEDULED"}, "status", "INVALID_VALUE", id="change: back to waiting"),
    pytest.param("PATCH", INTERVIEW, {"status": "completed"}, "status", "INVALID_VALUE", id="change: in small letters"),
    pytest.param("PATCH", INTERVIEW, {"status": 7}, "status", "INVALID_VALUE", id="change: a number for a status"),
    pytest.param("PATCH", INTERVIEW, {"expiresAt": 7}, "expiresAt", "WRONG_TYPE", id="change: seconds for an end"),
    pytest.param("PATCH", INTERVIEW, {"metadata": []}, "metadata", "WRONG_TYPE", id="change: metadata that is a list"),
    pytest.param("PATCH", INTERVIEW, SIX_LEVELS, "metadata", "METADATA_TOO_DEEP", id="change: metadata of six levels"),
    pytest.param(
        "PATCH",
        INTERVIEW,
        MANY_KEYS,
        "metadata",
        "METADATA_TOO_MANY_KEYS",
        id="change: 51 keys, though each is taken away",
    ),
    pytest.param("PATCH", INTERVIEW, OVER_10_KB, "metadata", "METADATA_TOO_LARGE", id="change: metadata over 10 KB"),
    pytest.param("PATCH", INTERVIEW, TWO_TIMES, "scheduleTime", "CONFLICTING_FIELDS", id="change: two times"),
    pytest.param("POST", PREVIEW, {}, "phoneNumber", "MISSING_FIELD", id="preview: nobody"),
    pytest.param("POST", PREVIEW, TWO_PEOPLE, "candidateId", "CONFLICTING_FIELDS", id="preview: two people"),
    pytest.param("POST", PREVIEW, {"phoneNumber": "0915 123"}, "phoneNumber", "NOT_E164", id="preview: a local number"),
    pytest.param("POST", PREVIEW, {"candidateId": "7"}, "candidateId", "INVALID_UUID", id="preview: a candidate of 7"),
    pytest.param(
        "POST", PREVIEW, {"phoneNumber": NUMBER, "timezone": ""}, "timezone", "TOO_SHORT", id="preview: no zone at all"
    ),
    pytest.param(
        "POST", PREVIEW, {"phoneNumber": NUMBER, "agentId": "x"}, "agentId", "UNKNOWN_FIELD", id="preview: an agent"
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "field", "code"), BAD_FIELDS)
def test_a_field_that_is_wrong_is_named(
    intake: Intake, method: str, path: str, body: dict[str, Any], field: str, code: str
) -> None:
    assert wrong_fields(intake.send(method, path, json=body)) == [(field, code)]
    assert intake.count("inbox") == 0


def test_delete_names_every_unknown_field(intake: Intake) -> None:
    answer = intake.delete(ATTEMPT, json={"a": 1, "body": 2})
    assert [field for field, _ in wrong_fields(answer)] == ["a", "body"]


def test_invalid_status_is_answered_with_the_valid_ones(intake: Intake) -> None:
    [field] = intake.patch(INTERVIEW, {"status": "FAILED"}).json()["error"]["details"]["fields"]
    named = [each for each in ("COMPLETED", "CANCELLED", "FAILED") if each in field["message"]]
    assert named == ["COMPLETED", "CANCELLED"]


BODIES = [
    pytest.param(b'{"scheduledAt": ', "application/json", "MALFORMED_JSON", id="cut off"),
    pytest.param(b"[]", "application/json", "VALIDATION_ERROR", id="a list"),
    pytest.param(b"null", "application/json", "VALIDATION_ERROR", id="null"),
    pytest.param(b"{}", "text/plain", "CONTENT_TYPE_NOT_JSON", id="text"),
]


@pytest.mark.parametrize(("content", "content_type", "code"), BODIES)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", ATTEMPTS),
        ("PATCH", ATTEMPT),
        ("DELETE", ATTEMPT),
        ("PATCH", INTERVIEW),
        ("DELETE", INTERVIEW),
        ("POST", PREVIEW),
    ],
)
def test_unreadable_body_is_refused(
    intake: Intake, method: str, path: str, content: bytes, content_type: str, code: str
) -> None:
    answer = intake.send(method, path, content=content, headers={"Content-Type": content_type})
    assert refusal(answer) == (400, code)
    assert intake.count("inbox") == 0


@pytest.mark.parametrize(("method", "path"), [("PATCH", ATTEMPT), ("PATCH", INTERVIEW), ("POST", PREVIEW)])
def test_missing_body_is_refused(intake: Intake, method: str, path: str) -> None:
    assert refusal(intake.send(method, path)) == (400, "MALFORMED_JSON")


CONDITIONS = [
    pytest.param("", id="nothing"),
    pytest.param("12", id="no quotes"),
    pytest.param('"12', id="one quote"),
    pytest.param('"a"b"', id="a quote within"),
    pytest.param('w/"12"', id="a small w"),
    pytest.param('"1" "2"', id="no comma"),
    pytest.param('*, "1"', id="an asterisk and a tag"),
    pytest.param("**", id="two asterisks"),
    pytest.param(",", id="only a comma"),
    pytest.param('"1" ,' + " ," * 20_000 + "x", id="forty thousand characters, none of them right"),
]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_invalid_condition_is_refused(intake: Intake, method: str, condition: str) -> None:
    body = {"json": {"scheduledAt": NINE}} if method == "PATCH" else {}
    answer = intake.send(method, ATTEMPT, headers={"If-Match": condition}, **body)
    assert wrong_fields(answer) == [("If-Match", "INVALID_IF_MATCH")]
    assert intake.count("inbox") == 0


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/interviews/7", "interviewId"),
        ("/interviews/7/call-attempts", "interviewId"),
        (f"{ATTEMPTS}/7", "attemptId"),
        (f"{ATTEMPTS}/7/explanation", "attemptId"),
    ],
)
def test_invalid_id_in_the_path_is_named(intake: Intake, path: str, field: str) -> None:
    assert wrong_fields(intake.get(path)) == [(field, "INVALID_UUID")]
