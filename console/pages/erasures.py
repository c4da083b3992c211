"""The pages Erasures and Certificate: deleted companies, and what was erased of each."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.context import console_context
from console.forms import id_in_path
from console.lists import ROWS, WrongFilter, choice_filter, part_of, place_in
from console.operator_session import ConsoleSession
from console.operators import viewer
from console.rendering import not_found, page
from scheduler.domain.refusals import NotFound

router = APIRouter()
_PATH = "/erasures"
_UNPROCESSABLE = 422
_STATES = {"": "All", "open": "Open", "done": "Done"}
_FINISHED = {"": None, "open": False, "done": True}


@router.get(_PATH)
async def erasures(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, query = console_context(request), request.query_params
    values = {"states": _STATES, "state": query.get("state", ""), "now": context.use_cases.now()}
    try:
        state, after = choice_filter(query, "state", _STATES), place_in(query, datetime, UUID)
    except WrongFilter as wrong:
        return page(request, "erasures.html", _UNPROCESSABLE, values, problem=str(wrong), listed=None)
    newest = context.use_cases.certificates.newest
    found = await context.run(newest, ROWS + 1, after, is_finished=_FINISHED[state])
    listed = part_of(_PATH, query, found, lambda each: (each.asked_at, each.company_id))
    return page(request, "erasures.html", given=values, problem=None, listed=listed)


@router.get(_PATH + "/{company_id}")
async def certificate(request: Request, company_id: str, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context = console_context(request)
    try:
        found = await context.run(context.use_cases.certificates.of_company, id_in_path(company_id))
    except NotFound:
        text = "No erasure of a company with this id was requested. The page Erasures lists all."
        return not_found(request, "There is no such certificate.", text)
    return page(request, "erasure.html", certificate=found, now=context.use_cases.now())
