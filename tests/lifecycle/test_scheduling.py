"""Clocks that must be open, schedules after changed settings, and the expiry of interviews."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CalleeClock, Schedule, TimezoneSource
from scheduler.domain.refusals import (
    InvalidDateFormat,
    NoOpeningBeforeExpiry,
    ScheduleInPast,
    ScheduleTooFar,
    TimezoneUnknown,
)
from scheduler.lifecycle import scheduling
from scheduler.lifecycle.policy import Policy
from tests.architecture.guards import guards
from tests.conftest import NOON
from tests.lifecycle.lifecycle_setup import SLOVAK, a_callee, daily, pending
from tests.support.builders import BRATISLAVA

POLICY = Policy()
A_DAY = timedelta(days=1)
TOKYO = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=9))
ITS_OWN = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=SLOVAK.zones)


def scheduled(text: str | None, *, now: datetime = NOON) -> Attempt:
    schedule, _ = scheduling.on_request(text, a_callee(), now, POLICY)
    return pending(schedule=schedule, due_at=schedule.due_at)


# ---- which clocks decide


BY_OFFSET = scheduled("2026-04-03T09:00:00+09:00")
"""02:00 in Bratislava."""
RETRY_OF_OFFSET = replace(BY_OFFSET, retry_number=1, schedule=replace(BY_OFFSET.schedule, requested=None))
WALL_TIME = scheduled("2026-04-03T09:00:00")


def test_offset_alone_decides_within_the_requested_opening() -> None:
    for now in (BY_OFFSET.due_at, BY_OFFSET.due_at + timedelta(hours=10, minutes=59)):
        assert scheduling.deciding_clocks(BY_OFFSET, a_callee(), now) == (TOKYO,)


@guards("own_clock")
def test_numbers_zones_must_be_open_in_another_opening() -> None:
    closing = BY_OFFSET.due_at + timedelta(hours=11)
    for now in (closing, BY_OFFSET.due_at + A_DAY):
        assert scheduling.deciding_clocks(BY_OFFSET, a_callee(), now) == (TOKYO, ITS_OWN)


@guards("own_clock")
def test_a_retry_is_never_by_the_offset_alone() -> None:
    assert scheduling.deciding_clocks(RETRY_OF_OFFSET, a_callee(), RETRY_OF_OFFSET.due_at) == (TOKYO, ITS_OWN)


@guards("call_back_clock")
def test_time_that_the_person_named_is_never_by_the_offset_alone() -> None:
    called_back = replace(BY_OFFSET, call_backs=1)
    assert scheduling.deciding_clocks(called_back, a_callee(), BY_OFFSET.due_at) == (TOKYO, ITS_OWN)


@guards("own_clock")
def test_retry_of_an_offset_prefers_the_candidates_zone() -> None:
    lisbon = CalleeClock(source=TimezoneSource.CANDIDATE, zones=("Europe/Lisbon",))
    for callee in (a_callee(timezone="Europe/Lisbon"), a_callee(timezone="Europe/Lisbon", number=None)):
        assert scheduling.deciding_clocks(RETRY_OF_OFFSET, callee, RETRY_OF_OFFSET.due_at) == (TOKYO, lisbon)


def test_retry_of_an_offset_waits_if_the_zone_is_unknown() -> None:
    with pytest.raises(TimezoneUnknown):
        scheduling.deciding_clocks(BY_OFFSET, a_callee(timezone="Europe/Atlantis"), BY_OFFSET.due_at + A_DAY)


def test_a_zone_decides_alone_however_often_it_is_put_off() -> None:
    asked = scheduled("2026-04-03T09:00:00[Asia/Tokyo]")
    (clock,) = scheduling.deciding_clocks(asked, a_callee(), asked.due_at + A_DAY)
    assert clock.zones == ("Asia/Tokyo",)


def test_a_number_without_zones_adds_none() -> None:
    assert scheduling.deciding_clocks(BY_OFFSET, a_callee(number=None), BY_OFFSET.due_at + A_DAY) == (TOKYO,)


# ---- effects of a change of settings


def recomputed(attempt: Attempt, *, now: datetime = NOON, **callee: Any) -> Schedule | None:
    return scheduling.recomputed_schedule(attempt, a_callee(**callee), now, POLICY)


def moved(attempt: Attempt, *, now: datetime = NOON, **callee: Any) -> Schedule:
    schedule = recomputed(attempt, now=now, **callee)
    assert schedule is not None
    return schedule


def test_attempt_that_may_ring_as_before_is_not_moved() -> None:
    for text in (None, "2026-04-03T09:00:00", "2026-04-03T09:00:00Z", "2026-04-03T12:00:00+02:00"):
        assert recomputed(scheduled(text)) is None


def test_hours_that_begin_later_move_it_later() -> None:
    assert moved(WALL_TIME, intervals=daily("10:00", "20:00")).due_at == datetime(2026, 4, 3, 8, 0, tzinfo=UTC)


def test_earlier_hours_do_not_move_a_requested_time() -> None:
    night = datetime(2026, 4, 2, 3, 0, tzinfo=UTC)
    earlier = moved(scheduled(None, now=night), now=night, intervals=daily("06:00", "20:00"))
    assert earlier.due_at == datetime(2026, 4, 2, 4, 0, tzinfo=UTC)
    assert recomputed(WALL_TIME, intervals=daily("06:00", "20:00")) is None


def test_attempt_moved_by_hours_returns_with_the_old_hours() -> None:
    later = moved(WALL_TIME, intervals=daily("10:00", "20:00"))
    assert moved(replace(WALL_TIME, schedule=later, due_at=later.due_at)).due_at == WALL_TIME.due_at


def test_new_candidate_zone_moves_a_wall_time_but_no_instant() -> None:
    wall_time = moved(WALL_TIME, timezone="Europe/London")
    assert wall_time.clock == CalleeClock(source=TimezoneSource.CANDIDATE, zones=("Europe/London",))
    assert wall_time.due_at == datetime(2026, 4, 3, 8, 0, tzinfo=UTC)
    instant = moved(scheduled("2026-04-03T09:00:00Z"), timezone="Europe/London")
    assert instant.due_at == datetime(2026, 4, 3, 9, 0, tzinfo=UTC)


def test_a_clock_from_the_request_itself_stays() -> None:
    for text in ("2026-04-03T12:00:00+02:00", "2026-04-03T12:00:00[Europe/Berlin]"):
        assert recomputed(scheduled(text), timezone="America/New_York") is None


def test_lost_clock_or_hours_move_no_attempt() -> None:
    assert recomputed(WALL_TIME, number=None) is None
    assert recomputed(WALL_TIME, intervals=()) is None


def test_attempt_refused_by_the_carrier_keeps_its_due_time() -> None:
    asked = replace(scheduled(None), not_placed=2, due_at=NOON + timedelta(minutes=1))
    assert recomputed(asked, intervals=daily("07:00", "21:00")) is None


def test_due_attempt_that_may_ring_is_not_marked_as_moved() -> None:
    assert recomputed(scheduled(None), now=NOON + timedelta(hours=1), intervals=daily("07:00", "21:00")) is None


# ---- expiry


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-04-05T12:00:00Z", datetime(2026, 4, 5, 12, tzinfo=UTC)),
        ("2026-04-05T12:00:00+09:00", datetime(2026, 4, 5, 3, tzinfo=UTC)),
        ("2026-04-05T12:00:00", datetime(2026, 4, 5, 10, tzinfo=UTC)),
        ("2026-04-05T12:00:00[America/New_York]", datetime(2026, 4, 5, 16, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_read_on_the_deciding_clock_or_its_own(text: str, expected: datetime) -> None:
    assert scheduling.explicit_expiry(text, BRATISLAVA) == expected


def test_invalid_expiry_is_refused_with_its_field() -> None:
    with pytest.raises(InvalidDateFormat) as refused:
        scheduling.explicit_expiry("soon", BRATISLAVA)
    assert refused.value.details["field"] == "expiresAt"
    with pytest.raises(TimezoneUnknown):
        scheduling.explicit_expiry("2026-04-05T12:00:00", None)


def test_call_needs_room_to_ring_before_the_expiry() -> None:
    scheduling.must_open_before(NOON + POLICY.room + timedelta(seconds=1), NOON, POLICY)
    with pytest.raises(NoOpeningBeforeExpiry):
        scheduling.must_open_before(NOON + POLICY.room, NOON, POLICY)


# ---- ONLINE


def test_an_online_interview_needs_no_opening_and_no_consent() -> None:
    night = "2026-04-03T03:00:00"
    without_consent = a_callee(consent_until=date(2020, 1, 1))
    assert scheduling.online_time(night, without_consent, NOON) == datetime(2026, 4, 3, 1, tzinfo=UTC)
    assert scheduling.online_time(None, a_callee(), NOON) is None


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("2026-04-02T11:58:59Z", ScheduleInPast),
        ("2026-05-02T12:00:01Z", ScheduleTooFar),
        ("tomorrow", InvalidDateFormat),
    ],
)
def test_an_online_time_is_refused(text: str, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        scheduling.online_time(text, a_callee(), NOON)


@pytest.mark.parametrize(
    ("text", "span"),
    [("2026-04-02T11:58:40Z", "1 min 20 s"), ("2026-04-01T11:56:40Z", "1 d"), ("2026-03-30T09:00:00Z", "3 d 3 h")],
)
def test_past_time_is_refused_with_its_age(text: str, span: str) -> None:
    with pytest.raises(ScheduleInPast, match=f" is {span} in the past. Send a later time"):
        scheduled(text)


def test_online_wall_time_needs_a_clock_but_an_instant_does_not() -> None:
    without_a_clock = a_callee(number=None)
    assert scheduling.online_time("2026-04-03T03:00:00Z", without_a_clock, NOON) == datetime(2026, 4, 3, 3, tzinfo=UTC)
    with pytest.raises(TimezoneUnknown):
        scheduling.online_time("2026-04-03T03:00:00", without_a_clock, NOON)
