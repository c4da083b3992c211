"""Interviews over HTTP: asked for, and looked at."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.responses import JSONResponse

from api_shim import answers, json_body
from api_shim.asked import Asked, HowAsked
from api_shim.auth import CompanyRead, CompanyWritten, Reader, Writer
from api_shim.errors import IdempotencyInProgress, invalid_fields
from api_shim.house import house
from api_shim.openapi import error_answers
from api_shim.schemas.command import WaitingAnswer
from api_shim.schemas.create_interview import EXAMPLES, InterviewRequest
from api_shim.schemas.interview import AttemptsAnswer, InterviewAnswer, InterviewView, attempt_page
from scheduler.domain.command import Command, CommandState
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import NotFound
from scheduler.hashing import fingerprint
from scheduler.use_cases.submit import Accepted

router = APIRouter(route_class=json_body.JsonRoute, tags=["interviews"])

_PAGE = Query(ge=1, le=10_000)
_LIMIT = Query(ge=1, le=100)


@router.post(
    "/interviews",
    operation_id="createInterview",
    summary="Schedule an interview, and its first call",
    status_code=201,
    responses={
        201: {"model": InterviewAnswer, "description": "Applied: the interview with its first attempt."},
        202: {"model": WaitingAnswer, "description": "Accepted and durable; see the header Location."},
        **error_answers(400, 401, 403, 404, 409, 413, 422, 500, 503),
    },
)
async def create_interview(
    request: Request,
    principal: Writer,
    company_id: CompanyWritten,
    asked: HowAsked,
    raw: Annotated[dict[str, Any], Depends(json_body.read)],
    body: Annotated[InterviewRequest, Body(openapi_examples=EXAMPLES)],
) -> JSONResponse:
    contradictions = list(body.contradictions())
    if contradictions:
        raise invalid_fields(contradictions)
    request_hash = _hash_of(request, raw, asked)
    accepted = await _submit(request, principal, company_id, body, asked, request_hash)
    return await _answer(request, principal, accepted, body, asked)


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


async def _submit(
    request: Request,
    principal: Principal,
    company_id: UUID | None,
    body: InterviewRequest,
    asked: Asked,
    request_hash: bytes,
) -> Accepted:
    here = house(request)
    stale = list(body.stale(here.doors.now().date()))
    if stale:
        # What was accepted in time is answered as it was then, however late it is sent again.
        earlier = await _earlier(request, principal, asked)
        if earlier is None or earlier.request_hash != request_hash:
            raise invalid_fields(stale)
        return Accepted(command=earlier, replayed=True)
    return await here.ask(
        here.doors.submit.command,
        principal,
        company_id,
        body.to_command(),
        idempotency_key=asked.idempotency_key,
        request_hash=request_hash,
    )


async def _earlier(request: Request, principal: Principal, asked: Asked) -> Command | None:
    if asked.idempotency_key is None:
        return None
    here = house(request)
    try:
        return await here.ask(here.doors.submit.find, principal, asked.idempotency_key)
    except NotFound:
        return None


async def _answer(
    request: Request, principal: Principal, accepted: Accepted, body: InterviewRequest, asked: Asked
) -> JSONResponse:
    here = house(request)
    reference = str(accepted.command.id)
    command = await here.waiter.answer_to(
        accepted.command, lambda: here.ask(here.doors.submit.find, principal, reference), asked.wait_s
    )
    headers = {"Idempotent-Replayed": "true"} if accepted.replayed else {}
    if command.state is CommandState.APPLIED:
        # The metadata of a first answer is what was sent; asking for it could only fail.
        metadata = await answers.live_metadata(request, principal, command) if accepted.replayed else body.metadata
        return answers.applied(request, command, metadata, headers)
    if accepted.replayed and not asked.respond_async and not here.waiter.keeps_nobody:
        raise IdempotencyInProgress(commandId=reference)
    return answers.still_waiting(request, command, headers)


def _hash_of(request: Request, raw: dict[str, Any], asked: Asked) -> bytes:
    """Tells this request from any other with the same Idempotency-Key."""
    path = f"{request.url.path}?{request.url.query}"
    return fingerprint(request.method.encode(), path.encode(), json_body.canonical(raw), asked.if_match)
