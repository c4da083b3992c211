"""GET /events over HTTP: events of one company or of an ATS, from a place on, for keys with `read:webhooks`."""

from http import HTTPStatus
from typing import Any

import pytest

from scheduler.domain.principal import KeyKind
from scheduler.domain.webhook import EventType
from scheduler.use_cases.operations.number_events import NumberEvents
from tests.api_shim.answers import refusal
from tests.api_shim.bodies import candidate
from tests.api_shim.intake import Intake, Worker
from tests.architecture.rules import does, does_not
from tests.support.builders import RecordingHints

READ = "read:webhooks"


@pytest.fixture
def reader(intake: Intake) -> Intake:
    return intake.with_new_key(READ)


def events(reader: Intake, **params: Any) -> Any:
    NumberEvents(reader.database, RecordingHints(), reader.now).all()
    answer = reader.send("GET", "/events", params=params)
    assert answer.status_code == HTTPStatus.OK, answer.text
    return answer.json()["data"]


@does("F7-1", "F7-2")
def test_new_interview_is_read_as_events(intake: Intake, worker: Worker, reader: Intake) -> None:
    interview = intake.interview()
    page = events(reader)
    assert [each["type"] for each in page["items"]] == [
        "interview.scheduled",
        "call_attempt.scheduled",
        "command.applied",
    ]
    scheduled, call, command = page["items"]
    assert [each["sequence"] for each in page["items"]] == [1, 2, 3]
    assert scheduled["event"] == scheduled["type"]
    assert scheduled["data"] == {
        "companyId": str(intake.seeded.company_id),
        "interviewId": interview["id"],
        "candidateId": interview["candidateId"],
        "status": "SCHEDULED",
    }
    assert call["data"]["callAttemptId"] == interview["callAttempts"][0]["id"]
    assert call["data"]["dueAt"] == interview["scheduledAt"]
    assert command["data"]["status"] == "APPLIED"
    assert not page["hasMore"]


@does("F7-1")
def test_reader_continues_after_the_last_place(intake: Intake, worker: Worker, reader: Intake) -> None:
    intake.interview()
    first = events(reader, limit=2)
    rest = events(reader, after=first["after"])
    assert first["hasMore"]
    assert [len(first["items"]), len(rest["items"])] == [2, 1]
    assert events(reader, after=rest["after"]) == {"items": [], "after": rest["after"], "hasMore": False}


def test_events_are_filtered_by_types(intake: Intake, worker: Worker, reader: Intake) -> None:
    intake.interview()
    found = events(reader, types="interview.scheduled, command.applied")["items"]
    assert [each["type"] for each in found] == ["interview.scheduled", "command.applied"]


def test_wrong_query_is_named(reader: Intake) -> None:
    for params, text in (
        ({"types": "interview.moved"}, "types"),
        ({"after": -1}, "after"),
        ({"after": 2**63}, "after"),
        ({"page": 1}, "page"),
        ({"from": "yesterday"}, "with Z or an offset"),
        ({"to": "2026-04-02T08:00:00"}, "with Z or an offset"),
        ({"types": ["ping", "ping"]}, "Separate types by commas"),
    ):
        answer = reader.send("GET", "/events", params=params)
        assert refusal(answer) == (HTTPStatus.BAD_REQUEST, "VALIDATION_ERROR"), params
        assert text in answer.text, params
    answer = reader.send("GET", "/events", params={"types": "interview.moved,ping"})
    [error] = answer.json()["error"]["details"]["fields"]
    assert [each for each in EventType if each not in error["message"]] == [], "all types are listed"


@does_not("F7-1")
def test_other_keys_read_no_events_of_the_company(intake: Intake, worker: Worker, reader: Intake) -> None:
    intake.interview()
    stranger = intake.with_new_key(READ, kind=KeyKind.ATS)
    assert events(reader)["items"]
    assert events(intake.with_key_of_another_company().with_new_key(READ))["items"] == []
    assert events(stranger)["items"] == []
    answer = stranger.send("GET", "/events", params={"companyId": str(intake.seeded.company_id)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (HTTPStatus.FORBIDDEN, "RESOURCE_ACCESS_DENIED")


@does("F7-1")
def test_ats_reads_the_events_of_its_companies(intake: Intake, worker: Worker) -> None:
    principal, key = intake.new_key(READ, kind=KeyKind.ATS)
    intake.adopt(principal)
    ats = intake.with_key(key)
    intake.interview()
    of_all = events(ats)["items"]
    assert {each["type"] for each in of_all} >= {"interview.scheduled", "call_attempt.scheduled"}
    assert events(ats, companyId=str(intake.seeded.company_id))["items"] == of_all


# ---- readers that come and go


@does("F7-1")
def test_each_accepted_change_is_read_once(intake: Intake, worker: Worker, reader: Intake) -> None:
    interview = intake.interview()
    path = f"/interviews/{interview['id']}"
    assert intake.patch(path, {"scheduledAt": "2026-04-03T10:00:00Z"}).status_code < 300
    assert intake.delete(path).status_code == HTTPStatus.OK
    items = events(reader, limit=100)["items"]
    assert [each["type"] for each in items[3:]] == [
        "call_attempt.rescheduled",
        "command.applied",
        "call_attempt.cancelled",
        "interview.cancelled",
        "command.applied",
    ]
    assert [each["sequence"] for each in items] == list(range(1, 9))
    assert [each["place"] for each in items] == sorted({each["place"] for each in items})


@does_not("F7-1")
def test_rejected_request_is_no_event(intake: Intake, worker: Worker, reader: Intake) -> None:
    assert intake.create(intake.body(unknown="field")).status_code == HTTPStatus.BAD_REQUEST
    assert events(reader)["items"] == []


@does_not("F7-2")
def test_event_contains_no_word_of_a_client(intake: Intake, worker: Worker, reader: Intake) -> None:
    person = candidate(firstName="Canaria", lastName="Canary", email="canary@example.com")
    body = intake.body(candidate=person, metadata={"note": "Canary"}, externalId="ats-4711")
    interview = intake.create(body).json()["data"]
    path = f"/interviews/{interview['id']}"
    intake.patch(path, {"metadata": {"note": "Canary again"}})
    intake.delete(path)
    items = events(reader, limit=100)["items"]
    assert {each["data"].get("externalId") for each in items} == {"ats-4711"}, "it is the client's own id"
    for secret in ("anar", person["phoneNumber"].lstrip("+"), "example.com"):
        assert secret not in str(items)


@does_not("F7-6")
def test_period_that_ends_before_it_begins_is_named(reader: Intake) -> None:
    for until in ("2026-04-02T00:00:00Z", "2026-04-03T00:00:00Z"):
        answer = reader.send("GET", "/events", params={"from": "2026-04-03T00:00:00Z", "to": until})
        assert answer.status_code == HTTPStatus.BAD_REQUEST
        [field] = answer.json()["error"]["details"]["fields"]
        assert (field["field"], field["code"]) == ("to", "INVALID_RANGE")
        assert "from" in field["message"]


@does("F7-6")
def test_one_event_is_read_like_in_the_list(intake: Intake, worker: Worker, reader: Intake) -> None:
    intake.interview()
    shown = events(reader)["items"]
    assert [reader.send("GET", f"/events/{each['deliveryId']}").json()["data"] for each in shown] == shown
    stranger = intake.with_key_of_another_company()
    for client, event_id in ((reader, intake.seeded.company_id), (stranger, shown[0]["deliveryId"])):
        assert client.send("GET", f"/events/{event_id}").status_code == HTTPStatus.NOT_FOUND
