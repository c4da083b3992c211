"""Status callbacks: signed, sent again according to the callback's URL, then dropped."""

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

from standalone.simulator.calls import API_VERSION, Call, Status, rfc2822
from standalone.simulator.faults import Outage
from standalone.simulator.plans import CallbackFault

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
_EMPTY_PLACES = {
    f"{number}{part}": ""
    for number in ("From", "To", "Caller", "Called")
    for part in ("City", "State", "Zip", "Country")
}
_DEADLINES = aiohttp.ClientTimeout(total=15, sock_connect=5)
# Shorter than servers keep an idle connection, so that no callback is sent over a connection that is being closed.
_IDLE_S = 4.0
_MAX_CONCURRENT = 100
"""Concurrent requests. More would wait for each other in the subscriber, with their deadlines running."""

_log = logging.getLogger(__name__)


class Failure(StrEnum):
    """The reason why a callback did not arrive, in the words of Twilio's connection overrides."""

    CONNECT = "ct"
    READ = "rt"
    CLIENT_ERROR = "4xx"
    SERVER_ERROR = "5xx"


@dataclass(frozen=True, kw_only=True)
class Retries:
    """The number of retries of a callback, and the failures after which they are made."""

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
    """Parse the fragment of a callback's URL: `rc` retries after the failures in `rp`.

    Missing or invalid values are Twilio's defaults.
    """
    overrides = parse_qs(fragment)
    times, policy = overrides.get("rc", [""])[0], overrides.get("rp", [""])[0].split(",")
    failures = frozenset(Failure) if "all" in policy else frozenset(each for each in Failure if each in policy)
    default = Retries()
    return Retries(
        times=int(times) if times in set("012345") else default.times,
        after=failures or default.after,
    )


def signature(key: str, url: str, fields: Mapping[str, str]) -> str:
    """Sign as Twilio does: the URL, and each field's name and value in the order of the names."""
    signed = url + "".join(f"{name}{fields[name]}" for name in sorted(fields))
    return b64encode(hmac.digest(key.encode(), signed.encode(), "sha1")).decode()


def is_subscribed(call: Call, status: Status) -> bool:
    return call.order.status_callback is not None and EVENT_OF[status] in call.order.events


def fields_of(call: Call, *, sequence_number: int, at: datetime) -> dict[str, str]:
    """Build Twilio's form fields for the latest state of the call."""
    fields = {
        "CallSid": call.sid,
        "AccountSid": call.account_sid,
        "ApiVersion": API_VERSION,
        "CallStatus": str(call.status),
        "Direction": call.direction,
        "From": call.order.from_,
        "To": call.order.to,
        "Caller": call.order.from_,
        "Called": call.order.to,
        "Timestamp": rfc2822(at) or "",
        "CallbackSource": "call-progress-events",
        "SequenceNumber": str(sequence_number),
        **_EMPTY_PLACES,
    }
    return fields | _final_fields(call) if call.is_over else fields


def request_fields_of(call: Call, *, at: datetime) -> dict[str, str]:
    """Build Twilio's form fields of a request for instructions."""
    fields = fields_of(call, sequence_number=0, at=at)
    for name in ("Timestamp", "CallbackSource", "SequenceNumber"):
        del fields[name]
    return fields


def verdict_of(call: Call) -> dict[str, str]:
    """Build the form of a verdict of asynchronous machine detection. It has no status."""
    return {
        "CallSid": call.sid,
        "AccountSid": call.account_sid,
        "AnsweredBy": call.answered_by or "unknown",
        "MachineDetectionDuration": str(round((call.verdict_s or 0) * 1000)),
    }


class CallbackSender:
    """Delivers callbacks, in order for each call, and for different calls at the same time."""

    def __init__(self, *, auth_token: str, retry_after_s: float, outage: Outage | None = None) -> None:
        self._auth_token = auth_token
        self._outage = outage or Outage()
        self._retry_after_s = retry_after_s
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(_MAX_CONCURRENT)
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
        running = list(self._rounds)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def tell(self, call: Call, *, sequence_number: int, at: datetime) -> None:
        """Send the latest state of the call to the subscriber. Returns before the delivery."""
        letters = self._letters(call, sequence_number=sequence_number, at=at)
        if call.callbacks is CallbackFault.REORDERED:
            letters = self._hold_back(call, letters)
        if letters:
            self._post(call.sid, letters)

    async def has_instructions(self, call: Call, *, at: datetime) -> bool:
        """Request the instructions for an answered call, once. Return True if the voice server gave some."""
        if call.order.instructions_url is None or self._outage.loses_answers:
            return False
        letter = Letter(
            url=call.order.instructions_url,
            method="POST",
            fields=request_fields_of(call, at=at),
            idempotency_token=str(uuid4()),
            retries=Retries(times=0),
        )
        async with self._places:
            return await self._send(letter) is None

    def request_fallback(self, call: Call, *, at: datetime) -> None:
        """Request the order's FallbackUrl, after the callbacks that were sent before."""
        if call.order.fallback_url is None:
            return
        url, fragment = urldefrag(call.order.fallback_url)
        errors = {"ErrorCode": str(call.error_codes[-1]), "ErrorUrl": call.order.instructions_url or ""}
        letter = Letter(
            url=url,
            method=call.order.fallback_method,
            fields=request_fields_of(call, at=at) | errors,
            idempotency_token=str(uuid4()),
            retries=read_retries(fragment),
        )
        self._post(call.sid, [letter])

    def tell_verdict(self, call: Call) -> None:
        """Send the verdict of asynchronous machine detection, with the faults of the call's other callbacks."""
        letters = self._verdicts(call)
        if call.callbacks is CallbackFault.REORDERED and not call.is_over:
            self._hold_back(call, letters)
        elif letters:
            self._post(call.sid, letters)

    def _verdicts(self, call: Call) -> list[Letter]:
        if call.order.verdict_callback is None or call.answered_by is None:
            return []
        url, fragment = urldefrag(call.order.verdict_callback)
        letter = Letter(
            url=url,
            method="POST",
            fields=verdict_of(call),
            idempotency_token=str(uuid4()),
            retries=read_retries(fragment),
        )
        times = 1 if call.callbacks is None else _TIMES_SENT.get(call.callbacks, 1)
        return [letter] * times

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
        """Send a callback once. None if it arrived."""
        assert self._session is not None
        in_query = letter.method == "GET"
        form = _form(letter.fields)
        url = f"{letter.url}{'&' if '?' in letter.url else '?'}{form}" if in_query else letter.url
        try:
            async with self._session.request(
                letter.method,
                # Encoded already, so that yarl does not change the signed text.
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
    """Encode like urlencode, but faster: names need no quoting, and quoted values are cached."""
    return "&".join(f"{name}={_quoted(value) if value else ''}" for name, value in fields.items())


def _final_fields(call: Call) -> dict[str, str]:
    seconds = call.duration_s or 0
    final = {
        "CallDuration": str(seconds),
        # In minutes, rounded up.
        "Duration": str(-(-seconds // 60)),
        "SipResponseCode": str(call.sip_code),
    }
    # The documents promise it for synchronous detection only, so that nothing here relies on it.
    if call.answered_by is not None and not call.order.is_async:
        final["AnsweredBy"] = call.answered_by
    return final
