"""A partner's whole day with the built Python client, against a running system, webhooks included."""

import importlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.acceptance.conftest import WholeSystem
from tests.support.built_client import built, installed
from tests.support.webhook_receivers import WebhookReceiver, a_webhook_receiver, answers

CALLER, ANOTHER_CALLER, NUMBER, ANOTHER_NUMBER = "+421221020007", "+421221020008", "+421915000701", "+421915000702"
SCOPES = ",".join(
    f"{verb}:{resource}"
    for resource in ("companies", "agents", "jobs", "candidates", "interviews", "phone-numbers", "webhooks")
    for verb in ("read", "write")
    if (verb, resource) != ("write", "phone-numbers")
)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package `duecall_client`, as its wheel installs it."""
    folder = tmp_path_factory.mktemp("client")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(installed(built(folder), folder / "site"))
        yield importlib.import_module("duecall_client")


@pytest.fixture(scope="module")
def partner(whole: WholeSystem, package: Any) -> Iterator[Any]:
    """The program of a partner, with a key that the operator has created."""
    limits = ("--per-minute", "6000", "--per-hour", "360000")
    key = whole.duecall("keys", "create", "--ats", "Talent", "--scopes", SCOPES, *limits).strip()
    program: Any = importlib.import_module("tests.client.partners_day")
    with package.Client(f"{whole.running.apiUrl}/v1", key) as client:
        yield program.Partner(client=client)


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with a_webhook_receiver(answers(204)) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def models(package: Any) -> Any:
    return importlib.import_module(f"{package.__name__}.generated.models")


def received(package: Any, receiver: WebhookReceiver, *secrets: str) -> list[Any]:
    """List the verified webhooks, in the order in which they arrived."""
    return [package.verify_webhook(visit.body, visit.headers, secrets) for visit in list(receiver.visits)]


def test_partner_does_a_whole_day_with_the_client(
    whole: WholeSystem, package: Any, partner: Any, models: Any, receiver: WebhookReceiver
) -> None:
    # The morning: a company, for which the operator adds a number, and a webhook.
    company_id: UUID = partner.open_company("Difference Engines")
    whole.duecall("numbers", "add", str(company_id), CALLER)
    agent_id, job_id = partner.prepare(company_id, CALLER)
    assert partner.agents(company_id) == [agent_id]
    webhook = partner.receive_at(receiver.url, list(models.EventType))
    assert partner.ping(webhook.id).success
    [ping] = received(package, receiver, webhook.signing_secret)
    assert (ping.type, ping.sequence) == ("ping", None)

    # Two interviews for tomorrow. A repeated request creates no other.
    began, tomorrow = whole.now(), whole.in_seconds(86_400)
    of_all = {"agent_id": agent_id, "job_id": job_id, "at": tomorrow}
    people = [partner.add_candidate(company_id, job_id, number, number[-3:]) for number in (NUMBER, ANOTHER_NUMBER)]
    first, second = (
        partner.schedule(company_id, candidate_id=person, external_id=f"application-{place}", **of_all)
        for place, person in enumerate(people)
    )
    assert first.status == "SCHEDULED"
    again = partner.schedule(company_id, candidate_id=people[0], external_id="application-0", **of_all)
    assert again.id == first.id
    with pytest.raises(package.ApiError) as refused:
        partner.schedule(company_id, candidate_id=people[1], external_id="application-0", **of_all)
    assert (refused.value.status, refused.value.code) == (409, "EXTERNAL_ID_REUSED")
    scheduled = partner.interviews(company_id, models.InterviewStatus.SCHEDULED, began)
    assert {each.id for each in scheduled} == {first.id, second.id}
    assert len(partner.calls(company_id, models.AttemptState.PENDING)) == 2

    # The secret is replaced. Then one call is wanted now.
    secrets = [webhook.signing_secret, partner.rotate(webhook.id)]
    whole.client.plan(to=NUMBER, outcome="answered", ring_s=0.3, talk_s=0.3)
    [attempt] = first.call_attempts
    moved = partner.move(company_id, first.id, attempt.id, whole.in_seconds(2))
    assert moved.scheduled_at < began + timedelta(hours=1)

    # The partner learns what happened by events, and by webhooks.
    read = [
        each for each in partner.events_until("interview.completed") if each.data.get("interviewId") == str(first.id)
    ]
    assert [each.sequence for each in read] == list(range(1, len(read) + 1))
    # An answer is not reported if the end of the call is known first.
    assert [each.type for each in read if each.type not in {"command.applied", "call_attempt.answered"}] == [
        *("interview.scheduled", "call_attempt.scheduled", "call_attempt.rescheduled"),
        *("call_attempt.started", "interview.started", "call_attempt.ended", "interview.completed"),
    ]
    assert {each.data["externalId"] for each in read if "externalId" in each.data} == {"application-0"}

    def delivered() -> list[Any]:
        arrived = received(package, receiver, *secrets)
        return [each for each in arrived if each.data.get("interviewId") == str(first.id)]

    whole.wait_until(lambda: len(delivered()) >= len(read), seconds=60, says="each event was delivered")
    assert [each.id for each in delivered()] == [each.id for each in read]
    assert {each.id for each in partner.interviews(company_id, models.InterviewStatus.COMPLETED, began)} == {first.id}
    assert [each.interview_id for each in partner.calls(company_id, models.AttemptState.PENDING)] == [second.id]

    # The partner lost an event, and asks for it again. Then it asks for all events of the day of one type.
    [lost] = partner.deliveries(webhook.id, [models.EventType.INTERVIEW_COMPLETED])
    assert (str(lost.delivery_id), lost.state, lost.is_replay) == (read[-1].id, "DELIVERED", False)
    partner.replay(webhook.id, lost.delivery_id)
    whole.wait_until(lambda: len(delivered()) == len(read) + 1, seconds=60, says="one event was sent again")
    assert partner.replay_since(webhook.id, began, [models.EventType.INTERVIEW_COMPLETED]) == 1
    whole.wait_until(lambda: len(delivered()) == len(read) + 2, seconds=60, says="it was sent once more")
    assert [each.id for each in delivered()[len(read) :]] == [read[-1].id] * 2
    [replayed] = partner.deliveries(webhook.id, [models.EventType.INTERVIEW_COMPLETED])
    assert replayed.is_replay

    # The evening: no further webhooks.
    partner.stop_receiving(webhook.id)
    bodies = b"".join(visit.body for visit in receiver.visits)
    assert not [secret for secret in (b"Ferdinand", b"Canary", b"915000") if secret in bodies]


def test_partner_sends_a_batch_with_the_client(whole: WholeSystem, partner: Any, models: Any) -> None:
    """One item exists already, one is new, and one is in the past."""
    company_id: UUID = partner.open_company("Looms")
    whole.duecall("numbers", "add", str(company_id), ANOTHER_CALLER)
    agent_id, job_id = partner.prepare(company_id, ANOTHER_CALLER)
    tomorrow = whole.in_seconds(86_400)
    known = {
        "agent_id": agent_id,
        "job_id": job_id,
        "candidate_id": partner.add_candidate(company_id, job_id, NUMBER, "1"),
    }
    existing = partner.schedule(company_id, at=tomorrow, external_id="application-1", **known)
    person = {"firstName": "Ferdinand", "lastName": "Canary", "gdprExpiryDate": "2030-01-01"}
    bodies = (
        {"candidateId": str(known["candidate_id"]), "scheduledAt": tomorrow, "externalId": "application-1"},
        {"candidate": {**person, "phoneNumber": ANOTHER_NUMBER}, "scheduledAt": tomorrow},
        {"candidate": {**person, "phoneNumber": ANOTHER_NUMBER}, "scheduledAt": "2020-01-01T10:00:00Z"},
    )
    usual = {"agentId": str(agent_id), "jobId": str(job_id)}
    batch_id = partner.send_batch(company_id, [models.InterviewRequest.from_dict({**usual, **each}) for each in bodies])

    [ended] = [each for each in partner.events_until("batch.completed") if each.type == "batch.completed"]
    counts = {"status": "COMPLETED", "applied": 2, "refused": 1, "cancelled": 0}
    assert ended.data == {"companyId": str(company_id), "batchId": str(batch_id), **counts}
    assert partner.batch(company_id, batch_id).status == "COMPLETED"
    found = partner.batch_items(company_id, batch_id)
    assert [(each.index, each.status, each.existed) for each in found] == [
        *((0, "APPLIED", True), (1, "APPLIED", False), (2, "REFUSED", False)),
    ]
    assert found[0].interview_id == existing.id
    assert found[2].error.code == "SCHEDULE_IN_PAST"


def test_refusal_names_the_field(package: Any, partner: Any, models: Any) -> None:
    with pytest.raises(package.ApiError) as refused:
        partner.receive_at("ftp://example.com", [models.EventType.PING])
    program: Any = importlib.import_module("tests.client.partners_day")
    status, code, fields = program.code_of(refused.value)
    assert (status, code, fields) == (400, "VALIDATION_ERROR", ["url"])
