"""Heat map: the calls that become due in each quarter of the next 24 hours, by company, and what the account can start.

A number is the sum of an hour, and a shade is a quarter hour. The title of a cell and the table have every number.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from console.pictures.svg import CHARACTER, Cell, Drawing, Layout, TableRows, moment, shortened, wrapped
from console.pictures.timeline import clock_text
from scheduler.domain.schedule import CalleeClock
from scheduler.lifecycle.forecast import Forecast, Starts
from scheduler.timing import call_windows
from scheduler.timing.spans import span_text

QUARTER = timedelta(minutes=15)
QUARTERS = 96
MAX_ROWS = 20
"""Companies with a row of their own. The others are summed."""
_HOUR = 4
_SHADES = 5
_THOUSAND = 1000
_TEN_THOUSAND = 9950
"""From here on a tenth of a thousand is rounded away."""
_CHART = 90.0
_FAR_ABOVE = 5


@dataclass(frozen=True, kw_only=True)
class CompanyDue:
    """A row: the calls of one company by quarter hour."""

    name: str
    """The name that is shown, for example the company's name or id."""
    calls: tuple[int, ...]
    company_id: UUID | None = None
    """None for the sum of several companies."""

    @property
    def total(self) -> int:
        return sum(self.calls)


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    begins: datetime
    """Aware UTC, the start of the first quarter hour."""
    clock: CalleeClock
    """The clock of the axis: the reader's."""
    rows: tuple[CompanyDue, ...]
    totals: tuple[int, ...]
    """All rows together."""
    by_pace: float
    """The calls that the pace can start in a quarter hour."""
    by_places: float | None
    """The calls for which there are places in a quarter hour. None if the duration of calls is unknown."""
    forecast: str
    only: str | None
    """The name of the only company of the picture. None: all companies."""

    @property
    def subject(self) -> str:
        """The beginning of a sentence about the limits."""
        return "The account" if self.only is None else "This company"

    @property
    def capacity(self) -> float:
        return self.by_pace if self.by_places is None else min(self.by_pace, self.by_places)

    def at(self, quarter: int) -> datetime:
        return self.begins + quarter * QUARTER


def heat_map(
    companies: Sequence[CompanyDue],
    begins: datetime,
    clock: CalleeClock,
    forecast: Forecast,
    *,
    calls_per_second: float,
    concurrent_calls: int | None = None,
    call_lasts: timedelta | None = None,
    sentence: str | None = None,
    only: str | None = None,
) -> HeatMap:
    """Return the heat map of 96 quarter hours from `begins` on: the companies with the most calls, and the rest.

    `calls_per_second` and `concurrent_calls` are the limits of these companies together: those of the account. `only`
    is the name of a company that is shown alone, with its own limits. `call_lasts` is the mean duration of a call.
    `sentence` replaces the forecast of all companies.
    """
    ranked = sorted((each for each in companies if each.total), key=lambda each: (-each.total, each.name))
    rows = ranked[:MAX_ROWS]
    rest = ranked[MAX_ROWS:]
    if rest:
        rows.append(CompanyDue(name=f"the rest ({len(rest)} companies)", calls=_sums(rest)))
    by_places = None
    if concurrent_calls is not None and call_lasts is not None:
        by_places = concurrent_calls * (QUARTER / call_lasts)
    return HeatMap(
        begins=begins,
        clock=clock,
        rows=tuple(rows),
        totals=_sums(ranked),
        by_pace=calls_per_second * QUARTER.total_seconds(),
        by_places=by_places,
        forecast=sentence or forecast_text(forecast.total),
        only=only,
    )


_A_MOMENT = timedelta(seconds=2)
"""Less is the estimate of due times within a quarter hour."""


def forecast_text(starts: Starts) -> str:
    """Return the forecast in one or two sentences."""
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


def heat_map_table(picture: HeatMap) -> TableRows:
    """Return a row for each quarter hour in which a call is due, and a column for each company."""
    header = ("From", "All", "Can start", *(row.name for row in picture.rows))
    rows: list[tuple[Cell, ...]] = [
        (
            moment(picture.at(quarter), picture.clock),
            f"{total:,}",
            f"{picture.capacity:,.0f}",
            *(f"{row.calls[quarter]:,}" for row in picture.rows),
        )
        for quarter, total in enumerate(picture.totals)
        if total
    ]
    return TableRows(caption="Calls due by quarter hour", header=header, rows=tuple(rows))


def heat_map_svg(picture: HeatMap, layout: Layout, picture_id: str, *, has_sentence: bool = True) -> str:
    """Return the picture. The table contains the same data. Without `has_sentence` it does not show the forecast."""
    drawing = Drawing(
        picture_id=picture_id,
        layout=layout,
        title=f"Calls due in the next 24 hours, on the clock of {clock_text(picture.clock)}",
        description=f"{picture.forecast} {picture.subject} can start {picture.capacity:,.0f} calls in a quarter hour."
        " The table below contains the same data.",
    )
    axis = _Axis(left=190.0 if layout.is_wide else 8.0, right=drawing.width - (64.0 if layout.is_wide else 8.0))
    bottom = _sentences(drawing, picture) if has_sentence else 0.0
    bottom = _chart(drawing, picture, axis, bottom + 20)
    bottom = _hours(drawing, picture, axis, bottom)
    for row in picture.rows:
        bottom = _row(drawing, picture, axis, row, bottom)
    if picture.rows:
        bottom = _hours(drawing, picture, axis, bottom)
    return drawing.text(_legend(drawing, _most(picture), bottom) if picture.rows else bottom)


@dataclass(frozen=True, kw_only=True)
class _Axis:
    left: float
    right: float

    def x(self, quarter: float) -> float:
        return self.left + (self.right - self.left) * quarter / QUARTERS


def _sums(companies: Sequence[CompanyDue]) -> tuple[int, ...]:
    if not companies:
        return (0,) * QUARTERS
    return tuple(sum(column) for column in zip(*(each.calls for each in companies), strict=True))


def _sentences(drawing: Drawing, picture: HeatMap) -> float:
    bottom = 18.0
    for sentence in wrapped(picture.forecast, drawing.width - 30):
        drawing.words("forecast", 10, bottom, sentence)
        bottom += 18
    return bottom


def _chart(drawing: Drawing, picture: HeatMap, axis: _Axis, top: float) -> float:
    """Draw the calls of all rows as bars, and the limits as lines. The part above a limit is hatched."""
    most = max(picture.totals)
    # A limit far above all bars is only named: to its scale, no bar would be seen.
    is_near = not most or picture.capacity <= _FAR_ABOVE * most
    highest = (max(most, picture.capacity) if is_near else most) * 1.05 or 1.0
    bottom = top + _CHART

    def y(calls: float) -> float:
        return bottom - _CHART * min(calls / highest, 1.0)

    fill = drawing.hatch("over-hatch")
    drawing.line("tick", axis.left, bottom, axis.right, bottom)
    for quarter, calls in enumerate(picture.totals):
        left, right = axis.x(quarter), axis.x(quarter + 1) - (1.0 if drawing.layout.is_wide else 0.5)
        within = min(float(calls), picture.capacity)
        title = f"{_from(picture, quarter)}: {calls:,} due, {picture.capacity:,.0f} can start"
        if calls:
            drawing.rect("due-bar", left, right, y(within), bottom - y(within), title=title)
        if calls > picture.capacity:
            drawing.rect("over-bar", left, right, y(calls), y(within) - y(calls), title=title, fill=fill)
    lines = [("pace", picture.by_pace), *([("places", picture.by_places)] if picture.by_places is not None else [])]
    for kind, limit in lines:
        if limit <= highest:
            drawing.line(f"capacity capacity-{kind}", axis.left, y(limit), axis.right, y(limit))
    named = "; ".join(f"{kind} {limit:,.0f}" for kind, limit in lines)
    if drawing.layout.is_wide:
        drawing.words("row-name", 180, top + 20, shortened(picture.only or "All companies", 172), "end")
        drawing.words("row-detail", 180, top + 36, f"most due: {most:,} in 15 min", "end")
        for place, (kind, limit) in enumerate(lines):
            drawing.words("row-detail", 180, top + 52 + 16 * place, f"{kind}: {limit:,.0f} per 15 min", "end")
        drawing.words("row-total", drawing.width - 8, bottom - 4, f"{sum(picture.totals):,}", "end")
    else:
        due = f"{'All ' if picture.only is None else ''}{sum(picture.totals):,} due"
        drawing.words("row-detail", 8, top - 6, shortened(f"{due}. Per 15 min: {named}", 344))
    return bottom


def _from(picture: HeatMap, quarter: int) -> str:
    return f"{call_windows.local_times(picture.clock, picture.at(quarter))[0]:%a %H:%M}"


def _hours(drawing: Drawing, picture: HeatMap, axis: _Axis, top: float) -> float:
    every = 2 if drawing.layout.is_wide else 6
    for quarter in range(QUARTERS + 1):
        local = call_windows.local_times(picture.clock, picture.at(quarter))[0]
        if local.minute or local.hour % every:
            continue
        x = axis.x(quarter)
        drawing.line("tick", x, top, x, top + 5)
        text = f"{local:%d %b}" if local.hour == 0 else f"{local:%H}"
        half = len(text) * CHARACTER / 2
        drawing.words("hour", min(max(x, axis.left + half), drawing.width - half), top + 17, text, "middle")
    return top + 26


def _row(drawing: Drawing, picture: HeatMap, axis: _Axis, row: CompanyDue, top: float) -> float:
    most = max(row.calls)
    if drawing.layout.is_wide:
        drawing.words("row-company", 180, top + 16, shortened(row.name, 172), "end")
        drawing.words("row-total", drawing.width - 8, top + 16, f"{row.total:,}", "end")
    else:
        busiest = _from(picture, row.calls.index(most))
        figures = f"{row.total:,}, most {most:,} at {busiest}"
        drawing.words("row-company", 8, top + 12, shortened(row.name, 340 - (len(figures) + 2) * CHARACTER))
        drawing.words("row-total", drawing.width - 8, top + 12, figures, "end")
    cells = top + (14.0 if drawing.layout.is_wide else 16.0)
    edges = _edges(_most(picture))
    drawing.rect("shade-0", axis.left, axis.right, cells, 10)
    for quarter, calls in enumerate(row.calls):
        if calls:
            title = f"{row.name}, {_from(picture, quarter)}: {calls:,}"
            shade = f"shade-{bisect_left(edges, calls)}"
            drawing.rect(shade, axis.x(quarter), axis.x(quarter + 1), cells, 10, title=title)
    if drawing.layout.is_wide:
        for quarter, text in _sums_by_hour(picture, row):
            drawing.words("quarter-sum", axis.x(quarter + _HOUR / 2), top + 11, text, "middle")
    return cells + 16


def _sums_by_hour(picture: HeatMap, row: CompanyDue) -> Iterator[tuple[int, str]]:
    """Yield the sum of each full hour of the axis with its first quarter, and of the parts of hours at both ends."""
    begins = 0
    for quarter in range(1, QUARTERS + 1):
        local = call_windows.local_times(picture.clock, picture.at(quarter))[0]
        if local.minute == 0 or quarter == QUARTERS:
            calls = sum(row.calls[begins:quarter])
            if calls and quarter - begins == _HOUR:
                yield begins, _short(calls)
            begins = quarter


def _short(calls: int) -> str:
    """Return at most four characters."""
    if calls < _THOUSAND:
        return str(calls)
    thousands = calls / _THOUSAND
    return f"{thousands:.1f}k" if calls < _TEN_THOUSAND else f"{thousands:.0f}k"


def _most(picture: HeatMap) -> int:
    return max((max(row.calls) for row in picture.rows), default=0)


def _edges(most: int) -> list[int]:
    """Return the most calls of each shade, with equal ratios: a company with few calls is visible next to a big one."""
    return [0, *(max(shade, round(most ** (shade / _SHADES))) for shade in range(1, _SHADES)), max(most, _SHADES)]


def _legend(drawing: Drawing, most: int, top: float) -> float:
    x = 10.0
    drawing.words("note", x, top + 12, "Calls in a quarter hour:")
    x += 26 * CHARACTER
    if not drawing.layout.is_wide:
        x, top = 10.0, top + 20
    edges = _edges(most)
    for shade in range(_SHADES + 1):
        low, high = (0, 0) if not shade else (edges[shade - 1] + 1, edges[shade])
        if low > high:
            continue
        text = f"{low}" if low == high else f"{low}-{high}"
        drawing.rect(f"shade-{shade}", x, x + 12, top + 2, 12)
        drawing.words("note", x + 16, top + 12, text)
        x += 24 + (len(text) + 1) * CHARACTER
        if x > drawing.width - 70 and not drawing.layout.is_wide:
            x, top = 10.0, top + 20
    return top + 24
