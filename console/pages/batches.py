"""The page Batches: requests for many interviews, with their progress. Clients pause, resume and cancel them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.context import console_context
from console.lists import COMPANY, ROWS, Filter, ListPage, id_field
from console.operator_session import ConsoleSession
from console.operators import viewer
from console.rendering import page
from scheduler.domain.batch import BatchFilter, BatchState
from scheduler.domain.pagination import NEWEST_FIRST, Cursor

router = APIRouter()
_STATES = {
    "": "All",
    "accepted": "Accepted",
    "running": "Running",
    "paused": "Paused by its client",
    "completed": "Completed",
    "cancelled": "Cancelled",
}
_LIST = ListPage(
    path="/batches",
    filters=(Filter(name="state", label="Show", options=_STATES), COMPANY, id_field("batch", "Batch id")),
    place=(datetime, UUID),
)


@router.get(_LIST.path)
async def batches(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _LIST.asked(request.query_params)
    listed = None
    if asked.problem is None:
        state = asked.text("state")
        wanted = BatchFilter(
            id=asked.id("batch"),
            company_id=asked.id("company"),
            state=BatchState(state.upper()) if state else None,
        )
        after = None if asked.place is None else Cursor(sort=NEWEST_FIRST, at=asked.place[0], id=asked.place[1])
        found = await context.run(context.use_cases.batch_pages.newest, wanted, after, ROWS)
        listed = asked.part_before(found.items, None if found.next is None else (found.next.at, found.next.id))
    return page(request, "batches.html", asked.status, asked=asked, listed=listed, now=context.use_cases.now())
