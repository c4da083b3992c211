"""The simulated carrier: compatible with Twilio's own SDK, with a correct ledger."""

import math
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import pytest
import requests
import uvicorn
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.rest.api.v2010.account.call import CallInstance
from twilio.rest.api.v2010.account.call.notification import NotificationInstance

from standalone.simulator.app import create_app
from tests.conftest import wait_until
from tests.support.servers import ACCOUNT_SID as ACCOUNT
from tests.support.servers import PRIMARY, SECONDARY, SimulatedCarrier, a_door, address_of

CALLS = f"/2010-04-01/Accounts/{ACCOUNT}/Calls.json"
OURS, THEIRS, ANOTHER = "+421233000000", "+421915123456", "+420601123456"
INSTRUCTIONS = "https://example.com/voice"
ALL_EVENTS = ["initiated", "ringing", "answered", "completed"]
SPEED = 20
FOR_HOURS = 7200.0
PATIENCE_S, LATE_S = 0.3, 3.0
TIMEOUT_S = 30.0
"""For requests that are answered."""
UNTIL_ENDED = 600
"""The longest timeout of an order. A phone that is not answered rings for half a minute of real time."""


class ToCarrier(TwilioHttpClient):  # type: ignore[misc] # its base ships no type information
    """Twilio's own transport, redirected to another host."""

    def __init__(self, url: str, *, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self._url = urlsplit(url)

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        there = urlsplit(url)._replace(scheme=self._url.scheme, netloc=self._url.netloc)
        return super().request(method, urlunsplit(there), *args, **kwargs)


@dataclass(kw_only=True)
class Carrier(SimulatedCarrier):
    """A running carrier, with its customer's SDK and its operator's API."""

    sdk: Any

    def ring(self, to: str = THEIRS, *, until: str | None = None, **order: Any) -> Any:
        """Order a call, wait for a status if one is named, and return the call as it was accepted."""
        call = self.sdk.calls.create(**({"to": to, "from_": OURS, "url": INSTRUCTIONS} | order))
        if until:
            wait_until(lambda: self.is_in(call, until))
        return call

    def update(self, call: Any, **changes: Any) -> Any:
        return self.sdk.calls(call.sid).update(**changes)

    def post(self, form: Any, **kwargs: Any) -> requests.Response:
        return requests.post(self.url + CALLS, data=form, auth=(ACCOUNT, PRIMARY), timeout=TIMEOUT_S, **kwargs)

    def get(self, path: str, **query: Any) -> Any:
        return requests.get(self.url + path, params=query, auth=(ACCOUNT, PRIMARY), timeout=TIMEOUT_S).json()

    def status_of(self, call: Any) -> Any:
        return self.sdk.calls(call.sid).fetch().status

    def is_in(self, call: Any, status: str) -> bool:
        return bool(self.status_of(call) == status)

    def ended(self, call: Any) -> Any:
        """Wait for the end of the call, and return it."""

        def finished() -> Any:
            now = self.sdk.calls(call.sid).fetch()
            return now if now.end_time else None

        return wait_until(finished)


@contextmanager
def sdk_for(url: str, *, sid: str = ACCOUNT, token: str = PRIMARY, timeout: float = TIMEOUT_S) -> Iterator[Any]:
    transport = ToCarrier(url, timeout=timeout)
    with closing(transport.session):
        yield Client(sid, token, http_client=transport)


@contextmanager
def carrier_in_thread(leaving: list[threading.Thread], **settings: Any) -> Iterator[Carrier]:
    usual: dict[str, Any] = {
        "account_sid": ACCOUNT,
        "auth_tokens": [PRIMARY, SECONDARY],
        "now": lambda: datetime.now(UTC),
        "calls_per_second": 10_000,
        "speed": SPEED,
        "callback_retry_after_s": 0.05,
    }
    app = create_app(**(usual | settings))
    config = uvicorn.Config(
        app, loop="asyncio", log_level="warning", ws="none", timeout_graceful_shutdown=1, timeout_keep_alive=75
    )
    server = uvicorn.Server(config)
    door = a_door()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        with sdk_for(address_of(door)) as sdk:
            yield Carrier(url=address_of(door), sdk=sdk)
    finally:
        server.should_exit = True
        leaving.append(thread)


@pytest.fixture(scope="module")
def leaving() -> Iterator[list[threading.Thread]]:
    """Stopping carriers, awaited together, because uvicorn stops slowly and no test needs to wait for it."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join()


StartCarrier = Callable[..., Carrier]


@pytest.fixture
def start_carrier(leaving: list[threading.Thread]) -> Iterator[StartCarrier]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(carrier_in_thread(leaving, **settings))


@pytest.fixture
def carrier(start_carrier: StartCarrier) -> Carrier:
    return start_carrier()


@dataclass(frozen=True, kw_only=True)
class Callback:
    method: str
    path: str
    headers: dict[str, str]
    pairs: list[tuple[str, str]]

    def __getitem__(self, name: str) -> str:
        return dict(self.pairs)[name]

    def __contains__(self, name: str) -> bool:
        return name in dict(self.pairs)


@dataclass
class Inbox:
    """A subscriber that records callbacks, and answers with the next of `answers`, then with 204."""

    url: str = ""
    got: list[Callback] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def events(self) -> list[tuple[str, str]]:
        return [(callback["SequenceNumber"], callback["CallStatus"]) for callback in self.got]

    def the_end(self) -> Callback | None:
        return next((callback for callback in self.got if "CallDuration" in callback), None)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()

    class Hears(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
            self._hear(body)

        def do_GET(self) -> None:
            self._hear(urlsplit(self.path).query)

        def _hear(self, form: str) -> None:
            pairs = parse_qsl(form, keep_blank_values=True, strict_parsing=True)
            inbox.got.append(Callback(method=self.command, path=self.path, headers=dict(self.headers), pairs=pairs))
            self.send_response(inbox.answers.pop(0) if inbox.answers else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hears) as server:
        inbox.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield inbox
        server.shutdown()
        thread.join()


@contextmanager
def refused(code: int, status: int | None = None) -> Iterator[None]:
    """Expect the carrier to refuse a request with this error code, and with this HTTP status if one is given."""
    with pytest.raises(TwilioRestException) as refusal:
        yield
    assert refusal.value.code == code
    assert status is None or refusal.value.status == status


def subscribed(inbox: Inbox, events: Sequence[str] = ALL_EVENTS, token: str = "a-token") -> dict[str, Any]:
    return {"status_callback": f"{inbox.url}/carrier/{token}?a=b", "status_callback_event": list(events)}


# --- instructions


def with_fallback(inbox: Inbox) -> dict[str, Any]:
    return {"fallback_url": f"{inbox.url}/carrier/a-token/fallback", "status_callback": f"{inbox.url}/carrier/a-token"}


def test_call_without_instructions_requests_its_fallback(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(instructions="fallback")
    call = carrier.ended(carrier.ring(**with_fallback(inbox)))
    assert (call.status, [each.error_code for each in call.notifications.list()]) == ("completed", ["11200"])
    fallback, end = wait_until(lambda: inbox.got if len(inbox.got) == 2 else None)
    assert (fallback.path, fallback["ErrorCode"], fallback["CallStatus"]) == (
        *("/carrier/a-token/fallback", "11200", "in-progress"),
    )
    url, fields = f"{inbox.url}{fallback.path}", dict(fallback.pairs)
    assert RequestValidator(PRIMARY).validate(url, fields, fallback.headers["X-Twilio-Signature"])
    assert end["CallStatus"] == "completed"


def test_lost_fallback_is_not_requested(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(instructions="lost")
    call = carrier.ended(carrier.ring(**with_fallback(inbox)))
    assert [each.error_code for each in call.notifications.list()] == ["11200"]
    wait_until(inbox.the_end)
    assert [each.path for each in inbox.got] == ["/carrier/a-token"]


def test_voice_server_gives_instructions_unless_it_is_down(carrier: Carrier, inbox: Inbox) -> None:
    assert requests.get(f"{carrier.url}/voice?probe=1", timeout=TIMEOUT_S).status_code == 200
    requests.post(f"{carrier.url}/voice/outage", timeout=TIMEOUT_S).raise_for_status()
    assert requests.get(f"{carrier.url}/voice?probe=1", timeout=TIMEOUT_S).status_code == 503
    carrier.ended(carrier.ring(**with_fallback(inbox)))
    wait_until(inbox.the_end)
    assert [each.path for each in inbox.got] == ["/carrier/a-token/fallback", "/carrier/a-token"]
    requests.delete(f"{carrier.url}/voice/outage", timeout=TIMEOUT_S).raise_for_status()
    carrier.ended(carrier.ring(**with_fallback(inbox)))
    assert wait_until(lambda: inbox.got[2:])[0]["CallStatus"] == "completed"


@pytest.fixture
def requesting(leaving: list[threading.Thread]) -> Iterator[Carrier]:
    """A carrier that requests the instructions of each answered call."""
    with carrier_in_thread(leaving, requests_instructions=True) as carrier:
        yield carrier


def test_answered_call_requests_its_instructions(requesting: Carrier, inbox: Inbox) -> None:
    call = requesting.ring(url=f"{inbox.url}/twiml?attempt=a-token", fallback_url=f"{inbox.url}/fallback")
    assert requesting.ended(call).status == "completed"
    [asked] = inbox.got
    assert (asked.path, asked["CallSid"], asked["CallStatus"]) == ("/twiml?attempt=a-token", call.sid, "in-progress")
    url, fields = f"{inbox.url}{asked.path}", dict(asked.pairs)
    assert RequestValidator(PRIMARY).validate(url, fields, asked.headers["X-Twilio-Signature"])
    assert call.notifications.list() == []


def test_unanswered_call_requests_no_instructions(requesting: Carrier, inbox: Inbox) -> None:
    requesting.plan(outcome="busy")
    requesting.ended(requesting.ring(url=f"{inbox.url}/twiml", **with_fallback(inbox)))
    wait_until(inbox.the_end)
    assert [each.path for each in inbox.got] == ["/carrier/a-token"]


def test_refused_instructions_lead_to_the_fallback(requesting: Carrier, inbox: Inbox) -> None:
    inbox.answers = [500]
    requesting.plan(talk_s=30)
    call = requesting.ended(requesting.ring(url=f"{inbox.url}/twiml", **with_fallback(inbox)))
    wait_until(inbox.the_end)
    assert [each.path for each in inbox.got] == ["/twiml", "/carrier/a-token/fallback", "/carrier/a-token"]
    assert [each.error_code for each in call.notifications.list()] == ["11200"]


def test_voice_server_may_fail_and_answer_probes(carrier: Carrier, inbox: Inbox) -> None:
    outage = {"answers_probes": True}
    requests.post(f"{carrier.url}/voice/outage", json=outage, timeout=TIMEOUT_S).raise_for_status()
    assert requests.get(f"{carrier.url}/voice?probe=1", timeout=TIMEOUT_S).status_code == 200
    assert requests.post(f"{carrier.url}/voice?attempt=a-token", timeout=TIMEOUT_S).status_code == 503
    carrier.ended(carrier.ring(**with_fallback(inbox)))
    wait_until(inbox.the_end)
    assert [each.path for each in inbox.got] == ["/carrier/a-token/fallback", "/carrier/a-token"]


def test_ledger_shows_which_calls_got_instructions(carrier: Carrier) -> None:
    carrier.plan(outcome="busy", attempt=1)
    carrier.plan(instructions="lost", attempt=2)
    for _ in range(3):
        carrier.ended(carrier.ring())
    assert [ring["instructed"] for ring in carrier.rings()] == [None, False, True]


def test_call_without_instructions_lasts_as_long_as_the_error(carrier: Carrier) -> None:
    carrier.plan(instructions="lost", talk_s=60, error_s=0.1)
    assert carrier.ended(carrier.ring()).duration == "0"


def test_fallback_is_lost_with_the_callbacks_of_its_call(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(instructions="fallback", callbacks="none")
    carrier.ended(carrier.ring(**with_fallback(inbox)))
    carrier.plan(instructions="fallback")
    carrier.ended(carrier.ring(**with_fallback(inbox)))
    assert [each.path for each in wait_until(lambda: inbox.got if len(inbox.got) > 1 else None)] == [
        *("/carrier/a-token/fallback", "/carrier/a-token"),
    ]


# --- the resource


def test_notifications_name_the_codes_of_a_finished_call(carrier: Carrier) -> None:
    carrier.plan(outcome="invalid_number", error_codes=[13224])
    call = carrier.ended(carrier.ring())
    [notification] = carrier.sdk.calls(call.sid).notifications.list()
    assert (notification.error_code, notification.call_sid, notification.log) == ("13224", call.sid, "0")
    with_code = carrier.get(f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{call.sid}/Notifications.json")["notifications"][0]
    read = vars(NotificationInstance(version=None, payload={}, account_sid=ACCOUNT, call_sid=call.sid))
    of_one_alone = {"request_variables", "response_body", "response_headers"}
    assert set(with_code) == {name for name in read if not name.startswith("_")} - of_one_alone


def test_calls_without_error_codes_have_no_notification(carrier: Carrier) -> None:
    call = carrier.ended(carrier.ring())
    assert carrier.sdk.calls(call.sid).notifications.list() == []
    with pytest.raises(TwilioException, match="20404"):
        carrier.sdk.calls("CA" + "0" * 32).notifications.list()


def test_a_resource_has_exactly_the_fields_that_the_sdk_reads(carrier: Carrier) -> None:
    empty = vars(CallInstance(version=None, payload={}, account_sid=ACCOUNT))
    fields = {name for name in empty if not name.startswith("_")} | {"from"}
    fields -= {"stir_verstat"}  # not in Twilio's OpenAPI document
    created = carrier.post({"To": THEIRS, "From": OURS, "Url": INSTRUCTIONS}).json()
    assert set(created) == fields
    assert set(carrier.get(created["uri"])) == fields
    assert set(carrier.get(CALLS)["calls"][0]) == fields


def test_resources_do_not_contain_the_token(carrier: Carrier, inbox: Inbox) -> None:
    call = carrier.ring(**subscribed(inbox, token="a-secret"))
    assert "a-secret" not in str(carrier.get(call.uri))
    assert carrier.rings()[0]["token"] == "a-secret"


def test_a_new_call_is_queued_and_nothing_has_happened_to_it(carrier: Carrier) -> None:
    call = carrier.ring()
    assert (call.status, call.direction, call.to, call._from) == ("queued", "outbound-api", THEIRS, OURS)
    assert (call.start_time, call.end_time, call.duration, call.answered_by) == (None, None, None, None)
    assert isinstance(call.date_created, datetime)
    assert call.sid.startswith("CA")
    assert len(call.sid) == 34


def test_dialled_call_before_ringing_is_queued_with_a_start_time(start_carrier: StartCarrier, inbox: Inbox) -> None:
    carrier = start_carrier(speed=0.02)
    call = carrier.ring(**subscribed(inbox))
    wait_until(lambda: inbox.got)
    assert inbox.got[0]["CallStatus"] == "initiated"
    now = carrier.sdk.calls(call.sid).fetch()
    assert (now.status, now.start_time is None) == ("queued", False)
    assert [found.sid for found in carrier.sdk.calls.list(status="queued")] == [call.sid]


def test_an_answered_call_has_a_duration(carrier: Carrier) -> None:
    carrier.plan(talk_s=4)
    ended = carrier.ended(carrier.ring())
    assert ended.status == "completed"
    assert int(ended.duration) >= 4
    assert ended.start_time <= ended.end_time


def test_a_phone_rings_no_longer_than_the_timeout(carrier: Carrier) -> None:
    carrier.plan(ring_s=FOR_HOURS)
    assert carrier.ended(carrier.ring(timeout=2)).status == "no-answer"


def test_a_call_lasts_no_longer_than_its_time_limit(carrier: Carrier) -> None:
    carrier.plan(talk_s=FOR_HOURS)
    assert 3 <= int(carrier.ended(carrier.ring(time_limit=3)).duration) < FOR_HOURS


@pytest.mark.parametrize(
    ("outcome", "detection", "answered_by"),
    [
        pytest.param("answered", "Enable", "human", id="a person"),
        pytest.param("voicemail", "Enable", "machine_start", id="a machine"),
        pytest.param("voicemail", "DetectMessageEnd", "machine_end_beep", id="a machine, waited for"),
        pytest.param("fax", "Enable", "fax", id="a fax"),
        pytest.param("answered_unknown", "Enable", "unknown", id="detection unknown"),
        pytest.param("answered_unknown", None, None, id="unknown, without machine detection"),
        pytest.param("voicemail", None, None, id="without machine detection"),
        pytest.param("busy", "Enable", None, id="not answered"),
    ],
)
def test_machine_detection_reports_who_answered(
    carrier: Carrier, inbox: Inbox, outcome: str, detection: str | None, answered_by: str | None
) -> None:
    carrier.plan(outcome=outcome)
    asked = {"machine_detection": detection} if detection else {}
    assert carrier.ended(carrier.ring(**asked, **subscribed(inbox))).answered_by == answered_by
    end = wait_until(inbox.the_end)
    assert dict(end.pairs).get("AnsweredBy") == answered_by


@pytest.mark.parametrize(
    ("plan", "order"),
    [
        pytest.param({"talk_s": 3, "verdict_s": 1}, ["answered", "verdict", "completed"], id="while they talk"),
        pytest.param({"talk_s": 1, "verdict_s": 3}, ["answered", "completed", "verdict"], id="after the end"),
        pytest.param({"verdict_s": None}, ["answered", "completed"], id="never"),
        pytest.param({"verdict_s": 1, "callbacks": "none"}, [], id="lost"),
        pytest.param(
            {"verdict_s": 1, "talk_s": 3, "callbacks": "reordered"}, ["completed", "verdict", "answered"], id="reversed"
        ),
        pytest.param(
            {"verdict_s": 1, "talk_s": 3, "callbacks": "doubled"},
            ["answered", "answered", "verdict", "verdict", "completed", "completed"],
            id="doubled",
        ),
    ],
)
def test_asynchronous_detection_reports_its_verdict_alone(
    carrier: Carrier, inbox: Inbox, plan: dict[str, Any], order: list[str]
) -> None:
    carrier.plan(outcome="voicemail", **plan)
    subscriptions = subscribed(inbox, ("answered", "completed"))
    asked = {
        "machine_detection": "Enable",
        "async_amd": "true",
        "async_amd_status_callback": subscriptions["status_callback"],
    }
    call = carrier.ring(**asked, **subscriptions)
    judged = "machine_start" if plan["verdict_s"] is not None else None
    wait_until(lambda: carrier.ended(call).answered_by == judged)
    wait_until(lambda: len(inbox.got) == len(order))
    forms = [dict(each.pairs) for each in inbox.got]
    names = {"in-progress": "answered", "completed": "completed", None: "verdict"}
    assert [names[form.get("CallStatus")] for form in forms] == order
    for form in forms:
        assert form.get("AnsweredBy") == (None if "CallStatus" in form else "machine_start")


def test_times_of_machine_detection_have_ranges(carrier: Carrier) -> None:
    for name, wrong in (("timeout", 60), ("speech_threshold", 999), ("silence_timeout", 10_001)):
        asked: dict[str, Any] = {f"machine_detection_{name}": wrong}
        with pytest.raises(TwilioRestException) as refused:
            carrier.ring(machine_detection="Enable", **asked)
        assert refused.value.code == 21207


def test_every_documented_parameter_is_accepted(carrier: Carrier) -> None:
    call = carrier.ring(
        method="GET",
        fallback_url=INSTRUCTIONS,
        fallback_method="POST",
        send_digits="12",
        record=True,
        recording_channels="dual",
        recording_status_callback=INSTRUCTIONS,
        recording_status_callback_method="POST",
        recording_status_callback_event=["in-progress", "completed"],
        sip_auth_username="u",
        sip_auth_password="p",
        machine_detection_timeout=30,
        machine_detection_speech_threshold=2400,
        machine_detection_speech_end_threshold=1200,
        machine_detection_silence_timeout=5000,
        trim="do-not-trim",
        caller_id=OURS,
        async_amd="true",
        async_amd_status_callback=INSTRUCTIONS,
        async_amd_status_callback_method="POST",
        byoc="BY" + "0" * 32,
        call_reason="an interview",
        call_token="t",
        recording_track="both",
        client_notification_url=INSTRUCTIONS,
    )
    assert call.status == "queued"


# --- authentication and refusals


def test_either_token_authenticates(carrier: Carrier) -> None:
    with sdk_for(carrier.url, token=SECONDARY) as sdk:
        assert sdk.calls.list() == []


@pytest.mark.parametrize(
    ("sid", "token"),
    [
        pytest.param(ACCOUNT, "wrong", id="a wrong token"),
        pytest.param("AC" + "f" * 32, PRIMARY, id="another account"),
    ],
)
def test_wrong_credentials_are_refused_without_a_ring(carrier: Carrier, sid: str, token: str) -> None:
    with sdk_for(carrier.url, sid=sid, token=token) as sdk, refused(20003, 401):
        sdk.calls.create(to=THEIRS, from_=OURS, url=INSTRUCTIONS)
    assert carrier.rings() == []
    assert [arrival["answered"] for arrival in carrier.requests()] == [401]


def test_request_without_credentials_is_refused_like_twilio(carrier: Carrier) -> None:
    answer = requests.get(carrier.url + CALLS, timeout=TIMEOUT_S)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="Twilio API"'
    assert set(answer.json()) == {"code", "message", "more_info", "status"}


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(CALLS.replace(ACCOUNT, "AC" + "f" * 32), id="another account"),
        pytest.param(CALLS.replace(".json", "/CA" + "0" * 32 + ".json"), id="an unknown call"),
        pytest.param("/2010-04-01/nothing.json", id="an unknown path"),
    ],
)
def test_unknown_path_returns_20404(carrier: Carrier, path: str) -> None:
    assert (carrier.get(path)["status"], carrier.get(path)["code"]) == (404, 20404)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param({"To": None}, 21201, id="no number"),
        pytest.param({"To": "0915 123 456"}, 21211, id="a national number"),
        pytest.param({"To": "+421x"}, 21211, id="letters"),
        pytest.param({"From": None}, 21213, id="no caller id"),
        pytest.param({"From": "Acme"}, 21212, id="a name as caller id"),
        pytest.param({"Url": None}, 21205, id="no instructions"),
        pytest.param({"Url": "ftp://x/y"}, 21205, id="instructions elsewhere"),
        pytest.param({"Timeout": "abc"}, 21208, id="a timeout in words"),
        pytest.param({"Timeout": "0"}, 21208, id="no time to ring"),
        pytest.param({"Timeout": "601"}, 21208, id="too long to ring"),
        pytest.param({"Timeout": "12.5"}, 21208, id="half a second"),
        pytest.param({"StatusCallback": "nowhere"}, 21609, id="a callback to nowhere"),
        pytest.param(
            {"StatusCallback": "https://my_app.example.com"}, 21609, id="a callback to a host with underscore"
        ),
        pytest.param({"Url": "https://my_app.example.com/a"}, 21205, id="instructions at a host with underscore"),
    ],
)
def test_invalid_order_is_refused_without_a_ring(carrier: Carrier, wrong: dict[str, str | None], code: int) -> None:
    form = {"To": THEIRS, "From": OURS, "Url": INSTRUCTIONS} | wrong
    answer = carrier.post({name: value for name, value in form.items() if value is not None})
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert carrier.rings() == []


@pytest.mark.parametrize(
    "right",
    [
        pytest.param({"Timeout": "1"}, id="the shortest timeout"),
        pytest.param({"Timeout": "600"}, id="the longest timeout"),
        pytest.param({"To": "+421 915 123-456"}, id="a number as people write it"),
        pytest.param({"Url": "", "Twiml": "<Response/>"}, id="instructions in the order"),
        pytest.param({"Something": "new"}, id="an unknown parameter"),
    ],
)
def test_valid_order_rings(carrier: Carrier, right: dict[str, str]) -> None:
    answer = carrier.post({"To": THEIRS, "From": OURS, "Url": INSTRUCTIONS} | right)
    assert (answer.status_code, answer.json()["to"]) == (201, THEIRS)


def test_json_is_not_a_form(carrier: Carrier) -> None:
    order = {"To": THEIRS, "From": OURS, "Url": INSTRUCTIONS}
    answer = requests.post(carrier.url + CALLS, json=order, auth=(ACCOUNT, PRIMARY), timeout=TIMEOUT_S)
    assert answer.json()["code"] == 21201


# --- the list


def test_a_list_is_newest_first_over_several_pages(carrier: Carrier) -> None:
    placed = [carrier.ring().sid for _ in range(7)]
    assert [call.sid for call in carrier.sdk.calls.list(page_size=3)] == placed[::-1]
    assert [call.sid for call in carrier.sdk.calls.stream(page_size=2, limit=5)] == placed[:1:-1]


def test_previous_page_can_be_read(carrier: Carrier) -> None:
    placed = [carrier.ring().sid for _ in range(5)]
    first = carrier.sdk.calls.page(page_size=2)
    second = first.next_page()
    third = second.next_page()
    assert [call.sid for call in third] == placed[:1]
    assert third.next_page() is None
    assert [call.sid for call in third.previous_page()] == [call.sid for call in second]
    assert first.previous_page() is None


def test_call_placed_between_pages_repeats_and_hides_none(carrier: Carrier) -> None:
    placed = [carrier.ring().sid for _ in range(4)]
    first = carrier.sdk.calls.page(page_size=2)
    carrier.ring()
    assert [call.sid for call in first.next_page()] == placed[1::-1]


def test_page_envelope_is_that_of_twilio(carrier: Carrier) -> None:
    for _ in range(3):
        carrier.ring()
    envelope = carrier.get(CALLS, PageSize=2, To=THEIRS)
    uris = {"uri", "first_page_uri", "next_page_uri", "previous_page_uri"}
    assert set(envelope) == uris | {"page", "page_size", "start", "end", "calls"}
    assert (envelope["page"], envelope["page_size"], envelope["start"], envelope["end"]) == (0, 2, 0, 1)
    assert envelope["next_page_uri"].startswith(f"{CALLS}?To=%2B421915123456&PageSize=2&Page=1&PageToken=PA")


def test_a_page_has_fifty_calls_and_never_more_than_a_thousand(carrier: Carrier) -> None:
    assert carrier.get(CALLS)["page_size"] == 50
    assert carrier.get(CALLS, PageSize=5000)["page_size"] == 1000


def test_a_list_can_be_filtered(carrier: Carrier) -> None:
    carrier.plan(to=ANOTHER, outcome="busy")
    one, other = carrier.ring(THEIRS), carrier.ring(ANOTHER, from_=OURS[:-1] + "1")
    carrier.ended(one)
    carrier.ended(other)

    def found(**query: Any) -> list[str]:
        return [call.sid for call in carrier.sdk.calls.list(**query)]

    assert found(to=THEIRS) == [one.sid]
    assert found(from_=OURS) == [one.sid]
    assert found(status="busy") == [other.sid]
    assert found(status="completed", to=ANOTHER) == []
    assert found(parent_call_sid=one.sid) == []
    assert found(to="+421900000000") == []


def test_a_start_time_filter_compares_days(start_carrier: StartCarrier) -> None:
    carrier = start_carrier(now=Clock())  # not around midnight
    call = carrier.ring()
    started = carrier.ended(call).start_time
    day = timedelta(days=1)

    def found(**query: Any) -> bool:
        return [one.sid for one in carrier.sdk.calls.list(**query)] == [call.sid]

    assert found(start_time=started)
    assert found(start_time_after=started)
    assert found(start_time_before=started + day)
    assert found(end_time=started.date())
    assert not found(start_time=started - day)
    assert not found(start_time_after=started + day)
    assert not found(start_time_before=started)
    assert not found(end_time_after=started + day)


def test_a_start_time_filter_misses_queued_calls(start_carrier: StartCarrier) -> None:
    carrier = start_carrier(calls_per_second=0.001)
    carrier.ring()
    queued = carrier.ring()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert queued.sid not in {call.sid for call in carrier.sdk.calls.list(start_time_after=yesterday)}
    assert queued.sid in {call.sid for call in carrier.sdk.calls.list(status="queued")}
    assert carrier.sdk.calls(queued.sid).fetch().start_time is None


def test_invalid_filter_is_refused(carrier: Carrier) -> None:
    with refused(20001):
        carrier.ring(time_limit="soon")
    assert carrier.get(CALLS, StartTime="yesterday")["code"] == 20001
    assert carrier.get(CALLS, PageToken="PAnonsense")["code"] == 20001


# --- pacing


def span(ring: dict[str, str], begins: str, ends: str) -> timedelta:
    """Return the time between two instants of a call in the ledger."""
    return datetime.fromisoformat(ring[ends]) - datetime.fromisoformat(ring[begins])


def test_calls_above_the_rate_wait_for_their_turn(start_carrier: StartCarrier) -> None:
    carrier = start_carrier(calls_per_second=1)  # slow enough for a client that pauses between its orders
    placed = [carrier.ring() for _ in range(4)]
    for call in placed:
        carrier.ended(call)
    expected = [timedelta(milliseconds=int(call.queue_time)) for call in placed]
    assert expected[0] == timedelta(0)
    assert expected == sorted(set(expected))
    waited = [span(ring, "accepted_at", "rang_at") for ring in carrier.rings()]
    assert all(real >= promised for real, promised in zip(waited, expected, strict=True))


def test_a_queue_of_more_than_a_day_is_refused(start_carrier: StartCarrier) -> None:
    carrier = start_carrier(calls_per_second=1 / 100_000)
    carrier.ring()
    with refused(22005):
        carrier.ring()
    assert len(carrier.rings()) == 1


def test_call_planned_to_queue_delays_no_other_call(carrier: Carrier) -> None:
    carrier.plan(to=THEIRS, queue_s=FOR_HOURS)
    waiting = carrier.ring()
    carrier.ended(carrier.ring(ANOTHER))
    now = carrier.sdk.calls(waiting.sid).fetch()
    assert (now.status, now.start_time, now.queue_time) == ("queued", None, "7200000")
    assert [found.sid for found in carrier.sdk.calls.list(status="queued")] == [waiting.sid]
    assert carrier.rings(THEIRS)[0]["started_at"] is None


def test_a_call_rings_when_its_time_in_the_queue_is_over(carrier: Carrier) -> None:
    carrier.plan(queue_s=0.2)
    call = carrier.ring()
    assert call.queue_time == "200"
    carrier.ended(call)
    [ring] = carrier.rings()
    assert span(ring, "accepted_at", "started_at") >= timedelta(seconds=0.2)


def test_call_that_would_wait_more_than_a_day_is_refused(carrier: Carrier) -> None:
    carrier.plan(queue_s=86_401)
    with refused(22005):
        carrier.ring()
    assert carrier.rings() == []


# --- cancel and hang up


@pytest.mark.parametrize("status", ["canceled", "completed"])
def test_queued_call_can_be_ended_and_has_no_start_time(carrier: Carrier, inbox: Inbox, status: str) -> None:
    carrier.plan(queue_s=FOR_HOURS)
    call = carrier.ring(**subscribed(inbox))
    ended = carrier.update(call, status=status)
    assert (ended.status, ended.start_time, ended.duration) == ("canceled", None, None)
    assert wait_until(inbox.the_end)["CallStatus"] == "canceled"
    assert inbox.events() == [("0", "canceled")]
    [ring] = carrier.rings()
    assert (ring["started_at"], ring["rang_at"], ring["cancelled_by"]) == (None, None, "caller")
    assert ring["ended_at"]


@pytest.mark.parametrize("status", ["canceled", "completed"])
def test_ringing_call_that_is_ended_is_canceled(carrier: Carrier, inbox: Inbox, status: str) -> None:
    carrier.plan(ring_s=FOR_HOURS)
    call = carrier.ring(timeout=UNTIL_ENDED, until="ringing", **subscribed(inbox))
    assert carrier.update(call, status=status).status == "canceled"
    assert wait_until(inbox.the_end)["CallStatus"] == "canceled"
    [ring] = carrier.rings()
    assert (ring["answered_at"], ring["cancelled_by"]) == (None, "caller")
    assert ring["rang_at"]


@pytest.mark.parametrize("outcome", ["canceled_before_ringing", "canceled_ringing"])
def test_ledger_shows_when_the_carrier_canceled(carrier: Carrier, outcome: str) -> None:
    carrier.plan(outcome=outcome)
    carrier.ended(carrier.ring())
    [ring] = carrier.rings()
    assert ring["cancelled_by"] == "carrier"
    assert (ring["rang_at"] is None) == (outcome == "canceled_before_ringing")


def test_call_with_another_end_has_no_canceller(carrier: Carrier) -> None:
    carrier.plan(outcome="busy", times=1)
    carrier.ended(carrier.ring())
    carrier.ended(carrier.ring())
    assert [ring["cancelled_by"] for ring in carrier.rings()] == [None, None]


def test_only_an_answered_call_takes_new_instructions(carrier: Carrier) -> None:
    carrier.plan(ring_s=FOR_HOURS, times=1)
    carrier.plan(ring_s=0, talk_s=FOR_HOURS, to=ANOTHER)
    ringing, answered = carrier.ring(timeout=UNTIL_ENDED), carrier.ring(ANOTHER, until="in-progress")
    assert carrier.update(answered, url=INSTRUCTIONS).status == "in-progress"
    with refused(21220):
        carrier.update(ringing, url=INSTRUCTIONS)


def test_time_limit_of_an_unanswered_call_can_be_changed(carrier: Carrier) -> None:
    carrier.plan(ring_s=20, talk_s=FOR_HOURS)
    call = carrier.ring()
    carrier.update(call, time_limit=3)
    assert 3 <= int(carrier.ended(call).duration) < FOR_HOURS


def test_a_queued_call_that_is_canceled_never_rings(start_carrier: StartCarrier) -> None:
    carrier = start_carrier(calls_per_second=1)
    carrier.ring()
    queued = carrier.ring(ANOTHER)
    assert carrier.update(queued, status="canceled").start_time is None
    carrier.ended(carrier.ring())
    assert carrier.rings(ANOTHER)[0]["rang_at"] is None


def test_an_answered_call_can_be_hung_up(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(talk_s=FOR_HOURS)
    call = carrier.ring(until="in-progress", **subscribed(inbox))
    assert carrier.update(call, status="completed").status == "completed"
    assert wait_until(inbox.the_end)["CallStatus"] == "completed"


def test_a_call_cannot_be_put_into_any_other_state(carrier: Carrier) -> None:
    call = carrier.ring()
    with refused(20001):
        carrier.update(call, status="busy")


def test_callback_of_a_live_call_can_be_changed(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(ring_s=FOR_HOURS)
    call = carrier.ring(timeout=UNTIL_ENDED)
    carrier.update(call, status_callback=f"{inbox.url}/later", status="canceled")
    assert wait_until(inbox.the_end).path == "/later"


# --- status callbacks


def test_callbacks_of_a_call_are_sent_in_order(carrier: Carrier, inbox: Inbox) -> None:
    call = carrier.ring(**subscribed(inbox))
    end = wait_until(inbox.the_end)
    assert inbox.events() == [("0", "initiated"), ("1", "ringing"), ("2", "in-progress"), ("3", "completed")]
    expected = {
        "CallSid": call.sid,
        "AccountSid": ACCOUNT,
        "ApiVersion": "2010-04-01",
        "Direction": "outbound-api",
        "From": OURS,
        "To": THEIRS,
        "Caller": OURS,
        "Called": THEIRS,
        "CallbackSource": "call-progress-events",
    }
    for callback in inbox.got:
        assert {name: callback[name] for name in expected} == expected
        assert callback.path == "/carrier/a-token?a=b"
        assert parsedate_to_datetime(callback["Timestamp"]).tzinfo is not None
    assert end["CallDuration"] == carrier.ended(call).duration
    minutes = math.ceil(int(end["CallDuration"]) / 60)
    assert (end["Duration"], end["SipResponseCode"]) == (str(minutes), "200")
    assert all("CallDuration" not in callback for callback in inbox.got[:-1])


@pytest.mark.parametrize(
    ("outcome", "reported"),
    [
        pytest.param("busy", ("busy", "486", "2"), id="busy"),
        pytest.param("no_answer", ("no-answer", "487", "2"), id="no answer"),
        pytest.param("declined", ("failed", "603", "2"), id="declined"),
        pytest.param("invalid_number", ("failed", "404", "1"), id="no such number"),
        pytest.param("failed", ("failed", "503", "1"), id="the carrier fails"),
        pytest.param("canceled_before_ringing", ("canceled", "487", "1"), id="the carrier cancels it"),
        pytest.param("canceled_ringing", ("canceled", "487", "2"), id="the carrier cancels it as it rings"),
    ],
)
def test_unanswered_call_has_a_final_status_and_no_duration(
    carrier: Carrier, inbox: Inbox, outcome: str, reported: tuple[str, str, str]
) -> None:
    carrier.plan(outcome=outcome)
    ended = carrier.ended(carrier.ring(**subscribed(inbox)))
    assert (ended.status, ended.duration) == (reported[0], None)
    end = wait_until(inbox.the_end)
    assert (end["CallStatus"], end["SipResponseCode"], end["SequenceNumber"]) == reported
    assert (end["CallDuration"], end["Duration"]) == ("0", "0")


@pytest.mark.parametrize(
    ("events", "heard"),
    [
        pytest.param([], [("0", "completed")], id="by default the end alone"),
        pytest.param(["ringing", "completed"], [("0", "ringing"), ("1", "completed")], id="two"),
        pytest.param(["completed", "ringing"], [("0", "ringing"), ("1", "completed")], id="two, otherwise"),
    ],
)
def test_only_subscribed_events_are_sent_and_counted(
    carrier: Carrier, inbox: Inbox, events: list[str], heard: list[tuple[str, str]]
) -> None:
    carrier.ring(**subscribed(inbox, events))
    wait_until(inbox.the_end)
    assert inbox.events() == heard


def test_only_the_first_of_space_joined_events_is_sent(carrier: Carrier, inbox: Inbox) -> None:
    carrier.ended(carrier.ring(**subscribed(inbox, [" ".join(ALL_EVENTS)])))
    carrier.ring(**subscribed(inbox, ["completed"], token="another"))
    wait_until(inbox.the_end)
    assert [callback["CallStatus"] for callback in inbox.got if "a-token" in callback.path] == ["initiated"]


def test_callback_is_signed_with_the_primary_token_over_its_url(carrier: Carrier, inbox: Inbox) -> None:
    url = f"{inbox.url}/carrier/a%2Fb~c?x=%20y&z='(1)'"
    carrier.ring(status_callback=url)
    callback = wait_until(inbox.the_end)
    assert inbox.url + callback.path == url
    signature, fields = callback.headers["X-Twilio-Signature"], dict(callback.pairs)
    assert RequestValidator(PRIMARY).validate(url, fields, signature)
    assert not RequestValidator(SECONDARY).validate(url, fields, signature)
    assert not RequestValidator(PRIMARY).validate(url + "x", fields, signature)
    assert not RequestValidator(PRIMARY).validate(url, fields | {"CallStatus": "busy"}, signature)


def test_a_callback_by_get_carries_its_fields_in_the_query(carrier: Carrier, inbox: Inbox) -> None:
    carrier.ring(status_callback=f"{inbox.url}/carrier/a-token", status_callback_method="GET")
    callback = wait_until(inbox.the_end)
    assert callback.method == "GET"
    signature = callback.headers["X-Twilio-Signature"]
    assert RequestValidator(PRIMARY).validate(inbox.url + callback.path, {}, signature)


@pytest.mark.parametrize(
    ("fragment", "answers", "initiated"),
    [
        pytest.param("", [204], 1, id="once when it is taken"),
        pytest.param("", [404], 1, id="once when it is refused"),
        pytest.param("", [500], 1, id="once when it fails and nothing was asked"),
        pytest.param("#rp=5xx", [500], 2, id="twice when the first one fails"),
        pytest.param("#rp=5xx", [503, 500], 2, id="and then it is lost"),
        pytest.param("#rc=3&rp=5xx,ct,rt", [500, 502, 503, 500], 4, id="as often as was asked"),
        pytest.param("#rc=0&rp=all", [500], 1, id="no retries if ordered so"),
        pytest.param("#rc=2&rp=4xx", [404, 500], 2, id="only after the failures that were asked for"),
        pytest.param("#rc=2&rp=all", [404, 500], 3, id="after each failure"),
        pytest.param("#rc=9&rp=never", [500], 1, id="as usual when nonsense was asked"),
    ],
)
def test_callback_is_sent(carrier: Carrier, inbox: Inbox, fragment: str, answers: list[int], initiated: int) -> None:
    inbox.answers = answers
    order = subscribed(inbox)
    carrier.ring(**(order | {"status_callback": order["status_callback"] + fragment}))
    wait_until(inbox.the_end)
    assert all(callback.path == "/carrier/a-token?a=b" for callback in inbox.got)
    tries = [callback for callback in inbox.got if callback["CallStatus"] == "initiated"]
    assert len(tries) == initiated
    assert len({callback.headers["I-Twilio-Idempotency-Token"] for callback in tries}) == 1


def test_callback_that_could_not_connect_is_sent_again(start_carrier: StartCarrier) -> None:
    carrier = start_carrier(callback_retry_after_s=1)
    carrier.plan(ring_s=0, talk_s=0)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        carrier.ended(carrier.ring(status_callback=f"http://127.0.0.1:{door.getsockname()[1]}/#rc=5"))
        door.listen()
        door.settimeout(TIMEOUT_S)
        door.accept()[0].close()


def test_lost_callbacks_change_nothing_about_the_call(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(to=THEIRS, callbacks="none")
    carrier.ended(carrier.ring(**subscribed(inbox)))
    carrier.ring(ANOTHER, **subscribed(inbox))
    wait_until(inbox.the_end)
    assert {callback["To"] for callback in inbox.got} == {ANOTHER}


def test_doubled_callbacks_are_sent_twice_unchanged(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(callbacks="doubled")
    carrier.ring(**subscribed(inbox, ["ringing", "completed"]))
    wait_until(lambda: len(inbox.got) == 4)
    assert inbox.got[0].pairs == inbox.got[1].pairs
    assert inbox.events() == [("0", "ringing")] * 2 + [("1", "completed")] * 2


def test_reordered_callbacks_are_sent_last_first(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(callbacks="reordered")
    carrier.ring(**subscribed(inbox))
    wait_until(lambda: len(inbox.got) == 4)
    assert [number for number, _ in inbox.events()] == ["3", "2", "1", "0"]


# --- plans


def test_the_most_exact_plan_decides(carrier: Carrier) -> None:
    carrier.plan(to=THEIRS, attempt=2, outcome="declined")
    carrier.plan(to=THEIRS, outcome="busy")
    carrier.plan(outcome="no_answer")
    placed = [carrier.ring(), carrier.ring(), carrier.ring(ANOTHER)]
    assert [carrier.ended(call).status for call in placed] == ["busy", "failed", "no-answer"]


def test_latest_of_equal_plans_decides_until_used_up(carrier: Carrier) -> None:
    carrier.plan(outcome="busy")
    carrier.plan(outcome="no_answer", times=2)
    placed = [carrier.ring() for _ in range(3)]
    assert [carrier.ended(call).status for call in placed] == ["no-answer", "no-answer", "busy"]


def test_plans_are_listed_and_cleared(carrier: Carrier) -> None:
    carrier.plan(to=THEIRS, outcome="busy")
    assert [(plan["to"], plan["outcome"]) for plan in carrier.get("/plans")["plans"]] == [(THEIRS, "busy")]
    assert requests.delete(f"{carrier.url}/plans", timeout=TIMEOUT_S).status_code == 204
    assert carrier.get("/plans")["plans"] == []
    assert carrier.ended(carrier.ring()).status == "completed"


def test_many_plans_can_be_posted_at_once_in_their_order(carrier: Carrier) -> None:
    outcomes = [(THEIRS, "busy"), (ANOTHER, "declined"), (THEIRS, "fax")]
    rules = [{"to": to, "outcome": outcome} for to, outcome in outcomes]
    assert requests.post(f"{carrier.url}/plans", json=rules, timeout=TIMEOUT_S).status_code == 201
    assert [(plan["to"], plan["outcome"]) for plan in carrier.get("/plans")["plans"]] == outcomes
    placed = [carrier.ring(), carrier.ring(ANOTHER)]
    assert [carrier.ended(call).status for call in placed] == ["completed", "failed"]


def test_no_plan_is_posted_if_one_is_invalid(carrier: Carrier) -> None:
    rules = [{"outcome": "busy"}, {"outcome": "asleep"}]
    assert requests.post(f"{carrier.url}/plans", json=rules, timeout=TIMEOUT_S).status_code == 422
    assert carrier.get("/plans")["plans"] == []


@pytest.mark.parametrize("rule", [{"outcome": "asleep"}, {"fault": "fire"}, {"till": THEIRS}, {"times": 0}])
def test_invalid_plan_is_refused(carrier: Carrier, rule: dict[str, Any]) -> None:
    assert requests.post(f"{carrier.url}/plans", json=rule, timeout=TIMEOUT_S).status_code == 422
    assert carrier.get("/plans")["plans"] == []


# --- faults: the answer to the caller, and the truth


def gives_up(carrier: Carrier, **order: Any) -> None:
    with sdk_for(carrier.url, timeout=PATIENCE_S) as impatient, pytest.raises(requests.Timeout):
        impatient.calls.create(to=THEIRS, from_=OURS, url=INSTRUCTIONS, **order)


def test_call_accepted_in_silence_rings_and_is_listed(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(fault="accept_and_silence", callbacks="none")
    gives_up(carrier, **subscribed(inbox))
    [found] = wait_until(lambda: carrier.sdk.calls.list(to=THEIRS))
    assert carrier.ended(found).status == "completed"
    assert [ring["token"] for ring in carrier.rings()] == ["a-token"]
    assert inbox.got == []
    assert [arrival["answered"] for arrival in carrier.requests()] == [None]


def test_call_accepted_in_silence_sends_callbacks(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(fault="accept_and_silence")
    gives_up(carrier, **subscribed(inbox))
    assert wait_until(inbox.the_end)["CallSid"] == carrier.rings()[0]["sid"]


def test_an_error_after_acceptance_rings(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(fault="accept_then_500")
    with refused(20500, 500):
        carrier.ring(**subscribed(inbox))
    assert wait_until(inbox.the_end)["CallStatus"] == "completed"
    assert len(carrier.sdk.calls.list(to=THEIRS)) == 1


@pytest.mark.parametrize(
    ("rule", "status", "code"),
    [
        pytest.param({"fault": "refuse_500"}, 500, 20500, id="an error"),
        pytest.param({"fault": "refuse"}, 400, 21215, id="a country that may not be called"),
        pytest.param({"fault": "refuse", "code": 20005, "status": 403}, 403, 20005, id="account closed"),
        pytest.param({"fault": "429"}, 429, 20429, id="too many requests"),
        pytest.param({"fault": "401"}, 401, 20003, id="credentials refused"),
    ],
)
def test_refused_order_does_not_ring(carrier: Carrier, rule: dict[str, Any], status: int, code: int) -> None:
    carrier.plan(**rule, times=1)
    with refused(code, status):
        carrier.ring()
    assert carrier.rings() == []
    assert carrier.sdk.calls.list() == []
    assert [arrival["answered"] for arrival in carrier.requests()] == [status]
    assert carrier.ring().status == "queued"


def test_dropped_connection_gives_no_answer_and_no_ring(carrier: Carrier) -> None:
    carrier.plan(fault="drop")
    with pytest.raises(requests.ConnectionError, match="without response"):
        carrier.ring()
    assert carrier.rings() == []
    assert [arrival["answered"] for arrival in carrier.requests()] == [None]


def test_a_slow_answer_comes_after_the_phone_rang(carrier: Carrier) -> None:
    carrier.plan(fault="slow", delay_s=0.3, ring_s=FOR_HOURS)
    asked_at = time.monotonic()
    call = carrier.ring(timeout=UNTIL_ENDED)
    assert time.monotonic() - asked_at >= 0.3
    assert call.status == "queued"
    assert carrier.is_in(call, "ringing")


def test_a_late_acceptance_rings_after_the_caller_gave_up(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(fault="late_accept", delay_s=LATE_S)
    gives_up(carrier, **subscribed(inbox))
    assert carrier.sdk.calls.list() == []
    assert wait_until(inbox.the_end)["CallStatus"] == "completed"
    [ring], [arrival] = carrier.rings(), carrier.requests()
    assert span(ring | arrival, "at", "accepted_at") >= timedelta(seconds=LATE_S)


def test_unlisted_call_is_missing_in_lists_but_can_be_fetched(carrier: Carrier) -> None:
    carrier.plan(attempt=2, listed=False)
    placed = [carrier.ring() for _ in range(3)]
    assert [call.sid for call in carrier.sdk.calls.list(to=THEIRS, page_size=1)] == [placed[2].sid, placed[0].sid]
    assert placed[1].sid not in {call.sid for call in carrier.sdk.calls.list()}
    assert carrier.ended(placed[1]).status == "completed"
    assert len(carrier.rings()) == 3


# --- a carrier that is down

DOWN = [
    pytest.param("503", 503, id="it fails"),
    pytest.param("429", 429, id="it is overrun"),
    pytest.param("401", 401, id="wrong credentials"),
    pytest.param("drop", None, id="it hangs up"),
]


@contextmanager
def unavailable(status: int | None) -> Iterator[None]:
    """Expect the answer of an outage: this status, or none from a carrier that hangs up."""
    with pytest.raises((TwilioException, requests.ConnectionError)) as refusal:
        yield
    assert getattr(refusal.value, "status", status) == status


@pytest.mark.parametrize(("kind", "status"), DOWN)
def test_outage_rejects_queries_and_orders(carrier: Carrier, kind: str, status: int | None) -> None:
    call = carrier.ring()
    carrier.down(kind=kind)
    for ask in (
        lambda: carrier.ring(ANOTHER),
        carrier.sdk.calls.list,
        carrier.sdk.calls(call.sid).fetch,
        lambda: carrier.update(call, status="canceled"),
    ):
        with unavailable(status):
            ask()
    assert carrier.rings(ANOTHER) == []
    assert [arrival["answered"] for arrival in carrier.requests(ANOTHER)] == [status]
    carrier.up()
    assert carrier.ring(ANOTHER).status == "queued"


@pytest.mark.parametrize(("kind", "_status"), DOWN)
def test_calls_go_on_during_an_outage(carrier: Carrier, inbox: Inbox, kind: str, _status: object) -> None:
    carrier.ring(**subscribed(inbox))
    carrier.down(kind=kind)
    assert wait_until(inbox.the_end)["CallStatus"] == "completed"


@pytest.mark.parametrize(("kind", "status"), DOWN)
def test_outage_of_orders_alone_answers_queries(carrier: Carrier, kind: str, status: int | None) -> None:
    carrier.plan(ring_s=FOR_HOURS)
    call = carrier.ring(timeout=UNTIL_ENDED)
    carrier.down(kind=kind, answers_questions=True)
    with unavailable(status):
        carrier.ring(ANOTHER)
    with unavailable(status):
        carrier.update(call, status="canceled")
    assert [each.sid for each in carrier.sdk.calls.list()] == [call.sid]
    assert carrier.status_of(call) in {"queued", "ringing"}
    carrier.down(kind=kind)
    with pytest.raises((TwilioException, requests.ConnectionError)):
        carrier.sdk.calls.list()


def test_calls_go_on_without_callbacks_while_the_uplink_is_lost(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(ring_s=FOR_HOURS)
    before = carrier.ring(timeout=UNTIL_ENDED)
    carrier.plan(to=ANOTHER, ring_s=0, talk_s=0)
    carrier.down(kind="uplink")
    for ask in (
        lambda: carrier.ring(ANOTHER, **subscribed(inbox)),
        carrier.sdk.calls.list,
        carrier.sdk.calls(before.sid).fetch,
        lambda: carrier.update(before, status="canceled"),
        lambda: carrier.ring("no number"),
    ):
        with pytest.raises(requests.ConnectionError):
            ask()
    wait_until(lambda: [leg["status"] for leg in carrier.rings(ANOTHER)] == ["completed"])
    assert [leg["status"] for leg in carrier.rings(THEIRS)] == ["canceled"], "orders arrive"
    assert [arrival["answered"] for arrival in carrier.requests()][1:] == [None, None]
    carrier.up()
    assert carrier.sdk.calls.list(to=ANOTHER)[0].status == "completed"
    assert inbox.got == []


def test_callbacks_arrive_again_once_the_uplink_is_back(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(ring_s=0, talk_s=FOR_HOURS)
    carrier.down(kind="uplink")
    with pytest.raises(requests.ConnectionError):
        carrier.ring(**subscribed(inbox))
    wait_until(lambda: [leg["status"] for leg in carrier.rings()] == ["in-progress"])
    carrier.up()
    [call] = carrier.sdk.calls.list()
    call.update(status="completed")
    assert wait_until(inbox.the_end)["CallStatus"] == "completed"
    assert [letter["CallStatus"] for letter in inbox.got] == ["completed"], "the lost ones are not sent again"


def test_an_outage_ends_by_itself(carrier: Carrier) -> None:
    carrier.down(kind="503", for_s=2)
    assert carrier.get("/outage") == {"kind": "503"}
    wait_until(lambda: carrier.get("/outage") == {"kind": None})
    assert carrier.ring().status == "queued"


def test_new_outage_replaces_the_previous_one(carrier: Carrier) -> None:
    carrier.down(kind="503", for_s=0.1)
    carrier.down(kind="429")
    with refused(20429, 429):
        carrier.ring()


@pytest.mark.skipif(sys.platform != "linux", reason="only there a door that was shut can be opened again")
def test_refusing_carrier_takes_no_connections_until_the_end(carrier: Carrier, inbox: Inbox) -> None:
    call = carrier.ring(**subscribed(inbox))  # its SDK now holds a connection open
    carrier.down(kind="refuse", for_s=2)
    for _ in range(2):
        with pytest.raises(requests.ConnectionError, match="Connection refused"):
            carrier.ring(ANOTHER)

    def is_back() -> bool:
        try:
            return requests.get(f"{carrier.url}/healthz", timeout=TIMEOUT_S).ok
        except requests.ConnectionError:
            return False

    wait_until(is_back)
    assert [ring["sid"] for ring in carrier.rings()] == [call.sid]
    assert carrier.requests()[-1]["to"] == THEIRS
    assert wait_until(inbox.the_end)["CallStatus"] == "completed"
    assert carrier.ring(ANOTHER).status == "queued"


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "fire"},
        {"kind": "refuse"},
        {"kind": "503", "for_s": -1},
        {"for_s": 1},
        {"kind": "refuse", "for_s": 1, "answers_questions": True},
    ],
)
def test_invalid_or_endless_outage_is_refused(carrier: Carrier, order: dict[str, Any]) -> None:
    assert requests.post(f"{carrier.url}/outage", json=order, timeout=TIMEOUT_S).status_code == 422
    assert carrier.ring().status == "queued"


# --- a clock that is stopped or moved


@dataclass
class Clock:
    at: datetime = datetime(2026, 4, 2, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


def test_call_on_a_stopped_clock_ends_in_real_time(start_carrier: StartCarrier, inbox: Inbox) -> None:
    clock = Clock()
    carrier = start_carrier(now=clock)
    carrier.ended(carrier.ring(**subscribed(inbox)))
    wait_until(inbox.the_end)
    assert [status for _, status in inbox.events()] == ["initiated", "ringing", "in-progress", "completed"]
    [ring] = carrier.rings()
    shown = clock.at.isoformat(timespec="microseconds")
    assert {ring[step] for step in ("accepted_at", "rang_at", "ended_at")} == {shown}


def test_call_without_duration_ends_at_once_on_any_clock(start_carrier: StartCarrier) -> None:
    carrier = start_carrier(now=Clock(), speed=0.001)
    carrier.plan(ring_s=0, talk_s=0)
    assert carrier.ended(carrier.ring()).status == "completed"


def test_calls_that_follow_the_clock_end_when_it_passes_them(start_carrier: StartCarrier) -> None:
    clock = Clock()
    carrier = start_carrier(now=clock, speed=1, follows_clock=True)
    carrier.plan(to=THEIRS, ring_s=0, talk_s=60)
    carrier.plan(to=ANOTHER, ring_s=600)
    short, long = carrier.ring(), carrier.ring(ANOTHER, timeout=UNTIL_ENDED)
    wait_until(lambda: carrier.is_in(short, "in-progress") and carrier.is_in(long, "ringing"))
    clock.at += timedelta(minutes=2)
    assert carrier.ended(short).duration == "120"
    assert carrier.is_in(long, "ringing")


def test_calls_that_ignore_the_clock_go_on_in_real_time(start_carrier: StartCarrier) -> None:
    clock = Clock()
    carrier = start_carrier(now=clock, speed=1)
    carrier.plan(to=THEIRS, ring_s=60)
    long = carrier.ring(until="ringing")
    clock.at += timedelta(hours=1)
    carrier.plan(to=ANOTHER, ring_s=0.1, talk_s=0)
    carrier.ended(carrier.ring(ANOTHER))
    assert carrier.is_in(long, "ringing")


def test_clock_that_is_moved_back_delays_no_call(start_carrier: StartCarrier) -> None:
    clock = Clock()
    carrier = start_carrier(now=clock)
    carrier.plan(ring_s=20)
    call = carrier.ring()
    wait_until(lambda: carrier.rings()[0]["rang_at"])
    clock.at -= timedelta(days=1)
    assert carrier.ended(call).duration == "0"


# --- the ledger


def test_verdict_finds_a_reused_token_and_two_calls_to_a_number(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(ring_s=FOR_HOURS)
    first = carrier.ring(timeout=UNTIL_ENDED, **subscribed(inbox, token="mine"))
    second = carrier.ring(timeout=UNTIL_ENDED, **subscribed(inbox, token="mine"))
    carrier.ring(ANOTHER, timeout=UNTIL_ENDED, **subscribed(inbox, token="another"))
    verdict = carrier.verdict()
    assert verdict["tokens_posted_twice"] == verdict["tokens_with_two_calls"] == ["mine"]
    assert verdict["calls_at_once"] == [[first.sid, second.sid]]
    assert (verdict["calls"], verdict["alive"]) == (3, 3)


def test_verdict_of_consecutive_calls_is_clean(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(ring_s=0, talk_s=0)
    for token in ("one", "two"):
        carrier.ended(carrier.ring(**subscribed(inbox, token=token)))
    carrier.ended(carrier.ring())
    assert carrier.verdict() == {
        "calls": 3,
        "rings": 3,
        "alive": 0,
        "tokens_posted_twice": [],
        "tokens_with_two_calls": [],
        "unlike_twilio": [],
        "calls_at_once": [],
    }


def test_verdict_separates_posted_twice_from_accepted_twice(carrier: Carrier, inbox: Inbox) -> None:
    carrier.plan(fault="429", times=1)
    with refused(20429):
        carrier.ring(**subscribed(inbox, token="mine"))
    carrier.ring(**subscribed(inbox, token="mine"))
    verdict = carrier.verdict()
    assert (verdict["tokens_posted_twice"], verdict["tokens_with_two_calls"]) == (["mine"], [])


def test_the_ledger_has_every_ring_with_its_times(carrier: Carrier, inbox: Inbox) -> None:
    call = carrier.ring(**subscribed(inbox))
    carrier.ended(call)
    carrier.ring(ANOTHER)
    again = carrier.ring()
    carrier.ended(again)
    first, second = carrier.rings(THEIRS)
    assert (first["sid"], first["token"], first["to"], first["from"]) == (call.sid, "a-token", THEIRS, OURS)
    assert (first["attempt_of_number"], second["attempt_of_number"]) == (1, 2)
    assert second["token"] is None
    times = [first["accepted_at"], first["rang_at"], first["answered_at"], first["ended_at"]]
    assert times == sorted(times)
    assert all(datetime.fromisoformat(at).utcoffset() == timedelta(0) for at in times)
    assert len(carrier.rings()) == 3


@pytest.mark.parametrize("outcome", ["invalid_number", "failed", "canceled_before_ringing"])
def test_call_that_did_not_ring_has_no_ring_time(carrier: Carrier, outcome: str) -> None:
    carrier.plan(outcome=outcome)
    carrier.ended(carrier.ring())
    assert carrier.rings()[0]["rang_at"] is None


def test_ledger_cannot_be_emptied(carrier: Carrier) -> None:
    carrier.ring()
    assert requests.delete(f"{carrier.url}/ledger", timeout=TIMEOUT_S).status_code == 405
    assert len(carrier.rings()) == 1


def test_all_times_are_on_the_given_clock(start_carrier: StartCarrier) -> None:
    years = timedelta(days=1000)
    carrier = start_carrier(now=lambda: datetime.now(UTC) + years)
    call = carrier.ended(carrier.ring())
    near = datetime.now(UTC) + years - timedelta(minutes=1)
    assert min(call.date_created, call.start_time, call.end_time) > near
    assert datetime.fromisoformat(carrier.rings()[0]["rang_at"]) > near
    assert datetime.fromisoformat(carrier.requests()[0]["at"]) > near


# --- a carrier that is killed

PROCESS = """
import socket, sys
from datetime import UTC, datetime
from pathlib import Path
import uvicorn
from standalone.simulator.app import create_app
door, state, sid, token = sys.argv[1:]
app = create_app(
    account_sid=sid, auth_tokens=[token], now=lambda: datetime.now(UTC), state_file=Path(state)
)
config = uvicorn.Config(app, loop="asyncio", log_level="warning", timeout_keep_alive=75)
uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(door))])
"""


@contextmanager
def carrier_process(door: socket.socket, state: Path) -> Iterator[Carrier]:
    """A carrier in its own process, on a socket that stays open; killed at the end."""
    number, url = str(door.fileno()), address_of(door)
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, number, str(state), ACCOUNT, PRIMARY],
        pass_fds=[door.fileno()],
        cwd=Path(__file__).parents[2],
    )
    try:
        with sdk_for(url) as sdk:
            carrier = Carrier(url=url, sdk=sdk)
            assert requests.get(f"{url}/healthz", timeout=60).json() == {"status": "ok"}
            yield carrier
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_killed_carrier_keeps_all_calls_and_requests(tmp_path: Path) -> None:
    state = tmp_path / "carrier.jsonl"
    with a_door() as door:
        with carrier_process(door, state) as carrier:
            carrier.plan(ring_s=FOR_HOURS, times=5)
            call = carrier.ring(timeout=UNTIL_ENDED, until="ringing")
            before = carrier.rings(), carrier.requests(), carrier.get("/plans")
        with state.open("a") as file:
            file.write('{"kind":"call","key":"a line that was cut sho')
        with carrier_process(door, state) as carrier:
            assert (carrier.rings(), carrier.requests(), carrier.get("/plans")) == before
            assert [found.sid for found in carrier.sdk.calls.list(to=THEIRS)] == [call.sid]
            assert carrier.update(call, status="canceled").status == "canceled"
            carrier.ring()
        with carrier_process(door, state) as carrier:
            assert [ring["attempt_of_number"] for ring in carrier.rings()] == [1, 2]
            assert carrier.is_in(call, "canceled")


def test_call_continues_after_a_kill_and_rings_once(tmp_path: Path) -> None:
    with a_door() as door:
        with carrier_process(door, tmp_path / "carrier.jsonl") as carrier:
            carrier.plan(ring_s=0.5, talk_s=0)
            call = carrier.ring()
            [before] = wait_until(lambda: [ring for ring in carrier.rings() if ring["rang_at"]])
        with carrier_process(door, tmp_path / "carrier.jsonl") as carrier:
            assert carrier.ended(call).status == "completed"
            [after] = carrier.rings()
            assert after["rang_at"] == before["rang_at"]


def test_carrier_without_a_file_loses_its_state(start_carrier: StartCarrier) -> None:
    start_carrier().ring()
    assert start_carrier().rings() == []
