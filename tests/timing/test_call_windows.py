"""A window is open exactly within its hours on the wall clock, on every night and in every zone."""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import DEFAULT_INTERVALS, EVERY_DAY, CallTimeInterval, Weekday
from scheduler.domain.refusals import InvalidInterval, NeverOpen, TimezoneAmbiguous, TimezoneUnknown
from scheduler.timing import call_windows, callee_zones, requested_time, time_texts, zone_names

MINUTE = timedelta(minutes=1)
GRAIN = 5 * MINUTE
"""All offsets, hours and margins of the walks are multiples of it."""
RINGING = timedelta(seconds=35)
NO_ROOM = timedelta(0)
AROUND_THE_CLOCK = (CallTimeInterval(days=EVERY_DAY, start=timedelta(0), end=timedelta(hours=24)),)


def in_zones(*names: str) -> CalleeClock:
    return CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=tuple(sorted(names)))


def at_offset(hours: float) -> CalleeClock:
    return CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=hours))


def hours(days: str, start: str, end: str) -> tuple[CallTimeInterval, ...]:
    names = days.split() if days != "daily" else [day.name for day in Weekday]
    return time_texts.read_intervals([{"days": names, "start": start, "end": end}])


def utc(text: str) -> datetime:
    return wall(text).replace(tzinfo=UTC)


def wall(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- an independent answer: look at the wall clock, every five minutes


def wall_is_open(clock: CalleeClock, intervals: Sequence[CallTimeInterval], instant: datetime) -> bool:
    kept = [timezone(clock.offset)] if clock.offset is not None else [ZoneInfo(name) for name in clock.zones]
    return all(_shows_open(instant.astimezone(each), intervals) for each in kept)


def _shows_open(local: datetime, intervals: Sequence[CallTimeInterval]) -> bool:
    since_midnight = timedelta(hours=local.hour, minutes=local.minute)
    today, yesterday = Weekday(local.weekday()), Weekday((local.weekday() + 6) % 7)
    return any(
        (today in interval.days and interval.start <= since_midnight < interval.end)
        or (yesterday in interval.days and interval.start <= since_midnight + timedelta(days=1) < interval.end)
        for interval in intervals
    )


def _grain(at: datetime) -> datetime:
    return at.replace(minute=at.minute // 5 * 5, second=0, microsecond=0)


EVERY_ZONE = sorted(zone_names.PLACES)
TIMES = st.integers(0, 24 * 12 - 1)
INTERVALS = st.lists(
    st.builds(
        lambda days, start, length: CallTimeInterval(
            days=frozenset(days), start=start * GRAIN, end=(start + length) * GRAIN
        ),
        st.sets(st.sampled_from(Weekday), min_size=1),
        TIMES,
        st.integers(1, 24 * 12),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
INSTANTS = st.datetimes(wall("2024-01-01"), wall("2037-01-01"), timezones=st.just(UTC))
ROOMS = st.integers(0, 18).map(lambda grains: grains * GRAIN)


def test_skipped_friday_in_apia_never_opens() -> None:
    friday = hours("FRI", "09:00", "17:00")
    opening = call_windows.next_open(in_zones("Pacific/Apia"), friday, utc("2011-12-29T12:00"), room=NO_ROOM)
    assert opening == utc("2012-01-05T19:00")  # 09:00 of Friday the 6th, then 14 hours ahead of UTC


def test_a_skipped_hour_never_opens_and_the_next_week_does() -> None:
    skipped = hours("SUN", "02:00", "03:00")
    opening = call_windows.next_open(in_zones("Europe/Bratislava"), skipped, utc("2026-03-23T00:00"), room=RINGING)
    assert opening == utc("2026-04-05T00:00")


def test_a_repeated_hour_is_open_both_times() -> None:
    repeated, bratislava = hours("SUN", "02:00", "02:30"), in_zones("Europe/Bratislava")
    first, second = utc("2026-10-25T00:00"), utc("2026-10-25T01:00")
    assert call_windows.next_open(bratislava, repeated, utc("2026-10-24T12:00"), room=RINGING) == first
    assert call_windows.next_open(bratislava, repeated, utc("2026-10-25T00:30"), room=RINGING) == second
    assert not call_windows.is_open(bratislava, repeated, utc("2026-10-25T00:45"))


def test_no_zone_has_changed_twice_within_one_search_step() -> None:
    times = [_change_times(name) for name in EVERY_ZONE]
    gaps = [late - early for each in times for early, late in pairwise(each)]
    assert len(gaps) > 1_000
    assert min(gaps) > call_windows._STEP


def _change_times(name: str) -> list[int]:
    """Seconds since 1970 of all changes of offset that a zone's own file lists (RFC 8536, version 2)."""
    content = resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    utc_marks, standard_marks, leaps, count, kinds, letters = struct.unpack(">6l", content[20:44])
    second = 44 + count * 5 + kinds * 6 + letters + leaps * 8 + standard_marks + utc_marks
    count, kinds = struct.unpack(">2l", content[second + 32 : second + 40])
    body = content[second + 44 :]
    times = struct.unpack(f">{count}q", body[: 8 * count])
    offsets = [struct.unpack(">l", body[9 * count + 6 * kind :][:4])[0] for kind in body[8 * count : 9 * count]]
    return [at for at, (before, after) in zip(times[1:], pairwise(offsets), strict=True) if before != after and at > 0]


# --- the contract's own examples


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        pytest.param("2026-04-02T07:59:59+10:30", False, id="a second before opening"),
        pytest.param("2026-04-02T08:00:00+10:30", True, id="at opening"),
        pytest.param("2026-04-02T08:00:00+10:00", True, id="the offset is used as it is"),
        pytest.param("2026-04-02T19:59:24+10:30", True, id="with just enough room to ring"),
        pytest.param("2026-04-02T19:59:25+10:30", False, id="35 seconds before closing"),
        pytest.param("2026-04-02T20:00:00+10:30", False, id="at closing"),
    ],
)
def test_an_offset_is_judged_on_its_own_clock(text: str, is_open: bool) -> None:
    requested = requested_time.read(text)
    number = callee_zones.read_number("+61412345678")
    clock = callee_zones.deciding_clock(requested, candidate_zone=None, number=number, company_zone=None)
    instant = call_windows.resolve(requested, clock)
    assert call_windows.is_open(clock, DEFAULT_INTERVALS, instant, room=RINGING) is is_open


def test_early_time_has_its_next_opening_on_the_callees_clock() -> None:
    requested = requested_time.read("2026-04-02T07:00:00+10:30")
    clock = at_offset(10.5)
    instant = call_windows.resolve(requested, clock)
    opening = call_windows.next_open(clock, DEFAULT_INTERVALS, instant, room=RINGING)
    assert opening == utc("2026-04-01T21:30")
    assert call_windows.local_times(clock, opening) == (wall("2026-04-02T08:00"),)
    assert call_windows.utc_offsets(clock, opening) == (timedelta(hours=10, minutes=30),)


def test_an_opening_too_short_to_ring_is_passed_over() -> None:
    intervals = hours("MON", "09:00", "09:01") + hours("MON", "10:00", "10:02")
    clock, monday = in_zones("Europe/London"), utc("2026-01-05T00:00")
    assert call_windows.next_open(clock, intervals, monday, room=RINGING) == utc("2026-01-05T09:00")
    assert call_windows.next_open(clock, intervals, monday, room=MINUTE) == utc("2026-01-05T10:00")
    assert call_windows.next_open(clock, intervals, monday, room=2 * MINUTE) is None


def test_abutting_intervals_are_one_opening() -> None:
    intervals = hours("MON", "09:00", "12:00") + hours("MON", "12:00", "15:00")
    noon = utc("2026-01-05T11:59:59")
    assert call_windows.is_open(in_zones("Europe/London"), intervals, noon, room=RINGING)
    assert not call_windows.is_open(in_zones("Europe/London"), intervals[:1], noon, room=RINGING)


def test_interval_across_midnight_belongs_to_its_start_day() -> None:
    friday_night, london = hours("FRI", "22:00", "02:00"), in_zones("Europe/London")
    assert call_windows.is_open(london, friday_night, utc("2026-01-10T01:59"))  # Saturday
    assert not call_windows.is_open(london, friday_night, utc("2026-01-09T01:59"))  # Friday
    assert not call_windows.is_open(london, friday_night, utc("2026-01-10T02:00"))


def test_sunday_night_stays_open_over_a_change_on_monday() -> None:
    sunday_night, tehran = hours("SUN", "22:00", "03:00"), in_zones("Asia/Tehran")
    change = utc("2021-03-21T20:30")  # Monday, from 00:00 to 01:00
    assert call_windows.is_open(tehran, sunday_night, change, room=119 * MINUTE)
    assert not call_windows.is_open(tehran, sunday_night, change + 120 * MINUTE)


@given(INSTANTS, st.sampled_from(EVERY_ZONE), ROOMS)
def test_around_the_clock_is_always_open(instant: datetime, name: str, room: timedelta) -> None:
    assert call_windows.is_open(in_zones(name), AROUND_THE_CLOCK, instant, room=room)
    assert call_windows.next_open(in_zones(name), AROUND_THE_CLOCK, instant, room=room) == instant


@pytest.mark.parametrize(
    "instant", [datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 9, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)]
)
@pytest.mark.parametrize("clock", [in_zones("Asia/Tokyo", "America/Adak"), at_offset(18), at_offset(-18)])
def test_ends_of_the_calendar_cause_no_error(clock: CalleeClock, instant: datetime) -> None:
    opening = call_windows.next_open(clock, DEFAULT_INTERVALS, instant, room=RINGING)
    assert opening is None or timedelta(0) <= opening - instant < timedelta(days=2)


@pytest.mark.parametrize(
    ("clock", "intervals"),
    [
        pytest.param(in_zones("Europe/Atlantis"), AROUND_THE_CLOCK, id="an unknown zone"),
        pytest.param(in_zones("Europe/Prague", "Europe/Atlantis"), AROUND_THE_CLOCK, id="an unknown zone of two"),
        pytest.param(in_zones(), AROUND_THE_CLOCK, id="no zone at all"),
        pytest.param(in_zones("Europe/Prague"), (), id="no interval"),
        pytest.param(
            in_zones("Asia/Tokyo", "America/New_York"), hours("daily", "09:00", "17:00"), id="no common hours"
        ),
    ],
)
def test_window_is_never_open_in_doubt(clock: CalleeClock, intervals: tuple[CallTimeInterval, ...]) -> None:
    instant = utc("2026-04-02T12:00")
    assert not call_windows.is_open(clock, intervals, instant)
    assert call_windows.next_open(clock, intervals, instant, room=RINGING) is None
    assert call_windows.common_minutes(clock, intervals, instant) == timedelta(0)


def test_several_zones_are_open_only_together() -> None:
    australia = in_zones(*callee_zones.read_number("+61412345678").zones)
    day = utc("2026-01-05T12:00")  # Sydney closes first, 11 hours ahead of UTC, and Perth opens last, 8 hours ahead
    assert call_windows.next_open(australia, DEFAULT_INTERVALS, day, room=RINGING) == utc("2026-01-06T00:00")
    assert call_windows.is_open(australia, DEFAULT_INTERVALS, utc("2026-01-06T08:59"))
    assert not call_windows.is_open(australia, DEFAULT_INTERVALS, utc("2026-01-06T09:00"))


def test_several_clocks_are_open_only_together() -> None:
    clocks = (at_offset(10.5), in_zones("Europe/Bratislava"))
    morning = utc("2026-04-02T00:00")  # 10:30 at the offset, 02:00 in Bratislava
    assert call_windows.next_open(clocks, DEFAULT_INTERVALS, morning, room=RINGING) == utc("2026-04-02T06:00")
    assert call_windows.is_open(clocks, DEFAULT_INTERVALS, utc("2026-04-02T09:29"), room=RINGING)
    assert not call_windows.is_open(clocks, DEFAULT_INTERVALS, utc("2026-04-02T09:30"))
    assert call_windows.common_minutes(clocks, DEFAULT_INTERVALS, morning) == 7 * timedelta(hours=3.5)


def test_clocks_that_rarely_overlap_open_at_their_first_overlap() -> None:
    hours_of_both = hours("MON", "09:00", "10:00") + hours("TUE", "00:30", "01:00")
    clocks = (at_offset(0), at_offset(15.5))  # Monday 09:00 here is Tuesday 00:30 there
    opening = call_windows.next_open(clocks, hours_of_both, utc("2026-01-05T09:30"), room=RINGING)
    assert opening == utc("2026-01-12T09:00")


def test_several_clocks_equal_one_clock_with_all_their_zones() -> None:
    names = ("America/New_York", "Asia/Kathmandu", "Europe/London")
    apart, at = tuple(in_zones(name) for name in names), utc("2026-03-27T03:00")
    together = call_windows.next_open(in_zones(*names), AROUND_THE_CLOCK, at, room=RINGING)
    assert call_windows.next_open(apart, AROUND_THE_CLOCK, at, room=RINGING) == together == at


def test_no_clock_at_all_is_never_open() -> None:
    assert not call_windows.is_open((), AROUND_THE_CLOCK, utc("2026-04-02T12:00"))
    assert call_windows.next_open((), AROUND_THE_CLOCK, utc("2026-04-02T12:00"), room=NO_ROOM) is None


def test_unknown_clock_closes_the_window_of_the_others() -> None:
    clocks = (in_zones("Europe/Prague"), in_zones("Europe/Atlantis"))
    assert not call_windows.is_open(clocks, AROUND_THE_CLOCK, utc("2026-04-02T12:00"))


COMMON = {
    "one zone, a week": (in_zones("Europe/London"), "2026-01-05T00:00", timedelta(hours=84)),
    "two zones": (in_zones("Europe/London", "Europe/Bratislava"), "2026-01-05T00:00", timedelta(hours=77)),
    "from noon to noon": (in_zones("Europe/London"), "2026-01-05T12:00", timedelta(hours=84)),
    "far apart": (in_zones("Asia/Tokyo", "America/Los_Angeles"), "2026-01-05T00:00", timedelta(hours=35)),
    "42 zones in summer: from 08:00 in Guam to 20:00 in St John's": (
        in_zones(*callee_zones.read_number("+18005551234").zones),
        "2026-07-01T00:00",
        7 * timedelta(minutes=30),
    ),
}


@pytest.mark.parametrize(("clock", "instant", "wanted"), COMMON.values(), ids=COMMON)
def test_common_minutes_are_those_in_which_all_are_open(clock: CalleeClock, instant: str, wanted: timedelta) -> None:
    assert call_windows.common_minutes(clock, DEFAULT_INTERVALS, utc(instant)) == wanted


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(EVERY_ZONE), min_size=1, max_size=3), INTERVALS, INSTANTS.map(_grain))
def test_common_minutes_are_as_many_as_a_walk_counts(
    zones: set[str], intervals: tuple[CallTimeInterval, ...], instant: datetime
) -> None:
    clock = in_zones(*zones)
    walked = sum(wall_is_open(clock, intervals, instant + step * GRAIN) for step in range(2 * 288))
    assert call_windows.common_minutes(clock, intervals, instant, days=2) == walked * GRAIN


# --- from a wall time to an instant


def test_zones_that_disagree_make_a_wall_time_ambiguous() -> None:
    clock = in_zones("Australia/Perth", "Australia/Sydney")
    with pytest.raises(TimezoneAmbiguous) as refused:
        call_windows.instant_of(clock, wall("2026-04-02T09:00"))
    assert refused.value.details == {
        "zones": ["Australia/Perth", "Australia/Sydney"],
        "localTime": "2026-04-02T09:00:00",
    }


def test_zones_that_agree_do_not_make_a_wall_time_ambiguous() -> None:
    clock = in_zones("Africa/Lagos", "Europe/Bratislava")
    assert call_windows.instant_of(clock, wall("2026-01-05T09:00")) == utc("2026-01-05T08:00")


@pytest.mark.parametrize(
    "clock", [in_zones(), in_zones("Europe/Atlantis"), in_zones("Europe/Prague", "Europe/Atlantis")]
)
def test_a_wall_time_on_no_known_clock_names_nothing(clock: CalleeClock) -> None:
    with pytest.raises(TimezoneUnknown):
        call_windows.instant_of(clock, wall("2026-04-02T09:00"))
    with pytest.raises(TimezoneUnknown):
        call_windows.local_times(clock, utc("2026-04-02T09:00"))


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        pytest.param("2026-04-02T07:00Z", "2026-04-02T07:00", id="an instant on any clock"),
        pytest.param("2026-04-02T07:00Z[Asia/Tokyo]", "2026-04-02T07:00", id="an instant with a zone"),
        pytest.param("2026-04-02T07:00-00:00", "2026-04-02T07:00", id="-00:00"),
        pytest.param("2026-04-02T07:00+10:30", "2026-04-01T20:30", id="an offset"),
        pytest.param("2026-04-02T07:00", "2026-04-02T05:00", id="a wall time on the clock that decides"),
        pytest.param("2026-04-02T07:00[Asia/Tokyo]", "2026-04-01T22:00", id="a wall time in a zone"),
        pytest.param("2026-10-25T02:30[Europe/Prague]", "2026-10-25T00:30", id="a repeated one, the first time"),
        pytest.param("2026-10-25T02:30+01:00[Europe/Prague]", "2026-10-25T01:30", id="the second time, by offset"),
        pytest.param("2026-03-29T02:30[Europe/Prague]", "2026-03-29T01:30", id="a skipped one moves forward"),
    ],
)
def test_a_request_means_this_instant(text: str, instant: str) -> None:
    requested = requested_time.read(text)
    clock = callee_zones.deciding_clock(requested, candidate_zone="Europe/Bratislava", number=None, company_zone=None)
    assert call_windows.resolve(requested, clock) == utc(instant)


# --- intervals as JSON


def an_interval(**changed: Any) -> dict[str, Any]:
    return {"days": ["MON", "TUE"], "start": "09:00", "end": "12:30"} | changed


def test_intervals_are_read_from_json() -> None:
    sunday = an_interval(days=["SUN"], start="22:00", end="02:00")
    read = time_texts.read_intervals([an_interval(), sunday, an_interval(start="12:30", end="24:00")])
    monday_and_tuesday = frozenset({Weekday.MON, Weekday.TUE})
    assert read == (
        CallTimeInterval(days=monday_and_tuesday, start=timedelta(hours=9), end=timedelta(hours=12.5)),
        CallTimeInterval(days=frozenset({Weekday.SUN}), start=timedelta(hours=22), end=timedelta(hours=26)),
        CallTimeInterval(days=monday_and_tuesday, start=timedelta(hours=12.5), end=timedelta(hours=24)),
    )


@given(st.sets(st.sampled_from(Weekday), min_size=1), TIMES, st.integers(1, 24 * 12 - 1))
def test_an_interval_survives_json(days: set[Weekday], start: int, length: int) -> None:
    interval = CallTimeInterval(days=frozenset(days), start=start * GRAIN, end=(start + length) * GRAIN)
    assert time_texts.read_intervals(time_texts.intervals_as_json([interval])) == (interval,)


def test_the_default_hours_as_json() -> None:
    assert time_texts.intervals_as_json(DEFAULT_INTERVALS) == [
        {"days": ["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"], "start": "08:00", "end": "20:00"}
    ]
    assert time_texts.intervals_as_json(AROUND_THE_CLOCK)[0]["end"] == "24:00"


def test_empty_list_of_intervals_is_refused() -> None:
    with pytest.raises(NeverOpen) as refused:
        time_texts.read_intervals([])
    assert refused.value.code == "NEVER_OPEN"


TIME_RULE = "must be a time from 00:00 to 24:00, written HH:MM"
DAY_RULE = "must only contain days of MON, TUE, WED, THU, FRI, SAT, SUN"


INVALID: dict[str, tuple[object, str, str]] = {
    "null": (None, "", "must be a list of intervals"),
    "an object": ({"days": []}, "", "must be a list of intervals"),
    "too many": ([an_interval()] * 51, "", "must have at most 50 intervals, got 51"),
    "a text for an interval": (["MON"], "[0]", "must be an object with days, start and end"),
    "another field": ([an_interval(zone="CET")], "[0]", "must have no fields other than days, start and end"),
    "no end": ([{"days": ["MON"], "start": "09:00"}], "[0].end", "is missing"),
    "no day": ([an_interval(days=[])], "[0].days", "must be a list of at least one day"),
    "a text for days": ([an_interval(days="MON")], "[0].days", "must be a list of at least one day"),
    "a day written out": ([an_interval(days=["Monday"])], "[0].days", DAY_RULE),
    "a day by number": ([an_interval(days=[0])], "[0].days", DAY_RULE),
    "a list for a day": ([an_interval(days=[["MON"]])], "[0].days", DAY_RULE),
    "a day twice": ([an_interval(days=["MON", "MON"])], "[0].days", "must name each day only once"),
    "a short hour": ([an_interval(), an_interval(start="9:00")], "[1].start", TIME_RULE),
    "seconds": ([an_interval(start="09:00:00")], "[0].start", TIME_RULE),
    "minute 60": ([an_interval(start="09:60")], "[0].start", TIME_RULE),
    "hour 25": ([an_interval(start="25:00")], "[0].start", TIME_RULE),
    "digits of another script": ([an_interval(start="0\u0669:00")], "[0].start", TIME_RULE),
    "a line end": ([an_interval(end="12:30\n")], "[0].end", TIME_RULE),
    "a number for a time": ([an_interval(end=1230)], "[0].end", TIME_RULE),
    "past midnight": ([an_interval(end="24:01")], "[0].end", "must not be later than 24:00"),
    "from 24:00": ([an_interval(start="24:00")], "[0].start", "must be before 24:00; a day begins at 00:00"),
    "an interval without length": (
        [an_interval(end="09:00")],
        "[0]",
        "must have different start and end; a whole day is 00:00 to 24:00",
    ),
    "a minute in common": (
        [an_interval(), an_interval(days=["TUE"], start="12:29", end="13:00")],
        "[1]",
        "must not overlap [0] on TUE",
    ),
    "one reaches over midnight into the next": (
        [an_interval(days=["TUE"], start="01:00", end="03:00"), an_interval(start="22:00", end="02:00")],
        "[0]",
        "must not overlap [1] on TUE",
    ),
    "one reaches into the next week": (
        [an_interval(days=["MON"], start="01:00", end="03:00"), an_interval(days=["SUN"], start="22:00", end="02:00")],
        "[0]",
        "must not overlap [1] on MON",
    ),
    "the same twice": ([an_interval(), an_interval()], "[1]", "must not overlap [0] on MON"),
}


@pytest.mark.parametrize(("value", "field", "reason"), INVALID.values(), ids=INVALID)
def test_invalid_intervals_are_refused_with_field_and_reason(value: object, field: str, reason: str) -> None:
    with pytest.raises(InvalidInterval) as refused:
        time_texts.read_intervals(value)
    assert refused.value.details == {"field": f"callTimeIntervals{field}", "reason": reason}
    assert refused.value.code == "CALL_TIME_INTERVALS_INVALID"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["MON", "09:00", "24:00"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["days", "start", "end", "x"]), inner, max_size=4)
    ),
)


@given(JSON)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        assert time_texts.read_intervals(value)
    except (InvalidInterval, NeverOpen) as refused:
        assert refused.message  # noqa: PT017 - most JSON is refused, some is not


def test_closing_time_of_an_opening_crosses_midnight_and_week() -> None:
    london, thursday, sunday_night = in_zones("Europe/London"), utc("2026-04-02T12:00"), utc("2026-04-05T22:30")
    assert call_windows.closes_at(london, hours("daily", "08:00", "20:00"), thursday) == utc("2026-04-02T19:00")
    closed = hours("daily", "08:00", "13:00")
    assert call_windows.closes_at(london, closed, thursday) == thursday, "a closed window closes now"
    night = hours("daily", "08:00", "24:00") + hours("daily", "00:00", "02:00")
    assert call_windows.closes_at(london, night, thursday) == utc("2026-04-03T01:00")
    assert call_windows.closes_at(london, hours("SUN", "22:00", "02:00"), sunday_night) == utc("2026-04-06T01:00")


# --- openings of a span, and changes of the clock

INSTANTS = st.integers(min_value=0, max_value=366 * 24 * 12).map(
    lambda grains: utc("2026-01-01 00:00") + grains * GRAIN
)
SPANS = st.integers(min_value=1, max_value=9 * 24 * 12).map(lambda grains: grains * GRAIN)


@given(begins=INSTANTS, span=SPANS)
@settings(max_examples=60, deadline=None)
def test_openings_are_the_open_minutes_of_the_wall(begins: datetime, span: timedelta) -> None:
    clock, intervals = in_zones("Europe/Berlin", "America/New_York"), hours("daily", "09:00", "22:00")
    found = call_windows.openings(clock, intervals, begins, begins + span)
    at = begins
    while at < begins + span:
        assert any(opens <= at < closes for opens, closes in found) == wall_is_open(clock, intervals, at)
        at += GRAIN
    assert all(closes < opens for (_, closes), (opens, _) in pairwise(found))


def test_openings_are_whole_across_weeks_and_changes() -> None:
    begins, ends = utc("2026-10-24 00:00"), utc("2026-11-06 00:00")
    assert call_windows.openings(in_zones("Europe/Berlin"), AROUND_THE_CLOCK, begins, ends) == ((begins, ends),)


def test_openings_of_an_unknown_zone_are_empty() -> None:
    unknown = CalleeClock(source=TimezoneSource.PHONE_NUMBER)
    assert call_windows.openings(unknown, AROUND_THE_CLOCK, utc("2026-10-24 00:00"), utc("2026-10-25 00:00")) == ()


def test_clock_changes_of_several_zones_are_in_order() -> None:
    clock = in_zones("Europe/Berlin", "America/New_York", "Asia/Tokyo")
    changes = [utc("2026-10-25 01:00"), utc("2026-11-01 06:00")]
    assert list(call_windows.clock_changes(clock, changes[0] - MINUTE, changes[1])) == changes
    assert call_windows.clock_changes(clock, changes[0], changes[1] - MINUTE) == ()
    assert call_windows.clock_changes(at_offset(2), changes[0] - MINUTE, changes[1]) == ()


def test_clock_change_at_the_start_of_a_week_is_found() -> None:
    # Weeks are counted from 1970-01-01, a Thursday.
    change = utc("1998-10-01 00:00")
    baghdad = ZoneInfo("Asia/Baghdad")
    assert change.astimezone(baghdad).utcoffset() != (change - MINUTE).astimezone(baghdad).utcoffset()
    assert call_windows.clock_changes(in_zones("Asia/Baghdad"), change - MINUTE, change + MINUTE) == (change,)
