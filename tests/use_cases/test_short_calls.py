"""Short answered calls: the carrier's notifications are read before they count as conversations."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import requests

from scheduler.domain.attempt import Attempt, AttemptState, ProofMissing, Reason
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.policy import ASK_EVERY, Policy
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, wait_until
from tests.support.builders import RecordingHints, Tenant, a_claimed_attempt, an_unknown_attempt
from tests.support.servers import ACCOUNT_SID, PRIMARY, SimulatedCarrier
from tests.use_cases.conftest import Calls, answering_by_path, reads_notifications, settle_at
from tests.use_cases.test_hear import a_form, apply_callback

A_LONG_TALK = str(int(Policy().short_call.total_seconds()))


@pytest.fixture
def reading(tenant: Tenant) -> Tenant:
    return reads_notifications(tenant)


@contextmanager
def between(carrier: SimulatedCarrier, answer: Callable[[str], int | None]) -> Iterator[str]:
    """Run a server that passes queries on to the carrier, unless `answer` returns a status for their path."""

    def passed_on(path: str) -> tuple[int, bytes]:
        status = answer(path)
        if status is not None:
            return status, b"{}"
        reply = requests.get(carrier.url + path, auth=(ACCOUNT_SID, PRIMARY), timeout=30)
        return reply.status_code, reply.content

    with answering_by_path(passed_on) as url:
        yield url


def an_ended_call(reading: Tenant, calls: Calls, **plan: object) -> Attempt:
    """Place a call that the carrier ends at once, and store nothing about its end."""
    mine = a_claimed_attempt(reading)
    calls.ring_and_record(mine, until="completed", **({"ring_s": 0.0, "talk_s": 0.0} | plan))
    return reading.attempt(mine.id)


def report_the_end(reading: Tenant, hear: Hear, hints: RecordingHints, mine: Attempt, duration: str) -> Attempt:
    return apply_callback(reading, hear, hints, mine, a_form(mine, "completed", CallDuration=duration))


@pytest.mark.parametrize(
    ("instructions", "reason", "booked"),
    [("lost", Reason.INSTRUCTIONS_FAILED, 0), (None, Reason.ANSWERED, 1)],
    ids=["without instructions", "a short conversation"],
)
def test_short_call_ends_by_its_notifications(
    reading: Tenant,
    calls: Calls,
    hear: Hear,
    hints: RecordingHints,
    instructions: str | None,
    reason: Reason,
    booked: int,
) -> None:
    mine = an_ended_call(reading, calls, instructions=instructions)
    open_still = report_the_end(reading, hear, hints, mine, "3")
    assert (open_still.state, open_still.look_at) == (AttemptState.IN_PROGRESS, reading.now())
    assert tasks.SETTLE in {task for task, *_ in hints.rings}
    settle_at(reading, calls.carrier.url).round()
    assert reading.attempt(mine.id).reason is reason
    assert reading.ask("SELECT count(*) FROM usage") == [(booked,)]


@guards("failed_callback")
def test_failed_callback_of_a_short_call_ends_a_conversation(
    reading: Tenant, calls: Calls, hear: Hear, hints: RecordingHints
) -> None:
    """Twilio reports both with the same code, and names the URL."""
    mine = an_ended_call(reading, calls, error_codes=[11200])
    report_the_end(reading, hear, hints, mine, "3")
    settle_at(reading, calls.carrier.url).round()
    assert reading.attempt(mine.id).reason is Reason.ANSWERED
    assert reading.ask("SELECT count(*) FROM usage") == [(1,)]


@pytest.mark.parametrize(
    "url", ["{public}/carrier/twilio/a-token/fallback", "https://voice.example.com/redirected", ""]
)
def test_other_failed_url_of_a_short_call_is_no_conversation(
    reading: Tenant, calls: Calls, now: TestClock, url: str
) -> None:
    mine = an_ended_call(reading, calls, error_codes=[11200])
    failed_at = url.format(public=calls.carrier.account().public_url).encode()

    def renamed(path: str) -> tuple[int, bytes]:
        reply = requests.get(calls.carrier.url + path, auth=(ACCOUNT_SID, PRIMARY), timeout=30)
        return reply.status_code, re.sub(rb'"request_url":"[^"]*"', b'"request_url":"%s"' % failed_at, reply.content)

    now.instant = mine.look_at or now()
    with answering_by_path(renamed) as carrier_url:
        settle_at(reading, carrier_url).round()
    assert reading.attempt(mine.id).reason is Reason.INSTRUCTIONS_FAILED


def test_long_call_ends_without_a_query(reading: Tenant, calls: Calls, hear: Hear, hints: RecordingHints) -> None:
    mine = an_ended_call(reading, calls, instructions="lost")
    assert report_the_end(reading, hear, hints, mine, A_LONG_TALK).reason is Reason.ANSWERED


@guards("unread_notifications", "instructions_failed")
def test_short_call_is_polled_until_its_notifications_are_read(reading: Tenant, calls: Calls, now: TestClock) -> None:
    mine = an_ended_call(reading, calls, instructions="lost")
    away = [True]
    with between(calls.carrier, lambda path: 503 if "Notifications" in path and away[0] else None) as url:
        now.instant = mine.look_at or now()
        for _ in range(3):
            settle_at(reading, url).round()
            polled = reading.attempt(mine.id)
            assert polled.state is AttemptState.IN_PROGRESS, "the carrier was away between the two queries"
            assert polled.look_at is not None
            now.instant = max(polled.look_at, now() + ASK_EVERY)
        away[0] = False
        settle_at(reading, url).round()
    assert reading.attempt(mine.id).reason is Reason.INSTRUCTIONS_FAILED
    assert reading.interview_status(mine) is InterviewStatus.FAILED


def test_carrier_without_notifications_completes_a_short_call(reading: Tenant, calls: Calls, now: TestClock) -> None:
    mine = an_ended_call(reading, calls)
    with between(calls.carrier, lambda path: 404 if "Notifications" in path else None) as url:
        now.instant = mine.look_at or now()
        settle_at(reading, url).round()
    assert reading.attempt(mine.id).reason is Reason.ANSWERED


def test_listed_short_call_ends_by_its_notifications(reading: Tenant, calls: Calls, now: TestClock) -> None:
    mine = a_claimed_attempt(reading)
    calls.ring(mine, ring_s=0.0, talk_s=0.0, instructions="lost")
    wait_until(lambda: calls.carrier.rings()[-1]["ended_at"], says="it is over")
    now.move(reading.policy.lease)
    settle_at(reading, calls.carrier.url).round()
    assert reading.attempt(mine.id).reason is Reason.INSTRUCTIONS_FAILED


def test_short_call_found_late_ends_by_its_notifications(reading: Tenant, calls: Calls, now: TestClock) -> None:
    mine = an_unknown_attempt(reading)
    reading.take(mine, ProofMissing(search_at=now()))
    calls.carrier.plan(to=mine.called_number, ring_s=0.0, talk_s=0.0, instructions="lost")
    calls.post_late(mine)
    wait_until(lambda: calls.carrier.rings()[-1]["ended_at"], says="it is over")
    settle_at(reading, calls.carrier.url).round()
    assert reading.attempt(mine.id).reason is Reason.INSTRUCTIONS_FAILED


def _failing(part: str, path: str) -> int | None:
    return 503 if part in path else None


@guards("unread_notifications")
@pytest.mark.parametrize(
    ("instructions", "reason"),
    [
        pytest.param("lost", Reason.INSTRUCTIONS_FAILED, marks=guards("instructions_failed")),
        (None, Reason.ANSWERED),
    ],
)
def test_late_end_of_a_short_call_waits_for_notifications(
    reading: Tenant,
    calls: Calls,
    hear: Hear,
    hints: RecordingHints,
    now: TestClock,
    instructions: str | None,
    reason: Reason,
) -> None:
    """The call was given up, so it is neither live nor in the way of another call."""
    mine = reading.take(an_ended_call(reading, calls, instructions=instructions), ProofMissing())
    assert report_the_end(reading, hear, hints, mine, "3").look_at == reading.now()
    for failing in ("Notifications", "Calls"):
        with between(calls.carrier, partial(_failing, failing)) as url:
            settle_at(reading, url).round()
        waiting = report_the_end(reading, hear, hints, mine, "3")
        assert (waiting.reason, reading.line(mine)[0]) == (Reason.OUTCOME_UNKNOWN, None)
        now.instant = max(waiting.look_at or now(), now())
    settle_at(reading, calls.carrier.url).round()
    assert reading.attempt(mine.id).reason is reason
