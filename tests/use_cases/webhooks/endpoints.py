"""Endpoints of partners, events and their deliveries, and the use case that sends them."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from scheduler.domain.webhook import ErrorKind, Outcome, WebhookAnswer, WebhookRequest
from scheduler.persistence.database import Database
from scheduler.rules.webhooks import Room
from scheduler.setting_values import DEVELOPMENT_WEBHOOK_KEY, webhook_keys
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.webhooks.deliver import Deliver, Sender
from scheduler.webhooks.sender import WebhookSender
from scheduler.webhooks.sending import Encryption, new_secret
from tests.support.builders import RecordingHints, Tenant

ENCRYPTION = Encryption(webhook_keys(DEVELOPMENT_WEBHOOK_KEY))
"""With the key of processes in development."""
TYPE = "interview.scheduled"
SHORT_S = 0.4
"""The deadline for receivers that never finish."""


def everything(threads: int) -> Room:
    """Return the room of threads that may send any messages, also of slow endpoints and of one owner."""
    return Room(free=threads, free_for_slow=threads, most_of_an_owner=threads)


EVERYTHING = everything(16)
ACCEPTED = WebhookAnswer(outcome=Outcome.DELIVERED, status=200)
FAILED = WebhookAnswer(outcome=Outcome.FAILED, status=500, error_kind=ErrorKind.HTTP_ERROR)


@dataclass
class ScriptedSender:
    """Answers each message at once, without a network."""

    answer: WebhookAnswer
    sent: list[WebhookRequest] = field(default_factory=list)

    def post(self, request: WebhookRequest) -> WebhookAnswer:
        self.sent.append(request)
        return self.answer


@dataclass(frozen=True, kw_only=True)
class Webhooks:
    """The endpoints of a company, and what happens to their deliveries."""

    tenant: Tenant
    hints: RecordingHints = field(default_factory=RecordingHints)

    def endpoint(self, url: str = "https://example.com/hooks", **given: Any) -> UUID:
        """Add an endpoint. `secret`, `old_secret` and `headers` are given as they are before encryption."""
        endpoint_id = uuid4()
        now = self.tenant.now()
        secrets = {name: given.pop(name) for name in ("secret", "old_secret") if name in given}
        secrets.setdefault("secret", new_secret())
        row: dict[str, Any] = {
            "id": endpoint_id,
            "principal_id": self.tenant.company_id,
            "api_key_id": uuid4(),
            "company_id": self.tenant.company_id,
            "url": url,
            "events": [TYPE, "endpoint.disabled"],
            "max_retries": 3,
            "timeout_ms": 15_000,
            "created_at": now,
            "updated_at": now,
        }
        row |= {name: ENCRYPTION.encrypt(secret, f"{endpoint_id} secret") for name, secret in secrets.items()}
        if "headers" in given:
            given["headers"] = ENCRYPTION.encrypt(json.dumps(given["headers"]), f"{endpoint_id} headers")
        self.tenant.insert("webhook_endpoints", **(row | given))
        return endpoint_id

    def event(self, interview_id: UUID | None = None, **given: Any) -> UUID:
        """Add an event that has no place yet."""
        event_id = uuid4()
        row: dict[str, Any] = {
            "id": event_id,
            "company_id": self.tenant.company_id,
            "interview_id": interview_id,
            "type": TYPE,
        }
        row |= {"occurred_at": self.tenant.now(), "data": json.dumps({"status": "SCHEDULED"})}
        self.tenant.insert("events", **(row | given))
        return event_id

    def number(self) -> None:
        NumberEvents(self.tenant.database, self.hints, self.tenant.now).all()

    def numbered_event(self, interview_id: UUID | None = None, **given: Any) -> UUID:
        event_id = self.event(interview_id, **given)
        self.number()
        return event_id

    def deliver(
        self, sender: Sender | None = None, *, deadline_s: float = 20.0, database: Database | None = None
    ) -> Deliver:
        chosen = sender or WebhookSender(in_development=True, deadline_s=deadline_s)
        return Deliver(database or self.tenant.database, chosen, ENCRYPTION, self.tenant.now)

    def send_all(self, deliver: Deliver) -> int:
        """Claim, send and record once. Return how many were sent."""
        claims = deliver.claim(EVERYTHING)
        results = [deliver.send(each) for each in claims]
        if results:
            assert not deliver.record(results)
        return len(results)

    def deliveries(self, endpoint_id: UUID | None = None) -> list[Any]:
        return self.tenant.ask(
            "SELECT * FROM webhook_deliveries WHERE CAST(:id AS uuid) IS NULL OR endpoint_id = :id"
            " ORDER BY place, endpoint_id",
            id=endpoint_id,
        )

    def states(self, endpoint_id: UUID | None = None) -> list[str]:
        return [each.state for each in self.deliveries(endpoint_id)]

    def row(self, endpoint_id: UUID) -> Any:
        [row] = self.tenant.ask("SELECT * FROM webhook_endpoints WHERE id = :id", id=endpoint_id)
        return row

    def change(self, endpoint_id: UUID, changes: str, **values: datetime | UUID | str | int) -> None:
        self.tenant.change(f"UPDATE webhook_endpoints SET {changes} WHERE id = :id", id=endpoint_id, **values)
