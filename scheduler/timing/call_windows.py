"""Call windows: when a person may be called."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache, reduce
from itertools import pairwise

from scheduler.domain.call import CalleeClock
from scheduler.domain.company import CallTimeInterval
from scheduler.domain.refusals import TimezoneAmbiguous, TimezoneUnknown
from scheduler.timing import zone_names
from scheduler.timing.requested_time import RequestedTime

Clocks = CalleeClock | Sequence[CalleeClock]
"""One clock, or several that must all be open. The intervals apply to each."""

SEARCHED = timedelta(days=35)
"""The span of the search for the next opening.

Calls are scheduled at most 30 days ahead. Intervals repeat weekly, so only a clock change can remove an opening: even
if three zones change in three consecutive weeks, two weeks remain. Zones whose hours overlap only in another season
have no opening.
"""


def is_open(
    clocks: Clocks,
    intervals: Sequence[CallTimeInterval],
    instant: datetime,
    *,
    room: timedelta = timedelta(0),
) -> bool:
    """Return whether a person may be called from `instant` (aware UTC) until `room` later, both ends included.

    Every zone of every clock must be open all that time. An unknown zone is never open, nor is an empty list of clocks.
    """
    return next_open(clocks, intervals, instant, room=room) == instant


def next_open(
    clocks: Clocks,
    intervals: Sequence[CallTimeInterval],
    instant: datetime,
    *,
    room: timedelta,
) -> datetime | None:
    """Find the first instant from `instant` (aware UTC) on at which `is_open` holds, or None within SEARCHED.

    Openings not longer than `room` (at most a week) are skipped.
    """
    opens = closes = instant
    for span_opens, span_closes in _openings_after(clocks, intervals, instant):
        if span_opens > closes:  # does not touch the previous one, unlike two spans at the end of a week
            opens = span_opens
        closes = span_closes
        if opens - instant > SEARCHED:
            return None
        if closes - opens > room:
            return opens
    return None


def closes_at(clocks: Clocks, intervals: Sequence[CallTimeInterval], instant: datetime) -> datetime:
    """Find the end of the opening that contains `instant` (aware UTC), or `instant` if there is no such opening."""
    closes = instant
    for span_opens, span_closes in _openings_after(clocks, intervals, instant):
        if span_opens > closes:
            break
        closes = span_closes
    return closes


def openings(
    clocks: Clocks, intervals: Sequence[CallTimeInterval], begins: datetime, ends: datetime
) -> tuple[tuple[datetime, datetime], ...]:
    """List the openings between two instants (aware UTC, at most SEARCHED apart) in order, cut at both.

    Openings are half-open and do not touch. Empty for an unknown zone.
    """
    found: list[tuple[datetime, datetime]] = []
    for span_opens, span_closes in _openings_after(clocks, intervals, begins):
        if span_opens >= ends:
            break
        opens, closes = max(span_opens, begins), min(span_closes, ends)
        if found and found[-1][1] == opens:  # one opening that was cut at the end of a week or of summer time
            opens = found.pop()[0]
        found.append((opens, closes))
    return tuple(found)


def common_minutes(
    clocks: Clocks,
    intervals: Sequence[CallTimeInterval],
    instant: datetime,
    *,
    days: int = 7,
    enough: timedelta = SEARCHED,
) -> timedelta:
    """Measure how long all clocks are open together in the `days` (at most 35) after `instant` (aware UTC).

    Counting stops when the sum reaches `enough`.
    """
    searched = timedelta(days=days)
    spans = (
        (max(opens - instant, timedelta()), min(closes - instant, searched))
        for opens, closes in _openings_after(clocks, intervals, instant)
    )
    total = timedelta()
    for opens, closes in spans:
        if opens >= searched or total >= enough:
            break
        total += closes - opens
    return total


def local_times(clock: CalleeClock, instant: datetime) -> tuple[datetime, ...]:
    """Compute the naive local times at that instant, one per zone in order, or one for the offset."""
    return tuple(instant.astimezone(zone).replace(tzinfo=None) for zone in _clocks(clock))


def utc_offsets(clock: CalleeClock, instant: datetime) -> tuple[timedelta, ...]:
    """Compute the UTC offsets at that instant, in the order of `local_times`."""
    utc = instant.astimezone(UTC).replace(tzinfo=None)
    return tuple(local - utc for local in local_times(clock, instant))


def clock_changes(clock: CalleeClock, begins: datetime, ends: datetime) -> tuple[datetime, ...]:
    """List the instants after `begins` and up to `ends` (both aware UTC) at which a zone of the clock changes.

    Raises TimezoneUnknown if the clock has no zone.
    """
    weeks = range((begins - _EPOCH) // timedelta(seconds=_WEEK) - 1, (ends - _EPOCH) // timedelta(seconds=_WEEK) + 1)
    steps = [[step for week in weeks for step in _steps(zone, week)] for zone in set(_clocks(clock))]
    starts = {late[0] for of_one in steps for early, late in pairwise(of_one) if early[2] != late[2]}
    changes = (_EPOCH + timedelta(seconds=second) for second in sorted(starts))
    return tuple(change for change in changes if begins < change <= ends)


def instant_of(clock: CalleeClock, wall: datetime) -> datetime:
    """Find the instant (aware UTC) at which the clock shows `wall` (naive).

    A skipped time moves forward by the length of the gap (02:30 becomes 03:30). A repeated time means the first
    occurrence (F2-10). Raises TimezoneAmbiguous if the clock's zones give different instants, and TimezoneUnknown if it
    has no zone.
    """
    instants = {wall.replace(tzinfo=zone, fold=0).astimezone(UTC) for zone in _clocks(clock)}
    if len(instants) > 1:
        raise TimezoneAmbiguous(zones=list(clock.zones), localTime=wall.isoformat())
    return instants.pop()


def resolve(requested: RequestedTime, clock: CalleeClock) -> datetime:
    """Resolve the requested instant (aware UTC). A text without an offset means wall time on `clock`."""
    if requested.is_instant:
        return requested.wall.replace(tzinfo=UTC)
    if requested.offset is not None:
        return requested.wall.replace(tzinfo=UTC) - requested.offset
    return instant_of(clock, requested.wall)


# From here on time is counted in whole seconds since 1970, in half-open spans (opens, closes).

_Span = tuple[int, int]
_Step = tuple[int, int, int]
"""Start, end, and the constant UTC offset of a clock between them."""

_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _SECOND
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // _SECOND
_DAY = 86_400
_WEEK = 7 * _DAY
_MONDAY = -3 * _DAY
"""The first of January 1970 was a Thursday."""

_STEP = _WEEK // 2
"""No clock has changed twice within 167 hours since 1970, as a test verifies for all zone data."""

_WEEKS = 7
"""The week of the instant, five searched weeks, and one for `room`."""


def _clocks(clock: CalleeClock) -> tuple[tzinfo, ...]:
    if clock.offset is not None:
        return (timezone(clock.offset),)
    if not clock.zones:  # an empty set of zones must not count as open
        raise TimezoneUnknown
    return tuple(zone_names.zone(name) for name in clock.zones)


def _openings_after(
    clocks: Clocks, intervals: Sequence[CallTimeInterval], instant: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the openings that close after `instant`, cut at the starts of weeks. An unknown zone has no openings.

    Weeks are computed on demand, because the next opening is usually in the first one.
    """
    callee_clocks = (clocks,) if isinstance(clocks, CalleeClock) else clocks
    try:
        zones = tuple(zone for clock in callee_clocks for zone in _clocks(clock))
    except TimezoneUnknown:
        return
    if not zones:
        return
    hours = tuple(intervals)
    first = (instant - _EPOCH) // timedelta(seconds=_WEEK)
    for week in range(first, first + _WEEKS):
        yield from (span for span in _common_openings(zones, hours, week) if span[1] > instant)


# Only data that many callees share is cached: a week of a clock, and a week of clocks with the same hours. Zones with
# the same time in a week have equal steps and are evaluated once.


@lru_cache(maxsize=2048)
def _common_openings(
    clocks: tuple[tzinfo, ...], intervals: tuple[CallTimeInterval, ...], week: int
) -> tuple[tuple[datetime, datetime], ...]:
    weekly = _weekly(intervals)
    common = reduce(_in_both, (_openings(steps, weekly) for steps in {_steps(clock, week) for clock in set(clocks)}))
    return tuple((_EPOCH + timedelta(seconds=opens), _EPOCH + timedelta(seconds=closes)) for opens, closes in common)


@lru_cache(maxsize=512)
def _weekly(intervals: tuple[CallTimeInterval, ...]) -> tuple[_Span, ...]:
    """Compute the hours of one week as disjoint, sorted spans in seconds from Monday's midnight.

    The part of Sunday night after midnight is moved to Monday.
    """
    spans = [
        (day * _DAY + interval.start // _SECOND, day * _DAY + interval.end // _SECOND)
        for interval in intervals
        for day in interval.days
    ]
    over = [(0, closes - _WEEK) for _, closes in spans if closes > _WEEK]
    return tuple(_merged([*over, *((opens, min(closes, _WEEK)) for opens, closes in spans)]))


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    """Sort the spans and merge those that touch or overlap."""
    merged: list[_Span] = []
    for opens, closes in sorted(spans):
        if merged and opens <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], closes))
        else:
            merged.append((opens, closes))
    return merged


def _openings(steps: tuple[_Step, ...], weekly: tuple[_Span, ...]) -> list[_Span]:
    """Find the spans in which one clock shows a time within the hours.

    A repeated hour is open twice, and a skipped one never, because each step of constant offset is evaluated by itself.
    """
    openings = []
    for begins, ends, offset in steps:
        first, last = ((second + offset - _MONDAY) // _WEEK for second in (begins, ends))
        for week in range(first, last + 1):
            midnight = _MONDAY + week * _WEEK - offset  # local midnight of Monday
            for starts, stops in weekly:
                opens, closes = midnight + starts, midnight + stops
                if opens < ends and closes > begins:
                    openings.append((max(opens, begins), min(closes, ends)))
    return openings


def _in_both(first: list[_Span], second: list[_Span]) -> list[_Span]:
    common = []
    left = right = 0
    while left < len(first) and right < len(second):
        opens = max(first[left][0], second[right][0])
        closes = min(first[left][1], second[right][1])
        if opens < closes:
            common.append((opens, closes))
        if first[left][1] < second[right][1]:
            left += 1
        else:
            right += 1
    return common


@lru_cache(maxsize=4096)
def _steps(clock: tzinfo, week: int) -> tuple[_Step, ...]:
    """List the spans of constant offset of a clock in one week."""
    offsets = [(second, _offset(clock, instant)) for second, instant in _marks(week)]
    changes = [_change(clock, *pair) for pair in pairwise(offsets) if pair[0][1] != pair[1][1]]
    if not changes:
        return ((offsets[0][0], offsets[-1][0], offsets[0][1]),)
    bounds = (offsets[0][0], *changes, offsets[-1][0])
    return tuple((early, late, _offset(clock, _instant(early))) for early, late in pairwise(bounds))


@lru_cache(maxsize=64)
def _marks(week: int) -> tuple[tuple[int, datetime], ...]:
    """List the seconds at which offsets are read in a week: both ends and the middle."""
    begins, ends = max(week * _WEEK, _FIRST), min((week + 1) * _WEEK, _LAST)
    return tuple((second, _instant(second)) for second in (*range(begins, ends, _STEP), ends))


def _change(clock: tzinfo, early: tuple[int, int], late: tuple[int, int]) -> int:
    """Find the first second with another offset than at `early` (second, offset). At `late` the offset differs."""
    seconds = range(early[0] + 1, late[0] + 1)
    return seconds[bisect_left(seconds, True, key=lambda second: _offset(clock, _instant(second)) != early[1])]


def _instant(second: int) -> datetime:
    # Within a day of either end of the calendar a wall time cannot be computed.
    return _EPOCH + timedelta(seconds=min(max(second, _FIRST + _DAY), _LAST - _DAY))


def _offset(clock: tzinfo, instant: datetime) -> int:
    offset = instant.astimezone(clock).utcoffset()
    assert offset is not None
    return offset.days * _DAY + offset.seconds
