"""The zone board says in each zone whether calls may be made now, and until when."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.calendar_rows import Openness, WaitingCalls, ZoneRow, zone_board
from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import DEFAULT_INTERVALS, EVERY_DAY, CallTimeInterval
from scheduler.timing import call_windows, time_texts
from tests.console.examples import in_zones, utc

MORNINGS = time_texts.read_intervals([{"days": ["MON", "TUE", "WED", "THU", "FRI"], "start": "09:00", "end": "12:30"}])
ALWAYS = (CallTimeInterval(days=EVERY_DAY, start=timedelta(), end=timedelta(hours=24)),)
FRIDAY = utc("2026-11-27 14:45:00")


def waiting(*zones: str, calls: int = 1, intervals: tuple[CallTimeInterval, ...] = DEFAULT_INTERVALS) -> WaitingCalls:
    return WaitingCalls(clock=in_zones(*zones), intervals=intervals, calls=calls)


def only(*calls: WaitingCalls, now: datetime = FRIDAY) -> ZoneRow:
    [row] = zone_board(calls, now)
    return row


def test_rows_are_sorted_by_offset() -> None:
    zones = ["Asia/Kolkata", "Europe/Berlin", "America/New_York", "Europe/Amsterdam"]
    rows = zone_board([waiting(zone) for zone in zones], FRIDAY)
    assert [row.name for row in rows] == ["America/New_York", "Europe/Amsterdam", "Europe/Berlin", "Asia/Kolkata"]


@pytest.mark.parametrize(
    ("now", "openness", "words"),
    [
        ("2026-11-27 14:45:00", Openness.OPEN, "open until 20:00"),
        ("2026-11-27 18:48:00", Openness.CLOSES_SOON, "closes in 12 min"),
        ("2026-11-27 19:00:00", Openness.CLOSED, "opens on Sat at 08:00"),
        ("2026-11-27 06:59:59", Openness.CLOSED, "opens at 08:00"),
        ("2026-10-24 22:30:00", Openness.CLOSED, "opens at 08:00"),
    ],
)
def test_words_say_until_when(now: str, openness: Openness, words: str) -> None:
    row = only(waiting("Europe/Berlin"), now=utc(now))
    assert (row.openness, row.words) == (openness, words)
    assert row.changes_at is not None
    assert row.changes_at.astimezone(ZoneInfo("Europe/Berlin")).strftime("%H:%M") in {"08:00", "20:00"}


def test_zone_that_is_always_open_does_not_change() -> None:
    row = only(waiting("Europe/Berlin", intervals=ALWAYS))
    assert (row.openness, row.words, row.changes_at) == (Openness.OPEN, "open for 24 hours or more", None)


def test_zones_without_common_hours_never_open() -> None:
    row = only(waiting("Europe/Berlin", "Pacific/Honolulu", intervals=MORNINGS))
    assert (row.openness, row.words) == (Openness.NEVER, "closed for the next 35 days")
    assert row.name == "Europe/Berlin and 1 more"
    assert row.local_time == "Fri 04:45 (UTC-10:00) to Fri 15:45 (UTC+01:00)"


def test_companies_of_a_zone_share_its_row() -> None:
    row = only(waiting("Europe/Berlin", calls=30), waiting("Europe/Berlin", calls=12, intervals=MORNINGS))
    assert (row.waiting, row.open_for) == (42, 30)
    assert row.words == "open until 20:00"
    assert row.for_all == ()
    assert row.hours == ("Fri 15:45 to 20:00", "Sat 08:00 to 15:45")
    assert row.hours_of_all == ()
    assert {part.kind for part in row.bar} == {"some"}


def test_bar_is_in_real_time() -> None:
    """From 18:00 to 08:00 pass 15 hours in the night of the longer day."""
    row = only(waiting("Europe/Berlin"), now=utc("2026-10-24 16:00:00"))
    parts = [(part.left * 0.24, part.width * 0.24) for part in row.bar if part.kind == "open"]
    assert parts == [pytest.approx((0, 2)), pytest.approx((15, 9))]
    assert row.hours == ("Sat 18:00 to 20:00", "Sun 08:00 to 17:00")


def test_unknown_clocks_and_empty_counts_have_no_row() -> None:
    unknown = WaitingCalls(clock=CalleeClock(source=TimezoneSource.PHONE_NUMBER), intervals=DEFAULT_INTERVALS, calls=3)
    assert zone_board([unknown, waiting("Europe/Berlin", calls=0)], FRIDAY) == ()


def test_offset_has_a_row_of_its_own() -> None:
    clock = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=-3, minutes=-30))
    row = only(WaitingCalls(clock=clock, intervals=DEFAULT_INTERVALS, calls=1))
    assert (row.name, row.local_time) == ("UTC-03:30", "Fri 11:15 (UTC-03:30)")


@given(
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    minute=st.integers(0, 366 * 24 * 60),
    sampled=st.lists(st.integers(0, 24 * 60 - 1), min_size=10, max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_hours_are_open_when_the_dialler_may_call(zone: str, minute: int, sampled: list[int]) -> None:
    now = utc("2026-01-01 00:00:00") + timedelta(minutes=minute)
    row = only(waiting(zone), waiting(zone, intervals=MORNINGS), now=now)
    for each in sampled:
        at = now + timedelta(minutes=each)
        is_open = [call_windows.is_open(row.clock, hours, at) for hours in (DEFAULT_INTERVALS, MORNINGS)]
        assert any(opens <= at < closes for opens, closes in row.for_some) == any(is_open)
        assert any(opens <= at < closes for opens, closes in row.for_all) == all(is_open)
