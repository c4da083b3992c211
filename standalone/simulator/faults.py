"""Faults of the simulated carrier: refusals, requests without an answer, and outages."""

import asyncio
import contextlib
import errno
import socket
from enum import StrEnum
from typing import Any
from weakref import WeakSet

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# --- Twilio's refusals: an HTTP status, an error code and a sentence


REASONS = {
    13227: (400, "No international permission for this country"),
    20001: (400, "Invalid parameter"),
    20003: (401, "Authenticate"),
    20005: (403, "The account is not active"),
    20403: (403, "The account may not use the API"),
    20404: (404, "The requested resource was not found"),
    20405: (405, "Method not allowed"),
    20429: (429, "Too Many Requests"),
    20500: (500, "An internal server error has occurred"),
    20503: (503, "Service Unavailable"),
    21201: (400, "No 'To' number is specified"),
    21203: (400, "International calls are not enabled for this account"),
    21205: (400, "Url is not a valid URL"),
    21208: (400, "Timeout must be a whole number of seconds between 1 and 600"),
    21210: (400, "The 'From' number is not verified for this account"),
    21211: (400, "The 'To' number is not a valid phone number"),
    21212: (400, "The 'From' number is not a valid phone number, or is not a caller id of this account"),
    21213: (400, "The 'From' number is missing"),
    21215: (400, "Account not authorized to call this number; check its geographic permissions"),
    21216: (400, "Call blocked by Twilio"),
    21220: (400, "Call is not in-progress. Cannot redirect."),
    21609: (400, "The 'StatusCallback' URL is not a valid URL"),
    22005: (400, "The queue of calls to be placed would take more than 24 hours"),
    32205: (403, "No geographic permission for this destination"),
}


class RefusedByTwilio(Exception):
    """The request was refused with one of Twilio's error codes."""

    def __init__(self, code: int, *, message: str | None = None, status: int | None = None) -> None:
        usual_status, usual_message = REASONS.get(code, (400, f"Error {code}"))
        self.code = code
        self.status = status or usual_status
        self.message = message or usual_message
        super().__init__(self.message)

    def body(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }


# --- The voice server that `Url` names, or the one that the simulated carrier has of its own


class VoiceOutage(BaseModel):
    """The request for an outage of the voice server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers_probes: bool = False
    """True: it seems to work, and gives answered calls no instructions."""


class VoiceServer:
    """The voice server. If `is_requested`, it is the one that the order's `Url` names.

    Otherwise the simulated one gives each answered call empty instructions, unless it is down.
    """

    def __init__(self, *, is_requested: bool = False) -> None:
        self.is_requested = is_requested
        self.is_down = False
        self._answers_probes = False

    def end(self, outage: VoiceOutage) -> None:
        self.is_down, self._answers_probes = True, outage.answers_probes

    def start(self) -> None:
        self.is_down = False

    def answers(self, *, is_probe: bool) -> bool:
        return not self.is_down or (is_probe and self._answers_probes)


# --- Requests without an answer, and refused connections


_TRANSPORT = "duecall.transport"
_TRANSPORTS = "duecall.transports"


class HungUp(Exception):
    """The connection is to be closed without an answer, when the client gives up or after `hold_s`."""

    def __init__(self, *, hold_s: float) -> None:
        super().__init__()
        self.hold_s = hold_s


class CanHangUp(FastAPI):
    """An application whose answers may close the connection.

    ASGI has no message for that, so this takes the transport from uvicorn's `send`, which is only accessible here,
    outside every middleware.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - FastAPI's own
        super().__init__(**settings)
        self._transports: WeakSet[Any] = WeakSet()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        if transport is not None:
            self._transports.add(transport)
        scope[_TRANSPORT] = transport
        scope[_TRANSPORTS] = self._transports
        await super().__call__(scope, receive, send)


class NoAnswer(Response):
    """Holds the connection until the client gives up or `hold_s` have passed, and closes it without a byte."""

    def __init__(self, *, hold_s: float) -> None:
        super().__init__()
        self._hold_s = hold_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - nothing is sent
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._hold_s):
                await _disconnected(receive)
                return
        scope[_TRANSPORT].close()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def refuse_connections(scope: Scope, *, for_s: float) -> None:
    """Close every connection except that of `scope`, and have the system refuse new connections for `for_s`.

    On Linux a listening socket that was shut down can listen again. asyncio has no public API for it.
    """
    own = scope[_TRANSPORT]
    server = own._server  # noqa: SLF001 - see above
    loop = asyncio.get_running_loop()
    for transport in list(scope[_TRANSPORTS]):
        if transport.is_closing():
            continue
        _share_port(transport.get_extra_info("socket"))
        if transport is not own:
            transport.abort()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
        with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
            _stop_listening(same)
    server._serving = False  # noqa: SLF001 - see above
    loop.call_later(for_s, server._start_serving)  # noqa: SLF001 - see above
    await asyncio.sleep(0)  # in the next turn of the loop they are closed, and the operator can be answered


def _stop_listening(listening: socket.socket) -> None:
    address = listening.getsockname()
    _share_port(listening)
    listening.shutdown(socket.SHUT_RDWR)
    try:
        listening.bind(address)
    except OSError as error:
        # It keeps its port, unless the system had chosen that.
        if error.errno != errno.EINVAL:
            raise


def _share_port(of: Any) -> None:  # noqa: ANN401 - a socket, or asyncio's view of one
    """Let a socket listen at a port that a connection still uses."""
    of.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


# --- Simulated outages of the carrier


class OutageKind(StrEnum):
    """The effect on customers. Accepted calls go on, and so do their callbacks unless a kind changes that."""

    REFUSE = "refuse"
    """New connections are refused and open ones are closed, also for the operator's API."""
    UNAVAILABLE = "503"
    TOO_MANY_REQUESTS = "429"
    BAD_CREDENTIALS = "401"
    DROP = "drop"
    """Each request is read, and its connection is closed without an answer."""
    HANG = "hang"
    """Each request is read and never answered."""
    UPLINK = "uplink"
    """The network between the carrier and its customer is lost. Orders arrive and are carried out. Their answers are
    lost, queries get no answer, and callbacks do not arrive and are not sent again."""


_HANG_S = 600.0
"""Longer than any client waits."""
_CODES = {OutageKind.UNAVAILABLE: 20503, OutageKind.TOO_MANY_REQUESTS: 20429, OutageKind.BAD_CREDENTIALS: 20003}


class Order(BaseModel):
    """The request for an outage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: OutageKind
    for_s: float | None = Field(default=None, gt=0, le=3600)
    """In real seconds. None: until the operator ends it."""
    answers_questions: bool = False
    """True: only orders are affected, and GET requests are answered normally."""

    @model_validator(mode="after")
    def _ends(self) -> "Order":
        if self.kind is OutageKind.REFUSE and self.for_s is None:
            raise ValueError("for_s is required: an outage that refuses connections can be ended only by time")
        if self.kind is OutageKind.REFUSE and self.answers_questions:
            raise ValueError("answers_questions is impossible for an outage that refuses connections")
        return self


class Outage:
    """The current outage. A new one replaces it."""

    def __init__(self) -> None:
        self._kind: OutageKind | None = None
        self._answers_questions = False
        self._end: asyncio.TimerHandle | None = None

    @property
    def kind(self) -> OutageKind | None:
        return self._kind

    async def begin(self, order: Order, scope: Scope) -> None:
        """Begin an outage. `scope` belongs to the current request, which arrived on the server that may refuse."""
        self.end()
        self._kind = order.kind
        self._answers_questions = order.answers_questions
        if order.for_s is not None:
            self._end = asyncio.get_running_loop().call_later(order.for_s, self.end)
            if order.kind is OutageKind.REFUSE:
                await refuse_connections(scope, for_s=order.for_s)

    def end(self) -> None:
        self._kind = None
        if self._end is not None:
            self._end.cancel()
            self._end = None

    @property
    def loses_answers(self) -> bool:
        """True if orders are carried out and neither their answer nor a callback reaches us."""
        return self._kind is OutageKind.UPLINK

    def check(self, *, is_question: bool) -> None:
        """Raise RefusedByTwilio or HungUp while the carrier is down."""
        if self._kind is None or (is_question and self._answers_questions):
            return
        if self.loses_answers and not is_question:
            return
        if self._kind in _CODES:
            raise RefusedByTwilio(_CODES[self._kind])
        raise HungUp(hold_s=_HANG_S if self._kind is OutageKind.HANG else 0)
