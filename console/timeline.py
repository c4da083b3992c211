"""Timeline: the calling hours of one attempt on the callee's clock, its limits, and the events of its history.

The hours come from `call_windows`, the code that dials. The values contain ids, times and codes, no personal data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from types import MappingProxyType

from scheduler.domain.attempt import AttemptState
from scheduler.domain.call import CalleeClock, CallProgress
from scheduler.domain.company import CallTimeInterval
from scheduler.domain.explanation import Block, Explanation, HistoryEntry
from scheduler.timing import call_windows
from scheduler.timing.time_texts import offset_text

# --- Bars of tables: coloured parts of a strip, as shares of its width in percent. The macro `bar` draws them


Span = tuple[datetime, datetime]
_LEAST = 0.8
"""The width of a part that is visible in a narrow column."""


@dataclass(frozen=True, kw_only=True)
class BarPart:
    kind: str
    """Its CSS class."""
    left: float
    width: float


def amounts(whole: float, *parts: tuple[str, float]) -> list[BarPart]:
    """Lay the parts of a bar one after the other. `whole` is the amount that fills the bar."""
    bar: list[BarPart] = []
    left = 0.0
    for kind, amount in parts:
        if amount > 0:
            width = min(max(100 * amount / whole, _LEAST), 100 - left)
            bar.append(BarPart(kind=kind, left=left, width=width))
            left += width
    return bar


def times(kind: str, spans: Sequence[Span], within: Span) -> list[BarPart]:
    """Lay a part for each span at its place `within` the time of the whole bar."""
    begins, ends = within

    def share(at: datetime) -> float:
        return 100 * min(max((at - begins) / (ends - begins), 0.0), 1.0)

    return [
        BarPart(kind=kind, left=share(first), width=max(share(last) - share(first), _LEAST))
        for first, last in spans
        if first <= ends and last >= begins
    ]


# --- Timeline of one attempt: calling hours on the callee's clock, limits, and the events of its history


_DAYS = timedelta(days=3)
_MAX_ZONES = 6
"""More bands would not fit a page. The others are combined into one."""
_LAST_MONTH = date(9999, 12, 1)
"""Consent until this month has no end that could be computed, and means "never"."""


@dataclass(frozen=True, kw_only=True)
class CallHours:
    """The hours that decide about one attempt. `clocks` is empty if the callee's time zone is unknown."""

    clocks: tuple[CalleeClock, ...]
    intervals: tuple[CallTimeInterval, ...]
    consent_until: date


@dataclass(frozen=True, kw_only=True)
class Band:
    """Openings in one zone, or in zones with equal openings."""

    name: str
    clock: CalleeClock | None
    spans: tuple[Span, ...]

    @property
    def hours(self) -> tuple[str, ...]:
        """The openings on the clock of the band, as words."""
        return tuple(hours_text(self.clock, span) for span in self.spans)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that happened, was planned, or ends something."""

    at: datetime
    word: str
    times: int = 1
    until: datetime | None = None
    """The last of `times` equal events."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    clock: CalleeClock | None
    """The days begin by the first zone of this clock. None: by UTC."""
    days: Span
    """Three days, from midnight to midnight."""
    bands: tuple[Band, ...]
    """A band for each zone and, if there are several, one of the hours in which all are open."""
    now: datetime
    edges: tuple[Mark, ...]
    """No call is made after the first one."""
    marks: tuple[Mark, ...]
    """All events in order of time, with the edges and the next possible time."""
    next_possible: Mark | None
    note: str
    """A sentence about the next possible time."""

    @property
    def days_text(self) -> str:
        first, last = (wall_time(self.clock, at) for at in (self.days[0], self.days[1] - timedelta(seconds=1)))
        return f"{first:%a %Y-%m-%d} to {last:%a %Y-%m-%d} on the clock of {clock_text(self.clock)}"

    def bar(self, band: Band) -> list[BarPart]:
        """Draw the open hours, the time after which no call is made, the next possible time, and now."""
        late = [(min(edge.at for edge in self.edges), self.days[1])]
        following = [] if self.next_possible is None else [(self.next_possible.at,) * 2]
        return [
            *times("open", band.spans, self.days),
            *times("after", late, self.days),
            *times("next", following, self.days),
            *times("now", [(self.now, self.now)], self.days),
        ]


def timeline_of(explanation: Explanation, hours: CallHours, now: datetime) -> Timeline:
    """Draw the timeline of an explained attempt: the day before its next or last event, that day, and the day after.

    `hours.clocks` are those of `scheduling.deciding_clocks`.
    """
    axis = _axis(hours.clocks)
    days = _days(axis, _focus(explanation, now))
    edges, next_possible = _edges(explanation, hours), _next_possible(explanation)
    more = [*edges, *_clock_changes(axis, days), *([] if next_possible is None else [next_possible])]
    return Timeline(
        clock=axis,
        days=days,
        bands=_bands(hours, axis, days),
        now=now,
        edges=edges,
        marks=tuple(sorted([*_marks(explanation), *more], key=lambda mark: (mark.at, mark.word != _DUE))),
        next_possible=next_possible,
        note=_note(explanation),
    )


def wall_time(clock: CalleeClock | None, at: datetime) -> datetime:
    """Read the time in the first zone of the clock, or in UTC without a clock."""
    return at.astimezone(UTC).replace(tzinfo=None) if clock is None else call_windows.local_times(clock, at)[0]


def hours_text(clock: CalleeClock | None, span: Span) -> str:
    """Format a span within a few days on this clock, for example "Fri 08:00 to 20:00"."""
    opens, closes = (wall_time(clock, at) for at in span)
    day = "" if opens.date() == closes.date() else f"{closes:%a} "
    return f"{opens:%a %H:%M} to {day}{closes:%H:%M}"


def _axis(clocks: Sequence[CalleeClock]) -> CalleeClock | None:
    """Reduce the deciding clock to one zone."""
    if not clocks:
        return None
    return _one_zone(clocks[0], clocks[0].zones[0]) if clocks[0].zones else clocks[0]


def _one_zone(clock: CalleeClock, zone: str) -> CalleeClock:
    return CalleeClock(source=clock.source, zones=(zone,))


def _focus(explanation: Explanation, now: datetime) -> datetime:
    attempt = explanation.attempt
    if attempt.state is AttemptState.PENDING:
        return explanation.next_possible_at or max(attempt.due_at, now)
    return attempt.ended_at or attempt.updated_at


def _days(axis: CalleeClock | None, focus: datetime) -> Span:
    def instant(wall: datetime) -> datetime:
        return wall.replace(tzinfo=UTC) if axis is None else call_windows.instant_of(axis, wall)

    first = datetime.combine(wall_time(axis, focus).date(), time()) - timedelta(days=1)
    return instant(first), instant(first + _DAYS)


def _clock_changes(axis: CalleeClock | None, days: Span) -> list[Mark]:
    """Mark each change of the axis. Its day is longer or shorter."""
    marks = []
    for at in () if axis is None else call_windows.clock_changes(axis, *days):
        before = wall_time(axis, at - timedelta(seconds=1)) + timedelta(seconds=1)
        marks.append(Mark(at=at, word=f"clock moves from {before:%H:%M} to {wall_time(axis, at):%H:%M}"))
    return marks


def _bands(hours: CallHours, axis: CalleeClock | None, days: Span) -> tuple[Band, ...]:
    """Draw one band for each zone. Zones with equal openings share a band, and the sixth band combines the others."""
    single = [
        each
        for clock in hours.clocks
        for each in ([clock] if clock.offset is not None else [_one_zone(clock, zone) for zone in clock.zones])
    ]
    by_spans: dict[tuple[Span, ...], list[CalleeClock]] = {}
    for clock in single:
        by_spans.setdefault(call_windows.openings(clock, hours.intervals, *days), []).append(clock)
    bands = [Band(name=_name(clocks), clock=clocks[0], spans=spans) for spans, clocks in by_spans.items()]
    if len(bands) > _MAX_ZONES:
        others = [clock for clocks in list(by_spans.values())[_MAX_ZONES - 1 :] for clock in clocks]
        spans = call_windows.openings(others, hours.intervals, *days)
        bands[_MAX_ZONES - 1 :] = [Band(name=f"{len(others)} more zones, all open", clock=others[0], spans=spans)]
    if len(bands) > 1:
        spans = call_windows.openings(hours.clocks, hours.intervals, *days)
        bands.append(Band(name="all zones open", clock=axis, spans=spans))
    return tuple(bands)


def _name(clocks: Sequence[CalleeClock]) -> str:
    first = clock_text(clocks[0])
    return first if len(clocks) == 1 else f"{first} and {len(clocks) - 1} more"


def clock_text(clock: CalleeClock | None) -> str:
    """Name the first zone of the clock, or its offset."""
    if clock is None:
        return "UTC"
    return f"UTC{offset_text(clock.offset)}" if clock.offset is not None else clock.zones[0]


def _edges(explanation: Explanation, hours: CallHours) -> tuple[Mark, ...]:
    edges = [Mark(at=explanation.attempt.expires_at, word="attempt expires")]
    if hours.clocks and hours.consent_until < _LAST_MONTH:
        midnight = datetime.combine(hours.consent_until + timedelta(days=1), time())
        singles = [
            each if each.offset is not None else _one_zone(each, zone)
            for each in hours.clocks
            for zone in each.zones or ("",)
        ]
        ends = min(call_windows.instant_of(each, midnight) for each in singles)
        edges.append(Mark(at=ends, word="consent ends"))
    return tuple(edges)


_DUE = "due"
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "created": "asked for",
        "created_as_test": "asked for as a test",
        "rescheduled": "moved by a client",
        "moved_by_settings": "moved by settings",
        "deferred": "put back",
        "placed": "placed at the carrier",
        "leg_seen": "call found",
        "hang_up_wanted": "hang-up wanted",
        "proof_missing": "outcome unknown",
        "deleted": "deleted from lists",
    }
)
"""Words of events. Another event is shown by its own name."""


def _marks(explanation: Explanation) -> list[Mark]:
    attempt = explanation.attempt
    marks = [
        Mark(at=all_at[0], word=word, times=len(all_at), until=all_at[-1] if len(all_at) > 1 else None)
        for word, entries in groupby(explanation.happenings, key=_word)
        for all_at in [[each.at for each in entries]]
    ]
    marks.append(Mark(at=attempt.due_at, word=_DUE))
    if attempt.released_until is not None:
        marks.append(Mark(at=attempt.released_until, word="released until"))
    return marks


def _word(entry: HistoryEntry) -> str:
    word = _WORDS.get(entry.event, entry.event.replace("_", " "))
    rank = entry.detail.get("rank")
    if entry.event == "progressed" and rank is not None:
        word = CallProgress(rank).name.lower()
    is_new = entry.reason is not None and entry.from_state != entry.to_state
    return f"{word}: {entry.reason}" if is_new and entry.reason != word.upper().replace(" ", "_") else word


def _next_possible(explanation: Explanation) -> Mark | None:
    at = explanation.next_possible_at
    if at is None:
        return None
    rule = _deciding(explanation.blocks, at)
    return Mark(at=at, word="may ring" if rule is None else f"may ring, after {rule.rule.value}")


def _deciding(blocks: Sequence[Block], at: datetime) -> Block | None:
    """Find the block that ends last before the next possible time: of several, the block that is checked last."""
    timed = [block for block in reversed(blocks) if block.until is not None and block.until <= at]
    return max(timed, key=_until, default=blocks[0] if blocks else None)


def _until(block: Block) -> datetime:
    assert block.until is not None
    return block.until


def _note(explanation: Explanation) -> str:
    if explanation.attempt.state is not AttemptState.PENDING:
        return ""
    if explanation.next_possible_at is not None:
        return "" if explanation.blocks else "No rule blocks the call now. It waits for its turn."
    open_ended = [block.rule.value for block in explanation.blocks if block.until is None]
    if open_ended:
        return f"No next time is known: {', '.join(open_ended)} has no known end."
    return "It never rings: no opening before it expires or the consent ends."
