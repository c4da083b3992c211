"""The page Calendar: the calls of the next 24 hours by company, when they can start, and their zones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.assembly import console_context
from console.calendar_rows import (
    CompanyDue,
    DueQuarters,
    WaitingCalls,
    ZoneRow,
    due_quarters,
    forecast_text,
    zone_board,
)
from console.lists import Filter, ListPage
from console.operators import viewer
from console.reads.calendar import Calendar, CompanyDay
from console.rendering import link_to, name, number, number_of, page
from console.stores.sessions import ConsoleSession
from console.timeline import BarPart
from scheduler.ids import id_or_none
from scheduler.timing.time_texts import offset_text, span_text

router = APIRouter()
_UNPROCESSABLE = 422


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A number, the page of the attempts that make it, and its bar."""

    calls: int
    href: str | None
    bar: Sequence[BarPart]


@dataclass(frozen=True, kw_only=True)
class QuarterRow:
    at: datetime
    cells: Sequence[Cell]
    """All calls, then those of each column."""
    is_over: bool
    """More calls are due than the account can start."""


@router.get("/calendar")
async def show(request: Request, _: Annotated[ConsoleSession, Depends(viewer)], company: str | None = None) -> Response:
    context = console_context(request)
    day: Calendar = await context.run(context.use_cases.calendars.day)
    chosen = next((each for each in day.companies if str(each.company_id) == company), None)
    is_wrong = bool(company) and id_or_none(company or "") is None
    shown = day.companies if chosen is None else [chosen]
    due = None if day.account is None else _due(day, shown, chosen)
    return page(
        request,
        "calendar.html",
        _UNPROCESSABLE if is_wrong else 200,
        day=day,
        due=due,
        own_page=_own_page,
        quarters=[] if due is None else list(_quarters(due, chosen)),
        outlook=_outlook(day, chosen),
        remarks=list(_remarks(day, chosen)),
        zones=list(_zones(day, chosen)),
        chosen=chosen,
        choice=_choice(day),
        problem=_problem(company, chosen),
        is_wrong=is_wrong,
    )


def _choice(day: Calendar) -> ListPage:
    by_name = sorted(day.companies, key=lambda each: (each.name, each.company_id))
    options = {"": "All companies", **{str(each.company_id): name(each.name) for each in by_name}}
    return ListPage(path="/calendar", filters=(Filter(name="company", label="Company", options=options),))


def _problem(given: str | None, chosen: CompanyDay | None) -> str | None:
    """Explain why the filter has no effect. None: it has one."""
    if not given or chosen is not None:
        return None
    if id_or_none(given) is None:
        return "This is not the id of a company. All companies are shown."
    return "No pending call of this company is counted here. All companies are shown."


def _due(day: Calendar, shown: Sequence[CompanyDay], chosen: CompanyDay | None) -> DueQuarters:
    assert day.account is not None
    per_second, places = day.account.calls_per_second, day.account.max_calls
    if chosen is not None:  # its calls have the paces and the places of both
        per_second = min(per_second, chosen.limits.calls_per_second)
        places = min(places, chosen.limits.concurrent_calls)
    return due_quarters(
        [CompanyDue(name=name(each.name), calls=each.calls, company_id=each.company_id) for each in shown],
        day.begins,
        calls_per_second=per_second,
        concurrent_calls=places,
        call_lasts=day.account.call_lasts,
    )


def _outlook(day: Calendar, chosen: CompanyDay | None) -> str:
    """Describe the forecast: of one company, or of all together."""
    if day.account is None:
        return "No worker has started yet, so the pace of the account is unknown."
    starts = day.forecast.total if chosen is None else day.forecast.companies.get(chosen.company_id)
    return forecast_text(starts) if starts is not None else "No call is due."


def _remarks(day: Calendar, chosen: CompanyDay | None) -> Iterator[str]:
    """Yield sentences about the numbers: their contents and their limits."""
    account = day.account
    if day.counted_until is not None:
        yield (
            f"Estimate: only the first {number(sum(sum(each.calls) + each.later for each in day.companies))} calls are"
            f" counted, those due until {_utc(day.counted_until)}. More calls are due later."
        )
    if day.clocks_are_estimates:
        yield "Estimate: only some calls' zones were read. The others are taken to be spread over the same zones."
    shown = day.companies if chosen is None else [chosen]
    already = sum(each.due_already for each in shown)
    if already:
        calls = number_of(
            already, "call that was due earlier and still waits", "calls that were due earlier and still wait"
        )
        yield f"The first quarter contains {calls}."
    later = sum(each.later for each in shown)
    if later:
        calls = number_of(later, "more call is", "more calls are")
        yield f"{calls} due after these 24 hours. The zones below include all."
    if account is None:
        return
    if account.pause_reason is not None:
        yield "All calls are paused. The forecast is what happens if calls are resumed now."
    elif account.is_down:
        yield "The carrier takes no calls. The forecast is what happens if it takes calls now."
    paused = sum(each.pause_reason is not None for each in shown)
    if paused:
        subject = (
            "The company is" if chosen else f"{number(paused)} of these companies {'is' if paused == 1 else 'are'}"
        )
        yield f"{subject} paused. The forecast is what happens if calls are resumed now."
    if account.call_lasts is None:
        yield (
            "Too few calls have ended to know how long a call lasts. So the forecast ignores the limits of calls at the"
            " same time. It follows the calls per second alone."
        )
    else:
        yield f"Calls are taken to last {span_text(account.call_lasts)}, the mean of the calls that ended last."


def _quarters(due: DueQuarters, chosen: CompanyDay | None) -> Iterator[QuarterRow]:
    for quarter, total in enumerate(due.every.calls):
        if not total:
            continue
        at, ends = due.at(quarter), due.at(quarter + 1)
        span = {"due_to": _machine(ends)} if not quarter else {"due_from": _machine(at), "due_to": _machine(ends)}
        every = Cell(calls=total, href=link_to("attempts", **_own(chosen), **span), bar=due.bar(quarter))
        companies = [
            Cell(
                calls=each.calls[quarter],
                href=None if each.company_id is None else link_to("attempts", company=str(each.company_id), **span),
                bar=due.bar_of(each, quarter),
            )
            for each in due.companies
        ]
        yield QuarterRow(at=at, cells=[every, *companies], is_over=total > due.capacity)


def _own(chosen: CompanyDay | None) -> dict[str, str]:
    return {} if chosen is None else {"company": str(chosen.company_id)}


def _own_page(column: CompanyDue) -> str | None:
    return None if column.company_id is None else link_to("calendar", company=str(column.company_id))


def _zones(day: Calendar, chosen: CompanyDay | None) -> Iterator[tuple[ZoneRow, str]]:
    """Yield each row with the page of the attempts that wait for it."""
    waiting = day.clocks
    if chosen is not None:
        waiting = [
            WaitingCalls(clock=clock, intervals=chosen.intervals, calls=calls) for clock, calls in chosen.clocks.items()
        ]
    for row in zone_board(waiting, day.now):
        zone = row.clock.zones[0] if row.clock.zones else offset_text(row.clock.offset or timedelta())
        yield row, link_to("attempts", **_own(chosen), zone=zone)


def _machine(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
