"""Posts alarms to the operator's webhook. The only module that knows their format.

The body and the headers are those of Standard Webhooks (https://www.standardwebhooks.com), with the alarm's id as
the message's id: a receiver that sees an id twice can ignore the repetition.
"""

import json
from datetime import UTC, datetime

from pydantic.alias_generators import to_camel

from scheduler.alarm_receiver import DEADLINE_S, NotPosted
from scheduler.clock import machine_now
from scheduler.domain.alarm import KeptAlarm
from scheduler.domain.webhook import NotSent, Outcome, WebhookRequest
from scheduler.webhooks.sender import WebhookSender

_TYPE = "alarm.raised"


class AlarmWebhook:
    """The receiver at a URL. It is used as it is set, and may be inside the operator's network."""

    def __init__(self, url: str, secret: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._url = url
        self._secret = secret
        self._sender = WebhookSender(to_partners=False, deadline_s=deadline_s)

    def post(self, alarm: KeptAlarm) -> None:
        body = body_of(alarm, machine_now())
        request = WebhookRequest(url=self._url, message_id=str(alarm.id), body=body, secrets=(self._secret,))
        try:
            answer = self._sender.post(request)
        except NotSent as error:
            raise NotPosted(None) from error
        if answer.outcome is not Outcome.DELIVERED:
            raise NotPosted(answer.status)


def body_of(alarm: KeptAlarm, posted_at: datetime) -> str:
    """Build the JSON of an alarm. It contains ids, a kind, times and a count, and no personal data."""
    data = {
        "id": str(alarm.id),
        "kind": alarm.kind,
        "subjects": {to_camel(name): value for name, value in alarm.subjects.items()},
        "firstSeenAt": _text(alarm.first_seen_at),
        "lastSeenAt": _text(alarm.last_seen_at),
        "count": alarm.count,
    }
    return json.dumps({"type": _TYPE, "timestamp": _text(posted_at), "data": data}, separators=(",", ":"))


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
