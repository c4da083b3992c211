"""Automatic retries: which outcomes are retried, and at what time."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest

from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.call import CalleeClock, Schedule, TimezoneSource
from scheduler.domain.company import DEFAULT_DELAYS, CallTimeInterval, NextDay, RetryPolicy, Weekday
from scheduler.domain.refusals import InvalidRetryPolicy
from scheduler.lifecycle import retries
from scheduler.lifecycle.policy import Policy
from scheduler.rules.resources import read_retry_policy, retry_policy_as_json
from tests.conftest import NOON
from tests.lifecycle.lifecycle_setup import a_callee, daily, pending
from tests.support.builders import BRATISLAVA
from tests.verification.judge import invariants

POLICY = Policy()
FAR = NOON + timedelta(days=7)


def test_lists_of_retried_reasons_agree() -> None:
    """A reason without delays is never retried, whatever the other lists say."""
    assert {*DEFAULT_DELAYS, *retries.FIXED_DELAYS} == {*retries.RETRIED} == invariants.RETRIED


def local(hour: int, minute: int = 0, *, day: int = 2) -> datetime:
    """A wall time in Bratislava, in April 2026, which is two hours ahead of UTC."""
    return datetime(2026, 4, day, hour, minute, tzinfo=UTC) - timedelta(hours=2)


def ended(reason: Reason, *, number: int = 0, at: datetime = NOON, clock: CalleeClock = BRATISLAVA) -> Attempt:
    schedule = Schedule(requested=None, clock=clock, due_at=at, earliest_at=at, tzdata_version="2026f")
    times = dict.fromkeys(("due_at", "created_at", "updated_at", "claimed_at", "ended_at"), at)
    place = {"id": UUID(int=number + 1), "retry_number": number, "manual": number == 0}
    return pending(state=AttemptState.FAILED, reason=reason, schedule=schedule, **place, **times)


def due(chain: list[Attempt], *, expires_at: datetime = FAR, **callee: Any) -> datetime | None:
    """Compute the due time of the retry after the last attempt of the chain."""
    schedule = retries.next_attempt(chain[-1], chain, a_callee(**callee), expires_at, POLICY)
    return None if schedule is None else schedule.due_at


# ---- by reason


@pytest.mark.parametrize(
    ("reason", "after"),
    [
        pytest.param(Reason.BUSY, timedelta(minutes=15), id="busy"),
        pytest.param(Reason.NO_ANSWER, timedelta(hours=2), id="no answer"),
        pytest.param(Reason.VOICEMAIL, timedelta(hours=4), id="a machine"),
        pytest.param(Reason.CARRIER_ERROR, timedelta(minutes=5), id="the carrier failed it"),
        pytest.param(Reason.INSTRUCTIONS_FAILED, timedelta(minutes=15), id="the voice server failed it"),
    ],
)
def test_a_retry_follows_after_its_delay(reason: Reason, after: timedelta) -> None:
    assert due([ended(reason)]) == NOON + after


def test_a_fixed_delay_is_that_of_no_company() -> None:
    """Release 0.2.0 cannot read a company that was saved with it."""
    assert not {*DEFAULT_DELAYS} & {*retries.FIXED_DELAYS}
    without = RetryPolicy(delays={"BUSY": (timedelta(hours=1),)})
    assert due([ended(Reason.INSTRUCTIONS_FAILED)], retry_policy=without) == NOON + timedelta(minutes=15)
    assert due([ended(Reason.INSTRUCTIONS_FAILED)], retry_policy=RetryPolicy(max_retries=0)) is None


def test_unreachable_number_is_retried_on_the_next_day() -> None:
    assert due([ended(Reason.UNREACHABLE)]) == local(8, day=3)


def test_unreachable_number_is_not_retried_twice() -> None:
    """Also if another outcome lies between the two."""
    chain = [ended(Reason.UNREACHABLE), ended(Reason.BUSY, number=1), ended(Reason.UNREACHABLE, number=2)]
    assert due(chain) is None


def test_unreachable_number_is_not_retried_without_retries() -> None:
    assert due([ended(Reason.UNREACHABLE)], retry_policy=RetryPolicy(max_retries=0, delays=DEFAULT_DELAYS)) is None


@pytest.mark.parametrize("reason", sorted(set(Reason) - retries.RETRIED - {Reason.UNREACHABLE}))
def test_no_retry_follows_after(reason: Reason) -> None:
    assert due([ended(reason)]) is None


def test_delay_follows_the_number_of_earlier_failures() -> None:
    policy = RetryPolicy(
        max_retries=9, delays={"BUSY": (timedelta(minutes=1), timedelta(minutes=2)), "VOICEMAIL": (timedelta(hours=1),)}
    )
    chain: list[Attempt] = []
    for reason, minutes in ((Reason.BUSY, 1), (Reason.VOICEMAIL, 60), (Reason.BUSY, 2), (Reason.BUSY, 2)):
        chain.append(ended(reason, number=len(chain)))
        assert due(chain, retry_policy=policy) == NOON + timedelta(minutes=minutes)


def test_a_reason_without_a_delay_is_not_retried() -> None:
    assert due([ended(Reason.BUSY)], retry_policy=RetryPolicy(delays={"BUSY": ()})) is None
    assert due([ended(Reason.BUSY)], retry_policy=RetryPolicy(delays={})) is None


@pytest.mark.parametrize("most", [0, 1, 3, 10])
def test_chain_has_at_most_the_allowed_retries(most: int) -> None:
    policy = RetryPolicy(max_retries=most)
    last, one_before = ended(Reason.BUSY, number=most), ended(Reason.BUSY, number=most - 1)
    assert due([last], retry_policy=policy) is None
    if most:
        assert due([one_before], retry_policy=policy) is not None


# ---- NEXT_DAY before a closed day (2 April 2026 is a Thursday)

NEXT_DAY_ONLY = RetryPolicy(delays={"NO_ANSWER": (NextDay.NEXT_DAY,)})


def on_days(*days: Weekday) -> tuple[CallTimeInterval, ...]:
    return (CallTimeInterval(days=frozenset(days), start=timedelta(hours=8), end=timedelta(hours=20)),)


def test_next_day_passes_over_closed_days_and_keeps_its_part() -> None:
    """Morning and noon were tried, so the retry is on Monday evening, as it would be on an open Friday."""
    tried = [ended(Reason.NO_ANSWER, at=local(9)), ended(Reason.NO_ANSWER, number=1, at=local(13))]
    every_day = due(tried, retry_policy=NEXT_DAY_ONLY)
    weekdays = on_days(*(day for day in Weekday if day not in {Weekday.FRI, Weekday.SAT, Weekday.SUN}))
    assert every_day == local(16, day=3)
    assert due(tried, retry_policy=NEXT_DAY_ONLY, intervals=weekdays) == local(16, day=6)


def test_next_day_is_the_next_opening_if_no_part_is_open() -> None:
    tried = [ended(Reason.NO_ANSWER, at=local(9))]
    assert due(tried, retry_policy=NEXT_DAY_ONLY, intervals=daily("06:00", "08:00")) == local(6, day=3)


# ---- within hours, expiry and consent


def test_a_retry_waits_for_the_next_opening() -> None:
    assert due([ended(Reason.NO_ANSWER, at=local(19))]) == local(8, day=3)


def test_no_retry_is_made_after_the_expiry_of_the_interview() -> None:
    late = [ended(Reason.NO_ANSWER, at=local(19))]
    opens = local(8, day=3)
    assert due(late, expires_at=opens + POLICY.room + timedelta(seconds=1)) == opens
    assert due(late, expires_at=opens + POLICY.room) is None


def test_a_retry_after_the_last_day_of_consent_is_not_made() -> None:
    late = [ended(Reason.NO_ANSWER, at=local(19))]
    assert due(late, consent_until=date(2026, 4, 3)) == local(8, day=3)
    assert due(late, consent_until=date(2026, 4, 2)) is None


def test_no_retry_is_made_without_a_number_or_a_clock() -> None:
    assert due([ended(Reason.BUSY)], number=None) is None
    assert due([ended(Reason.BUSY)], timezone="Atlantis/Poseidonis") is None


def test_a_retry_is_on_the_clock_as_it_is_now() -> None:
    new_yorker = a_callee(timezone="America/New_York")
    schedule = retries.next_attempt(ended(Reason.BUSY, at=local(8)), [], new_yorker, FAR, POLICY)
    assert schedule is not None
    assert schedule.clock == CalleeClock(source=TimezoneSource.CANDIDATE, zones=("America/New_York",))
    assert schedule.due_at == datetime(2026, 4, 2, 12, 0, tzinfo=UTC)


def test_retry_keeps_the_chains_clock() -> None:
    tokyo = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=9))
    night_here = datetime(2026, 4, 2, 23, 30, tzinfo=UTC)  # 08:30 there, 01:30 in Bratislava
    last = ended(Reason.BUSY, at=night_here, clock=tokyo)
    schedule = retries.next_attempt(last, [], a_callee(), FAR + timedelta(days=1), POLICY)
    assert schedule is not None
    assert schedule.clock == tokyo
    assert schedule.due_at == local(8, day=3), "15:00 there, and 08:00 in Bratislava"


# ---- by the part of the day


def no_answers(*at: datetime) -> list[Attempt]:
    return [ended(Reason.NO_ANSWER, number=number, at=each) for number, each in enumerate(at)]


def test_second_no_answer_is_retried_in_the_least_tried_part() -> None:
    assert due(no_answers(local(9), local(11))) == local(12, day=3)
    assert due(no_answers(local(13), local(15))) == local(8, day=3)
    assert due(no_answers(local(9), local(13))) == local(16, day=3)


def test_earliest_of_equally_tried_parts_is_chosen() -> None:
    policy = RetryPolicy(max_retries=9)
    chain = no_answers(local(9), local(13), local(17))
    assert due(chain, retry_policy=policy) == local(8, day=3)


def test_a_part_without_an_opening_is_passed_over() -> None:
    mornings = daily("09:00", "11:00")
    assert due(no_answers(local(9), local(10)), intervals=mornings) == local(9, day=3)
    split = mornings + daily("17:00", "19:00")
    assert due(no_answers(local(9), local(10)), intervals=split) == local(17, day=3)


def test_retry_is_the_next_opening_if_tomorrow_has_none() -> None:
    thursdays = (CallTimeInterval(days=frozenset({Weekday.THU}), start=timedelta(hours=9), end=timedelta(hours=11)),)
    tried = no_answers(local(9), local(10))
    assert due(tried, intervals=thursdays, expires_at=FAR + timedelta(days=9)) == local(9, day=9)


def test_tomorrow_is_read_on_the_callees_clock() -> None:
    late_evening_utc = datetime(2026, 4, 2, 23, 30, tzinfo=UTC)  # 01:30 on 3 April in Bratislava
    chain = no_answers(local(9), late_evening_utc)
    assert due(chain) == local(12, day=4)


def test_part_of_the_day_begins_at_its_wall_time_after_a_change() -> None:
    before = datetime(2026, 3, 28, 9, 0, tzinfo=UTC)  # Saturday 10:00, a day before summer time
    chain = no_answers(before - timedelta(hours=2), before)
    expected = datetime.combine(date(2026, 3, 29), time(12), tzinfo=UTC) - timedelta(hours=2)
    assert due(chain) == expected


def test_deleted_attempts_go_on_counting() -> None:
    gone, last = no_answers(local(9), local(11))
    assert due([replace(gone, deleted_at=NOON), last]) == due([gone, last])


# ---- settings of a company


def test_a_policy_is_read_back_as_it_was_written() -> None:
    for form in (
        {"maxRetries": 0, "delays": {}},
        {"maxRetries": 10, "delays": {"BUSY": [1, "NEXT_DAY", 2_592_000], "NO_ANSWER": []}},
    ):
        read = read_retry_policy(form)
        assert read_retry_policy(retry_policy_as_json(read)) == read


def test_omitted_fields_of_a_policy_have_defaults() -> None:
    assert read_retry_policy({}) == RetryPolicy()
    mine = read_retry_policy({"delays": {"BUSY": [60]}})
    assert mine.delays["BUSY"] == (timedelta(seconds=60),)
    assert mine.delays["NO_ANSWER"] == (timedelta(hours=2), NextDay.NEXT_DAY)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ([], "retryPolicy"),
        ({"retries": 3}, "retryPolicy"),
        ({"maxRetries": 11}, "retryPolicy.maxRetries"),
        ({"maxRetries": -1}, "retryPolicy.maxRetries"),
        ({"maxRetries": True}, "retryPolicy.maxRetries"),
        ({"delays": {"DECLINED": [60]}}, "retryPolicy.delays"),
        ({"delays": {"OUTCOME_UNKNOWN": [60]}}, "retryPolicy.delays"),
        ({"delays": {"BUSY": 60}}, "retryPolicy.delays.BUSY"),
        ({"delays": {"BUSY": [0]}}, "retryPolicy.delays.BUSY[0]"),
        ({"delays": {"BUSY": [60, 1.5]}}, "retryPolicy.delays.BUSY[1]"),
        ({"delays": {"BUSY": ["NEXT_WEEK"]}}, "retryPolicy.delays.BUSY[0]"),
        ({"delays": {"BUSY": [True]}}, "retryPolicy.delays.BUSY[0]"),
    ],
    ids=str,
)
def test_a_policy_that_cannot_be_used_is_refused_by_its_field(form: object, field: str) -> None:
    with pytest.raises(InvalidRetryPolicy) as refused:
        read_retry_policy(form)
    assert refused.value.details["field"] == field
