"""The Twilio adapter: one request for a call, cautious reading of answers, and rejection of forged callbacks."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from twilio.request_validator import RequestValidator

from scheduler import assembly
from scheduler.carriers.interface import CarrierAway, CarrierUnavailable, NotACallback
from scheduler.carriers.twilio import TwilioAccount, TwilioCallbacks, callback_path
from scheduler.carriers.twilio_calls import TwilioCallPlacer, classify, is_stopped
from scheduler.carriers.twilio_queries import TwilioQueries
from scheduler.domain.call import (
    Accepted,
    AnsweredBy,
    AnswerUnknown,
    CallOrder,
    CallStatus,
    CarrierAnswer,
    DetectionTuning,
    MachineDetection,
    NeverTaken,
    NumberRefused,
)
from scheduler.lifecycle.policy import Policy
from scheduler.settings import Settings, WrongSettings
from standalone.simulator.app import create_app
from tests.architecture.guards import guards
from tests.conftest import real_now, wait_until
from tests.support.builders import a_number
from tests.support.servers import (
    ACCOUNT_SID,
    PRIMARY,
    SECONDARY,
    SimulatedCarrier,
    a_carrier,
    a_closed_port,
    a_crowded_door,
    address_of,
    serving,
    wired,
)
from tests.support.smtp_server import CERTIFICATE

OURS = "+421221020001"
SID = f"CA{1:032x}"
POLICY = Policy(connect_timeout=timedelta(seconds=15), total_timeout=timedelta(seconds=30))
"""Longer than a busy machine takes for any answer."""
DEADLINE = timedelta(seconds=2)
HURRIED = replace(POLICY, connect_timeout=DEADLINE * 0.95, total_timeout=DEADLINE)
"""For answers that do not come within the deadline."""
IMPATIENT = replace(POLICY, connect_timeout=timedelta(seconds=1))
"""For connections that are never made."""
IN_TIME_S = 10 * DEADLINE.total_seconds()


@pytest.fixture(scope="module")
def carrier() -> Iterator[SimulatedCarrier]:
    with a_carrier() as carrier:
        yield carrier


def an_order(number: str, **fields: Any) -> CallOrder:
    usual: dict[str, Any] = {
        "to": number,
        "caller": OURS,
        "token": f"a-token-for-{number[1:]}",
        "ring_timeout": timedelta(seconds=30),
        "time_limit": timedelta(seconds=720),
        "machine_detection": MachineDetection.SYNC,
    }
    return CallOrder(**(usual | fields))


@asynccontextmanager
async def a_placer(account: TwilioAccount, policy: Policy = POLICY) -> AsyncIterator[TwilioCallPlacer]:
    placer = TwilioCallPlacer(account, policy)
    try:
        yield placer
    finally:
        await placer.close()


async def placed(
    carrier: SimulatedCarrier, order: CallOrder, *, policy: Policy = POLICY, url: str | None = None, **account: Any
) -> CarrierAnswer:
    """Place a call with its only POST, and return the answer."""
    async with a_placer(replace(carrier.account(url=url), **account), policy) as placer:
        return await placer.place(order)


async def accepted(carrier: SimulatedCarrier, order: CallOrder) -> Accepted:
    answer = await placed(carrier, order)
    assert isinstance(answer, Accepted)
    return answer


# ---- the gate before the POST


@dataclass
class NotedGate:
    """A gate with a fixed decision that records its calls."""

    is_connected: bool = True
    lets_go: bool = True
    asked: list[str] = field(default_factory=list)

    async def connected(self) -> bool:
        self.asked.append("connected")
        return self.is_connected

    def may_leave(self) -> bool:
        self.asked.append("may_leave")
        return self.lets_go

    def left(self) -> None:
        self.asked.append("left")


async def gated(carrier: SimulatedCarrier, number: str, gate: NotedGate) -> tuple[CarrierAnswer, bytes]:
    """Place a call, and return the answer and every byte that reached the carrier."""
    arrived: list[bytes] = []

    def note(sent: bytes) -> bool:
        arrived.append(sent)
        return False

    with wired(carrier.url) as (wire, url):
        wire.dead = note
        async with a_placer(carrier.account(url=url)) as placer:
            return await placer.place(an_order(number), gate), b"".join(arrived)


async def test_gate_is_checked_once_connected_and_before_the_bytes(carrier: SimulatedCarrier) -> None:
    number, gate = a_number(), NotedGate()
    answer, arrived = await gated(carrier, number, gate)
    assert isinstance(answer, Accepted)
    assert gate.asked == ["connected", "may_leave", "left"]
    assert arrived.startswith(b"POST ")


@pytest.mark.parametrize(
    ("gate", "asked"),
    [
        pytest.param(NotedGate(is_connected=False), ["connected"], id="with the connection in hand"),
        pytest.param(NotedGate(lets_go=False), ["connected", "may_leave"], id="right before the bytes"),
    ],
)
async def test_call_that_the_gate_refuses_sends_no_byte(
    carrier: SimulatedCarrier, gate: NotedGate, asked: list[str]
) -> None:
    number = a_number()
    answer, arrived = await gated(carrier, number, gate)
    assert answer == NeverTaken(cause="NOT_SENT")
    assert arrived == b""
    assert carrier.requests(number) == []
    assert gate.asked == asked


def of_our_certificate() -> ssl.SSLContext:
    """Build the TLS context of a server with the certificate of the tests."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


@contextmanager
def a_carrier_that_does_not_read(trust: ssl.SSLContext | None) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """A server that does not read: its port, and a function that returns the bytes. The kernel buffers about 30 KB."""
    with socket.socket() as door, ThreadPoolExecutor(1) as pool:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        door.settimeout(60)
        door.bind(("127.0.0.1", 0))
        door.listen()

        def admit() -> socket.socket:
            client, _ = door.accept()
            client.settimeout(60)
            return client if trust is None else trust.wrap_socket(client, server_side=True)

        admitted = pool.submit(admit)

        def read() -> bytes:
            pieces = []
            with admitted.result() as client, suppress(ConnectionError, ssl.SSLError):
                while piece := client.recv(65536):
                    pieces.append(piece)
            return b"".join(pieces)

        yield door.getsockname()[1], read


@pytest.mark.parametrize("secret", [False, True], ids=["in the clear", "over TLS"])
async def test_bytes_that_the_kernel_does_not_take_are_never_sent(carrier: SimulatedCarrier, secret: bool) -> None:
    """They would be sent whenever the other side reads again, long after the permit."""
    with a_carrier_that_does_not_read(of_our_certificate() if secret else None) as (port, read):
        url = f"http{'s' if secret else ''}://127.0.0.1:{port}"
        form: dict[str, Any] = {"voice_url": f"https://example.com/{'x' * 60_000}", "ca_file": CERTIFICATE}
        answer = await placed(carrier, an_order(a_number()), url=url, **form)
        arrived = await asyncio.to_thread(read)
    assert answer == AnswerUnknown(cause="ANSWER_BROKE_OFF")
    assert b"MachineDetection" not in arrived, "the end of the form"


TUNED = DetectionTuning(
    timeout=timedelta(seconds=12),
    speech_threshold=timedelta(milliseconds=1900),
    speech_end_threshold=timedelta(milliseconds=1000),
    silence_timeout=timedelta(milliseconds=3500),
)
OF_DETECTION = "MachineDetection", "AsyncAmd"


@pytest.mark.parametrize("mode", MachineDetection)
async def test_order_asks_for_the_machine_detection_of_its_mode(mode: MachineDetection) -> None:
    account = TwilioAccount(
        api_url="http://carrier.example",
        account_sid=ACCOUNT_SID,
        auth_tokens=(PRIMARY,),
        public_url="https://duecall.example",
        voice_url="https://example.com/voice",
    )
    order = an_order(a_number(), token="a-token", machine_detection=mode, detection_tuning=TUNED)
    async with a_placer(account) as placer:
        sent = parse_qs(placer._form(order).decode(), strict_parsing=True)
    synchronous = {
        "MachineDetection": ["Enable"],
        "MachineDetectionTimeout": ["12"],
        "MachineDetectionSpeechThreshold": ["1900"],
        "MachineDetectionSpeechEndThreshold": ["1000"],
        "MachineDetectionSilenceTimeout": ["3500"],
    }
    asynchronous = {
        "AsyncAmd": ["true"],
        "AsyncAmdStatusCallback": sent["StatusCallback"],
        "AsyncAmdStatusCallbackMethod": ["POST"],
    }
    expected = {
        MachineDetection.OFF: {},
        MachineDetection.SYNC: synchronous,
        MachineDetection.ASYNC: synchronous | asynchronous,
    }
    assert {name: value for name, value in sent.items() if name.startswith(OF_DETECTION)} == expected[mode]


async def test_gate_is_not_checked_for_a_cancellation(carrier: SimulatedCarrier) -> None:
    gate = NotedGate()
    async with a_placer(carrier.account()) as placer:
        answer = await placer.place(an_order(a_number()), gate)
        assert isinstance(answer, Accepted)
        assert await placer.cancel(answer.call_sid)
    assert gate.asked == ["connected", "may_leave", "left"]


# ---- answers

Answers = list[tuple[int, object]]


def coded(status: int, *codes: int) -> Answers:
    """Build answers with this HTTP status, one with each error code."""
    return [(status, {"code": code}) for code in codes]


# `test_twilio_codes.py` has the codes of the number, the country and the caller id.
MEANINGS: list[tuple[CarrierAnswer, Answers]] = [
    (
        Accepted(call_sid=SID),
        [(201, {"sid": SID} | queued) for queued in ({}, {"queue_time": "0"}, {"queue_time": "soon"})],
    ),
    # Twilio's document allows both cases.
    (Accepted(call_sid=f"CA{'Ab' * 16}"), [(201, {"sid": f"CA{'Ab' * 16}"})]),
    (Accepted(call_sid=SID, queue_time=timedelta(seconds=2.5)), [(201, {"sid": SID, "queue_time": "2500"})]),
    (
        AnswerUnknown(cause="CREATED_WITHOUT_A_NAME"),
        [(201, answer) for answer in ({"sid": "CA1"}, {"sid": f"ca{'a' * 32}"}, {"sid": 7}, {}, [SID], None)],
    ),
    (NeverTaken(cause="CREDENTIALS"), [*coded(400, 20003), *coded(401, 20003), (401, None), *coded(403, 20403)]),
    (NeverTaken(cause="ACCOUNT_NOT_ACTIVE"), coded(400, 20005) + coded(403, 20005)),
    (NeverTaken(cause="ORDER_REFUSED"), coded(400, 21208) + coded(403, 20006)),
    (NeverTaken(cause="ACCOUNT_LIMITED"), coded(400, 21219)),
    (NeverTaken(cause="QUEUE_FULL"), coded(400, 22005)),
    (NeverTaken(cause="THROTTLED"), [*coded(400, 10004), *coded(429, 20429), (429, None)]),
]
UNKNOWN: Answers = [
    *[(200, {"sid": SID}), (302, {}), (407, {}), (408, {}), (409, {}), (502, None), (503, {})],
    *[*coded(400, 21220, True, 99999), (400, {"code": "21211"}), (400, {})],
    *[*coded(403, 99999), (403, {}), (403, None), *coded(404, 20404)],
    *coded(500, 21215, 22005, 20003, 21211),
    *coded(503, 20429),
]
CLASSIFIED: list[tuple[int, object, CarrierAnswer]] = [
    *((status, answer, meaning) for meaning, answers in MEANINGS for status, answer in answers),
    *((status, answer, AnswerUnknown(cause=f"HTTP_{status}")) for status, answer in UNKNOWN),
]


@pytest.mark.parametrize(("status", "answer", "meaning"), CLASSIFIED, ids=lambda each: str(each)[:40])
def test_an_answer_means(status: int, answer: object, meaning: CarrierAnswer) -> None:
    assert classify(status, json.dumps(answer).encode()) == meaning


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b'{"sid": "CA', b"[" * 9], ids=repr)
def test_body_that_is_not_json_is_unknown(body: bytes) -> None:
    assert classify(201, body) == AnswerUnknown(cause="CREATED_WITHOUT_A_NAME")


@guards("client_error")
@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("code", [21211, 20429])
def test_server_error_is_unknown_with_any_code(status: int, code: int) -> None:
    assert classify(status, json.dumps({"code": code}).encode()) == AnswerUnknown(cause=f"HTTP_{status}")


@given(status=st.integers(200, 599), body=st.binary(max_size=80))
def test_only_a_sid_accepts_and_only_a_client_error_refuses(status: int, body: bytes) -> None:
    answer = classify(status, body)
    assert not isinstance(answer, Accepted) or status == 201
    assert not isinstance(answer, NumberRefused) or 400 <= status < 500
    assert not isinstance(answer, NeverTaken) or status in {401, 403, 429} or 400 <= status < 500


# ---- placing calls


async def test_accepted_call_has_a_sid_and_all_ordered_fields(carrier: SimulatedCarrier) -> None:
    number = a_number()
    answer = await placed(carrier, an_order(number))
    [ring] = carrier.rings(number)
    [request] = carrier.requests(number)
    assert answer == Accepted(call_sid=ring["sid"])
    assert (ring["to"], ring["from"], ring["token"]) == (number, OURS, an_order(number).token)
    assert request["answered"] == 201


@pytest.mark.parametrize(
    ("voice_url", "url"),
    [
        pytest.param("https://example.com/voice", "https://example.com/voice?attempt=mine", id="plain"),
        pytest.param("https://example.com/voice?a=b", "https://example.com/voice?a=b&attempt=mine", id="with a query"),
        pytest.param(
            "https://example.com/voice#rc=2", "https://example.com/voice?attempt=mine#rc=2", id="with overrides"
        ),
    ],
)
async def test_form_orders_callbacks_with_retries(carrier: SimulatedCarrier, voice_url: str, url: str) -> None:
    asked: list[bytes] = []
    async with a_server_that(answers(HEAD + BODY, asked)) as there:
        order = an_order(a_number(), token="mine")
        assert isinstance(await placed(carrier, order, url=there, voice_url=voice_url), Accepted)
    [request] = asked
    form = parse_qs(request.split(b"\r\n\r\n", 1)[1].decode())
    assert [form[name] for name in ("To", "From", "Timeout", "TimeLimit")] == [[order.to], [OURS], ["30"], ["720"]]
    assert form["Url"] == [url]
    assert form["StatusCallback"] == ["http://127.0.0.1:9/carrier/twilio/mine#rc=5&rp=5xx,ct,rt"]
    assert form["FallbackUrl"] == ["http://127.0.0.1:9/carrier/twilio/mine/fallback#rc=5&rp=5xx,ct,rt"]
    assert form["StatusCallbackEvent"] == ["initiated", "ringing", "answered", "completed"]


async def test_queued_call_has_its_queue_time_and_no_start(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    number = a_number()
    carrier.plan(to=number, queue_s=90.5)
    answer = await accepted(carrier, an_order(number))
    assert answer.queue_time == timedelta(seconds=90.5)
    news = queries.fetch(answer.call_sid)
    assert (news.status, news.started, news.to) == (CallStatus.QUEUED, False, number)
    queries.cancel(answer.call_sid)
    news = queries.fetch(answer.call_sid)
    assert (news.status, news.started) == (CallStatus.CANCELLED, False)
    assert carrier.rings(number)[0]["rang_at"] is None


async def test_call_to_a_busy_callee_is_accepted(carrier: SimulatedCarrier) -> None:
    number = a_number()
    carrier.plan(to=number, outcome="busy")
    await accepted(carrier, an_order(number))


ANSWERS: list[tuple[dict[str, Any], CarrierAnswer, int]] = [
    ({"fault": "429"}, NeverTaken(cause="THROTTLED"), 0),
    ({"fault": "401"}, NeverTaken(cause="CREDENTIALS"), 0),
    ({"fault": "refuse", "code": 21211}, NumberRefused(cause="TWILIO_21211"), 0),
    ({"fault": "refuse", "code": 12345}, AnswerUnknown(cause="HTTP_400"), 0),
    ({"fault": "refuse_500"}, AnswerUnknown(cause="HTTP_500"), 0),
    ({"fault": "accept_then_500"}, AnswerUnknown(cause="HTTP_500"), 1),
    ({"fault": "drop"}, AnswerUnknown(cause="ANSWER_BROKE_OFF"), 0),
    ({"fault": "accept_and_silence"}, AnswerUnknown(cause="NO_ANSWER_IN_TIME"), 1),
    ({"fault": "slow", "delay_s": 30}, AnswerUnknown(cause="NO_ANSWER_IN_TIME"), 1),
    ({"fault": "late_accept", "delay_s": 30}, AnswerUnknown(cause="NO_ANSWER_IN_TIME"), 0),
    ({"fault": "refuse", "code": 22005}, NeverTaken(cause="QUEUE_FULL"), 0),
    ({"fault": "refuse", "code": 20005, "status": 403}, NeverTaken(cause="ACCOUNT_NOT_ACTIVE"), 0),
]


@pytest.mark.parametrize(
    ("plan", "meaning", "rings"), ANSWERS, ids=[plan["fault"] + str(plan.get("code", "")) for plan, *_ in ANSWERS]
)
async def test_one_request_is_sent_and_its_answer_is(
    carrier: SimulatedCarrier, plan: dict[str, Any], meaning: CarrierAnswer, rings: int
) -> None:
    number = a_number()
    carrier.plan(to=number, **plan)
    policy = HURRIED if meaning == AnswerUnknown(cause="NO_ANSWER_IN_TIME") else POLICY
    async with asyncio.timeout(IN_TIME_S):
        assert await placed(carrier, an_order(number), policy=policy) == meaning
    wait_until(lambda: carrier.requests(number), says="the request has arrived")
    assert len(carrier.requests(number)) == 1
    assert len(carrier.rings(number)) == rings


async def test_refused_connection_is_never_taken(carrier: SimulatedCarrier) -> None:
    answer = await placed(carrier, an_order(a_number()), url=a_closed_port())
    assert answer == NeverTaken(cause="NEVER_CONNECTED")


async def test_connection_timeout_is_never_taken(carrier: SimulatedCarrier) -> None:
    with a_crowded_door() as door:
        answer = await placed(carrier, an_order(a_number()), policy=IMPATIENT, url=address_of(door))
    assert answer == NeverTaken(cause="NEVER_CONNECTED")


async def test_unknown_host_is_never_taken(carrier: SimulatedCarrier) -> None:
    answer = await placed(carrier, an_order(a_number()), policy=IMPATIENT, url="http://unknown.invalid:80")
    assert answer == NeverTaken(cause="NEVER_CONNECTED")


async def test_failed_tls_handshake_is_never_taken(carrier: SimulatedCarrier) -> None:
    heard = []

    async def not_tls(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(4096))

    async with a_server_that(not_tls) as url:
        answer = await placed(carrier, an_order(a_number()), url=url.replace("http:", "https:"))
    assert answer == NeverTaken(cause="NEVER_CONNECTED")
    assert all(b"POST" not in each for each in heard)


async def test_slow_tls_handshake_is_never_taken(carrier: SimulatedCarrier) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with a_server_that(silent) as url:
        secret = url.replace("http:", "https:")
        answer = await placed(carrier, an_order(a_number()), policy=IMPATIENT, url=secret)
    assert answer == NeverTaken(cause="NEVER_CONNECTED")


async def test_wrong_auth_token_is_never_taken(carrier: SimulatedCarrier) -> None:
    number = a_number()
    assert await placed(carrier, an_order(number), auth_tokens=("a wrong one",)) == NeverTaken(cause="CREDENTIALS")
    assert carrier.rings(number) == []


async def test_calls_share_kept_alive_connections(carrier: SimulatedCarrier) -> None:
    numbers = [a_number() for _ in range(20)]
    async with a_placer(carrier.account()) as placer:
        for batch in (numbers[:10], numbers[10:]):
            placings = await asyncio.gather(*(placer.place(an_order(number)) for number in batch))
            assert all(isinstance(answer, Accepted) for answer in placings)
    assert [len(carrier.requests(number)) for number in numbers] == [1] * 20


Talks = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def a_server_that(talks: Talks) -> AsyncIterator[str]:
    """A server on loopback that sends raw bytes, for malformed answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talks(reader, writer)
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await closed(server)


async def closed(server: asyncio.Server) -> None:
    """Close a server and wait for its connections. A later test would be blamed for those that stay open."""
    closing = asyncio.create_task(server.wait_closed())
    await asyncio.sleep(0)  # once the server is closed, `wait_closed` of Python 3.11 waits for nothing
    server.close()
    await closing


async def request_read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


def answers(answer: bytes, asked: list[bytes] | None = None) -> Talks:
    """Make a server that reads one request, adds it to `asked`, sends the answer and closes the connection."""

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_read(reader)
        if asked is not None:
            asked.append(request)
        writer.write(answer)
        await writer.drain()

    return talks


BODY = json.dumps({"sid": SID, "queue_time": "0"}).encode()
HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)


async def test_answer_in_several_pieces_is_read_completely(carrier: SimulatedCarrier) -> None:
    async def in_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_read(reader)
        for piece in (HEAD, BODY[:10], BODY[10:]):
            writer.write(piece)
            await writer.drain()
            with suppress(TimeoutError):  # the client sends nothing more, so each write is a separate packet
                await asyncio.wait_for(reader.read(1), 0.02)

    async with a_server_that(in_pieces) as url:
        assert await placed(carrier, an_order(a_number()), url=url) == Accepted(call_sid=SID)


@pytest.mark.parametrize("answer", [HEAD + BODY[:10], b"\x00\x01\x02 not HTTP\r\n\r\n"], ids=["truncated", "malformed"])
async def test_truncated_or_malformed_answer_is_unknown(carrier: SimulatedCarrier, answer: bytes) -> None:
    async with a_server_that(answers(answer)) as url:
        assert isinstance(await placed(carrier, an_order(a_number()), url=url), AnswerUnknown)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("reads_first", [True, False], ids=["after the request", "before it was read"])
async def test_reset_connection_is_unknown(carrier: SimulatedCarrier, reads_first: bool) -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reads_first:
            await request_read(reader)
        reset(writer)

    async with a_server_that(resets) as url:
        assert await placed(carrier, an_order(a_number()), url=url) == AnswerUnknown(cause="ANSWER_BROKE_OFF")


async def test_endless_answer_is_unknown_within_the_deadline(carrier: SimulatedCarrier) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_read(reader)
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 999999999\r\n\r\n")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    async with a_server_that(endless) as url, asyncio.timeout(IN_TIME_S):
        assert isinstance(await placed(carrier, an_order(a_number()), policy=HURRIED, url=url), AnswerUnknown)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@guards("redirect")
async def test_no_redirect_is_followed(carrier: SimulatedCarrier, status: int) -> None:
    number = a_number()
    asked: list[bytes] = []
    there = f"{carrier.url}/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json"
    redirect = f"HTTP/1.1 {status} Go\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n".encode()
    async with a_server_that(answers(redirect, asked)) as url:
        assert await placed(carrier, an_order(number), url=url) == AnswerUnknown(cause=f"HTTP_{status}")
    assert len(asked) == 1
    assert carrier.requests(number) == []


async def test_no_proxy_from_the_environment_is_used(
    carrier: SimulatedCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, a_closed_port())
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with a_server_that(answers(HEAD + BODY)) as url:
        assert await placed(carrier, an_order(a_number()), url=url) == Accepted(call_sid=SID)


async def test_closed_kept_alive_connection_repeats_no_request(carrier: SimulatedCarrier) -> None:
    asked = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await request_read(reader))
        writer.write(HEAD + BODY)
        await writer.drain()
        asked.append(await request_read(reader))  # read, and the connection closed without an answer

    async with a_server_that(once) as url, a_placer(carrier.account(url=url)) as placer:
        assert isinstance(await placer.place(an_order(a_number())), Accepted)
        assert isinstance(await placer.place(an_order(a_number())), AnswerUnknown)
        assert len(asked) == 2


DOWN: list[tuple[str, CarrierAnswer]] = [
    ("503", AnswerUnknown(cause="HTTP_503")),
    ("429", NeverTaken(cause="THROTTLED")),
    ("401", NeverTaken(cause="CREDENTIALS")),
    ("drop", AnswerUnknown(cause="ANSWER_BROKE_OFF")),
    ("hang", AnswerUnknown(cause="NO_ANSWER_IN_TIME")),
    ("refuse", NeverTaken(cause="NEVER_CONNECTED")),
]


@pytest.mark.parametrize(("kind", "meaning"), DOWN, ids=[kind for kind, _ in DOWN])
async def test_post_during_an_outage_returns(carrier: SimulatedCarrier, kind: str, meaning: CarrierAnswer) -> None:
    _, sid = await a_call(carrier, "rang_at", **RINGING)
    number, policy = a_number(), policy_during(kind)
    carrier.down(kind, for_s=4 if kind == "refuse" else None)
    try:
        assert await placed(carrier, an_order(number), policy=policy) == meaning
        assert not await cancelled(carrier, sid, policy=policy)
        with queries_of(carrier.account(), policy) as queries:
            for ask in (queries.fetch, queries.cancel, queries.hang_up):
                with pytest.raises(CarrierUnavailable):
                    ask(sid)
    finally:
        wait_until(lambda: is_up(carrier), says="the carrier is up again")
    assert carrier.rings(number) == []
    assert await cancelled(carrier, sid)


def policy_during(kind: str) -> Policy:
    """Build a policy with a short deadline during an outage without answers."""
    return HURRIED if kind == "hang" else POLICY


def is_up(carrier: SimulatedCarrier) -> bool:
    try:
        carrier.up()
    except requests.ConnectionError:
        return False
    return True


# ---- querying calls


@contextmanager
def queries_of(account: TwilioAccount, policy: Policy = POLICY) -> Iterator[TwilioQueries]:
    queries = TwilioQueries(account, policy)
    try:
        yield queries
    finally:
        queries._client.http_client.session.close()


@pytest.fixture
def queries(carrier: SimulatedCarrier) -> Iterator[TwilioQueries]:
    with queries_of(carrier.account()) as queries:
        yield queries


def listed(queries: TwilioQueries, number: str, *, caller: str = OURS, around: datetime | None = None) -> Sequence[str]:
    now = around or real_now()
    span = timedelta(minutes=2)
    calls = queries.listed(to=number, caller=caller, created_from=now - span, created_until=now + span)
    return [call.news.call_sid for call in calls]


async def test_list_finds_a_call_that_was_accepted_in_silence(
    carrier: SimulatedCarrier, queries: TwilioQueries
) -> None:
    number = a_number()
    carrier.plan(to=number, fault="accept_and_silence")
    await placed(carrier, an_order(number), policy=HURRIED)
    [ring] = wait_until(lambda: carrier.rings(number))
    assert listed(queries, number) == [ring["sid"]]


async def test_list_shows_no_other_numbers_callers_or_times(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    number = a_number()
    await placed(carrier, an_order(number))
    assert len(listed(queries, number)) == 1
    assert listed(queries, a_number()) == []
    assert listed(queries, number, caller="+421221020002") == []
    assert listed(queries, number, around=real_now() - timedelta(minutes=5)) == []
    assert listed(queries, number, around=real_now() + timedelta(minutes=5)) == []


async def test_the_span_is_half_open_in_whole_seconds(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    number, noon = a_number(), datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
    carrier.clock = lambda: noon + timedelta(seconds=0.9)
    try:
        await placed(carrier, an_order(number))
    finally:
        carrier.clock = real_now
    second = timedelta(seconds=1)
    assert len(queries.listed(to=number, caller=OURS, created_from=noon, created_until=noon + second)) == 1
    assert queries.listed(to=number, caller=OURS, created_from=noon - second, created_until=noon) == []
    assert queries.listed(to=number, caller=OURS, created_from=noon + second, created_until=noon + 2 * second) == []


async def test_the_list_is_read_past_its_first_page(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    number = a_number()
    async with a_placer(carrier.account()) as placer:
        for _ in range(53):
            await placer.place(an_order(number))
    assert len(listed(queries, number)) == 53


async def test_list_in_another_order_still_finds_the_call() -> None:
    """Twilio promises no order. The call stands behind older ones, on the second page."""
    number, noon = a_number(), datetime(2026, 4, 2, 12, 0, tzinfo=UTC)
    with a_carrier(lists_oldest_first=True) as carrier:
        async with a_placer(carrier.account()) as placer:
            carrier.clock = lambda: noon - timedelta(hours=1)
            for _ in range(53):
                await placer.place(an_order(number))
            carrier.clock = lambda: noon
            mine = await placer.place(an_order(number))
        assert isinstance(mine, Accepted)
        with queries_of(carrier.account()) as queries:
            assert listed(queries, number, around=noon) == [mine.call_sid]
            span = {"created_from": noon - timedelta(minutes=1), "created_until": noon + timedelta(minutes=1)}
            assert [call.news.call_sid for call in queries.listed(to=None, caller=OURS, **span)] == [mine.call_sid]


async def test_call_that_moves_to_the_next_page_is_listed_once(carrier: SimulatedCarrier) -> None:
    call = {"sid": SID, "status": "queued", "date_created": format_datetime(real_now()), "direction": "outbound-api"}
    there = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json?Page=1"
    pages = [{"calls": [call], "next_page_uri": uri} for uri in (there, None)]
    with queries_answered(carrier, *pages) as queries:
        assert listed(queries, a_number()) == [SID]


@pytest.mark.parametrize("other_leg", ["outbound-dial", "inbound"])
async def test_leg_that_no_request_placed_is_not_listed(
    carrier: SimulatedCarrier, queries: TwilioQueries, other_leg: str
) -> None:
    number = a_number()
    carrier.plan(to=number, other_leg=other_leg)
    ours = [(await accepted(carrier, an_order(number))).call_sid for _ in range(2)]
    assert sorted(listed(queries, number)) == sorted(ours)
    calls = queries._client.calls.list(to=number)
    foreign = [call for call in calls if call.direction == other_leg]
    assert (len(calls), len(foreign)) == (4, 2), "it stands between ours"
    for call in foreign:
        with pytest.raises(CarrierUnavailable):
            queries.fetch(call.sid)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"direction": "outbound-dial", "parent_call_sid": f"CA{2:032x}"}, id="a leg of a verb"),
        pytest.param({"direction": "outbound-api", "parent_call_sid": f"CA{2:032x}"}, id="a leg with a parent"),
        pytest.param({"direction": "inbound"}, id="an incoming call"),
        pytest.param({"direction": "trunking-terminating"}, id="a call of a trunk"),
        pytest.param({"direction": "inbound", "status": "a new word", "date_created": None}, id="an unreadable one"),
    ],
)
def test_foreign_row_between_ours_hides_neither(carrier: SimulatedCarrier, fields: dict[str, Any]) -> None:
    ours: dict[str, Any] = {"status": "queued", "date_created": format_datetime(real_now()), "parent_call_sid": None}
    rows = [
        {"sid": f"CA{number:032x}", **ours, **(fields if number == 8 else {"direction": "outbound-api"})}
        for number in (7, 8, 9)
    ]
    with queries_answered(carrier, {"calls": rows, "next_page_uri": None}) as queries:
        assert listed(queries, a_number()) == [f"CA{7:032x}", f"CA{9:032x}"]


def test_server_without_directions_is_not_doubted(carrier: SimulatedCarrier) -> None:
    rows = [{"sid": SID, "status": "queued", "date_created": format_datetime(real_now())}]
    with queries_answered(carrier, {"calls": rows, "next_page_uri": None}) as queries:
        assert listed(queries, a_number()) == [SID]


@contextmanager
def queries_answered(carrier: SimulatedCarrier, *answers: dict[str, Any]) -> Iterator[TwilioQueries]:
    """Build queries whose requests get these answers in turn."""
    left = list(answers)

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(left.pop(0)).encode()})

    with serving(app, loop="asyncio") as url, queries_of(carrier.account(url=url)) as queries:
        yield queries


@pytest.mark.parametrize("slash", ["", "/"])
async def test_every_request_uses_the_path_of_the_api_url(slash: str) -> None:
    """Also the second page of a list, whose URL the carrier returns without that path."""
    number, below = a_number(), "/twilio/eu"
    with a_carrier_below(below) as carrier:
        url = Settings(twilio_api_url=f"{carrier.url}{below}{slash}").twilio_api_url
        async with a_placer(carrier.account(url=url)) as placer:
            placings = [await placer.place(an_order(number)) for _ in range(53)]
        assert all(isinstance(answer, Accepted) for answer in placings)
        with queries_of(carrier.account(url=url)) as queries:
            queries.probe()
            assert len(listed(queries, number)) == 53
            assert isinstance(placings[0], Accepted)
            assert queries.fetch(placings[0].call_sid).to == number
            queries.hang_up(placings[0].call_sid)


def test_wrong_path_of_the_api_url_is_found_at_the_start(carrier: SimulatedCarrier) -> None:
    def check(url: str) -> None:
        token = SecretStr(PRIMARY)
        chosen = Settings(twilio_api_url=url, twilio_account_sid=ACCOUNT_SID, twilio_auth_token=token)
        assembly.must_find_the_calls(chosen)

    check(carrier.url)
    check(a_closed_port())  # a carrier that is away is no reason not to start
    carrier.down("503")
    try:
        check(carrier.url)
    finally:
        carrier.up()
    for wrong in ("/2010-04-01", "/twilio"):
        with pytest.raises(WrongSettings, match="TWILIO_API_URL"):
            check(carrier.url + wrong)


@contextmanager
def a_carrier_below(path: str) -> Iterator[SimulatedCarrier]:
    """The simulated carrier behind a proxy that serves its API only below `path`."""
    carrier = SimulatedCarrier()
    app = create_app(account_sid=ACCOUNT_SID, auth_tokens=[PRIMARY], now=carrier.now, calls_per_second=10_000)

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        asked = scope.get("path", "")
        if asked.startswith("/2010-04-01/"):
            scope = {**scope, "path": "/nothing"}
        await app({**scope, "path": scope["path"].removeprefix(path)} if asked else scope, receive, send)

    with serving(proxy, loop="asyncio") as url:
        carrier.url = url
        yield carrier


async def test_call_is_fetched_by_its_sid(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    number = a_number()
    carrier.plan(to=number, outcome="voicemail", ring_s=0, talk_s=0)
    answer = await accepted(carrier, an_order(number))
    wait_until(lambda: carrier.rings(number)[0]["ended_at"], says="it is over")
    news = queries.fetch(answer.call_sid)
    assert (news.status, news.answered_by, news.token) == (CallStatus.COMPLETED, AnsweredBy.MACHINE, None)
    assert (news.started, news.to) == (True, number)


def test_unknown_call_does_not_mean_that_the_carrier_is_away(queries: TwilioQueries) -> None:
    with pytest.raises(CarrierUnavailable) as unavailable:
        queries.fetch(SID)
    assert not isinstance(unavailable.value, CarrierAway)


def with_a_wrong_token(carrier: SimulatedCarrier) -> TwilioAccount:
    return replace(carrier.account(), auth_tokens=("a wrong one",))


def all_queries(queries: TwilioQueries) -> list[Callable[[], object]]:
    return [
        queries.probe,
        lambda: listed(queries, a_number()),
        lambda: queries.fetch(SID),
        lambda: queries.cancel(SID),
        lambda: queries.hang_up(SID),
    ]


def test_refused_connection_means_that_the_carrier_is_away(carrier: SimulatedCarrier) -> None:
    with queries_of(carrier.account(url=a_closed_port())) as queries:
        for ask in all_queries(queries):
            with pytest.raises(CarrierAway):
                ask()


@pytest.mark.parametrize("kind", ["503", "429", "401", "drop", "hang"])
def test_carrier_in_an_outage_is_away_for_every_query(
    carrier: SimulatedCarrier, queries: TwilioQueries, kind: str
) -> None:
    carrier.down(kind)
    try:
        with ExitStack() as stack, ThreadPoolExecutor(5) as pool:
            asking = [stack.enter_context(queries_of(carrier.account(), policy_during(kind))) for _ in range(5)]
            for asked in [pool.submit(all_queries(each)[place]) for place, each in enumerate(asking)]:
                with pytest.raises(CarrierAway):
                    asked.result()
    finally:
        carrier.up()
    queries.probe()


def test_carrier_is_away_for_wrong_credentials(carrier: SimulatedCarrier) -> None:
    with queries_of(with_a_wrong_token(carrier)) as stranger, pytest.raises(CarrierAway):
        stranger.probe()


async def test_probe_reads_one_call_and_does_not_ring(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    await a_call(carrier, "rang_at", **RINGING)
    # Without their states: calls of earlier tests go on.
    rung, ordered = [each["sid"] for each in carrier.rings()], len(carrier.requests())
    queries.probe()
    assert ([each["sid"] for each in carrier.rings()], len(carrier.requests())) == (rung, ordered)


# ---- ending calls

FOR_HOURS = 7200.0
RINGING: dict[str, Any] = {"ring_s": FOR_HOURS}
ANSWERED: dict[str, Any] = {"ring_s": 0, "talk_s": FOR_HOURS}
OVER: dict[str, Any] = {"ring_s": 0, "talk_s": 0}


async def a_call(carrier: SimulatedCarrier, until: str, **plan: Any) -> tuple[str, str]:
    """Place a call, wait for the state `until`, and return its number and SID."""
    number = a_number()
    carrier.plan(to=number, **plan)
    answer = await accepted(carrier, an_order(number))
    wait_until(lambda: carrier.rings(number)[0][until], says=f"it has its {until}")
    return number, answer.call_sid


async def cancelled(
    carrier: SimulatedCarrier, call_sid: str, *, policy: Policy = POLICY, url: str | None = None, **account: Any
) -> bool:
    """Cancel a call, and return the result."""
    async with a_placer(replace(carrier.account(url=url), **account), policy) as placer:
        return await placer.cancel(call_sid)


IS_STOPPED: list[tuple[int, object, bool]] = [
    (200, {"sid": SID, "status": "canceled"}, True),
    (200, {"sid": SID, "status": "in-progress"}, True),
    (200, {}, False),
    (200, None, False),
    (201, {"sid": SID}, False),
    (302, {"sid": SID}, False),
    (400, {"code": 21220}, True),
    (400, {"code": 20001}, False),
    (400, {}, False),
    (401, {"code": 20003}, False),
    (404, {"code": 20404}, True),
    (404, {}, False),
    (404, {"code": 404}, False),
    (429, {"code": 20429}, False),
    (500, {"code": 21220}, False),
    (503, None, False),
]


@pytest.mark.parametrize(("status", "answer", "stopped"), IS_STOPPED, ids=lambda each: str(each)[:40])
def test_answer_to_a_cancellation_means(status: int, answer: object, stopped: bool) -> None:
    assert is_stopped(status, json.dumps(answer).encode()) is stopped


@pytest.mark.parametrize("way", ["placer", "cancel", "hang_up"])
async def test_repeated_cancellations_stop_a_ringing_call_once(
    carrier: SimulatedCarrier, queries: TwilioQueries, way: str
) -> None:
    number, sid = await a_call(carrier, "rang_at", **RINGING)
    for _ in range(2):
        if way == "placer":
            assert await cancelled(carrier, sid)
        else:
            getattr(queries, way)(sid)
    [ring] = carrier.rings(number)
    assert (ring["status"], ring["answered_at"]) == ("canceled", None)
    assert ring["ended_at"]
    news = queries.fetch(sid)
    assert (news.status, news.started) == (CallStatus.CANCELLED, True)


async def test_cancellation_does_not_end_an_answered_call(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    number, sid = await a_call(carrier, "answered_at", **ANSWERED)
    assert await cancelled(carrier, sid)
    queries.cancel(sid)
    assert carrier.rings(number)[0]["status"] == "in-progress"
    queries.hang_up(sid)
    assert carrier.rings(number)[0]["status"] == "completed"


async def test_finished_call_keeps_its_end(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    number, sid = await a_call(carrier, "ended_at", **OVER)
    before = carrier.rings(number)
    assert await cancelled(carrier, sid)
    queries.cancel(sid)
    queries.hang_up(sid)
    assert carrier.rings(number) == before


async def test_call_unknown_to_the_carrier_counts_as_stopped(carrier: SimulatedCarrier, queries: TwilioQueries) -> None:
    assert await cancelled(carrier, SID)
    queries.cancel(SID)
    queries.hang_up(SID)


async def test_cancellation_with_wrong_credentials_is_unknown(carrier: SimulatedCarrier) -> None:
    number, sid = await a_call(carrier, "rang_at", **RINGING)
    assert not await cancelled(carrier, sid, auth_tokens=("a wrong one",))
    with queries_of(with_a_wrong_token(carrier)) as stranger:
        for stop in (stranger.cancel, stranger.hang_up):
            with pytest.raises(CarrierUnavailable):
                stop(sid)
    assert carrier.rings(number)[0]["status"] == "ringing"


async def test_cancellation_without_a_carrier_is_unknown(carrier: SimulatedCarrier) -> None:
    assert not await cancelled(carrier, SID, url=a_closed_port())
    with queries_of(carrier.account(url=a_closed_port())) as queries:
        for stop in (queries.cancel, queries.hang_up):
            with pytest.raises(CarrierUnavailable):
                stop(SID)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", id="an error"),
        pytest.param(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", id="not found by a proxy"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="a call without a name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", id="a part of an answer"),
        pytest.param(b"\x00\x01 not HTTP\r\n\r\n", id="nonsense"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_undocumented_answer_to_a_cancellation_is_unknown(carrier: SimulatedCarrier, answer: bytes) -> None:
    async with a_server_that(answers(answer)) as url:
        assert not await cancelled(carrier, SID, url=url)
        with queries_of(carrier.account(url=url)) as queries:
            for stop in (queries.cancel, queries.hang_up):
                with pytest.raises(CarrierUnavailable):
                    await asyncio.to_thread(stop, SID)


async def test_unanswered_cancellation_ends_at_the_deadline(carrier: SimulatedCarrier) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await request_read(reader)
        await reader.read()

    async with a_server_that(silent) as url, asyncio.timeout(IN_TIME_S):
        assert not await cancelled(carrier, SID, policy=HURRIED, url=url)


async def test_dripping_answer_to_a_query_ends_at_the_deadline(carrier: SimulatedCarrier) -> None:
    """Each byte begins a new timeout of the socket, in the head and in the body."""

    def dripping(part: bytes) -> Talks:
        async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(part)
            with suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(b" ")
                    await writer.drain()
                    with suppress(TimeoutError):
                        await asyncio.wait_for(reader.read(1), DEADLINE.total_seconds() / 4)

        return talks

    for part in (b"HTTP/1.1 200 OK\r\nX-Long:", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"):
        async with a_server_that(dripping(part)) as url:
            with ExitStack() as stack:
                probe, fetch, cancel, hang_up = (
                    stack.enter_context(queries_of(carrier.account(url=url), HURRIED)) for _ in range(4)
                )
                asked = (
                    asyncio.to_thread(probe.probe),
                    *(asyncio.to_thread(ask, SID) for ask in (fetch.fetch, cancel.cancel, hang_up.hang_up)),
                )
                answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), IN_TIME_S)
            assert all(isinstance(each, CarrierAway) for each in answers), answers


async def test_kept_connection_that_drips_ends_at_the_deadline(carrier: SimulatedCarrier) -> None:
    """The deadline also cuts a connection of an earlier query."""
    page = json.dumps({"calls": [], "next_page_uri": None}).encode()
    connections: list[int] = []

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))
        await reader.readuntil(b"\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"H")
            await writer.drain()
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), DEADLINE.total_seconds() / 4)

    policy = replace(POLICY, connect_timeout=2 * DEADLINE, total_timeout=2.5 * DEADLINE)  # the first query is answered
    async with a_server_that(talks) as url:
        with queries_of(carrier.account(url=url), policy) as queries:
            await asyncio.to_thread(queries.probe)
            with pytest.raises(CarrierAway):
                await asyncio.wait_for(asyncio.to_thread(queries.probe), IN_TIME_S)
    assert len(connections) == 1


async def test_list_with_endless_pages_ends(carrier: SimulatedCarrier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if each page is answered in time and is empty."""
    monkeypatch.setattr("scheduler.carriers.twilio_queries._QUERY_S", 1.0)
    page = json.dumps({"calls": [], "next_page_uri": f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json?Page=1"}).encode()

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))
                await writer.drain()

    span = {"created_from": real_now(), "created_until": real_now()}
    async with a_server_that(talks) as url:
        with queries_of(carrier.account(url=url)) as queries, pytest.raises(CarrierAway):
            await asyncio.wait_for(
                asyncio.to_thread(lambda: queries.listed(to="+421221020099", caller=OURS, **span)), 20
            )


# ---- callbacks

PUBLIC_URL = "https://calls.example.com"
TOKEN, OTHER_TOKEN = "a-token", "another-token"
PATH = callback_path(TOKEN)
FORM = [("CallSid", SID), ("AccountSid", ACCOUNT_SID), ("CallStatus", "completed"), ("CallDuration", "60")]
Form = list[tuple[str, str]]


@pytest.fixture
def callbacks(carrier: SimulatedCarrier) -> TwilioCallbacks:
    return TwilioCallbacks(carrier.account(public_url=PUBLIC_URL))


def signed(form: Form = FORM, *, url: str = PUBLIC_URL + PATH, key: str = PRIMARY) -> str:
    return str(RequestValidator(key).compute_signature(url, dict(form)))


GENUINE = [
    pytest.param(PATH, FORM, signed(), id="signed with our token"),
    pytest.param(PATH, FORM, signed(key=SECONDARY), id="signed with the other token of a rotation"),
    pytest.param(PATH, FORM[::-1], signed(), id="in another order"),
    pytest.param(PATH, [], signed([]), id="empty"),
    pytest.param(f"{PATH}?a=b", FORM, signed(url=f"{PUBLIC_URL}{PATH}?a=b"), id="with a query"),
    pytest.param(PATH, FORM, signed(url=f"{PUBLIC_URL}:443{PATH}"), id="signed with the port"),
    pytest.param(PATH, [*FORM, ("Né", "Ž")], signed([*FORM, ("Né", "Ž")]), id="beyond ASCII"),
]
FORGED = [
    pytest.param(PATH, FORM, "", id="no signature"),
    pytest.param(PATH, FORM, "x" * 28, id="no signature of anything"),
    pytest.param(PATH, FORM, signed()[:-2], id="a part of one"),
    pytest.param(PATH, FORM, signed().swapcase(), id="another spelling"),
    pytest.param(PATH, FORM, "\N{SNOWMAN}" * 28, id="beyond ASCII"),
    pytest.param(PATH, FORM, signed(key="another account's token"), id="another account's token"),
    pytest.param(PATH, FORM, signed(key=""), id="no token"),
    pytest.param(callback_path(OTHER_TOKEN), FORM, signed(), id="another attempt's address"),
    pytest.param(PATH, FORM, signed(url=f"http://calls.example.com{PATH}"), id="another scheme"),
    pytest.param(PATH, FORM, signed(url=f"https://evil.example.com{PATH}"), id="another host"),
    pytest.param(f"{PATH}?a=b", FORM, signed(), id="a query added"),
    pytest.param(PATH.upper(), FORM, signed(), id="another case"),
    pytest.param(PATH, [*FORM[:-1], ("CallDuration", "6000")], signed(), id="a value changed"),
    pytest.param(PATH, FORM[:-1], signed(), id="a field taken away"),
    pytest.param(PATH, [*FORM, ("AnsweredBy", "human")], signed(), id="a field added"),
    pytest.param(PATH, [*FORM, FORM[0]], signed(), id="a field twice"),
    pytest.param(PATH, [*FORM, ("CallSid", "CA2")], signed(), id="a field twice, with another value"),
    pytest.param(PATH, [("\udc80", "\udc80")], signed(), id="text that cannot be encoded"),
]


@pytest.mark.parametrize(("path", "form", "signature"), GENUINE)
def test_genuine_is(callbacks: TwilioCallbacks, path: str, form: Form, signature: str) -> None:
    assert callbacks.is_genuine(path, form, signature)


@pytest.mark.parametrize(("path", "form", "signature"), FORGED)
def test_not_genuine_is(callbacks: TwilioCallbacks, path: str, form: Form, signature: str) -> None:
    assert not callbacks.is_genuine(path, form, signature)


def test_signature_with_a_rotated_token_is_not_genuine(carrier: SimulatedCarrier) -> None:
    account = replace(carrier.account(public_url=PUBLIC_URL), auth_tokens=(SECONDARY,))
    assert not TwilioCallbacks(account).is_genuine(PATH, FORM, signed())


@given(
    path=st.text(max_size=20),
    form=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=4),
    signature=st.text(max_size=30),
)
def test_signature_check_never_raises(path: str, form: Form, signature: str) -> None:
    account = SimulatedCarrier(url="http://127.0.0.1:9").account(public_url=PUBLIC_URL)
    assert not TwilioCallbacks(account).is_genuine(f"/{path}", form, signature)


def read(callbacks: TwilioCallbacks, **fields: str | None) -> Any:
    form = {**dict(FORM), **fields}
    return callbacks.read(TOKEN, {name: value for name, value in form.items() if value is not None})


def test_callback_form_is_parsed(callbacks: TwilioCallbacks) -> None:
    news = read(callbacks, AnsweredBy="machine_end_beep", SipResponseCode="200", Novelty="x")
    assert (news.call_sid, news.token, news.status) == (SID, TOKEN, CallStatus.COMPLETED)
    assert (news.answered_by, news.sip_code) == (AnsweredBy.MACHINE, 200)
    assert news.duration == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", CallStatus.QUEUED),
        ("initiated", CallStatus.DIALLED),
        ("ringing", CallStatus.RINGING),
        ("in-progress", CallStatus.ANSWERED),
        ("completed", CallStatus.COMPLETED),
        ("busy", CallStatus.BUSY),
        ("no-answer", CallStatus.NO_ANSWER),
        ("failed", CallStatus.FAILED),
        ("canceled", CallStatus.CANCELLED),
    ],
)
def test_twilio_status_is_translated(callbacks: TwilioCallbacks, word: str, status: CallStatus) -> None:
    assert read(callbacks, CallStatus=word).status is status


def test_callback_has_the_called_number_and_no_start(callbacks: TwilioCallbacks) -> None:
    news = read(callbacks, To="+421915123456")
    assert (news.to, news.started) == ("+421915123456", None)
    assert "+421915123456" not in repr(news)
    assert read(callbacks).to is None
    assert read(callbacks, To="").to is None


@pytest.mark.parametrize(
    ("word", "answered_by"),
    [("human", AnsweredBy.PERSON), ("machine_start", AnsweredBy.MACHINE), ("fax", AnsweredBy.FAX)],
)
def test_verdict_is_read_as_news_of_an_answered_call(
    callbacks: TwilioCallbacks, word: str, answered_by: AnsweredBy
) -> None:
    news = callbacks.read("a-token", a_verdict(AnsweredBy=word))
    assert (news.status, news.answered_by, news.to) == (CallStatus.ANSWERED, answered_by, None)


@pytest.mark.parametrize(
    "form",
    [{"AnsweredBy": ""}, {"CallSid": "CA1"}, {"AccountSid": "AC" + "f" * 32}, {"CallStatus": ""}, {"CallStatus": "x"}],
    ids=str,
)
def test_verdict_of_another_form_is_no_callback(callbacks: TwilioCallbacks, form: dict[str, str]) -> None:
    with pytest.raises(NotACallback):
        callbacks.read("a-token", a_verdict(**form))


def test_verdict_is_no_cut_of_a_status_callback(callbacks: TwilioCallbacks) -> None:
    """A field boundary that is moved keeps the signature: the status could be hidden in the field before it."""
    hidden = {"AnsweredBy": "human", "CallSid": dict(FORM)["CallSid"] + "CallStatuscompleted"}
    for form in (hidden, {"CallSidCallStatus": "completed"}, {"Call": "StatusCallStatuscompleted"}):
        with pytest.raises(NotACallback):
            callbacks.read("a-token", a_verdict(**form))


def a_verdict(**fields: str) -> dict[str, str]:
    usual = {name: value for name, value in FORM if name in {"AccountSid", "CallSid"}}
    return usual | {"AnsweredBy": "human", "MachineDetectionDuration": "2150"} | fields


def test_unknown_answered_by_value_counts_as_unknown(callbacks: TwilioCallbacks) -> None:
    assert read(callbacks, AnsweredBy="android").answered_by is AnsweredBy.UNKNOWN


def test_callback_of_a_sid_in_capitals_is_parsed(callbacks: TwilioCallbacks) -> None:
    assert read(callbacks, CallSid=f"CA{'AB' * 16}").call_sid == f"CA{'AB' * 16}"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"CallSid": None}, id="no sid"),
        pytest.param({"CallSid": "CA1"}, id="a short sid"),
        pytest.param({"CallSid": f"{SID}\n"}, id="a sid and a line"),
        pytest.param({"CallSid": f"CA{'g' * 32}"}, id="a sid of other letters"),
        pytest.param({"AccountSid": None}, id="no account"),
        pytest.param({"AccountSid": "AC" + "9" * 32}, id="another account"),
        pytest.param({"CallStatus": None}, id="no status"),
        pytest.param({"CallStatus": "Completed"}, id="a status in another case"),
        pytest.param({"CallStatus": "answered"}, id="an unknown status"),
        pytest.param({"CallDuration": "-1"}, id="a duration below zero"),
        pytest.param({"CallDuration": "1e3"}, id="a duration in another form"),
        pytest.param({"CallDuration": "\N{ARABIC-INDIC DIGIT ONE}"}, id="a duration in other digits"),
        pytest.param({"CallDuration": "1" * 7}, id="a duration of months"),
    ],
)
def test_invalid_field_is_not_a_callback(callbacks: TwilioCallbacks, fields: dict[str, str | None]) -> None:
    with pytest.raises(NotACallback):
        read(callbacks, **fields)


def test_repr_contains_no_secret(carrier: SimulatedCarrier) -> None:
    assert PRIMARY not in repr(carrier.account())
    assert an_order("+421915123456").token not in repr(an_order("+421915123456"))
    assert "+421915123456" not in repr(an_order("+421915123456"))


# ---- a carrier behind a private CA


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer like a carrier: with a call to a POST, with an empty list to a query."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"POST"):
        writer.write(HEAD + BODY)
    else:
        body = json.dumps({"calls": [], "page": 0, "page_size": 1, "next_page_uri": None}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
    await writer.drain()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def a_carrier_of_a_private_ca() -> AsyncIterator[str]:
    server = await asyncio.start_server(_answers, "127.0.0.1", 0, ssl=of_our_certificate())
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await closed(server)


async def test_ssl_cert_file_is_trusted_for_queries_and_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with a_carrier_of_a_private_ca() as url:
        account = assembly.carrier(Settings(twilio_api_url=url, twilio_account_sid=ACCOUNT_SID))
        account = replace(account, auth_tokens=(PRIMARY,))
        with queries_of(account) as queries:
            await asyncio.to_thread(queries.probe)
        async with a_placer(account) as placer:
            assert await placer.place(an_order(a_number())) == Accepted(call_sid=SID)


async def test_private_ca_is_not_trusted_without_ssl_cert_file(carrier: SimulatedCarrier) -> None:
    async with a_carrier_of_a_private_ca() as url:
        assert await placed(carrier, an_order(a_number()), url=url) == NeverTaken(cause="NEVER_CONNECTED")
        with queries_of(carrier.account(url=url)) as queries, pytest.raises(CarrierAway):
            await asyncio.to_thread(queries.probe)
