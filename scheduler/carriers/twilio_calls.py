"""Placing calls at Twilio: one POST for each attempt, the meaning of its answer, and of each error code."""

import asyncio
import json
import socket
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

from scheduler import process
from scheduler.carriers.interface import Gate
from scheduler.carriers.twilio import CALL_SID, NOTHING_LEFT_TO_STOP, TwilioAccount, callback_path, trusted
from scheduler.domain.call import Accepted, AnswerUnknown, CallOrder, CarrierAnswer, NeverTaken, NumberRefused, Withheld
from scheduler.failpoints import failpoint
from scheduler.lifecycle.policy import Policy

# --- Twilio's error codes, and the consequence of each for the order that was refused with it
# `docs/reference/carrier-codes.md` has the same table, and a test keeps the two equal. A code that is not listed
# proves nothing: the outcome of such an order is unknown.


class Consequence(StrEnum):
    """The consequence of a code. For all but NUMBER the call was not placed, and the attempt is pending again."""

    NUMBER = "NUMBER"
    """The number itself cannot be called: the attempt fails as INVALID_NUMBER."""
    COUNTRY_REFUSED = "COUNTRY_REFUSED"
    """Our account may not call that country: only orders to it wait."""
    CALLER_REFUSED = "CALLER_REFUSED"
    """Our account may not call from that number: only that company's orders from it wait."""
    ORDER_REFUSED = "ORDER_REFUSED"
    """One of our own settings or fields is wrong: only that order waits."""
    ACCOUNT_LIMITED = "ACCOUNT_LIMITED"
    """A trial account: only that order waits."""
    THROTTLED = "THROTTLED"
    """Too many at once: counted against the carrier."""
    QUEUE_FULL = "QUEUE_FULL"
    """The account's queue is full: counted against the carrier."""
    CREDENTIALS = "CREDENTIALS"
    """Our credentials are wrong: no company's calls are dialled."""
    ACCOUNT_NOT_ACTIVE = "ACCOUNT_NOT_ACTIVE"
    """The account is closed or suspended: no company's calls are dialled."""


class Meaning(NamedTuple):
    consequence: Consequence
    text: str
    """Twilio's description of the code, shortened."""


CODES: dict[int, Meaning] = {
    10001: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "the account is not active"),
    10002: Meaning(Consequence.ACCOUNT_LIMITED, "trial accounts cannot use this"),
    10004: Meaning(Consequence.THROTTLED, "more calls at once than the account may have"),
    10005: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "voice is disabled for the account"),
    13212: Meaning(Consequence.CALLER_REFUSED, "the caller id is invalid"),
    13214: Meaning(Consequence.CALLER_REFUSED, "the caller id is invalid"),
    13223: Meaning(Consequence.NUMBER, "the format of the number is invalid"),
    13224: Meaning(Consequence.NUMBER, "the number is invalid or cannot be reached"),
    13225: Meaning(Consequence.NUMBER, "no account may call the number"),
    13226: Meaning(Consequence.NUMBER, "there is no such country code"),
    13227: Meaning(Consequence.COUNTRY_REFUSED, "no geographic permission for the country"),
    20001: Meaning(Consequence.ORDER_REFUSED, "a parameter is invalid"),
    20003: Meaning(Consequence.CREDENTIALS, "not authenticated"),
    20005: Meaning(Consequence.ACCOUNT_NOT_ACTIVE, "the account is not active"),
    20006: Meaning(Consequence.ORDER_REFUSED, "the key lacks a privilege for this request"),
    20008: Meaning(Consequence.CREDENTIALS, "test credentials cannot do this"),
    20403: Meaning(Consequence.CREDENTIALS, "the account may not use the API; it is suspended or closed"),
    20429: Meaning(Consequence.THROTTLED, "too many requests"),
    21201: Meaning(Consequence.ORDER_REFUSED, "no number to call was named"),
    21202: Meaning(Consequence.NUMBER, "the number is a premium number"),
    21203: Meaning(Consequence.COUNTRY_REFUSED, "international calls are not enabled for the account"),
    21205: Meaning(Consequence.ORDER_REFUSED, "the URL of the instructions is invalid"),
    21206: Meaning(Consequence.ORDER_REFUSED, "the digits to send are invalid"),
    21207: Meaning(Consequence.ORDER_REFUSED, "the setting of machine detection is invalid"),
    21208: Meaning(Consequence.ORDER_REFUSED, "the ring timeout is invalid"),
    21209: Meaning(Consequence.ORDER_REFUSED, "the HTTP method is invalid"),
    21210: Meaning(Consequence.CALLER_REFUSED, "the caller id is not verified for the account"),
    21211: Meaning(Consequence.NUMBER, "the number is invalid"),
    21212: Meaning(Consequence.CALLER_REFUSED, "the caller id is invalid, or not the account's"),
    21213: Meaning(Consequence.CALLER_REFUSED, "the caller id is missing"),
    21214: Meaning(Consequence.NUMBER, "the number cannot be reached"),
    21215: Meaning(Consequence.COUNTRY_REFUSED, "no geographic permission for the number's country"),
    21216: Meaning(Consequence.COUNTRY_REFUSED, "the account may not call there: risk, law or a missing profile"),
    21217: Meaning(Consequence.NUMBER, "the number does not appear to be valid"),
    21218: Meaning(Consequence.ORDER_REFUSED, "the application is invalid"),
    21219: Meaning(Consequence.ACCOUNT_LIMITED, "a trial account calls verified numbers only"),
    21609: Meaning(Consequence.ORDER_REFUSED, "the URL of the callbacks is invalid"),
    22005: Meaning(Consequence.QUEUE_FULL, "the queue would take more than 24 hours"),
    32205: Meaning(Consequence.COUNTRY_REFUSED, "no geographic permission for the destination"),
    70051: Meaning(Consequence.CREDENTIALS, "authorization failed"),
}


# --- Placing calls at Twilio: one POST for each attempt, and the meaning of its answer


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
_OK = 200
_CREATED = 201
_RETRIES = quote_plus("#rc=5&rp=5xx,ct,rt")
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
            f"{_DETECTION if order.machine_detection else ''}&{_CALLBACKS}"
        ).encode()


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
        if meaning is not None and meaning.consequence is Consequence.NUMBER:
            return NumberRefused(cause=f"TWILIO_{code}")
        if meaning is not None:
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
