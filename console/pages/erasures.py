"""The pages Erasures and Certificate: deleted companies, and the erased rows of each."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.context import console_context
from console.forms import id_in_path
from console.lists import ROWS, Filter, ListPage
from console.operator_session import ConsoleSession
from console.operators import viewer
from console.rendering import not_found, page
from scheduler.domain.refusals import NotFound

router = APIRouter()
_PATH = "/erasures"
_STATES = {"": "All", "open": "Open", "done": "Done"}
_LIST = ListPage(path=_PATH, filters=(Filter(name="state", label="Show", options=_STATES),), place=(datetime, UUID))
_FINISHED = {None: None, "open": False, "done": True}


@router.get(_PATH)
async def erasures(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _LIST.asked(request.query_params)
    listed = None
    if asked.problem is None:
        newest, is_finished = context.use_cases.certificates.newest, _FINISHED[asked.text("state")]
        found = await context.run(newest, ROWS + 1, asked.place, is_finished=is_finished)
        listed = asked.part(found, lambda each: (each.asked_at, each.company_id))
    return page(request, "erasures.html", asked.status, asked=asked, listed=listed, now=context.use_cases.now())


@router.get(_PATH + "/{company_id}")
async def certificate(request: Request, company_id: str, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context = console_context(request)
    try:
        found = await context.run(context.use_cases.certificates.of_company, id_in_path(company_id))
    except NotFound:
        text = "No erasure of a company with this id was requested. The page Erasures lists all."
        return not_found(request, "There is no such certificate.", text)
    return page(request, "erasure.html", certificate=found, now=context.use_cases.now())
