"""Endpoints, events and deliveries as rows, for tests of the partners who read and replay them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from scheduler.domain.principal import KeyKind, Principal
from scheduler.ids import new_id
from tests.api_shim.intake import Intake
from tests.conftest import NOON

SCOPES = ("read:webhooks", "write:webhooks")
INTERVIEW = UUID(int=7)


@dataclass(frozen=True, kw_only=True)
class Partner:
    """A key with an endpoint, and the events of its company."""

    client: Intake
    principal: Principal
    endpoint_id: UUID

    @property
    def path(self) -> str:
        return f"/webhooks/{self.endpoint_id}"

    def event(self, at: datetime = NOON, type_: str = "interview.completed", **columns: Any) -> UUID:
        """Add an event that has its place, of this company unless `company_id` says otherwise."""
        event_id = new_id(at)
        row = {
            "id": event_id,
            "company_id": self.client.seeded.company_id,
            "ats": None,
            "interview_id": INTERVIEW,
            "type": type_,
            "at": at,
            **columns,
        }
        self.client.change(
            "INSERT INTO events (id, company_id, ats_principal_id, interview_id, type, occurred_at, data, place,"
            " sequence) VALUES (:id, :company_id, :ats, CAST(:interview_id AS uuid), :type, :at, '{}',"
            " nextval('event_places'), CASE WHEN CAST(:interview_id AS uuid) IS NOT NULL THEN 1 END)",
            **row,
        )
        return event_id

    def delivery(self, event_id: UUID, state: str = "DELIVERED", *, tries: int = 1) -> UUID:
        self.client.change(
            "INSERT INTO webhook_deliveries (event_id, endpoint_id, place, interview_id, sequence, state, tries,"
            " send_at, last_tried_at, last_status, last_ms, finished_at, created_at)"
            " SELECT e.id, :endpoint, e.place, e.interview_id, e.sequence, :state, :tries, e.occurred_at,"
            " e.occurred_at, CASE :state WHEN 'DELIVERED' THEN 200 ELSE 500 END, 12,"
            " CASE :state WHEN 'WAITING' THEN NULL ELSE e.occurred_at END, e.occurred_at"
            " FROM events e WHERE e.id = :event",
            endpoint=self.endpoint_id,
            event=event_id,
            state=state,
            tries=tries,
        )
        return event_id

    def delivered(self, count: int, state: str = "DELIVERED") -> list[UUID]:
        """Add events a minute apart from noon on, with deliveries. Return their ids, oldest first."""
        return [self.delivery(self.event(NOON + timedelta(minutes=each)), state) for each in range(count)]

    def row(self, event_id: UUID) -> Any:
        found = self.client.ask(
            "SELECT * FROM webhook_deliveries WHERE event_id = :event AND endpoint_id = :endpoint",
            event=event_id,
            endpoint=self.endpoint_id,
        )
        return found[0] if found else None

    def rows(self) -> list[Any]:
        query = "SELECT * FROM webhook_deliveries WHERE endpoint_id = :endpoint ORDER BY place"
        return self.client.ask(query, endpoint=self.endpoint_id)


def a_partner(intake: Intake, *scopes: str, kind: KeyKind = KeyKind.REGULAR, company_id: UUID | None = None) -> Partner:
    """Create a key with an endpoint that wants two types. `company_id`: the endpoint of an ATS is for this company."""
    principal, key = intake.new_key(*(scopes or SCOPES), kind=kind)
    endpoint_id = new_id(NOON)
    intake.change(
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,"
        " secret, created_at, updated_at) VALUES (:id, :principal, :key, :company, 'https://hooks.example/a?token=x',"
        " '{interview.completed,interview.failed,ping}', 9, 15000, 'x', :now, :now)",
        id=endpoint_id,
        principal=principal.id,
        key=principal.key_id,
        company=principal.company_id or company_id,
        now=NOON,
    )
    return Partner(client=intake.with_key(key), principal=principal, endpoint_id=endpoint_id)
