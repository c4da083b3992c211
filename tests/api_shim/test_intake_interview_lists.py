"""The list of interviews over HTTP: newest first, by candidate, agent, job and status, each with its attempts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, event

from scheduler.domain.attempt import Cancelled, Reason
from tests.api_shim.answers import data, pagination_with_cursor, without_now
from tests.api_shim.bodies import TOMORROW, candidate
from tests.api_shim.calls import a_call, an_online_agent
from tests.api_shim.intake import Intake, Worker
from tests.architecture.rules import does_not
from tests.support.builders import (
    Tenant,
    a_pending_attempt,
)

JOB = {"title": "Beekeeper", "description": "Knows where each of them lives."}


def listed(intake: Intake, **asked: Any) -> list[str]:
    return [each["id"] for each in data(intake.get("/interviews", **asked))["items"]]


def test_interviews_are_listed_newest_first_page_by_page(intake: Intake, worker: Worker) -> None:
    ids = [str(a_call(intake, metadata={"n": number}).interview_id) for number in range(3)][::-1]
    whole = data(intake.get("/interviews"))
    assert [each["id"] for each in whole["items"]] == ids
    for each in whole["items"]:
        assert without_now(each) == without_now(data(intake.get(f"/interviews/{each['id']}")))
    assert whole["pagination"] == pagination_with_cursor(3)
    assert listed(intake, limit=2) == ids[:2]
    assert listed(intake, limit=2, page=2) == ids[2:]
    assert listed(intake, page=9) == []


def test_interviews_list_their_attempts_oldest_first(intake: Intake, tenant: Tenant) -> None:
    first = a_pending_attempt(tenant)
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    second = a_pending_attempt(tenant, interview_id=first.interview_id)
    gone = a_pending_attempt(tenant)
    tenant.take(gone, Cancelled(reason=Reason.CANCELLED_BY_USER))
    tenant.change("UPDATE attempts SET deleted_at = ended_at WHERE id = :id", id=gone.id)
    content = {each["id"]: each["callAttempts"] for each in data(intake.get("/interviews"))["items"]}
    assert [each["id"] for each in content[str(first.interview_id)]] == [str(first.id), str(second.id)]
    assert content[str(gone.interview_id)] == []


def test_interviews_are_found_by_candidate_agent_and_job(intake: Intake, worker: Worker) -> None:
    plain = a_call(intake)
    about_a_job = intake.interview(scheduledAt=TOMORROW, job=JOB)
    agent = str(an_online_agent(intake))
    online = intake.interview(agentId=agent, candidate=..., candidateId=about_a_job["candidateId"])
    person = data(intake.get(plain.interview))["candidateId"]
    for asked, expected in (
        ({"candidateId": person}, [str(plain.interview_id)]),
        ({"candidateId": about_a_job["candidateId"]}, [online["id"], about_a_job["id"]]),
        ({"agentId": agent}, [online["id"]]),
        ({"agentId": str(intake.seeded.agent_id)}, [about_a_job["id"], str(plain.interview_id)]),
        ({"jobId": about_a_job["jobId"]}, [about_a_job["id"]]),
        ({"jobId": about_a_job["jobId"], "agentId": agent}, []),
        ({"candidateId": about_a_job["candidateId"], "agentId": agent, "status": "SCHEDULED"}, [online["id"]]),
        ({"candidateId": str(uuid4())}, []),
    ):
        assert listed(intake, **asked) == expected, asked


def test_interviews_of_deleted_candidates_agents_and_jobs_remain(intake: Intake, worker: Worker) -> None:
    one = intake.interview(scheduledAt=TOMORROW, job=JOB)
    for path in (f"/candidates/{one['candidateId']}", f"/agents/{one['agentId']}", f"/jobs/{one['jobId']}"):
        assert data(intake.delete(path)) is True
    for name in ("candidateId", "agentId", "jobId"):
        [content] = data(intake.get("/interviews", **{name: one[name]}))["items"]
        assert content["id"] == one["id"]
        assert content["status"] == "CANCELLED", "the person was erased"
        assert {each: content[each] for each in ("candidateId", "agentId", "jobId")} == {
            each: one[each] for each in ("candidateId", "agentId", "jobId")
        }
    assert data(intake.delete(f"/interviews/{one['id']}")) is True
    assert listed(intake) == []


@does_not("F4-8")
def test_the_end_of_a_job_leaves_its_interviews_alone(intake: Intake, worker: Worker) -> None:
    one = intake.interview(scheduledAt=TOMORROW, job=JOB)
    assert data(intake.delete(f"/jobs/{one['jobId']}")) is True
    shown = data(intake.get(f"/interviews/{one['id']}"))
    assert without_now(shown) == without_now(one)
    assert data(intake.get(f"/candidates/{one['candidateId']}"))["jobIds"] == []


def test_long_list_needs_no_more_queries_than_a_short_one(intake: Intake, tenant: Tenant) -> None:
    for _ in range(6):  # a page follows both lists, so both are counted
        a_pending_attempt(tenant)
    with _counting() as few:
        assert len(listed(intake, limit=1)) == 1
    with _counting() as many:
        assert len(listed(intake, limit=5)) == 5
    assert len(few) == len(many) > 0


def test_interview_list_contains_no_personal_data(intake: Intake, worker: Worker) -> None:
    a_call(intake)
    said = intake.get("/interviews").text
    assert not [each for each in candidate().values() if each in said and each != "2030-12-31"]


@contextmanager
def _counting() -> Iterator[list[str]]:
    """The statements about interviews and attempts that are sent inside the block."""
    said: list[str] = []

    def note(*content: Any) -> None:
        if "attempts" in content[2] or "interviews" in content[2]:
            said.append(content[2])

    event.listen(Engine, "before_cursor_execute", note)
    yield said
    event.remove(Engine, "before_cursor_execute", note)
