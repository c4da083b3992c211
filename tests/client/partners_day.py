"""A partner's program with the Python client: an applicant tracking system and its first day.

It imports nothing of the product. `tests/client/test_client_build.py` checks its types strictly.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from uuid import UUID

from duecall_client import ApiError, Client, Event, items
from duecall_client.generated.api.agents import create_agent, list_agents
from duecall_client.generated.api.batches import create_batch, get_batch, list_batch_items
from duecall_client.generated.api.call_attempts import (
    get_call_attempt,
    list_company_call_attempts,
    reschedule_call_attempt,
)
from duecall_client.generated.api.candidates import create_candidate
from duecall_client.generated.api.companies import create_company
from duecall_client.generated.api.interviews import create_interview, list_interviews
from duecall_client.generated.api.jobs import create_job
from duecall_client.generated.api.phone_numbers import list_phone_numbers
from duecall_client.generated.api.webhooks import (
    create_webhook,
    delete_webhook,
    list_webhook_deliveries,
    replay_webhook_deliveries,
    replay_webhook_delivery,
    rotate_webhook_secret,
    test_webhook,
)
from duecall_client.generated.models import (
    AgentAnswer,
    AgentFocus,
    AgentRequest,
    AgentsAnswer,
    AgentType,
    AttemptAnswer,
    AttemptState,
    AttemptView,
    BatchAnswer,
    BatchView,
    CallMove,
    CandidateAnswer,
    CandidateRequest,
    CompanyAnswer,
    CompanyAttemptsAnswer,
    CompanyRequest,
    CreateWebhook,
    DeliveriesAnswer,
    DeliveryView,
    EventType,
    InterviewAnswer,
    InterviewRequest,
    InterviewsAnswer,
    InterviewStatus,
    InterviewView,
    ItemsAnswer,
    ItemView,
    JobAnswer,
    JobRequest,
    Language,
    NewSecretAnswer,
    NewSecretView,
    PhoneNumbersAnswer,
    ReplayAnswer,
    ReplayRequest,
    WebhookTestAnswer,
    WebhookTestView,
)
from duecall_client.generated.types import File


@dataclass(frozen=True, kw_only=True)
class Partner:
    """The partner's backend. Its key reaches every company that it creates."""

    client: Client

    def open_company(self, name: str) -> UUID:
        body = CompanyRequest(name=name)
        return self.client.result(create_company.sync_detailed(client=self.client.api, body=body), CompanyAnswer).id

    def prepare(self, company_id: UUID, caller: str) -> tuple[UUID, UUID]:
        """Create an agent for a number of the company, and a job. Return their ids."""
        api = self.client.api
        numbers = items(list_phone_numbers.sync_detailed, PhoneNumbersAnswer, client=api, company_id=company_id)
        [number] = [each for each in numbers if each.number == caller]
        agent = AgentRequest(
            name="Screening by phone",
            type_=AgentType.PHONE,
            focus=AgentFocus.SCREENING,
            language=Language.SK,
            duration=15,
            company_phone_number_id=number.id,
        )
        made = self.client.result(
            create_agent.sync_detailed(client=api, body=agent, company_id=company_id), AgentAnswer
        )
        job = JobRequest(title="Warehouse operator", description="Picks and packs.", external_id="job-1")
        opened = self.client.result(create_job.sync_detailed(client=api, body=job, company_id=company_id), JobAnswer)
        return made.id, opened.id

    def agents(self, company_id: UUID) -> list[UUID]:
        """List agents. This list has page numbers, and here one agent on each page."""
        found = items(list_agents.sync_detailed, AgentsAnswer, client=self.client.api, company_id=company_id, limit=1)
        return [agent.id for agent in found]

    def add_candidate(self, company_id: UUID, job_id: UUID, number: str, external_id: str) -> UUID:
        body = CandidateRequest(
            first_name="Ferdinand",
            last_name="Canary",
            gdpr_expiry_date=date(2030, 1, 1),
            phone_number=number,
            external_id=external_id,
            job_ids=[job_id],
        )
        sent = create_candidate.sync_detailed(client=self.client.api, body=body, company_id=company_id)
        return self.client.result(sent, CandidateAnswer).id

    def schedule(
        self, company_id: UUID, *, agent_id: UUID, job_id: UUID, candidate_id: UUID, at: str, external_id: str
    ) -> InterviewView:
        """Schedule an interview without waiting for it in the request, then wait for its command."""
        body = InterviewRequest(
            agent_id=agent_id, job_id=job_id, candidate_id=candidate_id, scheduled_at=at, external_id=external_id
        )
        sent = create_interview.sync_detailed(
            client=self.client.api, body=body, company_id=company_id, prefer="respond-async"
        )
        return self.client.result(sent, InterviewAnswer)

    def move(self, company_id: UUID, interview_id: UUID, attempt_id: UUID, at: str) -> AttemptView:
        """Move a call that has not changed since it was read, and return it as it is then."""
        api = self.client.api
        read = get_call_attempt.sync_detailed(interview_id, attempt_id, client=api, company_id=company_id)
        moved = reschedule_call_attempt.sync_detailed(
            interview_id,
            attempt_id,
            client=api,
            body=CallMove(scheduled_at=at),
            company_id=company_id,
            if_match=read.headers["ETag"],
        )
        self.client.finish(moved)
        again = get_call_attempt.sync_detailed(interview_id, attempt_id, client=api, company_id=company_id)
        return self.client.result(again, AttemptAnswer)

    def interviews(self, company_id: UUID, status: InterviewStatus, since: datetime) -> list[InterviewView]:
        """List interviews, one on each page."""
        found = items(
            list_interviews.sync_detailed,
            InterviewsAnswer,
            client=self.client.api,
            company_id=company_id,
            status=[status],
            updated_since=since,
            limit=1,
        )
        return list(found)

    def calls(self, company_id: UUID, state: AttemptState) -> list[AttemptView]:
        """List the calls of all interviews in the order of their times."""
        found = items(
            list_company_call_attempts.sync_detailed,
            CompanyAttemptsAnswer,
            client=self.client.api,
            company_id=company_id,
            status=[state],
            limit=1,
        )
        return list(found)

    def events_until(self, event_type: EventType, after: int = 0) -> Iterator[Event]:
        """Yield events until the first of a type."""
        for event in self.client.events(after=after):
            yield event
            if event.type == event_type:
                return

    def receive_at(self, url: str, events: list[EventType]) -> NewSecretView:
        """Create a webhook for the events of all companies. Its secret is shown only in this response."""
        sent = create_webhook.sync_detailed(client=self.client.api, body=CreateWebhook(url=url, events=events))
        return self.client.result(sent, NewSecretAnswer)

    def ping(self, webhook_id: UUID) -> WebhookTestView:
        return self.client.result(test_webhook.sync_detailed(webhook_id, client=self.client.api), WebhookTestAnswer)

    def rotate(self, webhook_id: UUID) -> str:
        """Read the new secret of a webhook."""
        sent = rotate_webhook_secret.sync_detailed(webhook_id, client=self.client.api)
        secret = self.client.result(sent, NewSecretAnswer).signing_secret
        if secret is None:
            raise ValueError("the response was repeated, and a repeated response has no secret: rotate it again")
        return secret

    def deliveries(self, webhook_id: UUID, events: list[EventType]) -> list[DeliveryView]:
        found = items(
            list_webhook_deliveries.sync_detailed,
            DeliveriesAnswer,
            webhook_id,
            client=self.client.api,
            types=",".join(events),
            limit=1,
        )
        return list(found)

    def replay(self, webhook_id: UUID, delivery_id: UUID) -> None:
        self.client.finish(replay_webhook_delivery.sync_detailed(webhook_id, delivery_id, client=self.client.api))

    def replay_since(self, webhook_id: UUID, since: datetime, events: list[EventType]) -> int:
        """Count the deliveries that are sent again."""
        body = ReplayRequest(from_=since, types=events)
        sent = replay_webhook_deliveries.sync_detailed(webhook_id, client=self.client.api, body=body)
        return self.client.result(sent, ReplayAnswer).replayed

    def send_batch(self, company_id: UUID, wanted: list[InterviewRequest]) -> UUID:
        """Send many interviews in one request, one on each line."""
        lines = b"".join(json.dumps(each.to_dict()).encode() + b"\n" for each in wanted)
        sent = create_batch.sync_detailed(
            client=self.client.api, body=File(payload=BytesIO(lines)), name="Spring", company_id=company_id
        )
        return self.client.result(sent, BatchAnswer).id

    def batch(self, company_id: UUID, batch_id: UUID) -> BatchView:
        sent = get_batch.sync_detailed(batch_id, client=self.client.api, company_id=company_id)
        return self.client.result(sent, BatchAnswer)

    def batch_items(self, company_id: UUID, batch_id: UUID) -> list[ItemView]:
        api = self.client.api
        return list(
            items(list_batch_items.sync_detailed, ItemsAnswer, batch_id, client=api, company_id=company_id, limit=1)
        )

    def stop_receiving(self, webhook_id: UUID) -> None:
        self.client.finish(delete_webhook.sync_detailed(webhook_id, client=self.client.api))


def code_of(error: ApiError) -> tuple[int, str, list[str]]:
    """Read the status and the code of an error, and the fields that it names."""
    return error.status, error.code, [each["field"] for each in error.details.get("fields", [])]
