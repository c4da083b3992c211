"""The timeline shows the hours of the code that dials, in real time, with every event of the history."""

import random
import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import console
from console.pictures.svg import Drawing, Layout, Moment
from console.pictures.timeline import Timeline, hours_table, marks_table, timeline_of
from console.pictures.timeline_svg import timeline_svg
from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.company import EVERY_DAY, CallTimeInterval
from scheduler.domain.explanation import Block, Rule
from scheduler.domain.schedule import CalleeClock, TimezoneSource
from scheduler.timing import call_windows
from tests.console.examples import explained, happened, hours_of, in_zones, utc
from tests.console.pictures import HOSTILE, SVG, assert_texts_fit, boxes, class_names, marks, parsed, texts

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
LAYOUTS = pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name)
CSS = (Path(console.__file__).parent / "static" / "pictures.css").read_text(encoding="utf-8")


def waiting(at: str, *zones: str, **hours: Any) -> Timeline:
    """Return the timeline of an attempt that waits for an opening at that time (UTC)."""
    opening = utc(at)
    explanation = explained(
        happened("2026-01-05 10:00:00", "created", from_state=None, actor="key:1"),
        due_at=at,
        next_possible_at=at,
        blocks=(Block(rule=Rule.NOT_DUE, until=opening), Block(rule=Rule.WINDOW_CLOSED, until=opening)),
    )
    return timeline_of(explanation, hours_of(*zones, **hours), opening - 9 * HOUR)


@LAYOUTS
@pytest.mark.parametrize(
    ("day", "length", "change"),
    [
        pytest.param(date(2026, 10, 25), 25, "03:00 → 02:00", id="an hour longer"),
        pytest.param(date(2026, 3, 29), 23, "02:00 → 03:00", id="an hour shorter"),
    ],
)
def test_night_of_clock_change_has_its_true_width(day: date, length: int, change: str, layout: Layout) -> None:
    opens = datetime(day.year, day.month, day.day, 8, tzinfo=BERLIN).astimezone(UTC)
    timeline = waiting(opens.replace(tzinfo=None).isoformat(" "), "Europe/Berlin")
    midnights = [datetime.combine(day + timedelta(days=number), datetime.min.time(), BERLIN) for number in range(-1, 3)]
    assert list(timeline.midnights) == [each.astimezone(UTC) for each in midnights]
    root = parsed(timeline_svg(timeline, layout, "night"))
    assert_texts_fit(root)
    first, middle, last = sorted([*boxes(root, "day day-0"), *boxes(root, "day day-1")], key=lambda box: box.left)
    assert first.width == pytest.approx(last.width, abs=0.02)
    assert middle.width / first.width == pytest.approx(length / 24, abs=0.001)
    assert [text for text in texts(root, "day-name") if text.endswith(" h")] == [f"{day:%a %d %b}, {length} h"]
    assert texts(root, "change-text")[0].endswith(change)


def test_opening_lies_at_its_instants() -> None:
    """Berlin is open from 08:00 to 20:00 on each day, by the wall clock of zoneinfo."""
    timeline = waiting("2026-10-25 07:00:00", "Europe/Berlin")
    days = [date(2026, 10, 24), date(2026, 10, 25), date(2026, 10, 26)]
    walls = [
        tuple(datetime(day.year, day.month, day.day, hour, tzinfo=BERLIN).astimezone(UTC) for hour in (8, 20))
        for day in days
    ]
    assert timeline.common == tuple(walls)
    root = parsed(timeline_svg(timeline, Layout.WIDE, "opening"))
    bands = boxes(root, "open common")
    assert [band.title for band in bands] == ["may be called: open 08:00-20:00"] * 3
    [closed, _] = boxes(root, "closed")
    for band, (opens, closes) in zip(bands, walls, strict=True):
        span = timeline.ends - timeline.begins
        assert (band.left - closed.left) / closed.width == pytest.approx((opens - timeline.begins) / span, abs=1e-4)
        assert band.width / closed.width == pytest.approx((closes - opens) / span, abs=1e-4)


def test_two_zones_have_a_band_each_and_one_in_common() -> None:
    timeline = waiting("2026-10-28 15:00:00", "America/New_York", "America/Los_Angeles")
    assert [band.name for band in timeline.bands] == ["America/Los_Angeles", "America/New_York"]
    [_, (opens, closes), _] = timeline.common
    assert opens.astimezone(ZoneInfo("America/Los_Angeles")).hour == 8
    assert closes.astimezone(ZoneInfo("America/New_York")).hour == 20
    root = parsed(timeline_svg(timeline, Layout.WIDE, "two"))
    assert "all must be open" in texts(root)
    assert_texts_fit(root)


def test_many_zones_share_bands() -> None:
    """A toll-free number may be in any zone of its country. Zones with equal hours share a band, at most six in all."""
    zones = ("Pacific/Honolulu", "America/Adak", "America/Anchorage", "America/Los_Angeles", "America/Denver")
    more = ("America/Chicago", "America/New_York", "America/Detroit", "America/Boise")
    timeline = waiting("2026-10-28 18:00:00", *zones, *more)
    assert len(timeline.bands) == 6
    assert timeline.bands[-1].name.endswith("more zones, all open")
    assert sum(band.name == "America/Boise and 1 more" for band in timeline.bands) == 1
    assert_texts_fit(parsed(timeline_svg(timeline, Layout.NARROW, "many")))


def test_next_possible_time_names_its_rule() -> None:
    timeline = waiting("2026-10-28 07:00:00", "Europe/Berlin")
    assert timeline.next_possible is not None
    assert timeline.next_possible.word == "may ring, after WINDOW_CLOSED"
    root = parsed(timeline_svg(timeline, Layout.WIDE, "next"))
    assert texts(root, "next-text") == ["may ring, after WINDOW_CLOSED"]
    assert marks(root) == ["asked", "next", "expiry"], "the mark `due` lies at the same place"
    [place] = [each.get("transform") for each in root.iter(f"{SVG}path") if each.get("class") == "mark mark-next"][:1]
    [closed, *_] = boxes(root, "closed")
    share = (timeline.next_possible.at - timeline.begins) / (timeline.ends - timeline.begins)
    assert float((place or "").removeprefix("translate(").split()[0]) == pytest.approx(
        closed.left + closed.width * share, abs=0.01
    )
    assert [text for text in texts(root, "mark-number") if not text.isdigit()] == ["←1", "2-3", "4→"]


@LAYOUTS
def test_expired_attempt_shows_its_history(layout: Layout) -> None:
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
    timeline = timeline_of(explanation, hours_of("Europe/Berlin"), utc("2026-10-21 14:00:00"))
    assert [(mark.kind, mark.word, mark.times) for mark in timeline.marks] == [
        ("asked", "asked for", 1),
        ("due", "due", 1),
        ("claimed", "claimed", 1),
        ("back", "not placed", 5),
        ("ended", "expired", 1),
    ]
    root = parsed(timeline_svg(timeline, layout, "expired"))
    assert_texts_fit(root)
    [after] = boxes(root, "after")
    assert after.title == "No call after this time"
    assert len([text for text in texts(root, "mark-text") if "not placed, 5 times" in text]) == 1


def test_call_shows_ringing_and_its_end() -> None:
    live = {"from_state": "IN_PROGRESS", "to_state": "IN_PROGRESS"}
    explanation = explained(
        happened("2026-10-21 08:00:01", "claimed", to_state="IN_PROGRESS"),
        happened("2026-10-21 08:00:02", "placed", **live),
        happened("2026-10-21 08:00:05", "progressed", **live, detail={"rank": 2}),
        happened("2026-10-21 08:00:12", "progressed", **live, detail={"rank": 3}),
        happened("2026-10-21 08:12:12", "ended", from_state="IN_PROGRESS", to_state="COMPLETED", reason="ANSWERED"),
        due_at="2026-10-21 08:00:00",
        state=AttemptState.COMPLETED,
        reason=Reason.ANSWERED,
        released_until=utc("2026-10-21 08:00:15"),
    )
    timeline = timeline_of(explanation, hours_of("Europe/Berlin"), utc("2026-10-21 14:00:00"))
    words = [mark.word for mark in timeline.marks]
    assert words == [
        "due",
        "claimed",
        "placed at the carrier",
        "ringing",
        "answered",
        "released until",
        "ended: ANSWERED",
    ]
    assert [mark.kind for mark in timeline.marks if mark.word == "ringing"] == ["ringing"]
    assert timeline.marks[-1].kind == "completed"
    assert "mark mark-completed" in timeline_svg(timeline, Layout.WIDE, "completed")


def test_failed_call_has_another_mark_than_a_completed_one() -> None:
    explanation = explained(
        happened("2026-10-21 08:00:01", "claimed", to_state="IN_PROGRESS"),
        happened("2026-10-21 08:00:30", "ended", from_state="IN_PROGRESS", to_state="FAILED", reason="BUSY"),
        due_at="2026-10-21 08:00:00",
        state=AttemptState.FAILED,
        reason=Reason.BUSY,
    )
    timeline = timeline_of(explanation, hours_of("Europe/Berlin"), utc("2026-10-21 14:00:00"))
    assert (timeline.marks[-1].kind, timeline.marks[-1].word) == ("ended", "ended: BUSY")
    assert "mark-completed" not in timeline_svg(timeline, Layout.WIDE, "failed")


def test_consent_ends_at_midnight_in_the_earliest_zone() -> None:
    explanation = explained(due_at="2026-10-28 20:00:00", blocks=(Block(rule=Rule.CONSENT_EXPIRED),))
    hours = hours_of("America/New_York", "America/Los_Angeles", consent_until=date(2026, 10, 28))
    timeline = timeline_of(explanation, hours, utc("2026-10-29 05:00:00"))
    [consent] = [edge for edge in timeline.edges if edge.kind == "consent"]
    assert consent.at == datetime(2026, 10, 29, tzinfo=ZoneInfo("America/New_York"))
    assert timeline.note == "No next time is known: CONSENT_EXPIRED has no known end."
    root = parsed(timeline_svg(timeline, Layout.WIDE, "consent"))
    assert timeline.note in texts(root)
    assert "edge-consent" in class_names(root)


@LAYOUTS
def test_times_of_another_year_have_their_year(layout: Layout) -> None:
    explanation = explained(due_at="2026-12-31 10:00:00", expires_at="2027-01-01 12:00:00")
    hours = hours_of("Europe/Berlin", consent_until=date(2030, 1, 1))
    root = parsed(timeline_svg(timeline_of(explanation, hours, utc("2026-12-31 09:00:00")), layout, "years"))
    days = ("Thu ", "Fri ", "Wed ") if layout.is_wide else ("", "", "")
    assert texts(root, "mark-text") == [
        f"{days[0]}31 Dec 11:00:00 due",
        f"{days[1]}01 Jan 2027 13:00:00 attempt expires",
        f"{days[2]}02 Jan 2030 00:00:00 consent ends",
    ]
    assert texts(root, "day-name") == ["Wed 30 Dec", "Thu 31 Dec", "Fri 01 Jan 2027"]
    assert_texts_fit(root)


def test_consent_without_an_end_has_no_edge() -> None:
    assert [edge.kind for edge in waiting("2026-10-28 07:00:00", "Europe/Berlin").edges] == ["expiry"]


@LAYOUTS
def test_unknown_zone_is_drawn_in_utc(layout: Layout) -> None:
    explanation = explained(due_at="2026-10-28 07:00:00", blocks=(Block(rule=Rule.TIMEZONE_UNKNOWN),))
    timeline = timeline_of(explanation, hours_of(), utc("2026-10-28 09:00:00"))
    assert (timeline.clock, timeline.bands, timeline.common) == (None, (), ())
    root = parsed(timeline_svg(timeline, layout, "unknown"))
    assert "No zone is known, so no hour is open." in texts(root)
    assert_texts_fit(root)


def test_offset_is_a_band_of_its_own() -> None:
    clock = CalleeClock(source=TimezoneSource.OFFSET, offset=timedelta(hours=5, minutes=30))
    hours = hours_of("Europe/Berlin")
    hours = type(hours)(clocks=(clock, *hours.clocks), intervals=hours.intervals, consent_until=date(2026, 10, 28))
    timeline = timeline_of(explained(due_at="2026-10-28 07:00:00"), hours, utc("2026-10-28 09:00:00"))
    assert [band.name for band in timeline.bands] == ["UTC+05:30", "Europe/Berlin"]
    assert timeline.midnights[1] == utc("2026-10-27 18:30:00")


def test_tables_contain_the_picture_on_the_callees_clock() -> None:
    timeline = waiting("2026-10-25 07:00:00", "Europe/Berlin")
    rows = marks_table(timeline).rows
    assert [row[1] for row in rows] == ["asked for", "due", "may ring, after WINDOW_CLOSED", "attempt expires"]
    assert rows[1][0] == Moment(at=utc("2026-10-25 07:00:00"), local="2026-10-25T08:00:00+01:00", zone="Europe/Berlin")
    hours = hours_table(timeline)
    assert [row[0] for row in hours.rows] == ["Europe/Berlin"] * 3 + ["all zones open"] * 3
    opens = hours.rows[0][1]
    assert isinstance(opens, Moment)
    assert (opens.local, opens.utc) == ("2026-10-24T08:00:00+02:00", "2026-10-24T06:00:00Z")
    assert all(len(row) == len(table.header) for table in (hours, marks_table(timeline)) for row in table.rows)


@LAYOUTS
def test_long_history_is_cut_in_the_picture_alone(layout: Layout) -> None:
    events = [
        happened(f"2026-10-28 {hour:02}:{minute:02}:00", event)
        for hour in range(7, 12)
        for minute, event in ((0, "claimed"), (10, "deferred"), (20, "claimed"), (30, "not_placed"))
    ]
    explanation = explained(*events, due_at="2026-10-28 07:00:00")
    timeline = timeline_of(explanation, hours_of("Europe/Berlin"), utc("2026-10-28 13:00:00"))
    root = parsed(timeline_svg(timeline, layout, "long"))
    assert_texts_fit(root)
    assert len(marks_table(timeline).rows) == len(timeline.marks) + len(timeline.edges)
    assert "9 more events are in the table." in texts(root)


@given(minutes=st.lists(st.integers(0, 4320), max_size=30), layout=st.sampled_from(Layout))
@example(minutes=[0, 0, 0, 0, 0, 3453, 3982, 4249], layout=Layout.NARROW)
@settings(max_examples=60, deadline=None)
def test_labels_of_marks_never_overlap(minutes: list[int], layout: Layout) -> None:
    begins = utc("2026-10-26 23:00:00").replace(tzinfo=None)
    events = [
        happened(f"{begins + timedelta(minutes=minute)}", ("claimed", "deferred")[number % 2])
        for number, minute in enumerate(sorted(minutes))
    ]
    timeline = timeline_of(
        explained(*events, due_at="2026-10-28 07:00:00", next_possible_at="2026-10-28 07:00:00"),
        hours_of("Europe/Berlin"),
        utc("2026-10-28 06:00:00"),
    )
    assert_texts_fit(parsed(timeline_svg(timeline, layout, "labels")))


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
    seconds = int((timeline.ends - timeline.begins).total_seconds())
    for _ in range(40):
        at = timeline.begins + timedelta(seconds=instants.randrange(seconds))
        is_open = any(opens <= at < closes for opens, closes in timeline.common)
        assert is_open == call_windows.is_open(in_zones(*zones), intervals, at)
    for opens, closes in timeline.common:
        for band in timeline.bands:
            assert any(first <= opens and closes <= last for first, last in band.spans)
    for _, first in pairwise(timeline.midnights[:-1]):
        assert timeline.clock is not None
        assert call_windows.local_times(timeline.clock, first)[0].hour in {0, 1}, "a day may begin at 01:00"


# --- every picture


@LAYOUTS
def test_hostile_words_stay_words(layout: Layout) -> None:
    explanation = explained(
        happened("2026-10-28 07:00:00", HOSTILE, detail={"cause": HOSTILE}), due_at="2026-10-28 07:00:00"
    )
    timeline = timeline_of(explanation, hours_of("Europe/Berlin"), utc("2026-10-28 13:00:00"))
    root = parsed(timeline_svg(timeline, layout, "hostile"))
    shown = " ".join(texts(root))
    assert "</text><script>alert(1)</script>&" in shown
    assert "\x00" not in shown
    assert "\u202e" not in shown


def test_picture_id_must_be_a_plain_word() -> None:
    with pytest.raises(ValueError, match="id of a picture"):
        Drawing(picture_id='a" onload="', layout=Layout.WIDE, title="", description="")


def test_text_is_readable_from_320_to_1200_pixels() -> None:
    """A page shows the narrow layout below the breakpoint of the stylesheet, and the wide one above it."""
    font, breakpoint_ = 12, 880
    assert f".picture text {{ font-size: {font}px" in CSS
    assert f"@media (min-width: {breakpoint_}px) {{ .picture-narrow {{ display: none; }} }}" in CSS
    assert f"@media (max-width: {breakpoint_ - 0.02}px) {{ .picture-wide {{ display: none; }} }}" in CSS
    assert font * 320 / Layout.NARROW.value > 10
    assert font * breakpoint_ / Layout.WIDE.value > 10


def test_stylesheet_has_dark_and_forced_colours() -> None:
    light, dark, forced = (
        set(section.split("}")[0].replace(" ", "").splitlines()) for section in CSS.split(":root {")[1:]
    )
    names = [{line.split(":")[0] for line in section if line} for section in (light, dark, forced)]
    assert names[0] == names[1] == names[2]
    assert not [line for line in forced if "#" in line], "forced colours are the system's"


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("section", [1, 2], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground", "least"),
    [
        ("ink", "surface", 4.5),
        ("ink", "closed", 4.5),
        ("quiet", "surface", 4.5),
        ("quiet", "day", 4.5),
        ("quiet", "closed", 4.5),
        ("zone-ink", "zone", 4.5),
        ("common-ink", "common", 4.5),
        ("next", "surface", 4.5),
        ("edge", "surface", 3.0),
        ("common", "closed", 3.0),
        ("over", "surface", 3.0),
    ],
)
def test_colours_have_the_contrast_of_wcag(section: int, text: str, ground: str, least: float) -> None:
    colours = dict(re.findall(r"--picture-([\w-]+): (#\w{6});", CSS.split(":root {")[section].split("}")[0]))
    light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= least
