"""When a person may be rung."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache, reduce
from itertools import pairwise

from scheduler.domain.company import CallTimeInterval
from scheduler.domain.refusals import TimezoneAmbiguous, TimezoneUnknown
from scheduler.domain.schedule import CalleeClock
from scheduler.timing import zone_names
from scheduler.timing.call_hours_json import intervals_as_json, read_intervals
from scheduler.timing.requested_time import RequestedTime

__all__ = [
    "SEARCHED",
    "Clocks",
    "closes_at",
    "common_minutes",
    "instant_of",
    "intervals_as_json",
    "is_open",
    "local_times",
    "next_open",
    "read_intervals",
    "resolve",
    "utc_offsets",
]

Clocks = CalleeClock | Sequence[CalleeClock]
"""One clock, or several that must all be open: the intervals hold on each."""

SEARCHED = timedelta(days=35)
"""How far ahead the next opening is looked for.

Nothing is scheduled more than 30 days ahead. Intervals are weekly, so that an opening fails to come round
only where a clock changes: even three zones that spoil three weeks in a row leave two to be found. Zones
whose hours meet only in another season have no opening.
"""


def is_open(
    clocks: Clocks,
    intervals: Sequence[CallTimeInterval],
    instant: datetime,
    *,
    room: timedelta = timedelta(0),
) -> bool:
    """Whether this person may be rung from `instant` (aware UTC) until `room` later, both ends included.

    Every zone of every clock must be open all that time. An unknown zone is never open, nor is no clock at all.
    """
    return next_open(clocks, intervals, instant, room=room) == instant


def next_open(
    clocks: Clocks,
    intervals: Sequence[CallTimeInterval],
    instant: datetime,
    *,
    room: timedelta,
) -> datetime | None:
    """The least instant from `instant` (aware UTC) on at which `is_open` holds; None: none within SEARCHED.

    Openings not longer than `room` (at most a week) are passed over.
    """
    opens = closes = instant
    for span_opens, span_closes in _openings_after(clocks, intervals, instant):
        if span_opens > closes:  # does not touch the one before, as two do where a week ends
            opens = span_opens
        closes = span_closes
        if opens - instant > SEARCHED:
            return None
        if closes - opens > room:
            return opens
    return None


def closes_at(clocks: Clocks, intervals: Sequence[CallTimeInterval], instant: datetime) -> datetime:
    """When the opening that holds `instant` (aware UTC) ends; `instant` itself where none does."""
    closes = instant
    for span_opens, span_closes in _openings_after(clocks, intervals, instant):
        if span_opens > closes:
            break
        closes = span_closes
    return closes


def common_minutes(
    clocks: Clocks,
    intervals: Sequence[CallTimeInterval],
    instant: datetime,
    *,
    days: int = 7,
    enough: timedelta = SEARCHED,
) -> timedelta:
    """How long all are open at once in the `days` (at most 35) from `instant` (aware UTC) on.

    No more is counted once it is `enough`.
    """
    looked_at = timedelta(days=days)
    spans = (
        (max(opens - instant, timedelta()), min(closes - instant, looked_at))
        for opens, closes in _openings_after(clocks, intervals, instant)
    )
    total = timedelta()
    for opens, closes in spans:
        if opens >= looked_at or total >= enough:
            break
        total += closes - opens
    return total


def local_times(clock: CalleeClock, instant: datetime) -> tuple[datetime, ...]:
    """What the clocks show at that instant: naive, one for each zone in order, or one for the offset."""
    return tuple(instant.astimezone(kept).replace(tzinfo=None) for kept in _clocks(clock))


def utc_offsets(clock: CalleeClock, instant: datetime) -> tuple[timedelta, ...]:
    """How far ahead of UTC the clocks are at that instant, in the order of `local_times`."""
    utc = instant.astimezone(UTC).replace(tzinfo=None)
    return tuple(local - utc for local in local_times(clock, instant))


def instant_of(clock: CalleeClock, wall: datetime) -> datetime:
    """The instant (aware UTC) at which the clock shows `wall` (naive).

    A time that the clock skips moves forward by the length of the gap (02:30 becomes 03:30); one that it
    shows twice means the first (F2-10). TimezoneAmbiguous when the clock's zones name different instants,
    TimezoneUnknown when it has no zone.
    """
    instants = {wall.replace(tzinfo=kept, fold=0).astimezone(UTC) for kept in _clocks(clock)}
    if len(instants) > 1:
        raise TimezoneAmbiguous(zones=list(clock.zones), localTime=wall.isoformat())
    return instants.pop()


def resolve(requested: RequestedTime, clock: CalleeClock) -> datetime:
    """The instant (aware UTC) that was asked for; a text without offset means wall time on `clock`."""
    if requested.is_instant:
        return requested.wall.replace(tzinfo=UTC)
    if requested.offset is not None:
        return requested.wall.replace(tzinfo=UTC) - requested.offset
    return instant_of(clock, requested.wall)


# Below here time is counted in whole seconds since 1970, as spans (opens, closes) that are half-open.

_Span = tuple[int, int]
_Step = tuple[int, int, int]
"""From, until, and the UTC offset that a clock keeps between the two."""

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _SECOND
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _SECOND
_DAY = 86_400
_WEEK = 7 * _DAY
_MONDAY = -3 * _DAY
"""The first of January 1970 was a Thursday."""

_STEP = _WEEK // 2
"""No clock has changed twice within 167 hours since 1970; a test looks at all that the zone data know of."""

_WEEKS = 7
"""The week that holds the instant, five that are searched, one for `room`."""


def _clocks(clock: CalleeClock) -> tuple[tzinfo, ...]:
    if clock.offset is not None:
        return (timezone(clock.offset),)
    if not clock.zones:  # not "open in all of none"
        raise TimezoneUnknown
    return tuple(zone_names.zone(name) for name in clock.zones)


def _openings_after(
    clocks: Clocks, intervals: Sequence[CallTimeInterval], instant: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """The openings that close after `instant`, cut where weeks begin; none where a zone is unknown.

    A week is computed when it is asked for: the next opening is mostly in the first one.
    """
    together = (clocks,) if isinstance(clocks, CalleeClock) else clocks
    try:
        kept = tuple(each for clock in together for each in _clocks(clock))
    except TimezoneUnknown:
        return
    if not kept:
        return
    hours = tuple(intervals)
    first = (instant - _EPOCH) // timedelta(seconds=_WEEK)
    for week in range(first, first + _WEEKS):
        yield from (span for span in _common_openings(kept, hours, week) if span[1] > instant)


# Only what is the same for everybody is kept: a week of a clock, and one of clocks with these hours. Zones that keep
# the same time in a week have equal steps and are looked at once, whatever they are called.


@lru_cache(maxsize=2048)
def _common_openings(
    clocks: tuple[tzinfo, ...], intervals: tuple[CallTimeInterval, ...], week: int
) -> tuple[tuple[datetime, datetime], ...]:
    weekly = _weekly(intervals)
    common = reduce(_in_both, (_openings(steps, weekly) for steps in {_steps(clock, week) for clock in set(clocks)}))
    return tuple((_EPOCH + timedelta(seconds=opens), _EPOCH + timedelta(seconds=closes)) for opens, closes in common)


@lru_cache(maxsize=512)
def _weekly(intervals: tuple[CallTimeInterval, ...]) -> tuple[_Span, ...]:
    """The hours of one week, in seconds from Monday's midnight: sorted, apart, and Sunday night's end on Monday."""
    spans = [
        (day * _DAY + interval.start // _SECOND, day * _DAY + interval.end // _SECOND)
        for interval in intervals
        for day in interval.days
    ]
    over = [(0, closes - _WEEK) for _, closes in spans if closes > _WEEK]
    return tuple(_merged([*over, *((opens, min(closes, _WEEK)) for opens, closes in spans)]))


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    """Sorted, and those that touch or overlap made one."""
    merged: list[_Span] = []
    for opens, closes in sorted(spans):
        if merged and opens <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], closes))
        else:
            merged.append((opens, closes))
    return merged


def _openings(steps: tuple[_Step, ...], weekly: tuple[_Span, ...]) -> list[_Span]:
    """When one clock shows a time within the hours.

    Where a clock goes back, an hour is on the wall twice and open twice; where it jumps, what it skips never
    comes. Both follow from taking each step by itself.
    """
    openings = []
    for begins, ends, offset in steps:
        first, last = ((second + offset - _MONDAY) // _WEEK for second in (begins, ends))
        for week in range(first, last + 1):
            midnight = _MONDAY + week * _WEEK - offset  # of Monday, on the wall
            for starts, stops in weekly:
                opens, closes = midnight + starts, midnight + stops
                if opens < ends and closes > begins:
                    openings.append((max(opens, begins), min(closes, ends)))
    return openings


def _in_both(these: list[_Span], those: list[_Span]) -> list[_Span]:
    common = []
    left = right = 0
    while left < len(these) and right < len(those):
        opens = max(these[left][0], those[right][0])
        closes = min(these[left][1], those[right][1])
        if opens < closes:
            common.append((opens, closes))
        if these[left][1] < those[right][1]:
            left += 1
        else:
            right += 1
    return common


@lru_cache(maxsize=4096)
def _steps(clock: tzinfo, week: int) -> tuple[_Step, ...]:
    """The stretches of constant offset of a clock in one week."""
    told = [(second, _offset(clock, instant)) for second, instant in _marks(week)]
    changes = [_change(clock, *pair) for pair in pairwise(told) if pair[0][1] != pair[1][1]]
    if not changes:
        return ((told[0][0], told[-1][0], told[0][1]),)
    bounds = (told[0][0], *changes, told[-1][0])
    return tuple((early, late, _offset(clock, _instant(early))) for early, late in pairwise(bounds))


@lru_cache(maxsize=64)
def _marks(week: int) -> tuple[tuple[int, datetime], ...]:
    """Where every clock is looked at in a week: at its ends and in the middle."""
    begins, ends = max(week * _WEEK, _FIRST), min((week + 1) * _WEEK, _LAST)
    return tuple((second, _instant(second)) for second in (*range(begins, ends, _STEP), ends))


def _change(clock: tzinfo, early: tuple[int, int], late: tuple[int, int]) -> int:
    """The first second at which the offset of `early` (second, offset) is kept no more; at `late` another is."""
    seconds = range(early[0] + 1, late[0] + 1)
    return seconds[bisect_left(seconds, True, key=lambda second: _offset(clock, _instant(second)) != early[1])]


def _instant(second: int) -> datetime:
    # Within a day of either end of the calendar no wall time can be told.
    return _EPOCH + timedelta(seconds=min(max(second, _FIRST + _DAY), _LAST - _DAY))


def _offset(clock: tzinfo, instant: datetime) -> int:
    offset = instant.astimezone(clock).utcoffset()
    assert offset is not None
    return offset.days * _DAY + offset.seconds
