"""The carrier's codes, from its answer, its notification or its callback to the state of attempt and interview."""

import asyncio
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.domain.attempt import Attempt, AttemptState, Phase, Reason
from scheduler.domain.call import Accepted, CarrierAnswer, NeverTaken
from scheduler.domain.interview import InterviewStatus
from scheduler.lifecycle.breaker import COUNTRY_BLOCKED_WITHIN
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.pauses import CarrierWaits
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock, wait_until
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
)
from tests.support.servers import SimulatedCarrier
from tests.use_cases.conftest import Calls, finish
from tests.use_cases.test_hear import a_form, deliver

AUSTRIA = ("+43151234010", "+43151234011", "+43151234012")
AMERICA = "+12124567890"


@pytest.fixture
def carrier_waits(tenant: Tenant, now: TestClock) -> CarrierWaits:
    return CarrierWaits(tenant.database, now)


def refuse(tenant: Tenant, carrier: SimulatedCarrier, code: int, number: str | None = None) -> Attempt:
    """Place a call that the carrier refuses with this code, and record the answer."""
    attempt = a_claimed_attempt(tenant, number)
    order = tenant.dial.last_look(attempt)
    assert order is not None
    carrier.plan(to=order.to, fault="refuse", code=code)

    async def place() -> CarrierAnswer:
        line = TwilioCallPlacer(carrier.account(), tenant.policy)
        answer = await line.place(order)
        await line.close()
        return answer

    tenant.dial.record([(attempt, asyncio.run(place()))])
    return tenant.attempt(attempt.id)


def after(tenant: Tenant, attempt: Attempt) -> tuple[Reason | None, InterviewStatus, int]:
    """Read the reason, the status of the interview, and the number of its attempts."""
    attempts = tenant.attempts(attempt.interview_id)
    return tenant.attempt(attempt.id).reason, tenant.interview_status(attempt), len(attempts)


# ---- refused orders


@pytest.mark.parametrize("code", [20004, 20010, 21221, 21226, 21229, 21234])
def test_refusal_of_the_request_waits_and_is_no_unknown_outcome(
    retrying: Tenant, carrier: SimulatedCarrier, code: int
) -> None:
    with capture_logs() as logs:
        attempt = refuse(retrying, carrier, code)
    assert (attempt.state, attempt.not_placed) == (AttemptState.PENDING, 1)
    assert after(retrying, attempt) == (None, InterviewStatus.SCHEDULED, 1)
    assert [each["alarm"] for each in logs if "alarm" in each] == ["ORDER_REFUSED"]


@pytest.mark.parametrize("code", [13212, 32017])
def test_code_of_a_call_leaves_the_outcome_unknown(retrying: Tenant, carrier: SimulatedCarrier, code: int) -> None:
    attempt = refuse(retrying, carrier, code)
    assert (attempt.state, attempt.phase) == (AttemptState.IN_PROGRESS, Phase.UNKNOWN)


def test_number_without_a_route_is_retried_on_the_next_day(
    retrying: Tenant, carrier: SimulatedCarrier, now: TestClock
) -> None:
    attempt = refuse(retrying, carrier, 13224)
    assert after(retrying, attempt) == (Reason.UNREACHABLE, InterviewStatus.SCHEDULED, 2)
    retry = retrying.attempts(attempt.interview_id)[-1]
    assert retry.due_at.date() == (now() + timedelta(days=1)).date()


def test_number_without_a_route_twice_is_invalid(retrying: Tenant, now: TestClock) -> None:
    attempt = a_placed_attempt(retrying)
    finish(retrying, attempt, Reason.UNREACHABLE)
    retry = retrying.attempts(attempt.interview_id)[-1]
    now.move(retry.due_at - now())
    [claim] = retrying.dial.claim([retry.id]).claimed
    retrying.dial.record([(claim.attempt, Accepted(call_sid=a_sid()))])
    finish(retrying, retrying.attempt(retry.id), Reason.UNREACHABLE)
    assert after(retrying, retry) == (Reason.INVALID_NUMBER, InterviewStatus.FAILED, 2)


# ---- a number that the carrier blocks


def test_blocked_number_closes_its_line_only(
    retrying: Tenant, carrier: SimulatedCarrier, carrier_waits: CarrierWaits, now: TestClock
) -> None:
    with capture_logs() as logs:
        attempt = refuse(retrying, carrier, 21216, AUSTRIA[0])
    assert after(retrying, attempt) == (None, InterviewStatus.SCHEDULED, 1)
    assert attempt.due_at == now() + timedelta(hours=1)
    assert [each["alarm"] for each in logs if "alarm" in each] == ["NUMBER_BLOCKED"]
    assert carrier_waits.all() == []
    same, another = a_pending_attempt(retrying, AUSTRIA[0]), a_pending_attempt(retrying, AUSTRIA[1])
    claimed = retrying.dial.claim([same.id, another.id]).claimed
    assert [each.attempt.id for each in claimed] == [another.id]


def test_two_blocked_numbers_within_an_hour_close_their_country(
    retrying: Tenant, carrier: SimulatedCarrier, carrier_waits: CarrierWaits
) -> None:
    refuse(retrying, carrier, 21216, AUSTRIA[0])
    refuse(retrying, carrier, 21216, AUSTRIA[1])
    assert [each.scope.country for each in carrier_waits.all()] == ["AT"]


def test_one_number_that_is_blocked_twice_closes_no_country(
    retrying: Tenant, carrier: SimulatedCarrier, carrier_waits: CarrierWaits, now: TestClock
) -> None:
    attempt = refuse(retrying, carrier, 21216, AUSTRIA[0])
    now.move(attempt.due_at - now())
    [claim] = retrying.dial.claim([attempt.id]).claimed
    retrying.dial.record([(claim.attempt, NeverTaken(cause="NUMBER_BLOCKED"))])
    assert carrier_waits.all() == []
    assert retrying.attempt(attempt.id).due_at == now() + timedelta(days=1)


def test_blocked_numbers_of_other_hours_and_countries_close_none(
    retrying: Tenant, carrier: SimulatedCarrier, carrier_waits: CarrierWaits, now: TestClock
) -> None:
    refuse(retrying, carrier, 21216, AUSTRIA[0])
    refuse(retrying, carrier, 21216, a_number())
    now.move(COUNTRY_BLOCKED_WITHIN)
    refuse(retrying, carrier, 21216, AUSTRIA[1])
    assert carrier_waits.all() == []


# ---- notifications of failed calls


@pytest.mark.parametrize(
    ("codes", "reason", "status", "attempts"),
    [
        pytest.param([13224], Reason.UNREACHABLE, InterviewStatus.SCHEDULED, 2, id="13224"),
        pytest.param([32017], Reason.BLOCKED_BY_NETWORK, InterviewStatus.FAILED, 1, id="32017"),
        pytest.param([32016], Reason.CARRIER_ERROR, InterviewStatus.SCHEDULED, 2, id="32016"),
        pytest.param([22001], Reason.CARRIER_ERROR, InterviewStatus.SCHEDULED, 2, id="22001"),
        pytest.param([10004], Reason.CARRIER_ERROR, InterviewStatus.SCHEDULED, 2, id="10004"),
        pytest.param([86008], Reason.CARRIER_ERROR, InterviewStatus.SCHEDULED, 2, id="86008"),
        pytest.param([21216], Reason.CARRIER_ERROR, InterviewStatus.SCHEDULED, 2, id="21216"),
        pytest.param([13212], Reason.CARRIER_ERROR, InterviewStatus.FAILED, 1, id="13212"),
        pytest.param([11200], Reason.CARRIER_ERROR, InterviewStatus.FAILED, 1, id="11200"),
        pytest.param([11205, 11210], Reason.CARRIER_ERROR, InterviewStatus.FAILED, 1, id="11205, 11210"),
        pytest.param([12100, 12300], Reason.CARRIER_ERROR, InterviewStatus.FAILED, 1, id="12100, 12300"),
        pytest.param([32017, 13224, 32016], Reason.BLOCKED_BY_NETWORK, InterviewStatus.FAILED, 1, id="several"),
    ],
)
def test_notification_of_a_failed_call_decides(
    retrying: Tenant,
    calls: Calls,
    settle: Settle,
    now: TestClock,
    codes: list[int],
    reason: Reason,
    status: InterviewStatus,
    attempts: int,
) -> None:
    attempt = a_claimed_attempt(retrying)
    calls.ring_and_record(attempt, outcome="failed", ring_s=0.0, error_codes=codes)
    wait_until(lambda: bool(calls.carrier.rings()[-1]["ended_at"]), says="it is over")
    now.move(retrying.policy.lease)
    settle.round()
    assert after(retrying, attempt) == (reason, status, attempts)


# ---- SIP codes of callbacks


@pytest.mark.parametrize(
    ("number", "sip_code", "status", "reason"),
    [
        pytest.param(None, "607", "failed", Reason.BLOCKED_BY_NETWORK, id="607"),
        pytest.param(None, "608", "failed", Reason.BLOCKED_BY_NETWORK, id="608"),
        pytest.param(None, "608", "busy", Reason.BLOCKED_BY_NETWORK, id="608 as busy"),
        pytest.param(AMERICA, "603", "failed", Reason.BLOCKED_BY_NETWORK, id="603 in +1"),
        pytest.param(None, "603", "failed", Reason.DECLINED, id="603 elsewhere"),
    ],
)
def test_sip_code_of_a_block_or_a_refusal_is_not_retried(
    retrying: Tenant,
    hear: Hear,
    hints: RecordingHints,
    number: str | None,
    sip_code: str,
    status: str,
    reason: Reason,
) -> None:
    attempt = a_placed_attempt(retrying, number)
    hints.rung.clear()
    deliver(hear, attempt, a_form(attempt, status, SipResponseCode=sip_code))
    for event_id in hints.ids(tasks.HEAR):
        hear.event(event_id)
    assert after(retrying, attempt) == (reason, InterviewStatus.FAILED, 1)
