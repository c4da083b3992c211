"""Pictures of the calendar: calls that become due by company and quarter, and the open hours of each clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from itertools import groupby
from uuid import UUID

from console.timeline import BarPart, Span, amounts, clock_text, hours_text, times
from scheduler.domain.call import CalleeClock
from scheduler.domain.company import CallTimeInterval
from scheduler.lifecycle.forecast import Starts
from scheduler.timing import call_windows
from scheduler.timing.time_texts import offset_text, span_text

# --- Calls that become due in each quarter of the next 24 hours, by company, and the calls that can start


QUARTER = timedelta(minutes=15)
QUARTERS = 96
MAX_COMPANIES = 20
"""Companies with a column of their own. The others are summed."""
_A_MOMENT = timedelta(seconds=2)
"""Less is the estimate of due times within a quarter hour."""


@dataclass(frozen=True, kw_only=True)
class CompanyDue:
    """A column: the calls of one company by quarter hour."""

    name: str
    calls: tuple[int, ...]
    company_id: UUID | None = None
    """None for the sum of several companies."""

    @property
    def total(self) -> int:
        return sum(self.calls)

    @property
    def most(self) -> int:
        return max(self.calls)


@dataclass(frozen=True, kw_only=True)
class DueQuarters:
    begins: datetime
    """Aware UTC, the start of the first quarter hour."""
    companies: tuple[CompanyDue, ...]
    """The ones with the most calls, and the rest in one column."""
    every: CompanyDue
    """All companies together."""
    by_pace: float
    """The calls that the pace can start in a quarter hour."""
    by_places: float | None
    """The calls for which there are places in a quarter hour. None if the duration of calls is unknown."""

    @property
    def capacity(self) -> float:
        return self.by_pace if self.by_places is None else min(self.by_pace, self.by_places)

    def at(self, quarter: int) -> datetime:
        return self.begins + quarter * QUARTER

    def bar(self, quarter: int) -> list[BarPart]:
        """Compare the calls of a quarter hour with the fullest one. The part that cannot start is `over`."""
        calls = self.every.calls[quarter]
        within = min(float(calls), self.capacity)
        return amounts(self.every.most, ("due", within), ("over", calls - within))

    def bar_of(self, company: CompanyDue, quarter: int) -> list[BarPart]:
        """Compare the calls of one company with the fullest quarter hour of any company."""
        return amounts(max(each.most for each in self.companies), ("due", company.calls[quarter]))


def due_quarters(
    companies: Sequence[CompanyDue],
    begins: datetime,
    *,
    calls_per_second: float,
    concurrent_calls: int,
    call_lasts: timedelta | None,
) -> DueQuarters:
    """Count the calls of the 96 quarter hours from `begins` on.

    `calls_per_second` and `concurrent_calls` are the limits of these companies together. `call_lasts` is the mean
    duration of a call.
    """
    ranked = sorted((each for each in companies if each.total), key=lambda each: (-each.total, each.name))
    columns, rest = ranked[:MAX_COMPANIES], ranked[MAX_COMPANIES:]
    if rest:
        columns.append(_sum(f"the rest ({len(rest)} companies)", rest))
    return DueQuarters(
        begins=begins,
        companies=tuple(columns),
        every=_sum("All", ranked),
        by_pace=calls_per_second * QUARTER.total_seconds(),
        by_places=None if call_lasts is None else concurrent_calls * (QUARTER / call_lasts),
    )


def _sum(name: str, companies: Sequence[CompanyDue]) -> CompanyDue:
    return CompanyDue(name=name, calls=tuple(sum(each.calls[at] for each in companies) for at in range(QUARTERS)))


def forecast_text(starts: Starts) -> str:
    """Describe the forecast in one or two sentences."""
    if not starts.calls:
        return "No call is due."
    calls = "The only call" if starts.calls == 1 else f"The last of {starts.calls:,} calls"
    late = starts.last_is_late_by
    if starts.last_start_at is None:
        first = "No call starts before its calling hours end."
    elif late < _A_MOMENT:
        first = f"{calls} starts on time."
    else:
        first = f"{calls} starts {span_text(late)} late."
    if starts.latest_by >= late + timedelta(minutes=1):
        first = f"{first[:-1]}, the latest one {span_text(starts.latest_by)} late."
    past = starts.past_closing
    if not past:
        return f"{first} None has to wait for the next opening of its calling hours."
    have, their = ("has", "its") if past == 1 else ("have", "their")
    return f"{first} {past:,} {have} to wait for the next opening of {their} calling hours."


# --- Zone board
# a row for each callee's clock for which a call waits, by offset, with the open hours of a day.


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
