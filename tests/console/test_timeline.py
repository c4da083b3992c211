"""The timeline has the hours of the code that dials, in real time, and every event of the history."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.timeline import Timeline, timeline_of
from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import EVERY_DAY, CallTimeInterval
from scheduler.domain.explanation import Block, Rule
from scheduler.timing import call_windows
from tests.console.examples import explained, happened, hours_of, in_zones, utc

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
LATER = utc("2026-10-21 14:00:00")


def waiting(at: str, *zones: str, **hours: Any) -> Timeline:
    """Build the timeline of an attempt that waits for an opening at that time (UTC)."""
    opening = utc(at)
    explanation = explained(
        happened("2026-01-05 10:00:00", "created", from_state=None, actor="key:1"),
        due_at=at,
        next_possible_at=at,
        blocks=(Block(rule=Rule.NOT_DUE, until=opening), Block(rule=Rule.WINDOW_CLOSED, until=opening)),
    )
    return timeline_of(explanation, hours_of(*zones, **hours), opening - 9 * HOUR)


def words(timeline: Timeline) -> list[str]:
    return [mark.word for mark in timeline.marks]


@pytest.mark.parametrize(
    ("day", "length", "change"),
    [
        pytest.param(date(2026, 10, 25), 25, "clock moves from 03:00 to 02:00", id="an hour longer"),
        pytest.param(date(2026, 3, 29), 23, "clock moves from 02:00 to 03:00", id="an hour shorter"),
    ],
)
def test_days_around_a_clock_change_have_their_length(day: date, length: int, change: str) -> None:
    opens = datetime(day.year, day.month, day.day, 8, tzinfo=BERLIN).astimezone(UTC)
    timeline = waiting(opens.replace(tzinfo=None).isoformat(" "), "Europe/Berlin")
    midnights = tuple(datetime.combine(day + timedelta(days=each), datetime.min.time(), BERLIN) for each in (-1, 2))
    assert timeline.days == tuple(each.astimezone(UTC) for each in midnights)
    assert timeline.days[1] - timeline.days[0] == (48 + length) * HOUR
    assert change in words(timeline)


def test_opening_lies_at_its_instants() -> None:
    """Berlin is open from 08:00 to 20:00 on each day, by the wall clock of zoneinfo."""
    timeline = waiting("2026-10-25 07:00:00", "Europe/Berlin")
    walls = [
        tuple(datetime(2026, 10, day, hour, tzinfo=BERLIN).astimezone(UTC) for hour in (8, 20)) for day in (24, 25, 26)
    ]
    [band] = timeline.bands
    assert band.spans == tuple(walls)
    assert band.hours == ("Sat 08:00 to 20:00", "Sun 08:00 to 20:00", "Mon 08:00 to 20:00")
    assert timeline.days_text == "Sat 2026-10-24 to Mon 2026-10-26 on the clock of Europe/Berlin"
    length = timeline.days[1] - timeline.days[0]
    opened = [
        (part.left / 100 * length, part.width / 100 * length) for part in timeline.bar(band) if part.kind == "open"
    ]
    assert [left / HOUR for left, _ in opened] == pytest.approx([8, 33, 57]), "Sunday has 25 hours"
    assert [width / HOUR for _, width in opened] == pytest.approx([12, 12, 12])


def test_bar_has_now_and_the_next_possible_time() -> None:
    timeline = waiting("2026-10-28 07:00:00", "Europe/Berlin")
    [next_, now] = [part for part in timeline.bar(timeline.bands[0]) if part.kind in {"next", "now"}]
    assert next_.left == pytest.approx(100 * 32 / 72)
    assert now.left == pytest.approx(100 * 23 / 72)


def test_two_zones_have_a_band_each_and_one_in_common() -> None:
    timeline = waiting("2026-10-28 15:00:00", "America/New_York", "America/Los_Angeles")
    assert [band.name for band in timeline.bands] == ["America/Los_Angeles", "America/New_York", "all zones open"]
    [_, (opens, closes), _] = timeline.bands[-1].spans
    assert opens.astimezone(ZoneInfo("America/Los_Angeles")).hour == 8
    assert closes.astimezone(ZoneInfo("America/New_York")).hour == 20


def test_many_zones_share_bands() -> None:
    """A toll-free number may be in any zone of its country. Zones with equal hours share a band, at most six in all."""
    zones = ("Pacific/Honolulu", "America/Adak", "America/Anchorage", "America/Los_Angeles", "America/Denver")
    more = ("America/Chicago", "America/New_York", "America/Detroit", "America/Boise")
    names = [band.name for band in waiting("2026-10-28 18:00:00", *zones, *more).bands]
    assert len(names) == 7
    assert names[-2].endswith("more zones, all open")
    assert names.count("America/Boise and 1 more") == 1


def test_next_possible_time_names_its_rule() -> None:
    timeline = waiting("2026-10-28 07:00:00", "Europe/Berlin")
    assert words(timeline) == ["asked for", "due", "may ring, after WINDOW_CLOSED", "attempt expires"]


def test_equal_events_are_one_mark_with_their_number() -> None:
    explanation = explained(
        happened("2026-10-20 14:02:11", "created", from_state=None),
        happened("2026-10-21 08:00:02", "claimed", to_state="IN_PROGRESS"),
        *(happened(f"2026-10-21 08:{minute:02}:02", "not_placed") for minute in range(5)),
        happened("2026-10-21 09:00:00", "expired", to_state="CANCELLED", reason="EXPIRED"),
        due_at="2026-10-21 08:00:00",
        expires_at="2026-10-21 09:00:00",
        state=AttemptState.CANCELLED,
        reason=Reason.EXPIRED,
        ended_at=utc("2026-10-21 09:00:00"),
    )
    timeline = timeline_of(explanation, hours_of("Europe/Berlin"), LATER)
    assert words(timeline) == ["asked for", "due", "claimed", "not placed", "expired", "attempt expires"]
    assert [(mark.times, mark.until) for mark in timeline.marks if mark.until] == [(5, utc("2026-10-21 08:04:02"))]
    [after] = [part for part in timeline.bar(timeline.bands[0]) if part.kind == "after"]
    assert [after.left, after.width] == pytest.approx([100 * 35 / 72, 100 * 37 / 72])


@pytest.mark.parametrize(
    ("reason", "state"), [(Reason.ANSWERED, AttemptState.COMPLETED), (Reason.BUSY, AttemptState.FAILED)]
)
def test_call_shows_ringing_and_its_end(reason: Reason, state: AttemptState) -> None:
    live = {"from_state": "IN_PROGRESS", "to_state": "IN_PROGRESS"}
    explanation = explained(
        happened("2026-10-21 08:00:01", "claimed", to_state="IN_PROGRESS"),
        happened("2026-10-21 08:00:02", "placed", **live),
        happened("2026-10-21 08:00:05", "progressed", **live, detail={"rank": 2}),
        happened("2026-10-21 08:00:12", "progressed", **live, detail={"rank": 3}),
        happened("2026-10-21 08:12:12", "ended", from_state="IN_PROGRESS", to_state=state.value, reason=reason.value),
        due_at="2026-10-21 08:00:00",
        state=state,
        reason=reason,
        released_until=utc("2026-10-21 08:00:15"),
    )
    timeline = timeline_of(explanation, hours_of("Europe/Berlin"), LATER)
    call = ["due", "claimed", "placed at the carrier", "ringing", "answered", "released until"]
    assert words(timeline) == [*call, f"ended: {reason.value}", "attempt expires"]


def test_consent_ends_at_midnight_in_the_earliest_zone() -> None:
    explanation = explained(due_at="2026-10-28 20:00:00", blocks=(Block(rule=Rule.CONSENT_EXPIRED),))
    hours = hours_of("America/New_York", "America/Los_Angeles", consent_until=date(2026, 10, 28))
    timeline = timeline_of(explanation, hours, utc("2026-10-29 05:00:00"))
    [consent] = [mark for mark in timeline.marks if mark.word == "consent ends"]
    assert consent.at == datetime(2026, 10, 29, tzinfo=ZoneInfo("America/New_York"))
    assert timeline.note == "No next time is known: CONSENT_EXPIRED has no known end."
    assert "consent ends" not in words(waiting("2026-10-28 07:00:00", "Europe/Berlin")), "it has no end"


def test_unknown_zone_has_no_hours() -> None:
    explanation = explained(due_at="2026-10-28 07:00:00", blocks=(Block(rule=Rule.TIMEZONE_UNKNOWN),))
    timeline = timeline_of(explanation, hours_of(), utc("2026-10-28 09:00:00"))
    assert (timeline.clock, timeline.bands) == (None, ())
    assert timeline.days == (utc("2026-10-27 00:00:00"), utc("2026-10-30 00:00:00"))


def test_offset_is_a_band_of_its_own() -> None:
    clock = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=5, minutes=30))
    hours = hours_of("Europe/Berlin")
    hours = type(hours)(clocks=(clock, *hours.clocks), intervals=hours.intervals, consent_until=date(2026, 10, 28))
    timeline = timeline_of(explained(due_at="2026-10-28 07:00:00"), hours, utc("2026-10-28 09:00:00"))
    assert [band.name for band in timeline.bands] == ["UTC+05:30", "Europe/Berlin", "all zones open"]
    assert timeline.days[0] == utc("2026-10-26 18:30:00")


# --- the bands are the hours of the code that dials

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Asia/Tokyo")
INTERVALS = st.builds(
    lambda start, length: (
        CallTimeInterval(days=EVERY_DAY, start=timedelta(minutes=start), end=timedelta(minutes=start + length)),
    ),
    st.integers(0, 23 * 60),
    st.integers(30, 16 * 60),
)


@given(
    zones=st.sets(st.sampled_from(ZONES), min_size=1, max_size=4),
    intervals=INTERVALS,
    day=st.integers(0, 364),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_bands_are_open_when_the_dialler_may_call(
    zones: set[str], intervals: tuple[CallTimeInterval, ...], day: int, seed: int
) -> None:
    due = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)
    hours = hours_of(*zones, intervals=intervals)
    explanation = explained(due_at=due.replace(tzinfo=None).isoformat(" "))
    timeline = timeline_of(explanation, hours, due)
    instants = random.Random(seed)
    begins, ends = timeline.days
    common, zones_of = timeline.bands[-1], timeline.bands[:-1] or timeline.bands
    seconds = int((ends - begins).total_seconds())
    for _ in range(40):
        at = begins + timedelta(seconds=instants.randrange(seconds))
        is_open = any(opens <= at < closes for opens, closes in common.spans)
        assert is_open == call_windows.is_open(in_zones(*zones), intervals, at)
    for opens, closes in common.spans:
        for band in zones_of:
            assert any(first <= opens and closes <= last for first, last in band.spans)
    assert timeline.clock is not None
    assert call_windows.local_times(timeline.clock, begins)[0].hour in {0, 1}, "a day may begin at 01:00"
