"""The zone board says in each zone whether calls may be made now, and until when."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.pictures.svg import Moment
from console.pictures.zone_board import (
    Openness,
    WaitingCalls,
    ZoneRow,
    zone_board,
    zone_board_table,
    zone_strip_svg,
)
from scheduler.domain.company import DEFAULT_INTERVALS, EVERY_DAY, CallTimeInterval
from scheduler.domain.schedule import CalleeClock, TimezoneSource
from scheduler.timing import call_windows
from tests.console.examples import in_zones, utc
from tests.console.pictures import boxes, parsed, texts

MORNINGS = call_windows.read_intervals(
    [{"days": ["MON", "TUE", "WED", "THU", "FRI"], "start": "09:00", "end": "12:30"}]
)
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
    strip = parsed(zone_strip_svg(row, "strip"))
    assert [box.title for box in boxes(strip, "open some")] == [
        "open Fri 15:45 to Fri 20:00",
        "open Sat 08:00 to Sat 15:45",
    ]
    assert boxes(strip, "open common") == []
    assert texts(strip) == []


def test_strip_is_in_real_time() -> None:
    row = only(waiting("Europe/Berlin"), now=utc("2026-10-24 16:00:00"))
    strip = parsed(zone_strip_svg(row, "strip"))
    [evening, morning] = boxes(strip, "open common")
    [closed] = boxes(strip, "closed")
    assert evening.width / closed.width == pytest.approx(2 / 24, abs=1e-4)
    assert morning.left / closed.width == pytest.approx(15 / 24, abs=1e-4), "from 18:00 to 08:00 pass 15 hours"


def test_unknown_clocks_and_empty_counts_have_no_row() -> None:
    unknown = WaitingCalls(clock=CalleeClock(source=TimezoneSource.PHONE_NUMBER), intervals=DEFAULT_INTERVALS, calls=3)
    assert zone_board([unknown, waiting("Europe/Berlin", calls=0)], FRIDAY) == ()


def test_offset_has_a_row_of_its_own() -> None:
    clock = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=-3, minutes=-30))
    row = only(WaitingCalls(clock=clock, intervals=DEFAULT_INTERVALS, calls=1))
    assert (row.name, row.local_time) == ("UTC-03:30", "Fri 11:15 (UTC-03:30)")


def test_table_has_the_same_rows() -> None:
    rows = zone_board([waiting("Europe/Berlin", calls=1200), waiting("America/New_York", intervals=MORNINGS)], FRIDAY)
    table = zone_board_table(rows)
    closes = Moment(at=utc("2026-11-27 19:00:00"), local="2026-11-27T20:00:00+01:00", zone="Europe/Berlin")
    assert table.rows[1] == ("Europe/Berlin", "Fri 15:45 (UTC+01:00)", "open until 20:00", closes, "1,200", "1,200")
    assert [len(row) for row in table.rows] == [len(table.header)] * 2


@given(
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    minute=st.integers(0, 366 * 24 * 60),
    sampled=st.lists(st.integers(0, 24 * 60 - 1), min_size=10, max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_strip_is_open_when_the_dialler_may_call(zone: str, minute: int, sampled: list[int]) -> None:
    now = utc("2026-01-01 00:00:00") + timedelta(minutes=minute)
    row = only(waiting(zone), waiting(zone, intervals=MORNINGS), now=now)
    for each in sampled:
        at = now + timedelta(minutes=each)
        is_open = [call_windows.is_open(row.clock, hours, at) for hours in (DEFAULT_INTERVALS, MORNINGS)]
        assert any(opens <= at < closes for opens, closes in row.for_some) == any(is_open)
        assert any(opens <= at < closes for opens, closes in row.for_all) == all(is_open)
