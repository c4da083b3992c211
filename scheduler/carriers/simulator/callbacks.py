"""What the carrier tells the caller about a call: signed, sent again as the callback's address asks, then lost."""

import asyncio
import hmac
import logging
from base64 import b64encode
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from urllib.parse import parse_qs, quote_plus, urldefrag
from uuid import uuid4

import aiohttp
from yarl import URL

from scheduler.carriers.simulator.calls import API_VERSION, Call, Status, rfc2822
from scheduler.carriers.simulator.outage import Outage
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
_NOWHERE = {
    f"{who}{where}": "" for who in ("From", "To", "Caller", "Called") for where in ("City", "State", "Zip", "Country")
}
_DEADLINES = aiohttp.ClientTimeout(total=15, sock_connect=5)
# Shorter than servers keep an idle connection, so that a callback never meets one that is just being closed.
_IDLE_S = 4.0
_UNDER_WAY = 100
"""So many requests at a time. More would wait for each other in the subscriber, with their deadlines running."""

_log = logging.getLogger(__name__)


class Failure(StrEnum):
    """Why a callback did not arrive, in the words of Twilio's connection overrides."""

    CONNECT = "ct"
    READ = "rt"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a callback is sent again, and after which failures."""

    times: int = 1
    after: frozenset[Failure] = frozenset({Failure.CONNECT})


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One callback as it goes on the wire."""

    url: str
    method: str
    fields: Mapping[str, str]
    idempotency_token: str
    retries: Retries


@lru_cache(maxsize=64)
def read_retries(fragment: str) -> Retries:
    """What the fragment of a callback's address asks: `rc` times, after the failures in `rp`.

    What is absent or nonsense is Twilio's default.
    """
    asked = parse_qs(fragment)
    times, policy = asked.get("rc", [""])[0], asked.get("rp", [""])[0].split(",")
    known = frozenset(Failure) if "all" in policy else frozenset(each for each in Failure if each in policy)
    usual = Retries()
    return Retries(
        times=int(times) if times in set("012345") else usual.times,
        after=known or usual.after,
    )


def signature(key: str, url: str, fields: Mapping[str, str]) -> str:
    """Twilio's: over the address, and each field's name and value in the order of the names."""
    said = url + "".join(f"{name}{fields[name]}" for name in sorted(fields))
    return b64encode(hmac.digest(key.encode(), said.encode(), "sha1")).decode()


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
        **_NOWHERE,
    }
    return fields | _final_fields(call) if call.is_over else fields


class Postman:
    """Delivers callbacks: those of one call in order, those of different calls at the same time."""

    def __init__(self, *, auth_token: str, retry_after_s: float, outage: Outage | None = None) -> None:
        self._auth_token = auth_token
        self._outage = outage or Outage()
        self._retry_after_s = retry_after_s
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(_UNDER_WAY)
        self._to_deliver: dict[str, deque[Letter]] = {}
        self._rounds: set[asyncio.Task[None]] = set()
        self._held_back: dict[str, list[Letter]] = {}

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_DEADLINES,
            headers={"User-Agent": "TwilioProxy/1.1"},
        )

    async def close(self) -> None:
        under_way = list(self._rounds)
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
        if letters:
            self._post(call.sid, letters)

    def _letters(self, call: Call, *, sequence_number: int, at: datetime) -> list[Letter]:
        if not is_subscribed(call, call.status):
            return []
        url, fragment = urldefrag(call.order.status_callback or "")
        letter = Letter(
            url=url,
            method=call.order.status_callback_method,
            fields=fields_of(call, sequence_number=sequence_number, at=at),
            idempotency_token=str(uuid4()),
            retries=read_retries(fragment),
        )
        times = 1 if call.callbacks is None else _TIMES_SENT.get(call.callbacks, 1)
        return [letter] * times

    def _hold_back(self, call: Call, letters: list[Letter]) -> list[Letter]:
        held_back = self._held_back.setdefault(call.sid, [])
        held_back.extend(letters)
        if not call.is_over:
            return []
        return self._held_back.pop(call.sid)[::-1]

    def _post(self, sid: str, letters: list[Letter]) -> None:
        if sid in self._to_deliver:
            self._to_deliver[sid].extend(letters)
            return
        self._to_deliver[sid] = deque(letters)
        task = asyncio.create_task(self._deliver_all(sid))
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)

    async def _deliver_all(self, sid: str) -> None:
        letters = self._to_deliver[sid]
        try:
            while letters:
                await self._deliver(letters.popleft())
        finally:
            del self._to_deliver[sid]

    async def _deliver(self, letter: Letter) -> None:
        for left in range(letter.retries.times, -1, -1):
            if self._outage.loses_answers:
                break
            async with self._places:
                failure = await self._send(letter)
            if failure is None:
                return
            if not left or failure not in letter.retries.after:
                break
            await asyncio.sleep(self._retry_after_s)
        _log.warning("callback_lost: a status callback for %s was not delivered", letter.fields["CallSid"])

    async def _send(self, letter: Letter) -> Failure | None:
        """None when it arrived."""
        assert self._session is not None
        in_query = letter.method == "GET"
        form = _form(letter.fields)
        url = f"{letter.url}{'&' if '?' in letter.url else '?'}{form}" if in_query else letter.url
        try:
            async with self._session.request(
                letter.method,
                # The very text that was signed: yarl would otherwise write some characters in its own way.
                URL(url, encoded=True),
                data=None if in_query else form.encode(),
                headers={
                    "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
                    "X-Twilio-Signature": signature(self._auth_token, url, {} if in_query else letter.fields),
                    "I-Twilio-Idempotency-Token": letter.idempotency_token,
                },
                allow_redirects=False,
            ) as answer:
                await answer.read()
                return _BY_HUNDREDS.get(answer.status // 100)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Failure.CONNECT
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return Failure.READ


_quoted = lru_cache(maxsize=4096)(quote_plus)
_BY_HUNDREDS = {4: Failure.CLIENT_ERROR, 5: Failure.SERVER_ERROR}


def _form(fields: Mapping[str, str]) -> str:
    """As urlencode writes it. The names need no quoting and most values come often, which saves most of its time."""
    return "&".join(f"{name}={_quoted(value) if value else ''}" for name, value in fields.items())


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
