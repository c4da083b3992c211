"""Interviews over HTTP: asked for, and looked at."""

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from api_shim import answers, json_body
from api_shim.auth import CompanyRead, Reader
from api_shim.commanding import FromWriter
from api_shim.errors import refuse_any
from api_shim.house import house
from api_shim.openapi import command_answers, error_answers
from api_shim.schemas.create_interview import EXAMPLES, InterviewRequest
from api_shim.schemas.interview import AttemptsAnswer, InterviewAnswer, InterviewView, attempt_page
from scheduler.domain import refusals

router = APIRouter(route_class=json_body.JsonRoute, tags=["interviews"])

_PAGE = Query(ge=1, le=10_000)
_LIMIT = Query(ge=1, le=100)


@router.post(
    "/interviews",
    operation_id="createInterview",
    summary="Schedule an interview, and its first call",
    status_code=HTTPStatus.CREATED,
    responses=command_answers(
        HTTPStatus.CREATED,
        InterviewAnswer,
        "Applied: the interview with its first attempt.",
        refusals.OutsideCallTimeInterval,
        refusals.PhoneNumberRequired,
    ),
)
async def create_interview(
    request: Request,
    sender: FromWriter,
    raw: Annotated[dict[str, Any], Depends(json_body.read)],
    body: Annotated[InterviewRequest, Body(openapi_examples=EXAMPLES)],
) -> Response:
    refuse_any(body.contradictions())
    stale = list(body.stale(house(request).doors.now().date()))
    return await sender.command(body.to_command(), raw, metadata=body.metadata, stale=stale)


@router.get(
    "/interviews/{interviewId}",
    operation_id="getInterview",
    summary="An interview with its call attempts",
    responses={200: {"model": InterviewAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_interview(
    request: Request,
    principal: Reader,
    company_id: CompanyRead,
    interviewId: UUID,  # noqa: N803 - as on the wire
) -> JSONResponse:
    here = house(request)
    story = await here.ask(here.doors.explain.interview, principal, company_id, interviewId)
    return answers.answered(request, InterviewView.of(story, story.interview.metadata, here.doors.now()))


@router.get(
    "/interviews/{interviewId}/call-attempts",
    operation_id="listCallAttempts",
    summary="The call attempts of an interview, newest first",
    responses={200: {"model": AttemptsAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def list_call_attempts(
    request: Request,
    principal: Reader,
    company_id: CompanyRead,
    interviewId: UUID,  # noqa: N803 - as on the wire
    page: Annotated[int, _PAGE] = 1,
    limit: Annotated[int, _LIMIT] = 20,
) -> JSONResponse:
    here = house(request)
    story = await here.ask(here.doors.explain.interview, principal, company_id, interviewId)
    return answers.answered(request, attempt_page(story, page, limit, here.doors.now()))
