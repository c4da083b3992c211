"""Failed calls: the carrier's notifications are read before the SIP code of the callback decides."""

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.support.builders import RecordingHints, Tenant, a_claimed_attempt
from tests.use_cases.conftest import Calls, answering, reads_notifications, settle_at
from tests.use_cases.test_hear import a_form, apply_callback


@pytest.fixture
def reading(retrying: Tenant) -> Tenant:
    return reads_notifications(retrying)


def a_failed_call(reading: Tenant, calls: Calls, *codes: int) -> Attempt:
    """Place a call that fails at the carrier, and store nothing about its end."""
    mine = a_claimed_attempt(reading)
    calls.ring_and_record(mine, until="failed", outcome="failed", ring_s=0.0, error_codes=codes)
    return reading.attempt(mine.id)


def report(reading: Tenant, hear: Hear, hints: RecordingHints, mine: Attempt, sip_code: str | None) -> Attempt:
    code = {} if sip_code is None else {"SipResponseCode": sip_code}
    return apply_callback(reading, hear, hints, mine, a_form(mine, "failed", **code))


@pytest.mark.parametrize(
    ("codes", "sip_code", "reason", "attempts"),
    [
        pytest.param([32017], "503", Reason.BLOCKED_BY_NETWORK, 1, id="blocked, and 503"),
        pytest.param([32017], "603", Reason.BLOCKED_BY_NETWORK, 1, marks=guards("unread_cause"), id="blocked, and 603"),
        pytest.param([32017], None, Reason.BLOCKED_BY_NETWORK, 1, id="blocked, and no SIP code"),
        pytest.param([13224], "503", Reason.UNREACHABLE, 2, id="no route, and 503"),
        pytest.param([], "603", Reason.DECLINED, 1, id="no notification, and 603"),
        pytest.param([], "404", Reason.INVALID_NUMBER, 1, id="no notification, and 404"),
        pytest.param([], "503", Reason.CARRIER_ERROR, 2, id="no notification, and 503"),
        pytest.param([], None, Reason.CARRIER_ERROR, 2, id="no notification, and no SIP code"),
    ],
)
def test_failed_call_ends_by_notifications_and_sip_code(
    reading: Tenant,
    calls: Calls,
    hear: Hear,
    hints: RecordingHints,
    codes: list[int],
    sip_code: str | None,
    reason: Reason,
    attempts: int,
) -> None:
    mine = a_failed_call(reading, calls, *codes)
    waiting = report(reading, hear, hints, mine, sip_code)
    assert (waiting.state, waiting.look_at) == (AttemptState.IN_PROGRESS, reading.now())
    assert tasks.SETTLE in {task for task, *_ in hints.rings}
    settle_at(reading, calls.carrier.url).round()
    assert (reading.attempt(mine.id).reason, reading.attempt(mine.id).sip_code) == (reason, None)
    assert len(reading.attempts(mine.interview_id)) == attempts


def test_block_that_the_sip_code_names_needs_no_query(
    reading: Tenant, calls: Calls, hear: Hear, hints: RecordingHints
) -> None:
    mine = a_failed_call(reading, calls)
    assert report(reading, hear, hints, mine, "608").reason is Reason.BLOCKED_BY_NETWORK


def test_repeated_callback_of_a_failed_call_changes_nothing(
    reading: Tenant, calls: Calls, hear: Hear, hints: RecordingHints
) -> None:
    mine = a_failed_call(reading, calls)
    waiting = report(reading, hear, hints, mine, "603")
    assert report(reading, hear, hints, mine, "503") == waiting


@guards("cause_without_carrier")
@pytest.mark.parametrize(
    ("sip_code", "reason", "attempts"), [("603", Reason.DECLINED, 1), ("503", Reason.CARRIER_ERROR, 2)]
)
def test_sip_code_decides_while_the_carrier_is_away(
    reading: Tenant, calls: Calls, hear: Hear, hints: RecordingHints, sip_code: str, reason: Reason, attempts: int
) -> None:
    mine = a_failed_call(reading, calls, 32017)
    report(reading, hear, hints, mine, sip_code)
    with answering(503, b"{}") as url:
        settle_at(reading, url).round()
    assert reading.attempt(mine.id).reason is reason
    assert len(reading.attempts(mine.interview_id)) == attempts
