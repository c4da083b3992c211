"""Twilio's Calls API, or any server that speaks it: its words into ours, and back."""

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
"""Twilio's connection overrides: of itself it sends a callback again only when it could not connect. The fragment is
neither sent nor signed."""

_CALL_IS_NOT_THERE = 20404
_CALL_IS_OVER = 21220
"""Or answered, when it was to be cancelled."""
_NOTHING_LEFT_TO_STOP = {(400, _CALL_IS_OVER), (404, _CALL_IS_NOT_THERE)}
_NO_ANSWER = (
    TwilioException,
    NotACallback,
    # What the SDK stumbles over when an answer is not as documented: no JSON, no object, no field.
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
_NOBODY_IS_ANSWERED = frozenset({401, 403, 429})
"""Statuses that speak of whoever asks, and not of what is asked for."""
_NOT_TAKEN_STATUSES = {401: "CREDENTIALS", 429: "THROTTLED"}
"""Statuses that prove that no call was accepted, whether the carrier or a server between returns them. 403 is not among
them: a filter on the way back may also return it, after the carrier took the call, and with an unknown code it may
concern one order alone."""


@dataclass(frozen=True, kw_only=True)
class TwilioAccount:
    """Where the API is, who we are there, and where it reaches us."""

    api_url: str
    account_sid: str
    auth_tokens: tuple[str, ...]
    """The first one signs our requests; callbacks may be signed with any."""
    public_url: str
    voice_url: str
    ca_file: Path | None = None
    """Trusted besides what the system trusts; for a carrier behind a private CA."""

    def __repr__(self) -> str:
        """Without the secrets."""
        return f"TwilioAccount({self.account_sid})"


class TwilioLine:
    """Places calls: one kept-alive client, one deadline over each POST, nothing ever sent again.

    Not the SDK's own client: that one may follow redirects, take a proxy from the environment and has no deadline
    over the whole request.
    """

    def __init__(self, account: TwilioAccount, policy: Policy) -> None:
        self._account = account
        self._deadline = policy.total_timeout.total_seconds()
        self._connect = policy.connect_timeout.total_seconds()
        self._session: aiohttp.ClientSession | None = None

    async def place(self, order: CallOrder, gate: Gate | None = None) -> CarrierAnswer:
        """Send the one POST of an attempt. Never raises and never sends twice; in doubt, AnswerUnknown.

        Without any byte sent, because `gate` said no or the connection failed before, it returns NeverTaken.
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
        """Stop a call that nobody has answered. Never raises; False when nobody knows whether it was stopped."""
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
            socket_factory=_socket_that_gives_up,
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
            # `connect` also counts looking up the name: a lookup that hangs is a connection that never was.
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

    def _url(self, what: str) -> str:
        return f"{self._account.api_url}/2010-04-01/Accounts/{self._account.account_sid}/{what}.json"

    def _form(self, order: CallOrder) -> aiohttp.FormData:
        fields = [
            ("To", order.to),
            ("From", order.caller),
            ("Url", _with_attempt(self._account.voice_url, order.token)),
            ("Timeout", str(int(order.ring_timeout.total_seconds()))),
            ("TimeLimit", str(int(order.time_limit.total_seconds()))),
            ("StatusCallback", f"{self._account.public_url}{callback_path(order.token)}{_RETRIES}"),
            ("StatusCallbackMethod", "POST"),
            # Repeated fields: one with blanks between the names is taken for a single, unknown event.
            *(("StatusCallbackEvent", event) for event in _CALLBACK_EVENTS),
        ]
        if order.machine_detection:
            fields.append(("MachineDetection", "Enable"))
        return aiohttp.FormData(fields)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """All of the answer, in however many pieces it comes; of one that is too long, enough to be no JSON."""
    body = b""
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MAX_ANSWER:
            break
    return body


class _NotSent(Exception):
    """The gate refused, and no byte was written."""


@dataclass(kw_only=True)
class _Posting:
    """The state of the one POST of an attempt."""

    gate: Gate | None
    begun: bool = False
    """Some bytes may have been written."""


_posting: ContextVar[_Posting | None] = ContextVar("posting", default=None)
"""The POST of this task that places a call; requests and the tasks that write them inherit it."""


async def _connected(_session: object, _context: SimpleNamespace, _params: object) -> None:
    # aiohttp calls this with a connection in hand, before it serialises the headers.
    posting = _posting.get()
    if posting is not None and posting.gate is not None and not await posting.gate.connected():
        raise _NotSent


async def _may_leave(_session: object, _context: SimpleNamespace, _params: object) -> None:
    # aiohttp calls this right before it writes headers and body in one piece. There must be no await in here and none
    # follows until the bytes are written, so that nothing comes between the check and the write.
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
        """Write the body, and with it the headers, to the kernel. Break off what the kernel does not take at once."""
        await super().write_bytes(writer, conn, content_length)
        posting = _posting.get()
        if posting is None or not posting.begun:
            return
        if conn.transport is not None and _left_over(conn.transport):
            conn.transport.abort()  # it would leave whenever the other side reads again
        if posting.gate is not None:
            posting.gate.left()
        failpoint("dial.sent")


def _left_over(transport: asyncio.WriteTransport) -> int:
    """How many bytes the kernel has not taken. Below TLS lies a transport with a buffer of its own."""
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return transport.get_write_buffer_size() + (0 if below is None else below.get_write_buffer_size())


def _socket_that_gives_up(address: tuple[Any, ...]) -> socket.socket:
    """A socket whose unacknowledged bytes the kernel drops after 10 s, so that none arrives minutes later."""
    family, kind, protocol = address[:3]
    made = socket.socket(family=family, type=kind, proto=protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 10_000)
    return made


def _with_attempt(voice_url: str, token: str) -> str:
    return f"{voice_url}{'&' if '?' in voice_url else '?'}attempt={token}"


def callback_path(token: str) -> str:
    """Where the carrier reports on the call of one claim."""
    return f"/carrier/twilio/{token}"


def classify(status: int, body: bytes) -> CarrierAnswer:
    """What an HTTP answer to the one POST says. Only what surely is an answer counts as one."""
    answer = _json_object(body)
    if status == _CREATED:
        sid = answer.get("sid")
        if isinstance(sid, str) and _CALL_SID.fullmatch(sid):
            return Accepted(call_sid=sid, queue_time=_queue_time(answer.get("queue_time")))
        return AnswerUnknown(cause="CREATED_WITHOUT_A_NAME")
    code = answer.get("code")
    if (
        isinstance(code, int)
        # HTTP's own classes: who failed may have taken the call before.
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
    """Whether an HTTP answer to a cancellation says that no unanswered call is left of it."""
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
    """Twilio gives milliseconds, as a string."""
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10:  # noqa: PLR2004 - 11 days
        return timedelta(milliseconds=int(text))
    return timedelta(0)


class _TrustingAsTheLineDoes(HTTPAdapter):
    """Certificates are judged by one context. requests would look at its own list of CAs, and at no setting."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        self._trust = trust
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - requests' own
        super().init_poolmanager(*args, ssl_context=self._trust, **kwargs)

    def cert_verify(self, conn: Any, *_: object) -> None:  # noqa: ANN401 - urllib3's own
        conn.cert_reqs = "CERT_REQUIRED"


class _HttpClient(TwilioHttpClient):  # type: ignore[misc]
    """The SDK's client, pointed at `api_url` with its path, without a proxy from the environment.

    Raises CarrierAway for what would be the same whatever was asked.
    """

    def __init__(self, api_url: str, timeout: float, trust: ssl.SSLContext) -> None:
        super().__init__(pool_connections=True, timeout=timeout)
        self._there = urlsplit(api_url)
        if self.session is not None:
            self.session.trust_env = False
            self.session.mount("https://", _TrustingAsTheLineDoes(trust))

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401 - the SDK's own
        parts = urlsplit(url)
        # A server that knows its own path names it in the address of the next page.
        path = parts.path if parts.path.startswith(f"{self._there.path}/") else self._there.path + parts.path
        here = urlunsplit((self._there.scheme, self._there.netloc, path, parts.query, ""))
        try:
            response = super().request(method, here, *args, **kwargs)
        except RequestException as error:
            raise CarrierAway from error
        # Here and not from the SDK's error: it has none for an answer that is no JSON.
        if response.status_code in _NOBODY_IS_ANSWERED or response.status_code >= _SERVER_ERROR:
            raise CarrierAway(f"HTTP_{response.status_code}")
        return response


class TwilioDesk:
    """Asks about calls and ends them, with Twilio's own SDK: doing either twice does no harm."""

    def __init__(self, account: TwilioAccount, policy: Policy) -> None:
        self._client = Client(
            account.account_sid,
            account.auth_tokens[0],
            http_client=_HttpClient(account.api_url, policy.total_timeout.total_seconds(), trusted(account.ca_file)),
        )

    def probe(self) -> None:
        """The list that unknown calls are looked for on, one call of it. Raises CarrierUnavailable."""
        try:
            list(self._client.calls.page(page_size=1))
        except _NO_ANSWER as error:
            raise CarrierUnavailable from error

    def listed(
        self, *, to: str | None, caller: str, created_from: datetime, created_until: datetime
    ) -> Sequence[ListedCall]:
        """The calls between two numbers, or from `caller` to any, that were created in the half-open span.

        No StartTime filter: a queued call has none yet and would be missed. Newest first, so reading ends at the
        first older one. Raises CarrierUnavailable.
        """
        found = []
        try:
            narrowed = {} if to is None else {"to": to}
            for call in self._client.calls.stream(**narrowed, from_=caller, page_size=50):
                listed = _listed(call)
                if listed.created_at < created_from:
                    break
                if listed.created_at < created_until:
                    found.append(listed)
        except _NO_ANSWER as error:
            raise CarrierUnavailable from error
        return found

    def fetch(self, call_sid: str) -> CallNews:
        """Return how a call stands; of a failed call with the cause that its notifications name.

        Raises CarrierUnavailable.
        """
        try:
            news = _listed(self._client.calls(call_sid).fetch()).news
        except _NO_ANSWER as error:
            raise CarrierUnavailable from error
        return replace(news, cause=self._cause(call_sid)) if news.status is CallStatus.FAILED else news

    def _cause(self, call_sid: str) -> FailureCause | None:
        """Return why a call failed; None when its notifications say nothing, or cannot be read.

        Not every server that speaks the Calls API has notifications, and a failure that is known must not stay open
        for want of its cause: without one no retry follows.
        """
        try:
            codes = [each.error_code for each in self._client.calls(call_sid).notifications.list(limit=50)]
        except (*_NO_ANSWER, CarrierUnavailable):
            return None
        return cause_of(codes)

    def cancel(self, call_sid: str) -> None:
        """Stop a call that nobody has answered; one that was answered is left alone. Raises CarrierUnavailable."""
        self._stop(call_sid, CallInstance.UpdateStatus.CANCELED)

    def hang_up(self, call_sid: str) -> None:
        """End a call wherever it is; one that is over stays so. Raises CarrierUnavailable."""
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
    """Return what the error codes of a failed call's notifications say; a code of the number counts before others.

    A code that is not in the table proves nothing: it may speak of a web request of the call.
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
"""What keeps a call that was taken from being connected, and says nothing of the number or the person."""


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
    """Reads status callbacks: signed over our public URL, never over what a request says its host is."""

    def __init__(self, account: TwilioAccount) -> None:
        self._account = account
        self._validators = [RequestValidator(token) for token in account.auth_tokens]

    def is_genuine(self, path: str, form: Sequence[tuple[str, str]], signature: str) -> bool:
        """Does the signature cover our public URL, with this path and query, and this form? Never raises."""
        params = dict(form)
        if len(params) != len(form):
            return False  # Twilio names no parameter twice
        url = f"{self._account.public_url}{path}"
        try:
            # All tokens are tried, so that the time taken does not tell which one matched.
            genuine = [validator.validate(url, params, signature) for validator in self._validators]
        except (TypeError, ValueError):  # what cannot be encoded was not signed either
            return False
        return any(genuine)

    def read(self, token: str, form: Mapping[str, str]) -> CallNews:
        """The news in a form. Raises NotACallback when a known field is not what it must be.

        Twilio adds parameters without notice, so what is unknown is let through, here unread.
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
"""How a field that we read begins in the text that is signed. There are names that begin with To, and none with To+."""


def _has_moved_boundary(form: Mapping[str, str]) -> bool:
    """Whether a field that we read stands hidden in another one.

    A signature is over names and values in one text, without a mark between them: `CallDuratio=n12` signs as
    `CallDuration=12`, and so does a value that has swallowed the field behind it.
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
    """None when nobody looked who answered."""
    return _ANSWERED_BY.get(word, AnsweredBy.UNKNOWN) if word else None


def _seconds(text: str) -> timedelta:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise NotACallback
    return timedelta(seconds=int(text))
