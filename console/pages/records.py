"""The pages Audit, Batches, Erasures and Certificate, which have no acts of their own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.assembly import console_context
from console.attempt_list import FIELDS, described
from console.lists import COMPANY, ROWS, Filter, ListPage, id_field
from console.operators import viewer
from console.rendering import link_to, not_found, page, page_of, value_text
from console.security import id_in_path
from console.stores.resources import OperatedResources
from console.stores.sessions import ConsoleSession
from scheduler.domain.batch import BatchFilter, BatchState
from scheduler.domain.principal import AuditEntry, TargetKind, Verb
from scheduler.domain.refusals import NotFound
from scheduler.domain.resource import NEWEST_FIRST, Cursor, KeysetSlice
from scheduler.persistence.alarms import AuditFilter

# --- The page Audit: acts of operators and API keys, and their changes


router = APIRouter()
_FILTER = "filter"
_AUDIT = ListPage(
    path="/audit",
    filters=(
        Filter(name="kind", label="Act", options={"": "All", **{each.value: each.value for each in sorted(Verb)}}),
        Filter(name="actor", label="Actor", placeholder="cli:USER@HOST"),
        id_field("subject", "Id of the target or company"),
    ),
    place=(int,),
)


@dataclass(frozen=True, kw_only=True)
class _Row:
    entry: AuditEntry
    target: str | None
    """The address of the target's page, if it has one."""
    changes: Sequence[tuple[str, str, str]]
    """Fields with their values before and after."""
    list_of_filter: str | None
    """The list of calls that the filter of a cancellation finds now."""


@router.get(_AUDIT.path)
async def audit(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _AUDIT.asked(request.query_params)
    creators: Mapping[str, str] = {}
    listed = None
    if asked.problem is None:
        wanted = AuditFilter(actor=asked.text("actor"), verb=asked.text("kind"), concerns=asked.id("subject"))
        [before] = asked.place or (None,)
        found = await context.run(context.use_cases.audit.newest, wanted, before, ROWS + 1)
        listed = asked.part([_row(each) for each in found], lambda each: (each.entry.id,))
        creators = await context.run(context.use_cases.audit.link_creators, [each.entry.actor for each in listed.rows])
    return page(request, "audit.html", asked.status, asked=asked, listed=listed, creators=creators)


def _row(entry: AuditEntry) -> _Row:
    names = sorted({*entry.before, *entry.after})
    changes = [(name, _text(entry.before, name), _text(entry.after, name)) for name in names]
    only = _filter(entry.after.get(_FILTER))
    list_of_filter = link_to("attempts", **only) if only else None
    return _Row(entry=entry, target=_page_of_target(entry), changes=changes, list_of_filter=list_of_filter)


def _filter(value: object) -> dict[str, str]:
    """Read the fields of a filter of calls, or none of another value."""
    if not isinstance(value, Mapping) or not set(FIELDS).issuperset(value):
        return {}
    return {name: str(value[name]) for name in FIELDS if name in value}


def _page_of_target(entry: AuditEntry) -> str | None:
    match entry.target_kind:
        case TargetKind.ALL:
            return link_to("now")
        case TargetKind.ATTEMPT:
            return page_of("attempts", entry.target_id)
        case TargetKind.COMPANY if entry.verb == Verb.DELETE_COMPANY:
            return page_of("erasures", entry.target_id)
        case TargetKind.COMPANY:
            return page_of("companies", entry.target_id)
        case TargetKind.ALARM:
            return link_to("alarms", state="all", kind=str(entry.before.get("kind", "")))
        case TargetKind.KEY:
            return page_of("keys", entry.target_id)
        case TargetKind.WEBHOOK if entry.verb != Verb.DELETE_WEBHOOK:
            return page_of("webhooks", entry.target_id)
        case TargetKind.NUMBER if entry.company_id is not None:
            return page_of("companies", entry.company_id)
        case TargetKind.COMMAND | TargetKind.CALLBACK:
            return link_to("quarantine", kind=entry.target_kind)
    return None


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return ""
    match values[name]:
        case str() as text:
            return value_text(text)
        case None:
            return "none"
        case list() as several:
            return ", ".join(str(each) for each in several) or "none"
        case value if name == _FILTER and (only := _filter(value)):
            return described(only)
        case value:
            return json.dumps(value, ensure_ascii=False)


# --- The page Batches: requests for many interviews, with their progress. Clients pause, resume and cancel them


_BATCH_STATES = {
    "": "All",
    "accepted": "Accepted",
    "running": "Running",
    "paused": "Paused by its client",
    "completed": "Completed",
    "cancelled": "Cancelled",
}
_BATCHES = ListPage(
    path="/batches",
    filters=(Filter(name="state", label="Show", options=_BATCH_STATES), COMPANY, id_field("batch", "Batch id")),
    place=(datetime, UUID),
)


@router.get(_BATCHES.path)
async def batches(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _BATCHES.asked(request.query_params)
    listed = None
    if asked.problem is None:
        state = asked.text("state")
        wanted = BatchFilter(
            id=asked.id("batch"),
            company_id=asked.id("company"),
            state=BatchState(state.upper()) if state else None,
        )
        after = None if asked.place is None else Cursor(sort=NEWEST_FIRST, at=asked.place[0], id=asked.place[1])
        part = KeysetSlice(limit=ROWS, sort=NEWEST_FIRST, after=after)
        found = await context.read(lambda stores: OperatedResources(stores.connection).batches(wanted, part))
        listed = asked.part_before(found.items, None if found.next is None else (found.next.at, found.next.id))
    return page(request, "batches.html", asked.status, asked=asked, listed=listed, now=context.use_cases.now())


# --- The pages Erasures and Certificate: deleted companies, and the erased rows of each


_ERASURES_PATH = "/erasures"
_ERASURE_STATES = {"": "All", "open": "Open", "done": "Done"}
_ERASURES = ListPage(
    path=_ERASURES_PATH, filters=(Filter(name="state", label="Show", options=_ERASURE_STATES),), place=(datetime, UUID)
)
_FINISHED = {None: None, "open": False, "done": True}


@router.get(_ERASURES_PATH)
async def erasures(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _ERASURES.asked(request.query_params)
    listed = None
    if asked.problem is None:
        newest, is_finished = context.use_cases.certificates.newest, _FINISHED[asked.text("state")]
        found = await context.run(newest, ROWS + 1, asked.place, is_finished=is_finished)
        listed = asked.part(found, lambda each: (each.asked_at, each.company_id))
    return page(request, "erasures.html", asked.status, asked=asked, listed=listed, now=context.use_cases.now())


@router.get(_ERASURES_PATH + "/{company_id}")
async def certificate(request: Request, company_id: str, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context = console_context(request)
    try:
        found = await context.run(context.use_cases.certificates.of_company, id_in_path(company_id))
    except NotFound:
        text = "No erasure of a company with this id was requested. The page Erasures lists all."
        return not_found(request, "There is no such certificate.", text)
    return page(request, "erasure.html", certificate=found, now=context.use_cases.now())
