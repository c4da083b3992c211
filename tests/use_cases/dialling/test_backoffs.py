"""Back-off of some orders: those to a country, or one company's from one number; all others are dialled."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from scheduler.carriers.twilio import TwilioLine
from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.call import Accepted, AnswerUnknown, CarrierAnswer, NeverTaken
from scheduler.lifecycle.breaker import BACK_OFF
from scheduler.lifecycle.policy import RELEASE_SPAN
from scheduler.persistence.database import Database
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.carrier_waits import CarrierWaits
from scheduler.use_cases.release import Release
from scheduler.use_cases.settle import Settle
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import (
    House,
    KeptBell,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    a_waiting_command,
    of_company,
)
from tests.support.servers import SimulatedCarrier
from tests.verification.nights.hand import Hand, a_hand

A_SECOND = timedelta(seconds=1)
AUSTRIA = [f"+431512340{number}" for number in range(10, 30)]
SLOVAKIA = [f"+42122102{number}" for number in range(1000, 1020)]


@pytest.fixture
def other(database: Database, house: House, now: TestClock) -> House:
    """Another company of the same installation."""
    return of_company(house, seed(database, now()))


@pytest.fixture
def hand(house: House, now: TestClock, release: Release, bell: KeptBell, carrier: SimulatedCarrier) -> Iterator[Hand]:
    with a_hand(house, now, release, bell, TwilioLine(carrier.account(), house.policy)) as hand:
        yield hand


def is_down(house: House) -> bool:
    with house.database.transaction() as stores:
        return stores.carrier_accounts.get(house.account_id).breaker.is_down


def claimed(house: House, *due: Attempt) -> list[Attempt]:
    return [each.attempt for each in house.dial.claim([each.id for each in due]).claimed]


def answered(house: House, attempt: Attempt, answer: CarrierAnswer) -> None:
    house.dial.record([(attempt, answer)])


def failed(house: House, *, cause: str = "HTTP_500") -> None:
    answered(house, a_claimed_attempt(house), AnswerUnknown(cause=cause))


def taken(house: House) -> None:
    answered(house, a_claimed_attempt(house), Accepted(call_sid=a_sid()))


def alarms(logs: Any) -> set[str]:
    return {str(each["alarm"]) for each in logs if "alarm" in each}


# ---- a permission that our account lacks


@pytest.mark.parametrize("code", [13227, 21203, 21215, 21216, 32205])
def test_a_country_without_permission_waits_and_no_other(
    house: House, other: House, hand: Hand, settle: Settle, carrier: SimulatedCarrier, code: int
) -> None:
    to_austria = [a_pending_attempt(house, number) for number in AUSTRIA[:8]]
    elsewhere = [a_pending_attempt(house, number) for number in SLOVAKIA[:4]]
    of_others = [a_pending_attempt(other, number) for number in SLOVAKIA[4:8]]
    for number in AUSTRIA:
        carrier.plan(to=number, fault="refuse", code=code)
    with capture_logs() as logs:
        hand.look()
    assert alarms(logs) == {"CARRIER_REFUSES_COUNTRY"}
    assert [each.get("country") for each in logs if "alarm" in each] == ["AT"]
    assert {house.attempt(each.id).state for each in to_austria} == {AttemptState.PENDING}
    assert {house.attempt(each.id).state for each in [*elsewhere, *of_others]} == {AttemptState.IN_PROGRESS}
    assert not is_down(house)

    carrier.clear()  # the operator has given the permission
    for _ in range(4):
        hand.now.move(BACK_OFF[-1])
        settle.round()
        hand.look()
    assert {house.attempt(each.id).reason for each in to_austria} <= {Reason.ANSWERED, None}
    assert all(house.attempt(each.id).not_placed == 0 for each in to_austria), "each was taken in the end"
    assert {ring["to"] for ring in carrier.rings()} >= set(AUSTRIA[:8])


def test_of_a_country_without_permission_one_call_is_tried(
    house: House, hand: Hand, settle: Settle, carrier: SimulatedCarrier, now: TestClock
) -> None:
    for number in AUSTRIA[:8]:
        a_pending_attempt(house, number)
        carrier.plan(to=number, fault="refuse", code=21215)
    hand.look()
    before = len(hand.posts)
    waits = []
    for _ in range(5):
        [[down_until, since]] = house.ask("SELECT down_until, updated_at FROM carrier_backoffs")
        waits.append((down_until - since) // A_SECOND)
        now.instant = max(now(), down_until) + timedelta(minutes=6)  # each attempt's own wait is over, too
        settle.round()
        hand.look()
        before += 1
        assert len(hand.posts) == before
    assert waits == [5, 15, 60, 300, 300]


@guards("backoff")
def test_a_claim_passes_over_a_country_without_permission(house: House) -> None:
    first, second = a_claimed_attempt(house, AUSTRIA[0]), a_pending_attempt(house, AUSTRIA[1])
    elsewhere = a_pending_attempt(house, SLOVAKIA[0])
    answered(house, first, NeverTaken(cause="COUNTRY_REFUSED"))
    assert [each.id for each in claimed(house, second, elsewhere)] == [elsewhere.id]


def test_a_release_passes_over_a_country_without_permission(house: House, release: Release, bell: KeptBell) -> None:
    first = a_claimed_attempt(house, AUSTRIA[0])
    for number in AUSTRIA[1:5]:
        a_pending_attempt(house, number)
    answered(house, first, NeverTaken(cause="COUNTRY_REFUSED"))
    elsewhere = a_pending_attempt(house, SLOVAKIA[0])
    assert release.due() == 1
    assert bell.ids(tasks.DIAL) == [elsewhere.id]


@guards("look_backoff")
def test_a_claimed_call_to_a_refused_country_is_not_sent(house: House, now: TestClock) -> None:
    first, second = a_claimed_attempt(house, AUSTRIA[0]), a_claimed_attempt(house, AUSTRIA[1])
    answered(house, first, NeverTaken(cause="COUNTRY_REFUSED"))
    assert house.dial.last_look(second) is None
    assert house.attempt(second.id).state is AttemptState.PENDING


def test_a_claimed_call_to_another_country_is_sent(house: House) -> None:
    first, second = a_claimed_attempt(house, AUSTRIA[0]), a_claimed_attempt(house, SLOVAKIA[0])
    answered(house, first, NeverTaken(cause="COUNTRY_REFUSED"))
    assert house.dial.last_look(second) is not None


def test_an_explanation_names_the_country_that_is_refused(house: House, explain: Explain, now: TestClock) -> None:
    first, second = a_claimed_attempt(house, AUSTRIA[0]), a_pending_attempt(house, AUSTRIA[1])
    answered(house, first, NeverTaken(cause="COUNTRY_REFUSED"))
    [block] = explain.explanation_of(second.id).blocks
    assert (block.rule.value, block.until) == ("CARRIER_REFUSES_COUNTRY", now() + BACK_OFF[0])
    assert "AT" in block.detail


@pytest.mark.parametrize("code", [21210, 21212, 13214])
def test_a_refused_caller_id_stops_its_company_alone(
    house: House, other: House, hand: Hand, carrier: SimulatedCarrier, explain: Explain, code: int
) -> None:
    mine = [a_pending_attempt(house, number) for number in SLOVAKIA[:6]]
    carrier.plan(to=SLOVAKIA[0], fault="refuse", code=code)
    hand.look()
    waiting = a_pending_attempt(house, SLOVAKIA[6])
    theirs = a_pending_attempt(other, SLOVAKIA[7])
    hand.look()
    assert house.attempt(mine[0].id).state is AttemptState.PENDING
    assert house.attempt(waiting.id).epoch == 0
    assert house.attempt(theirs.id).state is AttemptState.IN_PROGRESS
    [block] = explain.explanation_of(waiting.id).blocks
    assert block.rule.value == "CARRIER_REFUSES_CALLER"
    assert not is_down(house)


# ---- which call a trial tries


def on_trial(house: House, settle: Settle, now: TestClock) -> None:
    """Austria was refused, its wait is over, and the carrier has answered a question."""
    answered(house, a_claimed_attempt(house, AUSTRIA[0]), NeverTaken(cause="COUNTRY_REFUSED"))
    now.move(BACK_OFF[0])
    settle.round()
    assert house.ask("SELECT 1 FROM carrier_backoffs WHERE answered_at >= down_until") != []
    house.change("UPDATE attempts SET due_at = :later", later=now() + timedelta(days=1))


def to_austria(house: House, number: int) -> Attempt:
    """A pending attempt whose number was looked at before, so that no ordinary release takes it."""
    attempt = a_pending_attempt(house, AUSTRIA[number])
    house.change("UPDATE lines SET country = 'AT' WHERE number_hash = :hash", hash=attempt.number_hash)
    return attempt


def test_trial_passes_over_a_call_that_waits_for_a_command(
    house: House, release: Release, settle: Settle, bell: KeptBell, now: TestClock
) -> None:
    on_trial(house, settle, now)
    held = to_austria(house, 1)
    a_waiting_command(house, held.interview_id)
    now.move(A_SECOND)
    free = to_austria(house, 2)
    assert release.due() == 1
    assert bell.ids(tasks.DIAL) == [free.id]


def test_trial_passes_over_a_call_of_a_caller_that_waits_too(
    house: House, other: House, release: Release, settle: Settle, bell: KeptBell, now: TestClock
) -> None:
    """Its claim would hold it each time, and nobody else's call to that country would be tried."""
    on_trial(house, settle, now)
    failed(other)
    settle.round()
    to_austria(other, 1)
    now.move(A_SECOND)
    mine = to_austria(house, 2)
    assert release.due() == 1
    assert bell.ids(tasks.DIAL) == [mine.id]


def test_trial_that_could_not_be_claimed_gives_way_to_another(
    house: House, other: House, release: Release, settle: Settle, bell: KeptBell, now: TestClock
) -> None:
    on_trial(house, settle, now)
    a_placed_attempt(other, SLOVAKIA[0])
    house.change("UPDATE companies SET concurrent_calls = 1 WHERE id = :id", id=other.company_id)
    full = to_austria(other, 1)
    now.move(A_SECOND)
    mine = to_austria(house, 2)
    assert release.due() == 1
    assert claimed(house, full) == []
    now.move(RELEASE_SPAN)
    release.due()
    assert bell.ids(tasks.DIAL) == [full.id, mine.id]


def test_trial_is_not_held_up_by_a_release_from_the_future(
    house: House, release: Release, settle: Settle, bell: KeptBell, now: TestClock
) -> None:
    on_trial(house, settle, now)
    mine = to_austria(house, 1)
    house.change("UPDATE attempts SET released_until = :at WHERE id = :id", at=now() + timedelta(hours=1), id=mine.id)
    assert release.due() == 1
    assert bell.ids(tasks.DIAL) == [mine.id]
    assert release.due() == 0


# ---- failures of one company


@pytest.mark.parametrize(
    ("cause", "times"),
    [
        pytest.param("HTTP_500", 1, id="one that may be spent"),
        pytest.param("HTTP_400", 5, id="five unknown codes"),
        pytest.param("CREATED_WITHOUT_A_NAME", 5, id="five answers without a name"),
    ],
)
def test_bad_orders_of_one_company_stop_nobody_else(
    house: House, other: House, settle: Settle, cause: str, times: int
) -> None:
    for _ in range(times):
        failed(house, cause=cause)
    settle.round()  # the carrier is asked, and answers
    assert not is_down(house)
    mine, theirs = a_pending_attempt(house), a_pending_attempt(other)
    assert [each.id for each in claimed(house, mine, theirs)] == [theirs.id]


def test_failures_of_two_companies_close_the_account(house: House, other: House) -> None:
    failed(house)
    assert not is_down(house)
    failed(other, cause="HTTP_503")
    assert is_down(house)


def test_the_only_company_s_failures_close_the_account(house: House) -> None:
    failed(house)
    assert is_down(house)


def test_a_question_in_vain_closes_the_account_at_once(
    house: House, other: House, settle: Settle, release: Release, bell: KeptBell, carrier: SimulatedCarrier
) -> None:
    failed(house)
    assert release.due() == 0
    assert (tasks.SETTLE, ()) in bell.rings, "it is asked at once"
    carrier.down("503")
    try:
        with capture_logs() as logs:
            settle.round()
    finally:
        carrier.up()
    assert alarms(logs) == {"CARRIER_HTTP_500"}
    assert is_down(house)
    assert claimed(house, a_pending_attempt(other)) == []


def test_a_failure_counts_alone_once_another_company_was_served(house: House, other: House, database: Database) -> None:
    failed(house)
    taken(other)
    failed(of_company(house, seed(database, house.now())))
    assert not is_down(house), "two that fail, but not at the same time"


def test_a_company_that_fails_is_tried_with_one_call(
    house: House, other: House, now: TestClock, settle: Settle
) -> None:
    failed(house)
    due = [a_pending_attempt(house) for _ in range(3)]
    assert claimed(house, *due) == []
    settle.round()
    now.move(BACK_OFF[0])
    settle.round()
    [tried] = claimed(house, *due)
    assert claimed(house, *due) == [], "one at a time"
    answered(house, tried, Accepted(call_sid=a_sid()))
    assert len(claimed(house, *due)) == 2


def test_a_trial_in_vain_makes_one_company_wait_longer(
    house: House, other: House, now: TestClock, settle: Settle
) -> None:
    failed(house)
    waits = []
    for _ in range(5):
        [[down_until]] = house.ask("SELECT down_until FROM carrier_backoffs")
        waits.append((down_until - now()) // A_SECOND)
        now.instant = down_until
        settle.round()
        failed(house)
        taken(other)
    assert waits == [5, 15, 60, 300, 300]
    assert not is_down(house)


def test_one_company_s_trial_in_vain_does_not_close_the_account_again(
    house: House, other: House, now: TestClock, settle: Settle
) -> None:
    failed(house)
    failed(other)
    now.move(BACK_OFF[0])
    settle.round()
    failed(house)
    [theirs] = claimed(house, a_pending_attempt(other))
    answered(house, theirs, Accepted(call_sid=a_sid()))
    assert not is_down(house)


@pytest.mark.parametrize("cause", ["CREDENTIALS", "ACCOUNT_NOT_ACTIVE"])
def test_what_speaks_of_the_account_closes_it_at_once(house: House, other: House, cause: str) -> None:
    answered(house, a_claimed_attempt(house), NeverTaken(cause=cause))
    assert is_down(house)


def test_an_operator_ends_the_wait_and_one_call_is_tried(
    house: House, other: House, settle: Settle, now: TestClock
) -> None:
    waits = CarrierWaits(house.database, now)
    answered(house, a_claimed_attempt(house, AUSTRIA[0]), NeverTaken(cause="COUNTRY_REFUSED"))
    assert [each.scope.country for each in waits.all()] == ["AT"]
    due = [a_pending_attempt(other, number) for number in AUSTRIA[1:4]]
    settle.round()
    assert claimed(house, *due) == []
    assert waits.end() == 1
    settle.round()
    assert len(claimed(house, *due)) == 1
