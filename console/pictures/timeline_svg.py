"""The timeline as SVG: a ruler on the callee's clock, bands, marks with numbers and their list, and a ruler in UTC.

Distances are real time, so the night of a clock change is an hour shorter or longer. Marks that would overlap share one
label with their numbers, and the list below has a line for each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from console.pictures.svg import CHARACTER, Drawing, Layout, fits, number, shortened, wrapped
from console.pictures.timeline import Mark, Span, Timeline, clock_text
from scheduler.domain.schedule import CalleeClock
from scheduler.timing import call_windows

_MAX_LISTED = 14
_LINE = 20.0
_HOUR = timedelta(hours=1)
_DAY = 24 * _HOUR
_BAND = 20.0
_RADIUS = 6.0
_APART = 42.0
"""Marks that are closer share a label."""


@dataclass(frozen=True, kw_only=True)
class _Plot:
    """The part of the picture in which a distance is a time."""

    left: float
    right: float
    begins: datetime
    ends: datetime

    def x(self, at: datetime) -> float:
        share = (at - self.begins) / (self.ends - self.begins)
        return self.left + (self.right - self.left) * min(max(share, 0.0), 1.0)

    def shows(self, at: datetime) -> bool:
        return self.begins <= at <= self.ends


def timeline_svg(timeline: Timeline, layout: Layout, picture_id: str) -> str:
    """Return the picture. The tables of `timeline` contain the same data."""
    drawing = Drawing(
        picture_id=picture_id,
        layout=layout,
        title=f"Timeline of attempt {timeline.attempt_id} on the clock of {clock_text(timeline.clock)}",
        description=_description(timeline),
    )
    left = 190.0 if layout.is_wide else 8.0
    plot = _Plot(left=left, right=drawing.width - 10.0, begins=timeline.begins, ends=timeline.ends)
    top = _day_ruler(drawing, plot, timeline)
    bottom = _bands(drawing, plot, timeline, top + 8)
    numbered = _numbered(timeline)
    _limits(drawing, plot, timeline, top, bottom)
    bottom = _events(drawing, plot, numbered, bottom)
    bottom = _utc_ruler(drawing, plot, bottom)
    bottom = _list(drawing, timeline, numbered, bottom + 26)
    return drawing.text(bottom)


def _description(timeline: Timeline) -> str:
    parts = [f"State {timeline.state}."]
    if timeline.next_possible is not None:
        parts.append(f"{_sentence(timeline.next_possible.word)} at {_local(timeline, timeline.next_possible.at)}.")
    parts += [f"{_sentence(mark.word)} {_local(timeline, mark.at)}." for mark in timeline.edges]
    parts += [timeline.note] if timeline.note else []
    return " ".join([*parts, "The tables below contain the same data."])


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _wall(clock: CalleeClock | None, at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None) if clock is None else call_windows.local_times(clock, at)[0]


def _local(timeline: Timeline, at: datetime) -> str:
    return f"{_wall(timeline.clock, at):%a} {_date(timeline, at)} {_wall(timeline.clock, at):%H:%M:%S}"


def _date(timeline: Timeline, at: datetime) -> str:
    """Return the day, with the year if it is not the present one."""
    day, today = _wall(timeline.clock, at), _wall(timeline.clock, timeline.now)
    return f"{day:%d %b}" if day.year == today.year else f"{day:%d %b %Y}"


def _day_ruler(drawing: Drawing, plot: _Plot, timeline: Timeline) -> float:
    """Draw the days, their length if it is not 24 hours, and the hours. Return the lower edge."""
    _side(drawing, 30, "Callee's clock", clock_text(timeline.clock))
    top = 10.0 if drawing.layout.is_wide else 26.0
    for number_of_day, (begins, ends) in enumerate(pairwise(timeline.midnights)):
        left, right = plot.x(begins), plot.x(ends)
        drawing.rect(f"day day-{number_of_day % 2}", left, right, top, 44)
        length = ends - begins
        name = f"{_wall(timeline.clock, begins):%a} {_date(timeline, begins)}"
        drawing.words(
            "day-name",
            (left + right) / 2,
            top + 16,
            name if length == _DAY else f"{name}, {length / _HOUR:g} h",
            "middle",
        )
        for hour, x in _wall_hours(plot, timeline, begins, ends, 6 if drawing.layout.is_wide else 12):
            drawing.line("tick", x, top + 38, x, top + 44)
            if hour or not number_of_day:
                drawing.words("hour", x, top + 34, f"{hour:02}", "start" if not hour else "middle")
            else:
                drawing.words("hour", x, top + 34, "00", "middle")
    for change in timeline.changes:
        x = plot.x(change)
        before, after = _wall(timeline.clock, change - timedelta(seconds=1)), _wall(timeline.clock, change)
        before += timedelta(seconds=1)
        drawing.line("change", x, top + 22, x, top + 50)
        text = f"{before:%H:%M} → {after:%H:%M}"
        drawing.words("change-text", x, top + 62, text if drawing.layout.is_wide else f"clock {text}", "middle")
    return top + (68.0 if timeline.changes else 50.0)


def _side(drawing: Drawing, y: float, first: str, second: str) -> None:
    """Write the name of a row: at the left of a wide picture, above the row of a narrow one."""
    if drawing.layout.is_wide:
        drawing.words("row-name", 180, y - 6, first, "end")
        drawing.words("row-detail", 180, y + 9, shortened(second, 176), "end")
    else:
        drawing.words("row-name", 8, y - 14, shortened(f"{first}: {second}", drawing.width - 16))


def _wall_hours(
    plot: _Plot, timeline: Timeline, begins: datetime, ends: datetime, every: int
) -> Iterator[tuple[int, float]]:
    """Yield each hour of a day that is a multiple of `every`, and its place."""
    at = begins
    while at < ends:
        wall = _wall(timeline.clock, at)
        if wall.minute == 0 and wall.hour % every == 0:
            yield wall.hour, plot.x(at)
        at += timedelta(minutes=15)


def _bands(drawing: Drawing, plot: _Plot, timeline: Timeline, top: float) -> float:
    for band in timeline.bands:
        top = _band(drawing, plot, "zone", band.name, band.spans, band.clock, top)
    if not timeline.bands:
        drawing.words("note", plot.left, top + 14, "No zone is known, so no hour is open.")
        return top + 24
    name = "all must be open" if len(timeline.bands) > 1 else "may be called"
    return _band(drawing, plot, "common", name, timeline.common, timeline.clock, top) + 4


def _band(
    drawing: Drawing,
    plot: _Plot,
    kind: str,
    name: str,
    spans: Sequence[Span],
    clock: CalleeClock | None,
    top: float,
) -> float:
    if drawing.layout.is_wide:
        drawing.words(f"band-name {kind}-name", 180, top + 15, shortened(name, 176), "end")
    else:
        drawing.words(f"band-name {kind}-name", plot.left, top + 12, shortened(name, plot.right - plot.left))
        top += 16
    drawing.rect("closed", plot.left, plot.right, top, _BAND)
    for opens, closes in spans:
        left, right = plot.x(opens), plot.x(closes)
        full = f"{_wall(clock, opens):%H:%M}-{_wall(clock, closes):%H:%M}"
        drawing.rect(f"open {kind}", left, right, top, _BAND, title=f"{name}: open {full}")
        short = f"{_wall(clock, opens):%H}-{_wall(clock, closes):%H}"
        text = next((each for each in (full, short) if fits(each, right - left - 4)), "")
        if text:
            drawing.words(f"open-text {kind}-text", (left + right) / 2, top + 14, text, "middle")
    if not spans:
        drawing.words("note", plot.left + 6, top + 14, "closed on these days")
    return top + _BAND + 6


def _numbered(timeline: Timeline) -> list[tuple[str, Mark]]:
    """Return every mark in order of time with its number. The next possible time and the edges have numbers too."""
    marks = [*timeline.marks, *timeline.edges, *([timeline.next_possible] if timeline.next_possible else [])]
    return [(str(place), mark) for place, mark in enumerate(sorted(marks, key=lambda each: each.at), 1)]


def _events(drawing: Drawing, plot: _Plot, numbered: Sequence[tuple[str, Mark]], top: float) -> float:
    """Draw one shape for each group of marks that would overlap, and the numbers of its marks above it."""
    if drawing.layout.is_wide:
        drawing.words("row-name", 180, top + 34, "Events", "end")
    groups = _groups(plot, numbered)
    for group in groups:
        shown = next((mark for _, mark in group if mark.kind == "next"), group[-1][1])
        shape_x = min(max(plot.x(shown.at), plot.left + _RADIUS), plot.right - _RADIUS)
        for _, mark in group:
            drawing.line(f"stem stem-{mark.kind}", plot.x(mark.at), top - 4, plot.x(mark.at), top + 6)
        drawing.words("mark-number", sum(_label_span(plot, group)) / 2, top + 17, _label(plot, group), "middle")
        _shape(drawing, shown.kind, shape_x, top + 29, "; ".join(mark.word for _, mark in group))
        if shown.kind == "next" and drawing.layout.is_wide:
            _rule(drawing, shape_x, top + 33, shown.word, [plot.x(mark.at) for _, mark in numbered], plot)
    return top + 42


def _groups(plot: _Plot, numbered: Sequence[tuple[str, Mark]]) -> list[list[tuple[str, Mark]]]:
    """Return the marks in groups whose labels do not overlap. A merged group may overlap the one before it."""
    groups: list[list[tuple[str, Mark]]] = []
    for each in numbered:
        group = [each]
        while groups and _are_close(plot, groups[-1], group):
            group = [*groups.pop(), *group]
        groups.append(group)
    return groups


def _are_close(plot: _Plot, first: Sequence[tuple[str, Mark]], second: Sequence[tuple[str, Mark]]) -> bool:
    is_near = _middle(plot, second) - _middle(plot, first) < _APART
    return is_near or _label_span(plot, second)[0] < _label_span(plot, first)[1]


def _middle(plot: _Plot, group: Sequence[tuple[str, Mark]]) -> float:
    return (plot.x(group[0][1].at) + plot.x(group[-1][1].at)) / 2


def _rule(drawing: Drawing, x: float, y: float, words: str, taken: Sequence[float], plot: _Plot) -> None:
    """Write the words next to the mark at `x`, at the side where no other mark is in the way."""
    width = len(words) * CHARACTER + 12
    if x + width < min([other for other in taken if other > x + _APART] or [plot.right]) - _RADIUS:
        drawing.words("next-text", x + 12, y, words)
    elif x - width > max([other for other in taken if other < x - _APART] or [plot.left]) + _RADIUS:
        drawing.words("next-text", x - 12, y, words, "end")


def _label_span(plot: _Plot, group: Sequence[tuple[str, Mark]]) -> tuple[float, float]:
    """Return the left and right end of a label, which does not leave the plot."""
    half = len(_label(plot, group)) * CHARACTER / 2
    x = min(max(_middle(plot, group), plot.left + half), plot.right - half)
    return x - half, x + half


def _label(plot: _Plot, group: Sequence[tuple[str, Mark]]) -> str:
    (first, begins), (last, ends) = group[0], group[-1]
    label = first if first == last else f"{first}-{last}"
    label = f"←{label}" if begins.at < plot.begins else label
    return f"{label}→" if ends.at > plot.ends else label


_SHAPES = {
    "asked": "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0z",
    "due": "M-6 -5h12l-6 11z",
    "moved": "M-6 -2h6v-4l6 6l-6 6v-4h-6z",
    "released": "M-6 -3h12v6h-12z",
    "claimed": "M-5 -6l11 6l-11 6z",
    "back": "M5 -6l-11 6l11 6z",
    "carrier": "M-5 -5h10v10h-10z",
    "ringing": "M-6 4c3 -2 2 -10 6 -10s3 8 6 10z",
    "ended": "M-6 -4l2 -2l4 4l4 -4l2 2l-4 4l4 4l-2 2l-4 -4l-4 4l-2 -2l4 -4z",
    "completed": "M-6.5 0l2 -2l3 3l6 -6.5l2 2l-8 8.5z",
    "expiry": "M-2 -6h4v12h-4z",
    "consent": "M-5 -6h4v12h-4zM1 -6h4v12h-4z",
    "next": "M0 -7l7 7l-7 7l-7 -7z",
}


def _shape(drawing: Drawing, kind: str, x: float, y: float, title: str) -> None:
    drawing.add(
        "path",
        f"mark mark-{kind}",
        title=title,
        above=True,
        d=_SHAPES[kind],
        transform=f"translate({number(x)} {number(y)})",
    )


def _limits(drawing: Drawing, plot: _Plot, timeline: Timeline, top: float, bottom: float) -> None:
    """Hatch the time after an edge, and draw the edges and the present as lines through all rows."""
    passed = [edge.at for edge in timeline.edges if edge.at < timeline.ends]
    if passed:
        fill = drawing.hatch("after-edge")
        title = "No call after this time"
        drawing.rect("after", plot.x(min(passed)), plot.right, top, bottom - top, title=title, fill=fill)
    for edge in timeline.edges:
        if plot.shows(edge.at):
            drawing.line(f"edge edge-{edge.kind}", plot.x(edge.at), top, plot.x(edge.at), bottom)
    if plot.shows(timeline.now):
        x = plot.x(timeline.now)
        drawing.line("now", x, top, x, bottom)
    if timeline.next_possible is not None and plot.shows(timeline.next_possible.at):
        x = plot.x(timeline.next_possible.at)
        drawing.line("next-line", x, top, x, bottom)


def _utc_ruler(drawing: Drawing, plot: _Plot, top: float) -> float:
    if drawing.layout.is_wide:
        drawing.words("row-name", 180, top + 22, "UTC", "end")
    else:
        drawing.words("row-name", plot.left, top + 12, "UTC")
        top += 14
    drawing.line("utc-line", plot.left, top + 4, plot.right, top + 4)
    every = timedelta(hours=6 if drawing.layout.is_wide else 12)
    at = plot.begins.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while at <= plot.ends:
        if plot.shows(at):
            x = plot.x(at)
            drawing.line("tick", x, top + 4, x, top + 10)
            text = f"{at:%d %b}" if at.hour == 0 else f"{at:%H}"
            half = len(text) * CHARACTER / 2
            if x - half >= plot.left - 8 and x + half <= drawing.width:
                drawing.words("hour", x, top + 22, text, "middle")
        at += every
    return top + 24


def _list(drawing: Drawing, timeline: Timeline, numbered: Sequence[tuple[str, Mark]], top: float) -> float:
    """Write a line for each mark with its number, shape, time and word. Return the lower edge of the picture."""
    columns = 2 if drawing.layout.is_wide else 1
    width = (drawing.width - 20) / columns
    shown: list[tuple[str, Mark | None]] = list(numbered)
    hidden = len(shown) - _MAX_LISTED + 1
    if hidden > 1:
        shown = [*shown[:4], (f"{hidden} more events are in the table.", None), *shown[4 + hidden :]]
    lines = [line for label, mark in shown for line in _listed(timeline, label, mark, drawing.layout, width - 50)]
    rows = -(-len(lines) // columns)
    for place, (label, mark, text) in enumerate(lines):
        x, y = 10 + place // rows * width, top + place % rows * _LINE
        drawing.words("mark-number", x + 18, y + 4, label, "end")
        if mark is not None:
            _shape(drawing, mark.kind, x + 32, y, "")
        drawing.words("mark-text", x + 46, y + 4, text)
    bottom = top + rows * _LINE
    notes = [f"State {timeline.state}. Now is {_local(timeline, timeline.now)}, the dotted line.", timeline.note]
    if not timeline.begins <= timeline.now <= timeline.ends:
        notes[0] = f"State {timeline.state}. Now is {_local(timeline, timeline.now)}."
    for note in (each for each in notes if each):
        for line in wrapped(note, drawing.width - 20):
            drawing.words("note", 10, bottom + 8, line)
            bottom += _LINE
    return bottom + 4


def _listed(
    timeline: Timeline, label: str, mark: Mark | None, layout: Layout, width: float
) -> Iterator[tuple[str, Mark | None, str]]:
    """Yield the lines of a mark: its number and shape are in the first one."""
    if mark is None:
        yield "", None, label
        return
    time = _local(timeline, mark.at)
    if not layout.is_wide:
        time = time.partition(" ")[2]
    first, *more = wrapped(f"{time} {_words(mark)}", width)
    yield label, mark, first
    yield from (("", None, each) for each in more)


def _words(mark: Mark) -> str:
    return mark.word if mark.times == 1 else f"{mark.word}, {mark.times} times"
