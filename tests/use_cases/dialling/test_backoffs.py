"""Back-off of some orders: those to a country, or one company's from one number; all others are dialled."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from scheduler.carriers.twilio_calls import TwilioCallPlacer
from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.call import Accepted, AnswerUnknown, NeverTaken
from scheduler.lifecycle.breaker import BACK_OFF
from scheduler.lifecycle.policy import RELEASE_SPAN
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.pauses import CarrierWaits
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.carrier_state import CarrierJudge
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    a_waiting_command,
    of_company,
)
from tests.support.servers import SimulatedCarrier
from tests.support.statements import statements_of
from tests.use_cases.conftest import breaker_of, claimed
from tests.verification.world.moved_clock import WorkerHand, a_worker_hand

A_SECOND = timedelta(seconds=1)
AUSTRIA = [f"+431512340{number}" for number in range(10, 30)]
SLOVAKIA = [f"+42122102{number}" for number in range(1000, 1020)]


@pytest.fixture
def hand(
    tenant: Tenant, now: TestClock, release: Release, hints: RecordingHints, carrier: SimulatedCarrier
) -> Iterator[WorkerHand]:
    with a_worker_hand(tenant, now, release, hints, TwilioCallPlacer(carrier.account(), tenant.policy)) as hand:
        yield hand


def failed(tenant: Tenant, *, cause: str = "HTTP_500") -> None:
    tenant.dial.record([(a_claimed_attempt(tenant), AnswerUnknown(cause=cause))])


def taken(tenant: Tenant) -> None:
    tenant.dial.record([(a_claimed_attempt(tenant), Accepted(call_sid=a_sid()))])


def refused(tenant: Tenant, attempt: Attempt) -> None:
    """Record that the carrier does not call the country of this attempt."""
    tenant.dial.record([(attempt, NeverTaken(cause="COUNTRY_REFUSED"))])


def alarms(logs: Any) -> set[str]:
    return {str(each["alarm"]) for each in logs if "alarm" in each}


# ---- a permission that our account lacks


def test_only_calls_to_a_refused_country_wait(
    tenant: Tenant, other: Tenant, hand: WorkerHand, settle: Settle, carrier: SimulatedCarrier
) -> None:
    to_austria = [a_pending_attempt(tenant, number) for number in AUSTRIA[:8]]
    elsewhere = [a_pending_attempt(tenant, number) for number in SLOVAKIA[:4]]
    of_others = [a_pending_attempt(other, number) for number in SLOVAKIA[4:8]]
    for number in AUSTRIA:
        carrier.plan(to=number, fault="refuse", code=13227)
    with capture_logs() as logs:
        hand.look()
    assert alarms(logs) == {"CARRIER_REFUSES_COUNTRY"}
    assert [each.get("country") for each in logs if "alarm" in each] == ["AT"]
    assert {tenant.attempt(each.id).state for each in to_austria} == {AttemptState.PENDING}
    assert {tenant.attempt(each.id).state for each in [*elsewhere, *of_others]} == {AttemptState.IN_PROGRESS}
    assert not breaker_of(tenant).is_down

    carrier.clear()  # the operator has given the permission
    for _ in range(4):
        hand.now.move(BACK_OFF[-1])
        settle.round()
        hand.look()
    assert {tenant.attempt(each.id).reason for each in to_austria} <= {Reason.ANSWERED, None}
    assert all(tenant.attempt(each.id).not_placed == 0 for each in to_austria), "each was taken in the end"
    assert {ring["to"] for ring in carrier.rings()} >= set(AUSTRIA[:8])


def test_one_trial_call_is_made_to_a_refused_country(
    tenant: Tenant, hand: WorkerHand, settle: Settle, carrier: SimulatedCarrier, now: TestClock
) -> None:
    for number in AUSTRIA[:8]:
        a_pending_attempt(tenant, number)
        carrier.plan(to=number, fault="refuse", code=21215)
    hand.look()
    before = len(hand.posts)
    waits = []
    for _ in range(5):
        [[down_until, since]] = tenant.ask("SELECT down_until, updated_at FROM carrier_backoffs")
        waits.append((down_until - since) // A_SECOND)
        now.instant = max(now(), down_until) + timedelta(minutes=6)  # each attempt's own wait is over, too
        settle.round()
        hand.look()
        before += 1
        assert len(hand.posts) == before
    assert waits == [5, 15, 60, 300, 300]


@guards("backoff")
def test_claim_skips_calls_to_a_refused_country(tenant: Tenant) -> None:
    first, second = a_claimed_attempt(tenant, AUSTRIA[0]), a_pending_attempt(tenant, AUSTRIA[1])
    elsewhere = a_pending_attempt(tenant, SLOVAKIA[0])
    refused(tenant, first)
    assert [each.id for each in claimed(tenant, second, elsewhere)] == [elsewhere.id]


def test_release_skips_calls_to_a_refused_country(tenant: Tenant, release: Release, hints: RecordingHints) -> None:
    first = a_claimed_attempt(tenant, AUSTRIA[0])
    for number in AUSTRIA[1:5]:
        a_pending_attempt(tenant, number)
    refused(tenant, first)
    elsewhere = a_pending_attempt(tenant, SLOVAKIA[0])
    assert release.round(resends=False).released == 1
    assert hints.ids(tasks.DIAL) == [elsewhere.id]


@guards("look_backoff")
def test_claimed_call_to_a_refused_country_is_not_sent(tenant: Tenant) -> None:
    first, second, elsewhere = (a_claimed_attempt(tenant, to) for to in (AUSTRIA[0], AUSTRIA[1], SLOVAKIA[0]))
    refused(tenant, first)
    assert tenant.dial.last_look(second) is None
    assert tenant.attempt(second.id).state is AttemptState.PENDING
    assert tenant.dial.last_look(elsewhere) is not None


def test_explanation_names_the_refused_country(tenant: Tenant, explain: Explain, now: TestClock) -> None:
    first, second = a_claimed_attempt(tenant, AUSTRIA[0]), a_pending_attempt(tenant, AUSTRIA[1])
    refused(tenant, first)
    [block] = explain.explanation_of(second.id).blocks
    assert (block.rule.value, block.until) == ("CARRIER_REFUSES_COUNTRY", now() + BACK_OFF[0])
    assert "AT" in block.detail


def test_refused_caller_id_stops_only_its_company(
    tenant: Tenant, other: Tenant, hand: WorkerHand, carrier: SimulatedCarrier, explain: Explain
) -> None:
    mine = [a_pending_attempt(tenant, number) for number in SLOVAKIA[:6]]
    carrier.plan(to=SLOVAKIA[0], fault="refuse", code=21210)
    hand.look()
    waiting = a_pending_attempt(tenant, SLOVAKIA[6])
    theirs = a_pending_attempt(other, SLOVAKIA[7])
    hand.look()
    assert tenant.attempt(mine[0].id).state is AttemptState.PENDING
    assert tenant.attempt(waiting.id).epoch == 0
    assert tenant.attempt(theirs.id).state is AttemptState.IN_PROGRESS
    [block] = explain.explanation_of(waiting.id).blocks
    assert block.rule.value == "CARRIER_REFUSES_CALLER"
    assert not breaker_of(tenant).is_down


# ---- which call a trial tries


@pytest.fixture
def on_trial(tenant: Tenant, settle: Settle, now: TestClock) -> None:
    """Austria was refused, its wait is over, and the carrier has answered a question."""
    refused(tenant, a_claimed_attempt(tenant, AUSTRIA[0]))
    now.move(BACK_OFF[0])
    settle.round()
    assert tenant.ask("SELECT 1 FROM carrier_backoffs WHERE answered_at >= down_until") != []
    tenant.change("UPDATE attempts SET due_at = :later", later=now() + timedelta(days=1))


def to_austria(tenant: Tenant, number: int) -> Attempt:
    """Build a pending attempt whose number was looked at before, so that only a trial takes it."""
    attempt = a_pending_attempt(tenant, AUSTRIA[number], due_at=tenant.now() - (10 - number) * A_SECOND)
    tenant.change("UPDATE lines SET country = 'AT' WHERE number_hash = :hash", hash=attempt.number_hash)
    return attempt


@pytest.mark.usefixtures("on_trial")
def test_trial_skips_a_call_that_waits_for_a_command(tenant: Tenant, release: Release, hints: RecordingHints) -> None:
    held = to_austria(tenant, 1)
    a_waiting_command(tenant, held.interview_id)
    free = to_austria(tenant, 2)
    assert release.round(resends=False).released == 1
    assert hints.ids(tasks.DIAL) == [free.id]


@pytest.mark.usefixtures("on_trial")
def test_trial_skips_a_call_whose_caller_is_backed_off_too(
    tenant: Tenant, other: Tenant, release: Release, settle: Settle, hints: RecordingHints
) -> None:
    """Each claim would hold it back, and no other call to that country would be tried."""
    failed(other)
    settle.round()
    to_austria(other, 1)
    mine = to_austria(tenant, 2)
    assert release.round(resends=False).released == 1
    assert hints.ids(tasks.DIAL) == [mine.id]


@pytest.mark.usefixtures("on_trial")
def test_unclaimable_trial_gives_way_to_another_call(
    tenant: Tenant, other: Tenant, release: Release, hints: RecordingHints, now: TestClock
) -> None:
    a_placed_attempt(other, SLOVAKIA[0])
    tenant.change("UPDATE companies SET concurrent_calls = 1 WHERE id = :id", id=other.company_id)
    full = to_austria(other, 1)
    mine = to_austria(tenant, 2)
    assert release.round(resends=False).released == 1
    assert claimed(tenant, full) == []
    now.move(RELEASE_SPAN)
    release.round(resends=False)
    assert hints.ids(tasks.DIAL) == [full.id, mine.id]


@pytest.mark.usefixtures("on_trial")
def test_trial_of_the_account_may_be_that_of_a_back_off(
    tenant: Tenant, release: Release, hints: RecordingHints, now: TestClock
) -> None:
    """Otherwise nothing is called while both are half-open and every due call is to that country."""
    tenant.change("UPDATE carrier_accounts SET failures = 5, down_until = :now, answered_at = :now", now=tenant.now())
    mine = to_austria(tenant, 1)
    to_austria(tenant, 2)
    assert (release.round(resends=False).released, release.round(resends=False).released) == (1, 0), "one at a time"
    assert hints.ids(tasks.DIAL) == [mine.id]
    [tried] = claimed(tenant, mine)
    tenant.dial.record([(tried, Accepted(call_sid=a_sid()))])
    assert tenant.ask("SELECT 1 FROM carrier_backoffs WHERE down_until IS NOT NULL") == []
    assert tenant.ask("SELECT 1 FROM carrier_accounts WHERE down_until IS NOT NULL") == []


@pytest.mark.usefixtures("on_trial")
def test_release_from_the_future_does_not_delay_a_trial(
    tenant: Tenant, release: Release, hints: RecordingHints
) -> None:
    mine = to_austria(tenant, 1)
    tenant.change(
        "UPDATE attempts SET released_until = :at WHERE id = :id", at=tenant.now() + timedelta(hours=1), id=mine.id
    )
    assert release.round(resends=False).released == 1
    assert hints.ids(tasks.DIAL) == [mine.id]
    assert release.round(resends=False).released == 0


# ---- failures of one company


@pytest.mark.parametrize(
    ("cause", "times"),
    [
        pytest.param("HTTP_500", 1, id="a call that may be lost"),
        pytest.param("HTTP_400", 5, id="five unknown codes"),
        pytest.param("CREATED_WITHOUT_A_NAME", 5, id="five answers without a name"),
    ],
)
def test_failing_calls_of_one_company_stop_no_other_company(
    tenant: Tenant, other: Tenant, settle: Settle, cause: str, times: int
) -> None:
    for _ in range(times):
        failed(tenant, cause=cause)
    settle.round()  # the carrier is asked, and answers
    assert not breaker_of(tenant).is_down
    mine, theirs = a_pending_attempt(tenant), a_pending_attempt(other)
    assert [each.id for each in claimed(tenant, mine, theirs)] == [theirs.id]


def test_failures_of_two_companies_open_the_account_breaker(tenant: Tenant, other: Tenant) -> None:
    failed(tenant)
    assert not breaker_of(tenant).is_down
    failed(other, cause="HTTP_503")
    assert breaker_of(tenant).is_down


def test_failed_probe_opens_the_account_breaker_at_once(
    tenant: Tenant, other: Tenant, settle: Settle, release: Release, hints: RecordingHints, carrier: SimulatedCarrier
) -> None:
    failed(tenant)
    assert release.round(resends=False).released == 0
    assert (tasks.SETTLE, ()) in hints.rings, "it is asked at once"
    carrier.down("503")
    try:
        with capture_logs() as logs:
            settle.round()
    finally:
        carrier.up()
    assert alarms(logs) == {"CARRIER_HTTP_500"}
    assert breaker_of(tenant).is_down
    assert claimed(tenant, a_pending_attempt(other)) == []


def test_success_between_failures_keeps_the_breaker_closed(tenant: Tenant, other: Tenant) -> None:
    failed(tenant)
    taken(other)
    failed(of_company(tenant, seed(tenant.database, tenant.now())))
    assert not breaker_of(tenant).is_down, "two that fail, but not at the same time"


def test_failing_company_gets_one_trial_call(tenant: Tenant, other: Tenant, now: TestClock, settle: Settle) -> None:
    failed(tenant)
    due = [a_pending_attempt(tenant) for _ in range(3)]
    assert claimed(tenant, *due) == []
    settle.round()
    now.move(BACK_OFF[0])
    settle.round()
    [tried] = claimed(tenant, *due)
    assert claimed(tenant, *due) == [], "one at a time"
    tenant.dial.record([(tried, Accepted(call_sid=a_sid()))])
    assert len(claimed(tenant, *due)) == 2


def test_failed_company_trial_leaves_the_account_breaker_closed(
    tenant: Tenant, other: Tenant, now: TestClock, settle: Settle
) -> None:
    failed(tenant)
    failed(other)
    now.move(BACK_OFF[0])
    settle.round()
    failed(tenant)
    [theirs] = claimed(tenant, a_pending_attempt(other))
    tenant.dial.record([(theirs, Accepted(call_sid=a_sid()))])
    assert not breaker_of(tenant).is_down


@pytest.mark.parametrize("cause", ["CREDENTIALS", "ACCOUNT_NOT_ACTIVE"])
def test_failure_of_the_account_opens_its_breaker_at_once(tenant: Tenant, other: Tenant, cause: str) -> None:
    tenant.dial.record([(a_claimed_attempt(tenant), NeverTaken(cause=cause))])
    assert breaker_of(tenant).is_down


def test_ended_back_off_permits_one_trial_call(tenant: Tenant, other: Tenant, settle: Settle, now: TestClock) -> None:
    waits = CarrierWaits(tenant.database, now)
    refused(tenant, a_claimed_attempt(tenant, AUSTRIA[0]))
    assert [each.scope.country for each in waits.all()] == ["AT"]
    due = [a_pending_attempt(other, number) for number in AUSTRIA[1:4]]
    settle.round()
    assert claimed(tenant, *due) == []
    assert waits.end() == 1
    settle.round()
    assert len(claimed(tenant, *due)) == 1


# ---- the account's row


def test_success_after_a_failure_is_written_once(tenant: Tenant) -> None:
    failed(tenant, cause="A_TEST")
    assert breaker_of(tenant).failures == 1
    taken(tenant)
    assert breaker_of(tenant).failures == 0
    judge = CarrierJudge(tenant.database, tenant.hasher, tenant.account_id, tenant.now)
    mine = a_claimed_attempt(tenant)
    with statements_of(tenant.database) as sent:
        judge.hear([(mine, Accepted(call_sid=a_sid()))])
    [statement] = sent
    assert statement.startswith("SELECT"), "a working carrier costs one statement"
