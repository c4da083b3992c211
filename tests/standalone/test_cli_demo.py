"""The demo's sample calls, their comparison with the ledger, and their table. `make demo ONCE=1` runs the demo."""

import io
import re
import socket
import struct
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import requests
from rich.console import Console

from scheduler.domain.alarm import KINDS
from scheduler.domain.explanation import Rule
from scheduler.timing.callee_zones import read_number
from standalone.demo.client import Company, DemoCall, _contradiction
from standalone.demo.run import EXPECTED_ALARM
from standalone.demo.sample_calls import CALLS, FULL_DAY, STARTS_AT, SampleCall, Then, moved_to
from standalone.demo.table import WIDE, table
from standalone.demo.voice_server import VoiceServer
from tests.conftest import wait_until
from tests.docs.pages import read

STARTS = datetime.fromisoformat(STARTS_AT).astimezone(UTC)
COMPANY = Company(company_id=uuid4(), agent_id=uuid4(), key="none")
SCHEDULE = {"timezone": "Europe/Berlin", "timezoneSource": "PHONE_NUMBER", "localTime": "2026-04-02T09:00:00"}


def _sample(then: Then = Then.NOTHING, *, expected: str = "COMPLETED ANSWERED") -> SampleCall:
    return next(call for call in CALLS if call.then is then and call.expected == expected)


def _demo_call(sample: SampleCall, **fields: Any) -> DemoCall:
    return DemoCall(sample=sample, company=COMPANY, **fields)


def _attempt(status: str, reason: str | None = None, retry_number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "status": status,
        "reasonCode": reason,
        "outcome": None,
        "retryNumber": retry_number,
        "schedule": SCHEDULE,
        "scheduledAt": "2026-04-02T07:00:00Z",
        "waitingFor": None,
        **fields,
    }


def _ring(after: timedelta = timedelta()) -> dict[str, Any]:
    return {"accepted_at": (STARTS + after).isoformat()}


def test_sample_calls_have_eight_countries_and_distinct_numbers() -> None:
    assert len({call.country for call in CALLS}) == 8
    assert len({call.number for call in CALLS}) == len(CALLS)


def test_lost_answer_of_the_sample_explains_the_expected_alarm() -> None:
    assert [call.label for call in CALLS for plan in call.plans if "fault" in plan] == ["Warsaw, answer lost"]
    assert "CARRIER_FAILS_CALLER" in set(KINDS) & set(re.findall(r"\w+", EXPECTED_ALARM))
    assert "`CARRIER_FAILS_CALLER`" in read("docs/how-to/demo.md")


def test_full_day_fills_the_next_24_hours_of_many_zones() -> None:
    day = [each for place in FULL_DAY for each in place.all()]
    assert len({number for number, _ in day}) == len(day) > 300, "a number has one call"
    due: set[datetime] = set()
    zones: set[str] = set()
    for number, at in day:
        [zone] = read_number(number).zones
        zones.add(zone)
        due.add(datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC))
    assert STARTS < min(due) < max(due) < STARTS + timedelta(days=1)
    assert len(zones) == len(FULL_DAY)


RESULTS = {
    "not sent": (_demo_call(_sample()), "NOT SENT YET"),
    "refused": (_demo_call(_sample(), refusal={"code": "WHY"}), "REFUSED WHY"),
    "deleted": (_demo_call(_sample(), deleted=True), "DELETED"),
    "waiting for its time": (
        _demo_call(_sample(), attempts=[_attempt("PENDING")]),
        "PENDING until 09:00 Europe/Berlin",
    ),
    "a retry waits": (
        _demo_call(_sample(), attempts=[_attempt("FAILED", "BUSY"), _attempt("PENDING", retry_number=1)]),
        "FAILED BUSY, then PENDING again",
    ),
    "the retry was answered": (
        _demo_call(_sample(), attempts=[_attempt("FAILED", "BUSY"), _attempt("COMPLETED", "ANSWERED", 1)]),
        "FAILED BUSY, then COMPLETED ANSWERED",
    ),
    "called back": (
        _demo_call(
            _sample(),
            attempts=[
                _attempt("COMPLETED", "ANSWERED", outcome="CALL_BACK"),
                _attempt("COMPLETED", "ANSWERED", 1, outcome="FINISHED"),
            ],
        ),
        "COMPLETED CALL_BACK, then COMPLETED ANSWERED",
    ),
}


@pytest.mark.parametrize(("call", "result"), RESULTS.values(), ids=RESULTS)
def test_result_of_a_call_has_the_form_of_the_expected_result(call: DemoCall, result: str) -> None:
    assert call.result == result


def test_difference_names_the_rule_that_blocks_the_call() -> None:
    call = _demo_call(_sample(), attempts=[_attempt("PENDING")], block=Rule.CARRIER_FAILS_CALLER)
    assert call.difference == (
        "expected COMPLETED ANSWERED, got PENDING until 09:00 Europe/Berlin, blocked by CARRIER_FAILS_CALLER"
    )


@pytest.mark.parametrize("rule", Rule)
def test_table_names_the_block_unless_it_is_a_time(rule: Rule) -> None:
    call = _demo_call(_sample(), attempts=[_attempt("PENDING")], block=rule)
    output = io.StringIO()
    console = Console(file=output, width=80, highlight=False)
    console.print(table(console, [call], STARTS + timedelta(minutes=5)))
    is_a_time = rule in {Rule.NOT_DUE, Rule.WINDOW_CLOSED}
    assert ("waits until 09:00:00" in output.getvalue()) is is_a_time
    assert "…" not in output.getvalue()


def test_expected_number_of_calls_is_no_contradiction() -> None:
    assert _contradiction(_demo_call(_sample()), [_ring()]) is None


def test_second_ring_contradicts_a_completed_call() -> None:
    call = _demo_call(_sample(), attempts=[_attempt("COMPLETED", "ANSWERED")])
    assert call.is_as_expected
    call.problem = _contradiction(call, [_ring(), _ring()])
    assert call.problem == "the carrier accepted 2 calls for it, not 1"
    assert not call.is_as_expected


def test_ring_of_a_cancelled_call_is_a_contradiction() -> None:
    call = _demo_call(_sample(Then.DELETED, expected="DELETED"), deleted=True)
    assert _contradiction(call, []) is None
    assert _contradiction(call, [_ring()]) == "the carrier accepted 1 calls for it, not 0"


def test_ring_before_the_new_time_contradicts_a_moved_call() -> None:
    call = _demo_call(_sample(Then.MOVED), not_before=STARTS + timedelta(seconds=24))
    assert _contradiction(call, [_ring(after=timedelta(seconds=16))]) == "it rang at 07:00:16 UTC, before 07:00:24"
    assert _contradiction(call, [_ring(after=timedelta(seconds=24))]) is None


@pytest.mark.parametrize(
    ("after", "problem"),
    [
        pytest.param(29, "it rang again at 07:00:29 UTC, asked for 07:00:30", id="early"),
        pytest.param(30, None, id="on time"),
        pytest.param(45, "it rang again at 07:00:45 UTC, asked for 07:00:30", id="late"),
    ],
)
def test_call_back_at_another_time_is_a_contradiction(after: int, problem: str | None) -> None:
    sample = next(call for call in CALLS if call.asks_for_call_in)
    rings = [_ring(), _ring(after=timedelta(seconds=after))]
    assert _contradiction(_demo_call(sample, asked_for=STARTS + timedelta(seconds=30)), rings) == problem


def test_second_call_that_was_not_asked_for_is_a_contradiction() -> None:
    sample = next(call for call in CALLS if call.asks_for_call_in)
    assert _contradiction(_demo_call(sample), [_ring(), _ring()]) == "no person asked for its second call"


@pytest.mark.parametrize(
    ("last", "text"),
    [
        pytest.param(_attempt("PENDING", retry_number=1), "asked for 09:00:00", id="waiting"),
        pytest.param(_attempt("COMPLETED", "ANSWERED", 1), "called back 09:00:00", id="called back"),
    ],
)
def test_table_says_that_a_person_asked_to_be_called_back(last: dict[str, Any], text: str) -> None:
    call = _demo_call(
        _sample(), asked_for=STARTS, attempts=[_attempt("COMPLETED", "ANSWERED", outcome="CALL_BACK"), last]
    )
    output = io.StringIO()
    console = Console(file=output, width=80, highlight=False)
    console.print(table(console, [call], STARTS))
    assert text in output.getvalue()
    assert "…" not in output.getvalue()


# --- the demo's voice server


def test_voice_server_instructs_and_remembers_the_conversation() -> None:
    with VoiceServer() as voice_server:
        form = {"To": "+912266012346", "CallSid": "CA1"}
        answer = requests.post(f"{voice_server.url}?attempt=a-token", data=form, timeout=10)
        assert (answer.status_code, answer.text) == (200, "<Response/>")
        assert requests.get(f"{voice_server.url}?probe=1", timeout=10).status_code == 200
        assert requests.post(voice_server.url, data=form, timeout=10).status_code == 400
        assert list(voice_server.unreported) == [("a-token", "+912266012346")]


def test_client_that_hangs_up_prints_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """The carrier may end in the middle of a request, because the demo stops."""
    with VoiceServer() as voice_server:
        address = urlsplit(voice_server.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as client:
            client.sendall(b"POST /voice?attempt=a-token HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
            wait_until(lambda: _handlers() == 1, seconds=10, says="the request is read")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed with a reset
        wait_until(lambda: not _handlers(), seconds=10, says="the request has ended")
    assert capfd.readouterr().err == ""


def _handlers() -> int:
    return sum("process_request" in each.name for each in threading.enumerate())


def test_moved_call_has_a_later_time() -> None:
    scheduled_at = _sample(Then.MOVED).scheduled_at(STARTS)
    assert scheduled_at is not None
    assert datetime.fromisoformat(moved_to(scheduled_at)) > datetime.fromisoformat(scheduled_at)


def test_cancelled_call_is_observed_until_its_time_is_past() -> None:
    call = _demo_call(_sample(Then.DELETED, expected="DELETED"), deleted=True, due_at=STARTS)
    assert not call.is_over(STARTS)
    assert call.is_over(STARTS + timedelta(seconds=5))


@pytest.mark.parametrize("width", [80, WIDE])
def test_table_fits_the_terminal_without_truncation(width: int) -> None:
    calls = [
        _demo_call(
            sample, scheduled_at="2026-04-02T07:00:16Z", moved_to="2026-04-02T07:00:24Z", attempts=[_attempt("PENDING")]
        )
        for sample in CALLS
    ]
    longest = {**SCHEDULE, "timezone": "Europe/Bratislava"}
    calls[0].attempts = [
        _attempt("FAILED", "NO_ANSWER"),
        _attempt("PENDING", retry_number=1, schedule=longest, scheduledAt="2026-04-02T12:00:00Z"),
    ]
    several = {**SCHEDULE, "timezone": "Pacific/Pago_Pago, Pacific/Saipan", "localTime": "1, 2"}
    calls[1].attempts = [_attempt("PENDING", schedule=several)]
    calls[2].deleted = True
    calls[3].attempts = [_attempt("IN_PROGRESS", waitingFor="proof of what became of it")]
    calls[4].attempts = [_attempt("FAILED", "OUTCOME_UNKNOWN")]
    output = io.StringIO()
    console = Console(file=output, width=width, height=24, highlight=False)
    console.print(table(console, calls, STARTS, over=True))
    lines = output.getvalue().splitlines()
    assert len(lines) < 24
    assert all(len(line) <= width for line in lines)
    assert "…" not in output.getvalue()
