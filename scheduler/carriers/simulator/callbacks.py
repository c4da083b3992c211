"""What the carrier tells the caller about a call: signed, sent once more on failure, then lost."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urldefrag, urlencode
from uuid import uuid4

import aiohttp
from twilio.request_validator import RequestValidator
from yarl import URL

from scheduler.carriers.simulator.calls import API_VERSION, Call, Status, rfc2822
from scheduler.carriers.simulator.plans import CallbackFault

EVENT_OF = {
    Status.INITIATED: "initiated",
    Status.RINGING: "ringing",
    Status.IN_PROGRESS: "answered",
    Status.COMPLETED: "completed",
    Status.BUSY: "completed",
    Status.NO_ANSWER: "completed",
    Status.FAILED: "completed",
    Status.CANCELED: "completed",
}
"""The event named `completed` carries any final status."""

_TIMES_SENT = {CallbackFault.NONE: 0, CallbackFault.DOUBLED: 2}
_WHEREABOUTS = ("City", "State", "Zip", "Country")
_DEADLINES = aiohttp.ClientTimeout(total=15, sock_connect=5)
# Shorter than servers keep an idle connection, so that a callback never meets one that is just being closed.
_IDLE_S = 4.0
_SERVER_ERROR = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One callback as it goes on the wire."""

    url: str
    method: str
    fields: Mapping[str, str]
    idempotency_token: str


def is_subscribed(call: Call, status: Status) -> bool:
    return call.order.status_callback is not None and EVENT_OF[status] in call.order.events


def fields_of(call: Call, *, sequence_number: int, at: datetime) -> dict[str, str]:
    """Twilio's form fields for what has just become of the call."""
    fields = {
        "CallSid": call.sid,
        "AccountSid": call.account_sid,
        "ApiVersion": API_VERSION,
        "CallStatus": str(call.status),
        "Direction": "outbound-api",
        "From": call.order.from_,
        "To": call.order.to,
        "Caller": call.order.from_,
        "Called": call.order.to,
        "Timestamp": rfc2822(at) or "",
        "CallbackSource": "call-progress-events",
        "SequenceNumber": str(sequence_number),
    }
    fields |= {f"{who}{where}": "" for who in ("From", "To", "Caller", "Called") for where in _WHEREABOUTS}
    return fields | _final_fields(call) if call.is_over else fields


class Postman:
    """Delivers callbacks: those of one call in order, those of different calls at the same time."""

    def __init__(self, *, auth_token: str, retry_after_s: float) -> None:
        self._validator = RequestValidator(auth_token)
        self._retry_after_s = retry_after_s
        self._session: aiohttp.ClientSession | None = None
        self._last_of: dict[str, asyncio.Task[None]] = {}
        self._held_back: dict[str, list[Letter]] = {}

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_DEADLINES,
            headers={"User-Agent": "TwilioProxy/1.1"},
        )

    async def close(self) -> None:
        under_way = list(self._last_of.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def tell(self, call: Call, *, sequence_number: int, at: datetime) -> None:
        """Tells the subscriber what has just become of the call; returns before it is delivered."""
        letters = self._letters(call, sequence_number=sequence_number, at=at)
        if call.callbacks is CallbackFault.REORDERED:
            letters = self._hold_back(call, letters)
        for letter in letters:
            self._send_after_the_last(call.sid, letter)

    def _letters(self, call: Call, *, sequence_number: int, at: datetime) -> list[Letter]:
        if not is_subscribed(call, call.status):
            return []
        letter = Letter(
            url=urldefrag(call.order.status_callback or "").url,
            method=call.order.status_callback_method,
            fields=fields_of(call, sequence_number=sequence_number, at=at),
            idempotency_token=str(uuid4()),
        )
        times = 1 if call.callbacks is None else _TIMES_SENT.get(call.callbacks, 1)
        return [letter] * times

    def _hold_back(self, call: Call, letters: list[Letter]) -> list[Letter]:
        held_back = self._held_back.setdefault(call.sid, [])
        held_back.extend(letters)
        if not call.is_over:
            return []
        return self._held_back.pop(call.sid)[::-1]

    def _send_after_the_last(self, sid: str, letter: Letter) -> None:
        task = asyncio.create_task(self._deliver(letter, after=self._last_of.get(sid)))
        self._last_of[sid] = task
        task.add_done_callback(lambda done: self._forget(sid, done))

    def _forget(self, sid: str, task: asyncio.Task[None]) -> None:
        if self._last_of.get(sid) is task:
            del self._last_of[sid]

    async def _deliver(self, letter: Letter, *, after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await asyncio.wait([after])
        if await self._arrives(letter):
            return
        await asyncio.sleep(self._retry_after_s)
        if not await self._arrives(letter):
            _log.warning("a status callback for %s was lost", letter.fields["CallSid"])

    async def _arrives(self, letter: Letter) -> bool:
        assert self._session is not None
        in_query = letter.method == "GET"
        url = _with_query(letter.url, letter.fields) if in_query else letter.url
        signature = self._validator.compute_signature(url, {} if in_query else letter.fields)
        try:
            async with self._session.request(
                letter.method,
                # The very text that was signed: yarl would otherwise write some characters in its own way.
                URL(url, encoded=True),
                data=None if in_query else urlencode(letter.fields).encode(),
                headers={
                    "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
                    "X-Twilio-Signature": signature,
                    "I-Twilio-Idempotency-Token": letter.idempotency_token,
                },
                allow_redirects=False,
            ) as answer:
                await answer.read()
                return answer.status < _SERVER_ERROR
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False


def _with_query(url: str, fields: Mapping[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(fields)}"


def _final_fields(call: Call) -> dict[str, str]:
    seconds = call.duration_s or 0
    final = {
        "CallDuration": str(seconds),
        # Minutes, begun ones counted whole.
        "Duration": str(-(-seconds // 60)),
        "SipResponseCode": str(call.sip_code),
    }
    if call.answered_by is not None:
        final["AnsweredBy"] = call.answered_by
    return final
