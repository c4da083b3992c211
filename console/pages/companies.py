"""The pages Companies and Company, and the pause of one company."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.acts import (
    Act,
    act_routes,
    address_of,
    began,
    due_now,
    id_in,
    pause,
    pending_calls,
    placed_at_once,
    resume,
)
from console.assembly import ConsoleUseCases, console_context
from console.attempt_words import HOLDS
from console.lists import Filter, ListPage
from console.operators import viewer
from console.reads.installation import MOST_LISTED, MOST_PARTS, Show
from console.rendering import name as shown_name
from console.rendering import none_or_number_of, not_found, page, span
from console.security import id_in_path
from console.stores.sessions import ConsoleSession
from scheduler.domain.refusals import NotFound
from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.timing.time_texts import intervals_as_json

router = APIRouter()
_LATE = timedelta(minutes=1)
"""A longer delay is marked."""
_SHOWN: Mapping[str, str] = {
    Show.ALL: "All",
    Show.LATE: "With late calls",
    Show.PAUSED: "Paused",
    Show.COMMANDS: "With waiting commands",
}
_LIST = ListPage(
    path="/companies",
    filters=(
        Filter(name="show", label="Show", options=_SHOWN, default=Show.ALL),
        Filter(name="name", label="Name contains", longest=100),
    ),
)


@router.get("/companies")
async def companies(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _LIST.asked(request.query_params)
    listed, totals = None, None
    if asked.problem is None:
        show, name = Show(asked.texts["show"]), asked.texts["name"]
        totals = await context.run(context.use_cases.company_pages.all, show, name)
        listed = asked.part_before(totals.rows, None)
    return page(
        request, "companies.html", asked.status, asked=asked, listed=listed, totals=totals, most=MOST_LISTED, late=_LATE
    )


@router.get("/companies/{company_id}")
async def company(request: Request, company_id: str, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context = console_context(request)
    try:
        parts = await context.run(context.use_cases.company_pages.one, id_in_path(company_id))
    except NotFound:
        text = "The address is wrong, or the company was deleted and erased. The page Companies lists all."
        return not_found(request, "There is no such company.", text)
    settings, found = parts.company.settings, parts.company.id
    return page(
        request,
        "company.html",
        parts=parts,
        company=parts.company,
        hours=None if settings is None else [_hours(each) for each in intervals_as_json(settings.intervals)],
        holds=HOLDS,
        most=MOST_PARTS,
        most_counted=COUNTED_UP_TO,
        late=_LATE,
        pause=address_of(PAUSE_COMPANY, company=found),
        resume=address_of(RESUME_COMPANY, company=found),
    )


def _hours(interval: Mapping[str, object]) -> tuple[str, str]:
    """Read the days and the hours of an interval in its JSON form."""
    days = interval["days"]
    assert isinstance(days, list)
    return "every day" if len(days) == len(_DAYS) else ", ".join(_DAYS[day] for day in days), (
        f"{interval['start']} to {interval['end']}"
    )


_DAYS = {
    "MON": "Monday",
    "TUE": "Tuesday",
    "WED": "Wednesday",
    "THU": "Thursday",
    "FRI": "Friday",
    "SAT": "Saturday",
    "SUN": "Sunday",
}


def _company(fields: Mapping[str, str]) -> UUID:
    return id_in(fields, "company", "company")


def _address(company_id: UUID) -> str:
    return f"/companies/{company_id}"


_CONTINUE = ("of its calls in progress continues", "of its calls in progress continue")


def _pause_preview(use_cases: ConsoleUseCases, company_id: UUID) -> Sequence[str]:
    row, all_paused_for = use_cases.company_pages.counts(company_id)
    attempts, name = row.attempts, shown_name(row.heading.name)
    if attempts.pause_reason is not None:
        existing = use_cases.pauses().current(company_id)
        paused = [f"{name} is paused already: {attempts.pause_reason}. Pausing again changes nothing."]
        return paused if existing is None else [*paused, began(use_cases, existing)]
    lines = [
        f"{pending_calls([attempts])} of {name} ({company_id}) will wait until it is resumed.",
        due_now(attempts.due),
        f"{none_or_number_of(attempts.in_progress, 'None of its calls is in progress', *_CONTINUE)}.",
        "Its clients can still schedule and cancel calls. Other companies are not affected.",
    ]
    return [*lines, f"All calls are paused too: {all_paused_for}"] if all_paused_for is not None else lines


def _resume_preview(use_cases: ConsoleUseCases, company_id: UUID) -> Sequence[str]:
    row, all_paused_for = use_cases.company_pages.counts(company_id)
    attempts, name = row.attempts, shown_name(row.heading.name)
    if attempts.pause_reason is None:
        return [f"{name} is not paused. Resuming changes nothing."]
    lines = [
        f"The pause of {name} ({company_id}) ends. Its reason was: {attempts.pause_reason}",
        placed_at_once(attempts.due, "within its limits"),
    ]
    oldest = max((each.oldest for each in attempts.held.values()), default=None)
    if oldest is not None:
        lines.append(f"The oldest has been due for {span(oldest)}.")
    if all_paused_for is not None:
        lines.append(f"All calls are paused too, so nothing is placed until that pause ends: {all_paused_for}")
    return lines


PAUSE_COMPANY = Act(
    name="pause-company",
    title="Pause a company",
    verb="Pause this company",
    fields=("company",),
    read=_company,
    preview=_pause_preview,
    run=pause,
    back=_address,
    is_danger=True,
)
RESUME_COMPANY = Act(
    name="resume-company",
    title="Resume a company",
    verb="Resume this company",
    fields=("company",),
    read=_company,
    preview=_resume_preview,
    run=resume,
    back=_address,
)
router.routes.extend(act_routes(PAUSE_COMPANY, RESUME_COMPANY).routes)
