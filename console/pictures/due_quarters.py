"""Calls that become due in each quarter of the next 24 hours, by company, and the calls that can start."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from console.pictures.bars import BarPart, amounts
from scheduler.lifecycle.forecast import Starts
from scheduler.timing.spans import span_text

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
