"""The carrier's codes, from its answer or its callback to the state of attempt and interview."""

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
from tests.conftest import TestClock
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
from tests.use_cases.conftest import finish
from tests.use_cases.test_hear import a_form, apply_callback

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


def test_refusal_of_the_request_waits_and_is_no_unknown_outcome(retrying: Tenant, carrier: SimulatedCarrier) -> None:
    with capture_logs() as logs:
        attempt = refuse(retrying, carrier, 20010)
    assert (attempt.state, attempt.not_placed) == (AttemptState.PENDING, 1)
    assert after(retrying, attempt) == (None, InterviewStatus.SCHEDULED, 1)
    assert [each["alarm"] for each in logs if "alarm" in each] == ["ORDER_REFUSED"]


def test_code_of_a_call_leaves_the_outcome_unknown(retrying: Tenant, carrier: SimulatedCarrier) -> None:
    attempt = refuse(retrying, carrier, 32017)
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
    apply_callback(retrying, hear, hints, attempt, a_form(attempt, status, SipResponseCode=sip_code))
    assert after(retrying, attempt) == (reason, InterviewStatus.FAILED, 1)
