"""Posts alarms to the operator's webhook. The only module that knows its format and its signature.

The body and the headers are those of Standard Webhooks (https://www.standardwebhooks.com), with the alarm's id as the
message's id: a receiver that sees an id twice can ignore the repetition.
"""

import asyncio
import json
from datetime import UTC, datetime

import aiohttp
from pydantic.alias_generators import to_camel
from standardwebhooks import Webhook

from scheduler.alarm_receiver import DEADLINE_S, NotPosted
from scheduler.clock import machine_now
from scheduler.domain.alarm import KeptAlarm

_TYPE = "alarm.raised"
_ACCEPTED = range(200, 300)


class AlarmWebhook:
    """The receiver at a URL. It is used as it is set: no redirects, and no proxy of the environment."""

    def __init__(self, url: str, secret: str, *, deadline_s: float = DEADLINE_S) -> None:
        self._url = url
        self._signer = Webhook(secret)
        self._deadline_s = deadline_s

    def post(self, alarm: KeptAlarm) -> None:
        # By the machine's clock: a receiver compares the time with its own, and an installation's may be moved.
        posted_at = machine_now()
        body = body_of(alarm, posted_at)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "duecall",
            "webhook-id": str(alarm.id),
            "webhook-timestamp": str(int(posted_at.timestamp())),
            "webhook-signature": self._signer.sign(str(alarm.id), posted_at, body),
        }
        status = asyncio.run(self._status_of(body, headers))
        if status not in _ACCEPTED:
            raise NotPosted(status)

    async def _status_of(self, body: str, headers: dict[str, str]) -> int:
        timeout = aiohttp.ClientTimeout(total=self._deadline_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.post(self._url, data=body.encode(), headers=headers, allow_redirects=False) as response,
            ):
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotPosted from error


def body_of(alarm: KeptAlarm, posted_at: datetime) -> str:
    """Return the JSON of an alarm. It contains ids, a kind, times and a count, and no personal data."""
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
