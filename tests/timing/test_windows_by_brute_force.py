"""The next opening equals the first opening found by a walk over the minutes, in every zone, for any hours and clocks.

The walk shares no code with the code that it checks. Its offsets come from `whenever`, another implementation with its
own reader of the zone files. Hours are marked minute by minute in a table of the week. The minutes of several clocks
are combined bit by bit.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise

import pytest
import whenever

from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.company import CallTimeInterval, Weekday
from scheduler.timing import call_windows, zone_names
from tests.support import exhaustive

pytestmark = pytest.mark.usefixtures("zones_of_the_wheel")

SEED = 20_261_125
CASES_A_ZONE = exhaustive.cases(60, 6)
"""A third has one zone, a third has up to two more zones, and a third has an offset as well."""
CASES_A_NIGHT = exhaustive.cases(40, 6)

MINUTES_A_DAY = 24 * 60
MINUTES_A_WEEK = 7 * MINUTES_A_DAY
SEARCHED_DAYS = 35
WALKED = (SEARCHED_DAYS + 8) * MINUTES_A_DAY
"""Counted from the day of the instant: the searched span, and a week of room for an opening on the last day."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_IN_WEEK = 3 * MINUTES_A_DAY
"""Minutes from Monday's midnight to that of the first of January 1970, a Thursday."""


# --- the walk


@dataclass(frozen=True, kw_only=True)
class Hours:
    """Hours of a week: as intervals for the code, and as a table with a byte for each minute from Monday on."""

    intervals: tuple[CallTimeInterval, ...]
    open_minutes: bytes


def hours(written: Sequence[tuple[Sequence[int], int, int]]) -> Hours:
    """Build hours from (days, first minute, length in minutes)."""
    table = bytearray(2 * MINUTES_A_WEEK)
    for days, start, length in written:
        for day in days:
            begins = day * MINUTES_A_DAY + start
            table[begins : begins + length] = b"\1" * length
    sunday_night = table[MINUTES_A_WEEK:].rstrip(b"\0")  # reaches into Monday
    for minute, is_open in enumerate(sunday_night):
        table[minute] |= is_open
    return Hours(
        intervals=tuple(
            CallTimeInterval(
                days=frozenset(Weekday(day) for day in days),
                start=timedelta(minutes=start),
                end=timedelta(minutes=start + length),
            )
            for days, start, length in written
        ),
        open_minutes=bytes(table[:MINUTES_A_WEEK]),
    )


def offset_at(zone: str, minute: int) -> int:
    """Compute the minutes ahead of UTC at a minute since 1970."""
    offset = whenever.Instant.from_timestamp(minute * 60).to_tz(zone).offset.total("minutes")
    assert offset == int(offset), "the walk needs whole minutes"
    return int(offset)


@cache
def pieces(zone: str, day: int) -> tuple[tuple[int, int], ...]:
    """Compute (minute, offset) at each change of offset, over the minutes walked from that day's midnight UTC on.

    The offset is read every six hours, and at each minute between two readings that differ.
    """
    first = day * MINUTES_A_DAY
    marks = [(minute, offset_at(zone, minute)) for minute in range(first, first + WALKED + 1, 6 * 60)]
    found = [marks[0]]
    for (early, before), (late, after) in pairwise(marks):
        if before != after:
            changed = next(minute for minute in range(early, late + 1) if offset_at(zone, minute) != before)
            found.append((changed, offset_at(zone, changed)))
    return tuple(found)


def on_the_wall(kept: str | int, day: int, open_minutes: bytes) -> int:
    """Compute a byte per minute from that day's midnight UTC on: 1 if the minute is open in a zone or at an offset."""
    begun = pieces(kept, day) if isinstance(kept, str) else ((day * MINUTES_A_DAY, kept),)
    ends = [minute for minute, _ in begun[1:]] + [day * MINUTES_A_DAY + WALKED]
    shown = bytearray()
    for (begins, offset), end in zip(begun, ends, strict=True):
        at = (begins + offset + EPOCH_IN_WEEK) % MINUTES_A_WEEK
        length = end - begins
        shown += (open_minutes * (length // MINUTES_A_WEEK + 2))[at : at + length]
    assert len(shown) == WALKED
    return int.from_bytes(shown)


def first_by_walking(
    kept: Sequence[str | int], open_minutes: bytes, instant: datetime, room: timedelta
) -> datetime | None:
    day = (instant - EPOCH).days
    together = on_the_wall(kept[0], day, open_minutes)
    for other in kept[1:]:
        together &= on_the_wall(other, day, open_minutes)
    minutes = together.to_bytes(WALKED)
    midnight = EPOCH + timedelta(days=day)
    at = (instant - midnight) // timedelta(minutes=1)
    while (opens := minutes.find(1, at)) >= 0:
        closes = minutes.find(0, opens)
        at = WALKED if closes < 0 else closes
        opening = max(midnight + timedelta(minutes=opens), instant)
        if midnight + timedelta(minutes=at) - opening > room:
            return opening if opening - instant <= timedelta(days=SEARCHED_DAYS) else None
    return None


# --- the cases


def clocks_of(kept: Sequence[str | int], dice: random.Random) -> tuple[CalleeClock, ...]:
    """Convert to the form of the code: each offset is one clock, zones are one clock or several."""
    minutes = [timedelta(minutes=each) for each in kept if isinstance(each, int)]
    offsets = [CalleeClock(source=TimezoneSource.OFFSET, offset=each) for each in minutes]
    zones = [each for each in kept if isinstance(each, str)]
    cut = dice.randint(0, len(zones))
    parts = [tuple(sorted(part)) for part in (zones[:cut], zones[cut:]) if part]
    named = [CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=part) for part in parts]
    return (*named, *offsets)


def any_hours(dice: random.Random) -> Hours:
    """Build one to five intervals of minutes or hours. Some cross midnight, end at 24:00 or last all day."""
    written = []
    for _ in range(dice.randint(1, 5)):
        days = dice.sample(range(7), dice.randint(1, 7))
        start = dice.choice((0, dice.randrange(MINUTES_A_DAY), dice.randrange(0, MINUTES_A_DAY, 30)))
        to_midnight = MINUTES_A_DAY - start
        length = dice.choice((dice.randint(1, 5), dice.randint(30, 720), dice.randint(1, 1440), to_midnight))
        written.append((days, start, length))
    return hours(written)


def any_room(dice: random.Random) -> timedelta:
    seconds = (0, 35, 60 * dice.randint(1, 10), 60 * dice.randint(1, 1500), dice.randint(1, 7200))
    return timedelta(seconds=dice.choice(seconds))


def any_second(day: int, dice: random.Random) -> datetime:
    second = dice.choice((dice.randrange(86_400), dice.randrange(1440) * 60))
    return EPOCH + timedelta(days=day, seconds=second, microseconds=dice.choice((0, dice.randrange(1_000_000))))


def check(kept: Sequence[str | int], worked: Hours, instant: datetime, room: timedelta, dice: random.Random) -> bool:
    """Check whether there is an opening. Fails if code and walk disagree."""
    clocks = clocks_of(kept, dice)
    walked = first_by_walking(kept, worked.open_minutes, instant, room)
    opening = call_windows.next_open(clocks, worked.intervals, instant, room=room)
    case = f"{clocks}, {worked.intervals}, at {instant.isoformat()}, room {room}"
    assert opening == walked, case
    assert call_windows.is_open(clocks, worked.intervals, instant, room=room) == (walked == instant), case
    if len(clocks) == 1:
        assert call_windows.next_open(clocks[0], worked.intervals, instant, room=room) == walked, case
    return walked is not None


YEARS = ((2024, 2030), (2024, 2037), (1973, 2024), (2038, 2090))
"""Near years (twice), past years, and years after the last change in the zone files."""


def any_days(dice: random.Random) -> list[int]:
    return [(datetime(dice.randint(*span), 1, 1, tzinfo=UTC) - EPOCH).days + dice.randrange(365) for span in YEARS]


def test_next_opening_in_every_zone_equals_a_walk(aloud: Callable[[str], None]) -> None:
    dice, places = random.Random(SEED), sorted(zone_names.PLACES)
    count = found = 0
    for zone in places:
        days = any_days(dice)
        for number in range(CASES_A_ZONE):
            day = days[number % len(days)]
            others: list[str | int] = []
            if number % 3:
                others = dice.sample(places, dice.randint(0, 2))
            if number % 3 == 2:
                others.append(dice.choice((dice.randrange(-1080, 1081), dice.randrange(-48, 57) * 15)))
            kept = [zone, *(each for each in dict.fromkeys(others) if each != zone)]
            found += check(kept, any_hours(dice), any_second(day, dice), any_room(dice), dice)
            count += 1
    aloud(f"  {count} next openings in {len(places)} zones walked, seed {SEED}; {found} exist")
    assert count >= exhaustive.cases(20_000, 2_500)
    assert count // 2 < found < count


def test_next_opening_at_an_offset_equals_a_walk() -> None:
    dice = random.Random(SEED)
    for _ in range(exhaustive.cases(500, 50)):
        offset = dice.randrange(-1080, 1081)
        check([offset], any_hours(dice), any_second(any_days(dice)[0], dice), any_room(dice), dice)


HARD_PLACES = [
    pytest.param("Australia/Lord_Howe", 30, 2, id="Lord Howe shifts by half an hour"),
    pytest.param("Africa/Casablanca", 60, 2, id="Casablanca's winter is Ramadan"),
    pytest.param("America/Santiago", 60, 2, id="Santiago shifts at midnight"),
    pytest.param("Antarctica/Troll", 120, 2, id="Troll shifts by two hours"),
    pytest.param("Pacific/Chatham", 60, 2, id="the Chathams have quarter hours"),
    pytest.param("Asia/Kathmandu", 0, 0, id="Kathmandu has a quarter hour and no summer time"),
    pytest.param("Asia/Gaza", 60, 2, id="Gaza's summer begins after Ramadan"),
    pytest.param("Africa/Cairo", 60, 2, id="Cairo shifts at midnight, on a Friday and on a Thursday"),
    pytest.param("America/Scoresbysund", 60, 2, id="east Greenland shifts on the evening before"),
    pytest.param("Europe/Dublin", 60, 2, id="Dublin's winter time is the exception"),
]


@pytest.mark.parametrize(("zone", "shift", "nights_in_2025"), HARD_PLACES)
def test_next_opening_over_difficult_nights_equals_a_walk(zone: str, shift: int, nights_in_2025: int) -> None:
    dice = random.Random(f"{SEED} {zone}")
    new_year = (datetime(2025, 1, 1, tzinfo=UTC) - EPOCH).days
    begun = sorted({piece for day in range(new_year, new_year + 365 * 3, 40) for piece in pieces(zone, day)})
    changes = [(late, after - before) for (_, before), (late, after) in pairwise(begun) if before != after]
    in_2025 = [late for late, _ in changes if late < (new_year + 365) * MINUTES_A_DAY]
    assert len(in_2025) == nights_in_2025
    assert {abs(moved) for _, moved in changes} == ({shift} if shift else set())
    nights = [late for late, _ in changes] or [(new_year + day) * MINUTES_A_DAY for day in range(0, 1095, 180)]
    for night in nights:
        for _ in range(CASES_A_NIGHT):
            instant = EPOCH + timedelta(minutes=night, seconds=dice.randint(-8 * 3600, 4 * 3600))
            wall = (night + offset_at(zone, night)) % MINUTES_A_DAY
            start = (wall + dice.randint(-150, 90)) % MINUTES_A_DAY
            narrow = hours([(range(7), start, dice.randint(1, 180))])
            kept = [zone, *dice.choice(([], [], ["Europe/Bratislava"], [0]))]
            check(kept, dice.choice((narrow, any_hours(dice))), instant, any_room(dice), dice)
