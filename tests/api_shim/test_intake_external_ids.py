"""External ids over HTTP: created once for the client's own id, shown, listed, changed, free after a deletion."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api_shim.app import create_app
from tests.api_shim.answers import data, refusal, refused, without_now, wrong_fields
from tests.api_shim.bodies import EMAIL, JOB, NUMBER, TOMORROW, candidate
from tests.api_shim.intake import Intake, Worker
from tests.architecture.rules import does, does_not
from tests.support.servers import serving

OURS = "ats-4711"


@dataclass(frozen=True)
class Noun:
    path: str
    body: Mapping[str, Any]
    other: Mapping[str, Any]
    """A field with another value."""
    change: Mapping[str, Any]


PERSON = Noun("/candidates", candidate(), {"lastName": "Other"}, {"status": "IN_PROCESS"})
A_JOB = Noun("/jobs", JOB, {"title": "Another title"}, {"status": "CLOSED"})
RECORDS = [pytest.param(PERSON, id="candidate"), pytest.param(A_JOB, id="job")]
each_record = pytest.mark.parametrize("noun", RECORDS)


def made(intake: Intake, noun: Noun, external_id: str | None = OURS, **fields: Any) -> httpx.Response:
    return intake.post(noun.path, {**noun.body, "externalId": external_id, **fields})


def asked(intake: Intake, external_id: str = OURS, **fields: Any) -> httpx.Response:
    """Request an interview with an inline candidate."""
    return intake.create(intake.body(scheduledAt=TOMORROW, externalId=external_id, **fields))


# ---- candidates and jobs


@does("F7-9")
@each_record
def test_same_id_and_content_returns_the_record_that_exists(intake: Intake, noun: Noun) -> None:
    one = data(made(intake, noun), 201)
    address = f"{noun.path}/{one['id']}"
    assert one["externalId"] == OURS
    assert data(intake.get(address)) == one
    assert data(made(intake, noun), 200) == one
    changed = data(intake.patch(address, dict(noun.change)))
    assert data(made(intake, noun), 200) == changed == data(intake.get(address))
    assert intake.ids(noun.path) == [one["id"]]


@does_not("F7-9")
@each_record
def test_same_id_with_other_content_is_refused(intake: Intake, noun: Noun) -> None:
    one = data(made(intake, noun), 201)
    error = refused(made(intake, noun, **noun.other), 409, "EXTERNAL_ID_REUSED")
    kind = noun.path.strip("/").removesuffix("s")
    assert error["details"] == {"field": "externalId", "resourceType": kind, "resourceId": one["id"]}
    assert data(intake.get(f"{noun.path}/{one['id']}")) == one
    assert intake.ids(noun.path) == [one["id"]]


@each_record
def test_records_without_an_external_id_are_never_the_same(intake: Intake, noun: Noun) -> None:
    ids = {data(intake.post(noun.path, dict(noun.body)), 201)["id"] for _ in range(2)}
    ids.add(data(made(intake, noun, None), 201)["id"])
    assert len(ids) == 3
    assert {each["externalId"] for each in data(intake.get(noun.path))["items"]} == {None}


@each_record
def test_external_id_is_set_changed_and_cleared(intake: Intake, noun: Noun) -> None:
    one, other = data(made(intake, noun, None), 201), data(made(intake, noun), 201)
    address = f"{noun.path}/{one['id']}"
    refused(intake.patch(address, {"externalId": OURS, **noun.change}), 409, "EXTERNAL_ID_REUSED")
    assert data(intake.get(address)) == one, "nothing is changed"
    assert data(intake.patch(address, {"externalId": "b"}))["externalId"] == "b"
    assert data(intake.patch(address, {"externalId": "b"}))["externalId"] == "b", "its own id is no conflict"
    assert data(intake.patch(address, dict(noun.change)))["externalId"] == "b"
    refused(made(intake, noun, "b"), 409, "EXTERNAL_ID_REUSED")
    assert data(intake.patch(address, {"externalId": None}))["externalId"] is None
    assert data(intake.patch(f"{noun.path}/{other['id']}", {"externalId": "b"}))["externalId"] == "b"
    assert data(made(intake, noun), 201)["id"] not in {one["id"], other["id"]}, "a changed id is free"


@each_record
def test_deleted_record_frees_its_id_and_keeps_no_text(intake: Intake, noun: Noun) -> None:
    one = data(made(intake, noun), 201)
    assert data(intake.delete(f"{noun.path}/{one['id']}")) is True
    table = noun.path.strip("/")
    assert intake.ask(f"SELECT external_id, content_hash FROM {table}") == [(None, None)]
    assert data(made(intake, noun), 201)["id"] != one["id"]


@each_record
def test_external_id_has_1_to_255_characters(intake: Intake, noun: Noun) -> None:
    longest = "\N{WOMAN}" * 255
    assert data(made(intake, noun, longest), 201)["externalId"] == longest
    assert data(made(intake, noun, longest), 200)["externalId"] == longest
    for wrong, code in (("x" * 256, "TOO_LONG"), ("", "TOO_SHORT"), (7, "WRONG_TYPE")):
        assert wrong_fields(intake.post(noun.path, {**noun.body, "externalId": wrong})) == [("externalId", code)]


@each_record
def test_stored_answer_contains_no_external_id(intake: Intake, noun: Noun) -> None:
    keys = [{"Idempotency-Key": key} for key in ("first", "second", "third")]
    body = {**noun.body, "externalId": OURS}
    first, second = (intake.post(noun.path, body, headers=headers) for headers in keys[:2])
    other = intake.post(noun.path, {**body, **noun.other}, headers=keys[2])
    assert (first.status_code, second.status_code, other.status_code) == (201, 200, 409)
    assert OURS not in str(intake.ask("SELECT answer FROM inbox"))
    for headers, answer in zip(keys[:2], (first, second), strict=True):
        replayed = intake.post(noun.path, body, headers=headers)
        assert replayed.headers["Idempotent-Replayed"] == "true"
        assert data(replayed, answer.status_code) == data(answer, answer.status_code)
    intake.delete(f"{noun.path}/{data(first, 201)['id']}")
    assert data(intake.post(noun.path, body, headers=keys[0]), 201)["externalId"] is None


def test_racing_requests_of_two_processes_create_one_record(intake: Intake) -> None:
    noun = A_JOB
    with serving(create_app(intake.settings)) as url, httpx.Client(base_url=url, timeout=60) as client:
        processes = (intake, Intake(**{**vars(intake), "client": client}))
        with ThreadPoolExecutor(8) as pool:
            same = list(pool.map(lambda n: made(processes[n % 2], noun), range(16)))
            mixed = list(pool.map(lambda n: made(processes[n % 2], noun, "b", **_of(noun, n // 2 % 2)), range(16)))
    assert sorted(each.status_code for each in same) == [200] * 15 + [201]
    assert len({each.json()["data"]["id"] for each in same}) == 1
    assert sorted(each.status_code for each in mixed) == [200] * 7 + [201] + [409] * 8
    assert len(intake.ids(noun.path)) == 2


def _of(noun: Noun, content: int) -> Mapping[str, Any]:
    return noun.other if content else {}


# ---- interviews


@does("F7-9")
def test_same_id_and_content_returns_the_interview_that_exists(intake: Intake, worker: Worker) -> None:
    one = data(asked(intake), 201)
    assert one["externalId"] == OURS
    address = f"/interviews/{one['id']}"
    assert data(intake.get(address)) == one
    assert without_now(data(asked(intake), 200)) == without_now(one)
    intake.patch(address, {"metadata": {"a": 1}})
    assert without_now(data(asked(intake), 200)) == without_now(data(intake.get(address)))
    assert data(asked(intake), 200)["metadata"] == {"a": 1}
    assert [intake.count(table) for table in ("interviews", "attempts", "candidates")] == [1, 1, 1]


@does_not("F7-9")
def test_interview_id_with_other_content_is_refused(intake: Intake, worker: Worker) -> None:
    one = data(asked(intake), 201)
    for other in ({"isTest": True}, {"candidate": candidate(lastName="Other")}, {"metadata": {"a": 1}}):
        error = refused(asked(intake, **other), 409, "EXTERNAL_ID_REUSED")
        assert error["details"] == {"field": "externalId", "resourceType": "interview", "resourceId": one["id"]}
    assert [intake.count(table) for table in ("interviews", "attempts", "candidates")] == [1, 1, 1]


def test_refused_interview_keeps_its_external_id_free(intake: Intake, worker: Worker) -> None:
    assert refusal(asked(intake, candidate=candidate(phoneNumber=...))) == (400, "PHONE_NUMBER_REQUIRED")
    assert data(asked(intake), 201)["externalId"] == OURS


def test_repeated_request_is_not_judged_again(intake: Intake, worker: Worker) -> None:
    """A retry of an accepted request must not fail because the agent, or the country, was removed since."""
    one = data(asked(intake), 201)
    assert data(intake.delete(f"/agents/{intake.seeded.agent_id}")) is True
    assert intake.set_settings(allowedCountries=["DE"]).status_code == 200
    assert data(asked(intake), 200)["id"] == one["id"]
    assert refusal(asked(intake, "b")) == (404, "RESOURCE_NOT_FOUND")


def test_other_name_of_the_time_is_the_same_content(intake: Intake, worker: Worker) -> None:
    one = data(asked(intake), 201)
    again = intake.create(intake.body(scheduleTime=TOMORROW, externalId=OURS))
    assert data(again, 200)["id"] == one["id"]


def test_external_id_of_an_interview_is_set_and_changed(intake: Intake, worker: Worker) -> None:
    other = data(asked(intake), 201)
    one = intake.interview(scheduledAt=TOMORROW)
    address = f"/interviews/{one['id']}"
    assert one["externalId"] is None
    refused(intake.patch(address, {"externalId": OURS, "metadata": {"a": 1}}), 409, "EXTERNAL_ID_REUSED")
    assert data(intake.get(address))["metadata"] == {}
    for external_id in ("b", "b", "c"):
        assert data(intake.patch(address, {"externalId": external_id}))["externalId"] == external_id
    assert data(intake.patch(address, {"externalId": None, "metadata": {"a": 1}}))["externalId"] == "c"
    refused(asked(intake, "c"), 409, "EXTERNAL_ID_REUSED")
    assert intake.ids("/interviews", externalId="c") == [one["id"]]
    assert intake.ids("/interviews", externalId=OURS) == [other["id"]]
    assert intake.ids("/interviews", externalId="b") == []
    assert wrong_fields(intake.patch(address, {"externalId": ""})) == [("externalId", "TOO_SHORT")]


def test_erased_person_leaves_no_hash_of_a_request(intake: Intake, worker: Worker) -> None:
    one = data(asked(intake), 201)
    assert data(intake.delete(f"/candidates/{one['candidateId']}")) is True
    assert intake.ask("SELECT content_hash FROM interviews") == [(None,)]
    refused(asked(intake), 409, "EXTERNAL_ID_REUSED")
    assert intake.count("interviews") == 1


def test_replayed_interview_shows_its_external_id(intake: Intake, worker: Worker) -> None:
    body, keys = intake.body(scheduledAt=TOMORROW, externalId=OURS), [{"Idempotency-Key": key} for key in "ab"]
    one, again = (intake.post("/interviews", body, headers=headers) for headers in keys)
    assert (one.status_code, again.status_code) == (201, 200)
    for headers, status in zip(keys, (201, 200), strict=True):
        replayed = intake.post("/interviews", body, headers=headers)
        assert replayed.headers["Idempotent-Replayed"] == "true"
        assert data(replayed, status)["externalId"] == OURS


# ---- inline candidates and jobs


def test_inline_candidate_that_exists_is_used(intake: Intake, worker: Worker) -> None:
    person = candidate(externalId="p")
    known = intake.made("/candidates", person)
    first, second = (data(asked(intake, each, candidate=person), 201) for each in ("1", "2"))
    assert {first["candidateId"], second["candidateId"]} == {known["id"]}
    assert second["callAttempts"][0]["warnings"] == ["CANDIDATE_HAS_OPEN_INTERVIEW"]
    assert intake.count("candidates") == 1
    other = candidate(externalId="p", email=EMAIL, phoneNumber=NUMBER[:-1] + "7")
    error = refused(asked(intake, "3", candidate=other), 409, "EXTERNAL_ID_REUSED")
    assert error["details"]["field"] == "candidate.externalId"


def test_inline_job_that_exists_is_used_and_assigned(intake: Intake, worker: Worker) -> None:
    job, person = {**JOB, "externalId": "j"}, candidate(externalId="p")
    first = data(asked(intake, "1", candidate=person, job=job), 201)
    second = data(asked(intake, "2", candidate=candidate(externalId="q"), job=job), 201)
    third = data(asked(intake, "3", candidate=person, job=job), 201)
    assert {each["jobId"] for each in (first, second, third)} == set(intake.ids("/jobs"))
    for each in (first, second):
        assert data(intake.get(f"/candidates/{each['candidateId']}"))["jobIds"] == [first["jobId"]]
    wrong = {**job, "title": "Another title"}
    error = refused(asked(intake, "4", job=wrong), 409, "EXTERNAL_ID_REUSED")
    assert error["details"] == {"field": "job.externalId", "resourceType": "job", "resourceId": first["jobId"]}
    assert intake.count("candidates") == 2


def test_unknown_external_id_of_a_candidate_is_no_reference(intake: Intake, worker: Worker) -> None:
    assert wrong_fields(asked(intake, candidate={"externalId": str(uuid4())})) != []
    assert intake.is_untouched()
