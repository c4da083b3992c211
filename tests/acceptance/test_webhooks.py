"""Webhooks in the whole system: a partner receives signed events, also after the process that sends them was killed."""

import json
from uuid import uuid4

from standardwebhooks import Webhook

from scheduler.webhooks.encryption import secret_place
from scheduler.webhooks.signing import new_secret
from tests.acceptance.conftest import WholeSystem
from tests.support.webhook_receivers import WebhookReceiver, a_webhook_receiver, answers
from tests.use_cases.webhooks.endpoints import ENCRYPTION

TYPES = ("interview.scheduled", "call_attempt.ended", "interview.completed")


def an_endpoint(whole: WholeSystem, receiver: WebhookReceiver, secret: str) -> None:
    endpoint_id = uuid4()
    encrypted = ENCRYPTION.encrypt(secret, secret_place(endpoint_id)).hex()
    whole.change(
        "INSERT INTO webhook_endpoints (id, principal_id, api_key_id, company_id, url, events, max_retries, timeout_ms,"
        f" secret, created_at, updated_at) SELECT '{endpoint_id}', principal_id, id, company_id, '{receiver.url}',"
        f" '{{{','.join(TYPES)}}}', 9, 15000, '\\x{encrypted}', now(), now()"
        f" FROM api_keys WHERE company_id = '{whole.running.companyId}' LIMIT 1"
    )


def received(receiver: WebhookReceiver, secret: str, interview_id: str) -> list[str]:
    """Return the types of the interview's events in the order of their arrival, without repetitions."""
    found: dict[str, str] = {}
    for visit in receiver.visits:
        Webhook(secret).verify(visit.body, visit.headers)
        body = json.loads(visit.body)
        if body["data"]["interviewId"] == interview_id:
            found.setdefault(visit.headers["webhook-id"], body["type"])
    return list(found.values())


def test_partner_receives_the_events_of_each_call(whole: WholeSystem) -> None:
    secret = new_secret()
    with a_webhook_receiver(answers(200)) as receiver:
        an_endpoint(whole, receiver, secret)
        for number, is_killed in (("+421915400001", False), ("+421915400002", True)):
            if is_killed:
                whole.send_signal("webhooks")
            interview = whole.client.created(number)
            whole.wait_until(
                lambda own=interview["id"]: len(received(receiver, secret, own)) == len(TYPES),  # type: ignore[misc]
                seconds=60,
                says="all events have arrived",
            )
            assert received(receiver, secret, interview["id"]) == list(TYPES)
    whole.change("DELETE FROM webhook_endpoints")
