"""The page Batches: requests for many interviews, with their progress. Clients pause, resume and cancel them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.context import console_context
from console.lists import ROWS, WrongFilter, choice_filter, id_filter, part_before, place_in
from console.operator_session import ConsoleSession
from console.operators import viewer
from console.rendering import page
from scheduler.domain.batch import BatchFilter, BatchState
from scheduler.domain.pagination import NEWEST_FIRST, Cursor

router = APIRouter()
_PATH = "/batches"
_UNPROCESSABLE = 422
_STATES = {
    "": "All",
    "accepted": "Accepted",
    "running": "Running",
    "paused": "Paused by its client",
    "completed": "Completed",
    "cancelled": "Cancelled",
}


@router.get(_PATH)
async def batches(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, query = console_context(request), request.query_params
    asked = {name: query.get(name, "").strip() for name in ("state", "company", "batch")}
    values = {"states": _STATES, "now": context.use_cases.now(), **asked}
    try:
        state = choice_filter(query, "state", _STATES)
        wanted = BatchFilter(
            id=id_filter(query, "batch"),
            company_id=id_filter(query, "company"),
            state=BatchState(state.upper()) if state else None,
        )
        place = place_in(query, datetime, UUID)
    except WrongFilter as wrong:
        return page(request, "batches.html", _UNPROCESSABLE, values, problem=str(wrong), listed=None)
    after = None if place is None else Cursor(sort=NEWEST_FIRST, at=place[0], id=place[1])
    found = await context.run(context.use_cases.batch_pages.newest, wanted, after, ROWS)
    following = None if found.next is None else (found.next.at, found.next.id)
    listed = part_before(_PATH, query, found.items, following)
    return page(request, "batches.html", given=values, problem=None, listed=listed)
