"""Timeline: the calling hours of one attempt on the callee's clock, its limits, and its history.

The hours come from `call_windows`, the code that dials. The values contain ids, times and codes, no personal data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import groupby
from types import MappingProxyType
from uuid import UUID

from console.pictures.svg import UTC_NAME, Cell, Moment, TableRows, moment
from scheduler.domain.attempt import AttemptState
from scheduler.domain.call import CallProgress
from scheduler.domain.company import CallTimeInterval
from scheduler.domain.explanation import Block, Explanation, HistoryEntry
from scheduler.domain.schedule import CalleeClock
from scheduler.lifecycle.scheduling import offset_text
from scheduler.timing import call_windows

Span = tuple[datetime, datetime]
_DAYS = 3
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
    clock: CalleeClock
    spans: tuple[Span, ...]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that happened, was planned, or ends something. `kind` is a CSS class and has its own shape."""

    kind: str
    at: datetime
    word: str
    times: int = 1
    until: datetime | None = None
    """The last of `times` equal events."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    attempt_id: UUID
    state: str
    clock: CalleeClock | None
    """The first zone of this clock is the axis. None: the axis is UTC."""
    midnights: tuple[datetime, ...]
    """The starts of the days on that clock, and the end of the last day."""
    changes: tuple[datetime, ...]
    """The instants at which the clock of the axis changes."""
    bands: tuple[Band, ...]
    common: tuple[Span, ...]
    """All zones are open."""
    now: datetime
    edges: tuple[Mark, ...]
    marks: tuple[Mark, ...]
    """In order of time."""
    next_possible: Mark | None
    note: str
    """A sentence about the next possible time."""

    @property
    def begins(self) -> datetime:
        return self.midnights[0]

    @property
    def ends(self) -> datetime:
        return self.midnights[-1]


def timeline_of(explanation: Explanation, hours: CallHours, now: datetime) -> Timeline:
    """Return the timeline of an explained attempt: the day before its next or last event, that day, and the day after.

    `hours.clocks` are those of `scheduling.deciding_clocks`.
    """
    attempt = explanation.attempt
    axis = _axis(hours.clocks)
    midnights = _midnights(axis, _focus(explanation, now))
    begins, ends = midnights[0], midnights[-1]
    return Timeline(
        attempt_id=attempt.id,
        state=attempt.state.value if attempt.reason is None else f"{attempt.state.value}, {attempt.reason.value}",
        clock=axis,
        midnights=midnights,
        changes=() if axis is None else call_windows.clock_changes(axis, begins, ends),
        bands=_bands(hours, begins, ends),
        common=call_windows.openings(hours.clocks, hours.intervals, begins, ends),
        now=now,
        edges=_edges(explanation, hours),
        marks=_marks(explanation),
        next_possible=_next_possible(explanation),
        note=_note(explanation),
    )


def marks_table(timeline: Timeline) -> TableRows:
    """Return every mark and edge in order of time."""
    marks = [*timeline.marks, *timeline.edges, *([timeline.next_possible] if timeline.next_possible else [])]
    rows = tuple(
        (moment(mark.at, timeline.clock), mark.word, "" if mark.until is None else moment(mark.until, timeline.clock))
        for mark in sorted(marks, key=lambda each: each.at)
    )
    return TableRows(caption="Events of the attempt", header=("Time", "Event", "Last time"), rows=rows)


def hours_table(timeline: Timeline) -> TableRows:
    """Return the openings of each zone, and those common to all zones, each on its own clock."""
    rows: list[tuple[Cell, ...]] = [
        (band.name, *_ends(span, band.clock)) for band in timeline.bands for span in band.spans
    ]
    rows += [("all zones open", *_ends(span, timeline.clock)) for span in timeline.common]
    return TableRows(caption="Calling hours", header=("Zone", "Opens", "Closes"), rows=tuple(rows))


def _ends(span: Span, clock: CalleeClock | None) -> tuple[Moment, Moment]:
    return moment(span[0], clock), moment(span[1], clock)


def _axis(clocks: Sequence[CalleeClock]) -> CalleeClock | None:
    """Return the deciding clock reduced to one zone."""
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


def _midnights(axis: CalleeClock | None, focus: datetime) -> tuple[datetime, ...]:
    if axis is None:
        first = focus.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        return tuple(first + timedelta(days=day) for day in range(_DAYS + 1))
    first_day = call_windows.local_times(axis, focus)[0].date() - timedelta(days=1)
    return tuple(
        call_windows.instant_of(axis, datetime.combine(first_day + timedelta(days=day), time()))
        for day in range(_DAYS + 1)
    )


def _bands(hours: CallHours, begins: datetime, ends: datetime) -> tuple[Band, ...]:
    """Return one band for each zone. Zones with equal openings share a band, and the last band combines the others."""
    single = [
        each
        for clock in hours.clocks
        for each in ([clock] if clock.offset is not None else [_one_zone(clock, zone) for zone in clock.zones])
    ]
    by_spans: dict[tuple[Span, ...], list[CalleeClock]] = {}
    for clock in single:
        by_spans.setdefault(call_windows.openings(clock, hours.intervals, begins, ends), []).append(clock)
    bands = [Band(name=_name(clocks), clock=clocks[0], spans=spans) for spans, clocks in by_spans.items()]
    if len(bands) <= _MAX_ZONES:
        return tuple(bands)
    shown = bands[: _MAX_ZONES - 1]
    others = [clock for clocks in list(by_spans.values())[_MAX_ZONES - 1 :] for clock in clocks]
    spans = call_windows.openings(others, hours.intervals, begins, ends)
    return (*shown, Band(name=f"{len(others)} more zones, all open", clock=others[0], spans=spans))


def _name(clocks: Sequence[CalleeClock]) -> str:
    first = clock_text(clocks[0])
    return first if len(clocks) == 1 else f"{first} and {len(clocks) - 1} more"


def clock_text(clock: CalleeClock | None) -> str:
    """Return the first zone of the clock, or its offset."""
    if clock is None:
        return UTC_NAME
    return f"UTC{offset_text(clock.offset)}" if clock.offset is not None else clock.zones[0]


def _edges(explanation: Explanation, hours: CallHours) -> tuple[Mark, ...]:
    edges = [Mark(kind="expiry", at=explanation.attempt.expires_at, word="attempt expires")]
    if hours.clocks and hours.consent_until < _LAST_MONTH:
        midnight = datetime.combine(hours.consent_until + timedelta(days=1), time())
        singles = [
            each if each.offset is not None else _one_zone(each, zone)
            for each in hours.clocks
            for zone in each.zones or ("",)
        ]
        ends = min(call_windows.instant_of(each, midnight) for each in singles)
        edges.append(Mark(kind="consent", at=ends, word="consent ends"))
    return tuple(edges)


_ASKED, _DUE, _MOVED, _BACK, _CARRIER = "asked", "due", "moved", "back", "carrier"
_ENDED, _COMPLETED = "ended", "completed"
_WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "created": (_ASKED, "asked for"),
        "created_as_test": (_ASKED, "asked for as a test"),
        "rescheduled": (_MOVED, "moved by a client"),
        "moved_by_settings": (_MOVED, "moved by settings"),
        "expiry_moved": (_MOVED, "expiry moved"),
        "claimed": ("claimed", "claimed"),
        "deferred": (_BACK, "put back"),
        "not_placed": (_BACK, "not placed"),
        "never_dialled": (_BACK, "never dialled"),
        "placed": (_CARRIER, "placed at the carrier"),
        "progressed": (_CARRIER, "progressed"),
        "answer_lost": (_CARRIER, "answer lost"),
        "leg_seen": (_CARRIER, "call found"),
        "hang_up_wanted": (_CARRIER, "hang-up wanted"),
        "ended": (_ENDED, "ended"),
        "proven": (_ENDED, "proven"),
        "proof_missing": (_ENDED, "outcome unknown"),
        "expired": (_ENDED, "expired"),
        "consent_ended": (_ENDED, "consent ended"),
        "cancelled": (_ENDED, "cancelled"),
        "deleted": (_ENDED, "deleted from lists"),
    }
)
"""Kind and word of each event. Another event is shown by its own name."""


def _marks(explanation: Explanation) -> tuple[Mark, ...]:
    attempt = explanation.attempt
    marks = [
        Mark(kind=kind, at=times[0], word=word, times=len(times), until=times[-1] if len(times) > 1 else None)
        for (kind, word), entries in groupby(explanation.happenings, key=_kind_and_word)
        for times in [[each.at for each in entries]]
    ]
    marks.append(Mark(kind=_DUE, at=attempt.due_at, word="due"))
    if attempt.released_until is not None:
        marks.append(Mark(kind="released", at=attempt.released_until, word="released until"))
    return tuple(sorted(marks, key=lambda mark: (mark.at, mark.kind != _DUE)))


def _kind_and_word(entry: HistoryEntry) -> tuple[str, str]:
    kind, word = _WORDS.get(entry.event, (_CARRIER, entry.event.replace("_", " ")))
    rank = entry.detail.get("rank")
    if entry.event == "progressed" and rank is not None:
        word = CallProgress(rank).name.lower()
        kind = "ringing" if rank == CallProgress.RINGING else kind
    if kind == _ENDED and entry.to_state == AttemptState.COMPLETED.value:
        kind = _COMPLETED
    is_new = entry.reason is not None and entry.from_state != entry.to_state
    return kind, f"{word}: {entry.reason}" if is_new and entry.reason != word.upper().replace(" ", "_") else word


def _next_possible(explanation: Explanation) -> Mark | None:
    at = explanation.next_possible_at
    if at is None:
        return None
    rule = _deciding(explanation.blocks, at)
    return Mark(kind="next", at=at, word="may ring" if rule is None else f"may ring, after {rule.rule.value}")


def _deciding(blocks: Sequence[Block], at: datetime) -> Block | None:
    """Return the block that ends last before the next possible time: of several, the one that is checked last."""
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
