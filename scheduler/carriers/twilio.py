"""An adapter for Twilio's Calls API, or any server with that API."""

import asyncio
import json
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.rest.api.v2010.account.call import CallInstance

from scheduler.carriers.interface import CarrierAway, CarrierUnavailable, Gate, NotACallback
from scheduler.carriers.trust import trusted
from scheduler.carriers.twilio_codes import CODES, Consequence
from scheduler.domain.call import (
    Accepted,
    AnsweredBy,
    AnswerUnknown,
    CallNews,
    CallOrder,
    CallStatus,
    CarrierAnswer,
    FailureCause,
    ListedCall,
    NeverTaken,
    NumberRefused,
)
from scheduler.failpoints import failpoint
from scheduler.lifecycle.policy import Policy

_CALL_SID = re.compile(r"CA[0-9a-f]{32}")
_KEEP_IDLE = 10.0
_MAX_ANSWER = 64 * 1024
_CALLBACK_EVENTS = ("initiated", "ringing", "answered", "completed")
_OK = 200
_CREATED = 201
_SERVER_ERROR = 500

_STATUSES = {
    "queued": CallStatus.QUEUED,
    "initiated": CallStatus.DIALLED,
    "ringing": CallStatus.RINGING,
    "in-progress": CallStatus.ANSWERED,
    "completed": CallStatus.COMPLETED,
    "busy": CallStatus.BUSY,
    "no-answer": CallStatus.NO_ANSWER,
    "failed": CallStatus.FAILED,
    "canceled": CallStatus.CANCELLED,
}
_ANSWERED_BY = {
    "human": AnsweredBy.PERSON,
    "machine": AnsweredBy.MACHINE,
    "machine_start": AnsweredBy.MACHINE,
    "machine_end_beep": AnsweredBy.MACHINE,
    "machine_end_silence": AnsweredBy.MACHINE,
    "machine_end_other": AnsweredBy.MACHINE,
    "fax": AnsweredBy.FAX,
    "unknown": AnsweredBy.UNKNOWN,
}

_RETRIES = "#rc=5&rp=5xx,ct,rt"
"""Twilio's connection overrides. By default it sends a callback again only after it could not connect. The fragment is
neither sent nor signed."""

_CALL_IS_NOT_THERE = 20404
_CALL_IS_OVER = 21220
"""Twilio's code if the call has ended, or was answered before it could be cancelled."""
_NOTHING_LEFT_TO_STOP = {(400, _CALL_IS_OVER), (404, _CALL_IS_NOT_THERE)}
_NO_ANSWER = (
    TwilioException,
    NotACallback,
    # The SDK's errors if an answer is not as documented: no JSON, no object, a missing field.
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
_ACCOUNT_REJECTED = frozenset({401, 403, 429})
"""Statuses about our account, whatever the query."""
_NOT_TAKEN_STATUSES = {401: "CREDENTIALS", 429: "THROTTLED"}
"""Statuses that prove that no call was accepted, whether the carrier or a proxy returns them. Not 403: a filter may
replace the answer after the carrier took the call, and with an unknown code a 403 may concern one order alone."""


@dataclass(frozen=True, kw_only=True)
class TwilioAccount:
    """The address of the API, our account, and the URLs at which the carrier reaches us."""

    api_url: str
    account_sid: str
    auth_tokens: tuple[str, ...]
    """The first one authenticates our requests. Callbacks may be signed with any of them."""
    public_url: str
    voice_url: str
    ca_file: Path | None = None
    """Trusted in addition to the system's authorities, for a carrier behind a private CA."""

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"TwilioAccount({self.account_sid})"


class TwilioCallPlacer:
    """Places calls with one kept-alive client, a deadline for each POST, and no retries.

    The SDK's own client is not used: it may follow redirects and use a proxy from the environment, and has no deadline
    for the whole request.
    """

    def __init__(self, account: TwilioAccount, policy: Policy) -> None:
        self._account = account
        self._deadline = policy.total_timeout.total_seconds()
        self._connect = policy.connect_timeout.total_seconds()
        self._session: aiohttp.ClientSession | None = None

    async def place(self, order: CallOrder, gate: Gate | None = None) -> CarrierAnswer:
        """Send an attempt's only POST. Never raises and never sends twice. In doubt, AnswerUnknown.

        Returns NeverTaken if no byte was sent, because `gate` refused or the connection failed before.
        """
        posting = _Posting(gate=gate)
        _posting.set(posting)
        try:
            return classify(*await self._post(self._url("Calls"), self._form(order)))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return NeverTaken(cause="NEVER_CONNECTED")
        except TimeoutError:
            return AnswerUnknown(cause="NO_ANSWER_IN_TIME") if posting.begun else NeverTaken(cause="NOT_SENT")
        except (aiohttp.ClientError, OSError, ValueError, _NotSent):
            return AnswerUnknown(cause="ANSWER_BROKE_OFF") if posting.begun else NeverTaken(cause="NOT_SENT")
        finally:
            _posting.set(None)

    async def cancel(self, call_sid: str) -> bool:
        """Cancel an unanswered call. Never raises. False if the result is unknown."""
        form = aiohttp.FormData([("Status", "canceled")])
        try:
            return is_stopped(*await self._post(self._url(f"Calls/{call_sid}"), form))
        except (aiohttp.ClientError, OSError, ValueError):  # TimeoutError is an OSError
            return False

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=trusted(self._account.ca_file),
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
                "Authorization": aiohttp.encode_basic_auth(self._account.account_sid, self._account.auth_tokens[0])
            },
            # `connect` includes the name lookup: a lookup that hangs counts as a failed connection.
            timeout=aiohttp.ClientTimeout(total=self._deadline, connect=self._connect, sock_connect=self._connect),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[gates],
        )
        return self._session

    async def _post(self, url: str, form: aiohttp.FormData) -> tuple[int, bytes]:
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

    def _form(self, order: CallOrder) -> aiohttp.FormData:
        fields = [
            ("To", order.to),
            ("From", order.caller),
            ("Url", _with_attempt(self._account.voice_url, order.token)),
            ("Timeout", str(int(order.ring_timeout.total_seconds()))),
            ("TimeLimit", str(int(order.time_limit.total_seconds()))),
            ("StatusCallback", f"{self._account.public_url}{callback_path(order.token)}{_RETRIES}"),
            ("StatusCallbackMethod", "POST"),
            # Repeated fields: Twilio reads several names in one field as a single, unknown event.
            *(("StatusCallbackEvent", event) for event in _CALLBACK_EVENTS),
        ]
        if order.machine_detection:
            fields.append(("MachineDetection", "Enable"))
        return aiohttp.FormData(fields)


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


def callback_path(token: str) -> str:
    """Return the path of the callbacks for the call of one claim."""
    return f"/carrier/twilio/{token}"


def classify(status: int, body: bytes) -> CarrierAnswer:
    """Classify the HTTP answer to an attempt's POST. An ambiguous answer is AnswerUnknown."""
    answer = _json_object(body)
    if status == _CREATED:
        sid = answer.get("sid")
        if isinstance(sid, str) and _CALL_SID.fullmatch(sid):
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
    return (status, answer.get("code")) in _NOTHING_LEFT_TO_STOP


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


class _TrustAdapter(HTTPAdapter):
    """Checks certificates with our context. requests would use its own list of CAs and ignore the setting."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        self._trust = trust
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - requests' own
        super().init_poolmanager(*args, ssl_context=self._trust, **kwargs)

    def cert_verify(self, conn: Any, *_: object) -> None:  # noqa: ANN401 - urllib3's own
        conn.cert_reqs = "CERT_REQUIRED"


class _HttpClient(TwilioHttpClient):  # type: ignore[misc]
    """The SDK's client for `api_url` with its path, without a proxy from the environment.

    Raises CarrierAway for errors that any other request would meet too.
    """

    def __init__(self, api_url: str, timeout: float, trust: ssl.SSLContext) -> None:
        super().__init__(pool_connections=True, timeout=timeout)
        self._api = urlsplit(api_url)
        if self.session is not None:
            self.session.trust_env = False
            self.session.mount("https://", _TrustAdapter(trust))

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - the SDK's own
        parts = urlsplit(url)
        # A server that knows its own path includes it in the URL of the next page.
        path = parts.path if parts.path.startswith(f"{self._api.path}/") else self._api.path + parts.path
        full_url = urlunsplit((self._api.scheme, self._api.netloc, path, parts.query, ""))
        try:
            response = super().request(method, full_url, *args, **kwargs)
        except RequestException as error:
            raise CarrierAway from error
        # Checked here, because the SDK raises no error with a status for an answer that is not JSON.
        if response.status_code in _ACCOUNT_REJECTED or response.status_code >= _SERVER_ERROR:
            raise CarrierAway(f"HTTP_{response.status_code}")
        return response


class TwilioQueries:
    """Queries calls and ends them with Twilio's own SDK: both may be repeated."""

    def __init__(self, account: TwilioAccount, policy: Policy) -> None:
        self._client = Client(
            account.account_sid,
            account.auth_tokens[0],
            http_client=_HttpClient(account.api_url, policy.total_timeout.total_seconds(), trusted(account.ca_file)),
        )

    def probe(self) -> None:
        """Read one call of the list in which unknown calls are searched. Raises CarrierUnavailable."""
        try:
            list(self._client.calls.page(page_size=1))
        except _NO_ANSWER as error:
            raise CarrierUnavailable from error

    def listed(
        self, *, to: str | None, caller: str, created_from: datetime, created_until: datetime
    ) -> Sequence[ListedCall]:
        """Return calls between two numbers, or from `caller` to any, that were created in the half-open span.

        Without a StartTime filter, because a queued call has no start time yet and would be missed. The list is newest
        first, so reading ends at the first older call. Raises CarrierUnavailable.
        """
        calls = []
        try:
            filters = {} if to is None else {"to": to}
            for call in self._client.calls.stream(**filters, from_=caller, page_size=50):
                listed = _listed(call)
                if listed.created_at < created_from:
                    break
                if listed.created_at < created_until:
                    calls.append(listed)
        except _NO_ANSWER as error:
            raise CarrierUnavailable from error
        return calls

    def fetch(self, call_sid: str) -> CallNews:
        """Return the state of a call, and of a failed call also the cause from its notifications.

        Raises CarrierUnavailable.
        """
        try:
            news = _listed(self._client.calls(call_sid).fetch()).news
        except _NO_ANSWER as error:
            raise CarrierUnavailable from error
        return replace(news, cause=self._cause(call_sid)) if news.status is CallStatus.FAILED else news

    def _cause(self, call_sid: str) -> FailureCause | None:
        """Return the cause of a failed call. None if its notifications name none or cannot be read.

        Some servers with the Calls API have no notifications, and a known failure must not stay open because its cause
        is unknown. Without a cause no retry follows.
        """
        try:
            codes = [each.error_code for each in self._client.calls(call_sid).notifications.list(limit=50)]
        except (*_NO_ANSWER, CarrierUnavailable):
            return None
        return cause_of(codes)

    def cancel(self, call_sid: str) -> None:
        """Cancel an unanswered call. An answered call goes on. Raises CarrierUnavailable."""
        self._stop(call_sid, CallInstance.UpdateStatus.CANCELED)

    def hang_up(self, call_sid: str) -> None:
        """End a call in any state. A finished call stays as it is. Raises CarrierUnavailable."""
        self._stop(call_sid, CallInstance.UpdateStatus.COMPLETED)

    def _stop(self, call_sid: str, status: str) -> None:
        try:
            _listed(self._client.calls(call_sid).update(status=status))
        except TwilioRestException as refusal:
            if (refusal.status, refusal.code) not in _NOTHING_LEFT_TO_STOP:
                raise CarrierUnavailable from refusal
        except _NO_ANSWER as error:
            raise CarrierUnavailable from error


def cause_of(error_codes: Sequence[object]) -> FailureCause | None:
    """Return the cause in a failed call's error codes. A code about the number takes precedence.

    A code that is not in the table proves nothing: it may be about a web request of the call.
    """
    known = {CODES[int(code)].consequence for code in map(str, error_codes) if code.isdecimal() and int(code) in CODES}
    if Consequence.NUMBER in known:
        return FailureCause.NUMBER
    return FailureCause.CARRIER if known & _CAUSES_OF_THE_ACCOUNT else None


_CAUSES_OF_THE_ACCOUNT = frozenset(
    {
        Consequence.COUNTRY_REFUSED,
        Consequence.CALLER_REFUSED,
        Consequence.ACCOUNT_LIMITED,
        Consequence.ACCOUNT_NOT_ACTIVE,
    }
)
"""Reasons not to connect an accepted call that prove nothing about the number or the person."""


def _listed(call: CallInstance) -> ListedCall:
    created = call.date_created
    if call.sid is None or not isinstance(created, datetime):
        raise NotACallback
    news = CallNews(
        call_sid=call.sid,
        status=_status(str(call.status)),
        answered_by=_answered_by(call.answered_by),
        duration=None if not call.duration else _seconds(str(call.duration)),
        # Documented: empty if the call has not yet been dialled.
        started=call.start_time is not None,
        to=call.to or None,
    )
    return ListedCall(news=news, created_at=created.astimezone(UTC))


class TwilioCallbacks:
    """Reads status callbacks. The signature must cover our public URL. The request's Host header is not used."""

    def __init__(self, account: TwilioAccount) -> None:
        self._account = account
        self._validators = [RequestValidator(token) for token in account.auth_tokens]

    def is_genuine(self, path: str, form: Sequence[tuple[str, str]], signature: str) -> bool:
        """Return True if the signature covers our public URL with this path, query and form. Never raises."""
        params = dict(form)
        if len(params) != len(form):
            return False  # Twilio never repeats a parameter
        url = f"{self._account.public_url}{path}"
        try:
            # Try all tokens, so that the duration does not reveal the matching token.
            genuine = [validator.validate(url, params, signature) for validator in self._validators]
        except (TypeError, ValueError):  # text that cannot be encoded cannot have been signed
            return False
        return any(genuine)

    def read(self, token: str, form: Mapping[str, str]) -> CallNews:
        """Parse a callback's form. Raises NotACallback if a known field is invalid.

        Twilio adds parameters without notice, so unknown parameters are ignored.
        """
        sid = form.get("CallSid", "")
        if not _CALL_SID.fullmatch(sid) or form.get("AccountSid") != self._account.account_sid:
            raise NotACallback
        if _has_moved_boundary(form):
            raise NotACallback
        sip = form.get("SipResponseCode", "")
        duration = form.get("CallDuration")
        return CallNews(
            call_sid=sid,
            token=token,
            status=_status(form.get("CallStatus", "")),
            answered_by=_answered_by(form.get("AnsweredBy")),
            sip_code=int(sip) if re.fullmatch(r"[1-6][0-9]{2}", sip) else None,
            duration=None if not duration else _seconds(duration),
            to=form.get("To") or None,
        )


_READ = ("AccountSid", "AnsweredBy", "CallDuration", "CallSid", "CallStatus", "SipResponseCode", "To")
_BEGINNINGS = (*(name for name in _READ if name != "To"), "To+")
"""Beginnings of the fields that we read, in the signed text. Other names begin with To, but none with To+."""


def _has_moved_boundary(form: Mapping[str, str]) -> bool:
    """Return True if a field that we read may be hidden in another one.

    The signature covers names and values in one text without separators: `CallDuratio=n12` has the signature of
    `CallDuration=12`, and so has a value that contains the next field.
    """
    return any(
        beginning in value or (name not in _READ and (name + value).startswith(beginning))
        for name, value in form.items()
        for beginning in _BEGINNINGS
    )


def _status(word: str) -> CallStatus:
    status = _STATUSES.get(word)
    if status is None:
        raise NotACallback
    return status


def _answered_by(word: str | None) -> AnsweredBy | None:
    """Parse the result of machine detection. None without machine detection."""
    return _ANSWERED_BY.get(word, AnsweredBy.UNKNOWN) if word else None


def _seconds(text: str) -> timedelta:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise NotACallback
    return timedelta(seconds=int(text))
