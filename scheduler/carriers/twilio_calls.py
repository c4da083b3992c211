"""Placing calls at Twilio: one POST for each attempt, and the meaning of its answer."""

import asyncio
import json
import socket
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus, urlencode

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

from scheduler import process
from scheduler.carriers.interface import Gate
from scheduler.carriers.twilio import (
    CALL_SID,
    FALLBACK,
    NOTHING_LEFT_TO_STOP,
    TwilioAccount,
    callback_path,
    trusted,
)
from scheduler.carriers.twilio_codes import CODES, OF_A_CALL_ONLY, OF_THE_NUMBER, Consequence
from scheduler.domain.call import (
    Accepted,
    AnswerUnknown,
    CallOrder,
    CarrierAnswer,
    MachineDetection,
    NeverTaken,
    NumberRefused,
    Withheld,
)
from scheduler.failpoints import failpoint
from scheduler.lifecycle.policy import Policy

_KEEP_IDLE = 10.0
_MAX_ANSWER = 64 * 1024
# Repeated fields: Twilio reads several names in one field as a single, unknown event.
_CALLBACKS = urlencode(
    {
        "StatusCallbackMethod": "POST",
        "StatusCallbackEvent": ("initiated", "ringing", "answered", "completed"),
    },
    doseq=True,
)
_DETECTION = "&MachineDetection=Enable"
_TUNING = {
    "timeout": ("MachineDetectionTimeout", timedelta(seconds=1)),
    "speech_threshold": ("MachineDetectionSpeechThreshold", timedelta(milliseconds=1)),
    "speech_end_threshold": ("MachineDetectionSpeechEndThreshold", timedelta(milliseconds=1)),
    "silence_timeout": ("MachineDetectionSilenceTimeout", timedelta(milliseconds=1)),
}
"""The parameter of each time of machine detection, and its unit."""
_VERDICT_METHOD = "&AsyncAmdStatusCallbackMethod=POST"
_OK = 200
_CREATED = 201
_RETRIES = quote_plus("#rc=5&rp=5xx,ct,rt")
_FALLBACK = quote_plus(FALLBACK)
"""Twilio's connection overrides. By default it sends a callback again only after it could not connect. The fragment is
neither sent nor signed."""
_NOT_TAKEN_STATUSES = {401: "CREDENTIALS", 429: "THROTTLED"}
"""Statuses that prove that no call was accepted, whether the carrier or a proxy returns them. Not 403: a filter may
replace the answer after the carrier took the call, and with an unknown code a 403 may concern one order alone."""


class TwilioCallPlacer:
    """Places calls with one kept-alive client, a deadline for each POST, and no retries.

    The SDK's own client is not used: it may follow redirects and use a proxy from the environment, and has no deadline
    for the whole request.
    """

    def __init__(self, account: TwilioAccount, policy: Policy) -> None:
        self._account = account
        self._deadline = policy.total_timeout.total_seconds()
        self._connect = policy.connect_timeout.total_seconds()
        # Now, and not with the session: without a descriptor, the system's authorities would silently be missing.
        self._trusted = trusted(account.ca_file)
        self._session: aiohttp.ClientSession | None = None
        # Encoded up to the token of a call, which is encoded alone.
        voice_url, mark, overrides = account.voice_url.partition("#")  # overrides of the connection, as in _RETRIES
        self._voice_url = quote_plus(_with_attempt(voice_url, ""))
        self._voice_overrides = quote_plus(mark + overrides)
        self._callback_url = quote_plus(account.public_url + callback_path(""))

    async def place(self, order: CallOrder, gate: Gate | None = None) -> CarrierAnswer:
        """Send an attempt's only POST. Never raises and never sends twice. In doubt, AnswerUnknown.

        Returns NeverTaken if no byte was sent, because `gate` refused or the connection failed before. Returns Withheld
        if this machine could not open a connection.
        """
        posting = _Posting(gate=gate)
        _posting.set(posting)
        try:
            return classify(*await self._post(self._url("Calls"), self._form(order)))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if process.is_shortage(error):  # guard: local_shortage
                process.report_shortage()
                return Withheld(cause="NO_DESCRIPTORS")
            return NeverTaken(cause="NEVER_CONNECTED")
        except TimeoutError:
            return AnswerUnknown(cause="NO_ANSWER_IN_TIME") if posting.begun else NeverTaken(cause="NOT_SENT")
        except (aiohttp.ClientError, OSError, ValueError, _NotSent):
            return AnswerUnknown(cause="ANSWER_BROKE_OFF") if posting.begun else NeverTaken(cause="NOT_SENT")
        finally:
            _posting.set(None)

    async def cancel(self, call_sid: str) -> bool:
        """Cancel an unanswered call. Never raises. False if the result is unknown."""
        try:
            return is_stopped(*await self._post(self._url(f"Calls/{call_sid}"), b"Status=canceled"))
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            return False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=self._trusted,
            keepalive_timeout=_KEEP_IDLE,
            socket_factory=_socket_with_timeout,
        )
        gates = aiohttp.TraceConfig()
        gates.on_request_headers_sent.append(_connected)
        gates.on_request_chunk_sent.append(_may_leave)
        self._session = aiohttp.ClientSession(
            connector=connector,
            request_class=_Request,
            headers={
                "Authorization": aiohttp.encode_basic_auth(self._account.account_sid, self._account.auth_tokens[0]),
                "Content-Type": "application/x-www-form-urlencoded",
            },
            # `connect` includes the name lookup: a lookup that hangs counts as a failed connection.
            timeout=aiohttp.ClientTimeout(total=self._deadline, connect=self._connect, sock_connect=self._connect),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[gates],
        )
        return self._session

    async def _post(self, url: str, form: bytes) -> tuple[int, bytes]:
        """Send one POST and return its status and body."""
        session = self._session or self._open()
        async with (
            asyncio.timeout(self._deadline),
            session.post(
                url,
                data=form,
                allow_redirects=False,  # guard: redirect
            ) as response,
        ):
            return response.status, await _body(response)

    def _url(self, resource: str) -> str:
        return f"{self._account.api_url}/2010-04-01/Accounts/{self._account.account_sid}/{resource}.json"

    def _form(self, order: CallOrder) -> bytes:
        # Encoded here: aiohttp's FormData takes a tenth of the time of a call, and `urlencode` half of that.
        token = quote_plus(order.token)
        return (
            f"To={quote_plus(order.to)}&From={quote_plus(order.caller)}&Url={self._voice_url}{token}{self._voice_overrides}"
            f"&Timeout={int(order.ring_timeout.total_seconds())}&TimeLimit={int(order.time_limit.total_seconds())}"
            f"&StatusCallback={self._callback_url}{token}{_RETRIES}"
            f"&FallbackUrl={self._callback_url}{token}{_FALLBACK}{_RETRIES}"
            f"{self._detection(order, token)}&{_CALLBACKS}"
        ).encode()

    def _detection(self, order: CallOrder, token: str) -> str:
        """Build the fields of machine detection. An asynchronous verdict is sent like the status callbacks."""
        if order.machine_detection is MachineDetection.OFF:
            return ""
        times = vars(order.detection_tuning)
        tuning = (f"&{name}={times[of] // unit}" for of, (name, unit) in _TUNING.items() if times[of] is not None)
        verdict = f"&AsyncAmd=true&AsyncAmdStatusCallback={self._callback_url}{token}{_RETRIES}{_VERDICT_METHOD}"
        is_async = order.machine_detection is MachineDetection.ASYNC
        return f"{_DETECTION}{''.join(tuning)}{verdict if is_async else ''}"


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Read the whole answer. An oversized answer is cut off, so that it is invalid JSON."""
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER:
            break
    return body


class _NotSent(Exception):
    """The gate refused, and no byte was written."""


@dataclass(kw_only=True)
class _Posting:
    """The state of an attempt's POST."""

    gate: Gate | None
    begun: bool = False
    """Some bytes may have been written."""


_posting: ContextVar[_Posting | None] = ContextVar("posting", default=None)
"""The POST of this task that places a call. Requests, and the tasks that write them, inherit it."""


async def _connected(_session: object, _context: SimpleNamespace, _params: object) -> None:
    # aiohttp calls this with a connection in hand, before it serialises the headers.
    posting = _posting.get()
    if posting is not None and posting.gate is not None and not await posting.gate.connected():
        raise _NotSent


async def _may_leave(_session: object, _context: SimpleNamespace, _params: object) -> None:
    # aiohttp calls this right before it writes headers and body in one piece. This function must not await, and nothing
    # awaits until the bytes are written, so that no other code runs between the check and the write.
    posting = _posting.get()
    if posting is None:
        return
    if posting.gate is not None and not posting.gate.may_leave():
        raise _NotSent
    failpoint("dial.permitted")
    posting.begun = True


class _Request(aiohttp.ClientRequest):
    """A request that reports its bytes as sent before any other callback of the event loop runs."""

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        """Write the body with the headers to the kernel. Abort the request if the kernel does not take all at once."""
        await super().write_bytes(writer, conn, content_length)
        posting = _posting.get()
        if posting is None or not posting.begun:
            return
        if conn.transport is not None and _left_over(conn.transport):
            conn.transport.abort()  # the rest would be sent whenever the other side reads again
        if posting.gate is not None:
            posting.gate.left()
        failpoint("dial.sent")


def _left_over(transport: asyncio.WriteTransport) -> int:
    """Count the bytes that the kernel has not taken. Under TLS there is a second transport with its own buffer."""
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return transport.get_write_buffer_size() + (0 if below is None else below.get_write_buffer_size())


def _socket_with_timeout(address: tuple[Any, ...]) -> socket.socket:
    """Create a socket whose unacknowledged bytes the kernel drops after 10 s, so that none arrives minutes later."""
    family, kind, protocol = address[:3]
    client = socket.socket(family=family, type=kind, proto=protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000)
    return client


def _with_attempt(voice_url: str, token: str) -> str:
    return f"{voice_url}{'&' if '?' in voice_url else '?'}attempt={token}"


def classify(status: int, body: bytes) -> CarrierAnswer:
    """Classify the HTTP answer to an attempt's POST. An ambiguous answer is AnswerUnknown."""
    answer = _json_object(body)
    if status == _CREATED:
        sid = answer.get("sid")
        if isinstance(sid, str) and CALL_SID.fullmatch(sid):
            return Accepted(call_sid=sid, queue_time=_queue_time(answer.get("queue_time")))
        return AnswerUnknown(cause="CREATED_WITHOUT_A_NAME")
    code = answer.get("code")
    if (
        isinstance(code, int)
        # A code in a 5xx proves nothing: the carrier may have taken the call before it failed.
        and 400 <= status < 500  # noqa: PLR2004  # guard: client_error
    ):
        meaning = CODES.get(code)
        if meaning is not None and meaning.consequence in OF_THE_NUMBER:
            may_be_outage = meaning.consequence is Consequence.UNREACHABLE
            return NumberRefused(cause=f"TWILIO_{code}", may_be_outage=may_be_outage)
        if meaning is not None and meaning.consequence not in OF_A_CALL_ONLY:
            return NeverTaken(cause=meaning.consequence.value)
    if status in _NOT_TAKEN_STATUSES:
        return NeverTaken(cause=_NOT_TAKEN_STATUSES[status])
    return AnswerUnknown(cause=f"HTTP_{status}")


def is_stopped(status: int, body: bytes) -> bool:
    """Return True if the HTTP answer to a cancellation proves that no unanswered call is left."""
    answer = _json_object(body)
    if status == _OK:
        return isinstance(answer.get("sid"), str)
    return (status, answer.get("code")) in NOTHING_LEFT_TO_STOP


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _queue_time(text: object) -> timedelta:
    """Parse Twilio's milliseconds in a string."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004 - 11 days
        return timedelta(milliseconds=int(text))
    return timedelta(0)
