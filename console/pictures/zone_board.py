"""Zone board: a row for each callee's clock for which a call waits, by offset, with the open hours of a day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import groupby

from console.pictures.bars import BarPart, Span, times
from console.pictures.timeline import clock_text, hours_text
from scheduler.domain.company import CallTimeInterval
from scheduler.domain.schedule import CalleeClock
from scheduler.lifecycle.scheduling import offset_text
from scheduler.timing import call_windows
from scheduler.timing.spans import span_text

_STRIP = timedelta(hours=24)
_SOON = timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True)
class WaitingCalls:
    """Calls that wait, with the same clock and the same calling hours."""

    clock: CalleeClock
    intervals: tuple[CallTimeInterval, ...]
    calls: int


class Openness(Enum):
    OPEN = "open"
    CLOSES_SOON = "closes"
    CLOSED = "opens"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class ZoneRow:
    clock: CalleeClock
    name: str
    at: datetime
    local_time: str
    """The time in the first zone and, if it differs, in the last one."""
    openness: Openness
    """The CSS class is its value. `words` has the same meaning."""
    words: str
    changes_at: datetime | None
    """The closing of an open zone, or the opening of a closed one."""
    waiting: int
    open_for: int
    """The calls of `waiting` whose company is open there now."""
    for_some: tuple[Span, ...]
    """The next 24 hours in which a company with waiting calls is open there."""
    for_all: tuple[Span, ...]
    """The next 24 hours in which every company with waiting calls is open there."""

    @property
    def hours(self) -> tuple[str, ...]:
        """The open hours on this clock, as words."""
        return tuple(hours_text(self.clock, span) for span in self.for_some)

    @property
    def hours_of_all(self) -> tuple[str, ...]:
        """The hours in which every company may call, as words."""
        return tuple(hours_text(self.clock, span) for span in self.for_all)

    @property
    def bar(self) -> list[BarPart]:
        """The next 24 hours: low parts are open for some companies, full ones for all."""
        day = (self.at, self.at + _STRIP)
        return times("some", self.for_some, day) + times("open", self.for_all, day)


def zone_board(waiting: Sequence[WaitingCalls], now: datetime) -> tuple[ZoneRow, ...]:
    """List a row for each clock, by offset from west to east and by name. A clock may have several zones."""
    by_clock = sorted(
        (each for each in waiting if each.calls and _is_known(each.clock)), key=lambda each: _key(each, now)
    )
    return tuple(_row(list(calls), now) for _, calls in groupby(by_clock, key=lambda each: _key(each, now)))


def _key(waiting: WaitingCalls, now: datetime) -> tuple[timedelta, str, tuple[str, ...]]:
    return min(call_windows.utc_offsets(waiting.clock, now)), clock_text(waiting.clock), waiting.clock.zones


def _is_known(clock: CalleeClock) -> bool:
    return clock.offset is not None or bool(clock.zones)


def _row(waiting: Sequence[WaitingCalls], now: datetime) -> ZoneRow:
    clock = waiting[0].clock
    every = [call_windows.openings(clock, each.intervals, now, now + _STRIP) for each in waiting]
    for_some = _united(every)
    changes_at, openness = _next_change(waiting, now, for_some)
    return ZoneRow(
        clock=clock,
        name=clock_text(clock) if len(clock.zones) <= 1 else f"{clock.zones[0]} and {len(clock.zones) - 1} more",
        at=now,
        local_time=_local(clock, now),
        openness=openness,
        words=_words(clock, openness, changes_at, now),
        changes_at=changes_at,
        waiting=sum(each.calls for each in waiting),
        open_for=sum(each.calls for each in waiting if call_windows.is_open(clock, each.intervals, now)),
        for_some=for_some,
        for_all=_intersected(every),
    )


def _next_change(
    waiting: Sequence[WaitingCalls], now: datetime, for_some: Sequence[Span]
) -> tuple[datetime | None, Openness]:
    """Find the next instant at which the zone opens for a first company, or closes for the last one."""
    clock = waiting[0].clock
    if for_some and for_some[0][0] == now:
        closes = for_some[0][1]
        if closes == now + _STRIP:
            return None, Openness.OPEN
        return closes, Openness.CLOSES_SOON if closes - now <= _SOON else Openness.OPEN
    opens = [
        opening
        for each in waiting
        if (opening := call_windows.next_open(clock, each.intervals, now, room=timedelta(0))) is not None
    ]
    return (min(opens), Openness.CLOSED) if opens else (None, Openness.NEVER)


def _words(clock: CalleeClock, openness: Openness, changes_at: datetime | None, now: datetime) -> str:
    if openness is Openness.NEVER:
        return "closed for the next 35 days"
    if changes_at is None:
        return "open for 24 hours or more"
    local = call_windows.local_times(clock, changes_at)[0]
    if openness is Openness.OPEN:
        return f"open until {local:%H:%M}"
    if openness is Openness.CLOSES_SOON:
        return f"closes in {span_text(changes_at - now)}"
    is_today = local.date() == call_windows.local_times(clock, now)[0].date()
    return f"opens at {local:%H:%M}" if is_today else f"opens on {local:%a at %H:%M}"


def _local(clock: CalleeClock, now: datetime) -> str:
    times = sorted(zip(call_windows.local_times(clock, now), call_windows.utc_offsets(clock, now), strict=True))
    texts = dict.fromkeys(f"{local:%a %H:%M} (UTC{offset_text(offset)})" for local, offset in times)
    first, last = next(iter(texts)), next(reversed(texts))
    return first if first == last else f"{first} to {last}"


def _united(every: Sequence[Sequence[Span]]) -> tuple[Span, ...]:
    united: list[Span] = []
    for opens, closes in sorted(span for spans in every for span in spans):
        if united and opens <= united[-1][1]:
            united[-1] = (united[-1][0], max(united[-1][1], closes))
        else:
            united.append((opens, closes))
    return tuple(united)


def _intersected(every: Sequence[Sequence[Span]]) -> tuple[Span, ...]:
    common = list(every[0])
    for spans in every[1:]:
        pairs = [(max(a, c), min(b, d)) for a, b in common for c, d in spans]
        common = [(opens, closes) for opens, closes in pairs if opens < closes]
    return tuple(common)
