"""HTTP routes for call attempts, and for checking when a person may be called."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from api_shim import request_input, responses
from api_shim.auth import InterviewReader
from api_shim.dispatch import InterviewWriter
from api_shim.list_queries import LATEST_FIRST, AttemptList
from api_shim.openapi import ETAG, IfSent, command_answers, error_answers, links
from api_shim.request_input import AttemptId, IfMatch, InterviewId, PageQuery
from api_shim.schemas.envelope import CursorPage, Page
from api_shim.schemas.interview import (
    AttemptAnswer,
    AttemptsAnswer,
    AttemptView,
    CompanyAttemptsAnswer,
    ExplanationAnswer,
    ExplanationView,
)
from api_shim.schemas.requested_calls import CALLS, MOVES, QUESTIONS, CallTimeAnswered, CallTimeRequest, CallTimeView
from scheduler.domain import refusals
from scheduler.domain.attempt import AttemptState, CompanyAttemptFilter
from scheduler.domain.command import DeleteAttempt
from scheduler.lifecycle.retries import MOST_ATTEMPTS
from scheduler.rules.resources import etag_of
from scheduler.wire.field_types import ExternalIdText
from scheduler.wire.named_fields import refuse_any
from scheduler.wire.requests import CallMove, CallRequest

_ALL = "/interviews/{interviewId}/call-attempts"
_ONE = _ALL + "/{attemptId}"
_OF_COMPANY = "/call-attempts"
_LIST = "call-attempts"
router = APIRouter(route_class=request_input.JsonRoute, tags=["call attempts"])

_AS_SOON_AS_ALLOWED = CallRequest()


async def _filters(
    interview_id: Annotated[
        IfSent[UUID], Query(alias="interviewId", description="Only attempts of this interview.")
    ] = None,
    candidate_id: Annotated[
        IfSent[UUID], Query(alias="candidateId", description="Only attempts to call this candidate.")
    ] = None,
    external_id: Annotated[
        IfSent[ExternalIdText],
        Query(alias="externalId", description="Only attempts of the interview with this external id."),
    ] = None,
    status: Annotated[
        IfSent[list[AttemptState]], Query(description="Repeat it for attempts of several statuses.")
    ] = None,
) -> CompanyAttemptFilter:
    return CompanyAttemptFilter(
        interview_id=interview_id,
        candidate_id=candidate_id,
        external_id=external_id,
        states=frozenset(status or ()),
    )


@router.get(
    _OF_COMPANY,
    operation_id="listCompanyCallAttempts",
    summary="List the call attempts of all interviews",
    description="Latest scheduled time first, unless `sort` or a filter says otherwise. The list is read by"
    " `cursor`. It has no numbered pages and no total.",
    responses={200: {"model": CompanyAttemptsAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_company_call_attempts(
    request: Request,
    reader: InterviewReader,
    query: AttemptList,
    filters: Annotated[CompanyAttemptFilter, Depends(_filters)],
) -> JSONResponse:
    asked = query.keyset(_LIST, LATEST_FIRST, by_change=False)
    listed = await reader.ask(reader.use_cases.explain.attempts, asked, filters)
    now = reader.use_cases.now()
    view = CursorPage.of(query.name_of(_LIST), listed, lambda attempt: AttemptView.of(attempt, now))
    return responses.answered(request, view)


@router.get(
    _ALL,
    operation_id="listCallAttempts",
    summary="List the call attempts of an interview",
    description="Newest first.",
    responses={200: {"model": AttemptsAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def list_call_attempts(
    request: Request, reader: InterviewReader, interview_id: InterviewId, page: PageQuery
) -> JSONResponse:
    listed = await reader.ask(reader.use_cases.explain.attempts_page, interview_id, page)
    now = reader.use_cases.now()
    return responses.answered(request, Page.of(listed, lambda attempt: AttemptView.of(attempt, now)))


@router.post(
    _ALL,
    operation_id="createCallAttempt",
    summary="Create a call attempt",
    description="Calls again. A pending attempt is cancelled and replaced by the new one. An interview can have"
    f" {MOST_ATTEMPTS} attempts, with automatic retries and deleted attempts.",
    status_code=HTTPStatus.CREATED,
    responses=command_answers(
        HTTPStatus.CREATED,
        AttemptAnswer,
        "The created call attempt.",
        refusals.OutsideCallTimeInterval,
        refusals.CallAttemptsNotSupported,
        refusals.CallAttemptInProgress,
        refusals.InterviewFinished,
        refusals.TooManyAttempts,
        response_links=links(
            "getCallAttempt",
            "rescheduleCallAttempt",
            "deleteCallAttempt",
            "explainCallAttempt",
            interviewId="$request.path.interviewId",
            attemptId="id",
        ),
    ),
)
async def create_call_attempt(
    sender: InterviewWriter,
    interview_id: InterviewId,
    raw: request_input.OptionalRawBody,
    body: Annotated[CallRequest, Body(openapi_examples=CALLS)] = _AS_SOON_AS_ALLOWED,
) -> Response:
    refuse_any(body.contradictions())
    return await sender.command(body.to_command(interview_id), raw)


@router.get(
    _ONE,
    operation_id="getCallAttempt",
    summary="Get a call attempt and its ETag",
    responses={200: {"model": AttemptAnswer, "headers": ETAG}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_call_attempt(
    request: Request, reader: InterviewReader, interview_id: InterviewId, attempt_id: AttemptId
) -> JSONResponse:
    attempt = await reader.ask(reader.use_cases.explain.attempt, interview_id, attempt_id)
    # Never 304: `waitingFor` changes with the clock, and the ETag does not.
    return responses.answered(
        request, AttemptView.of(attempt, reader.use_cases.now()), headers={"ETag": etag_of(attempt)}
    )


@router.patch(
    _ONE,
    operation_id="rescheduleCallAttempt",
    summary="Reschedule a pending call attempt",
    description="The attempt keeps its id.",
    status_code=HTTPStatus.NO_CONTENT,
    responses=command_answers(
        HTTPStatus.NO_CONTENT,
        None,
        "The attempt is due at the new time.",
        refusals.OutsideCallTimeInterval,
        refusals.CallAttemptNotPending,
        refusals.CallAttemptInProgress,
        refusals.EtagDiffers,
        headers=ETAG,
    ),
)
async def reschedule_call_attempt(
    sender: InterviewWriter,
    interview_id: InterviewId,
    attempt_id: AttemptId,
    if_match: IfMatch,
    raw: request_input.RawBody,
    body: Annotated[CallMove, Body(openapi_examples=MOVES)],
) -> Response:
    return await sender.command(body.to_command(interview_id, attempt_id, if_match), raw)


@router.delete(
    _ONE,
    operation_id="deleteCallAttempt",
    summary="Delete a call attempt",
    description="A pending attempt is cancelled and never rings. An attempt in progress cannot be deleted.",
    status_code=HTTPStatus.NO_CONTENT,
    responses=command_answers(
        HTTPStatus.NO_CONTENT,
        None,
        "The attempt was deleted. No phone rings for it.",
        refusals.CallAttemptInProgress,
        refusals.EtagDiffers,
    ),
)
async def delete_call_attempt(
    sender: InterviewWriter,
    interview_id: InterviewId,
    attempt_id: AttemptId,
    if_match: IfMatch,
    raw: request_input.EmptyBody,
) -> Response:
    return await sender.command(DeleteAttempt(interview_id=interview_id, attempt_id=attempt_id, if_match=if_match), raw)


@router.get(
    _ONE + "/explanation",
    operation_id="explainCallAttempt",
    summary="Explain why a call attempt has not rung yet",
    description="Returns the rules that block the call now, the clock that decides, and the history of the attempt.",
    responses={200: {"model": ExplanationAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def explain_call_attempt(
    request: Request, reader: InterviewReader, interview_id: InterviewId, attempt_id: AttemptId
) -> JSONResponse:
    explanation = await reader.ask(reader.use_cases.explain.explanation, interview_id, attempt_id)
    return responses.answered(request, ExplanationView.of(explanation))


# --- HTTP route that checks when a person may be called


call_times = APIRouter(route_class=request_input.JsonRoute, tags=["call times"])


@call_times.post(
    "/call-times/preview",
    operation_id="previewCallTime",
    summary="Check whether a person may be called at a time",
    description="Returns whether an interview at that time would be accepted, and whose clock would decide. Creates"
    " nothing.",
    responses={200: {"model": CallTimeAnswered}, **error_answers(400, 401, 403, 404, 413, 500, 503)},
)
async def preview_call_time(
    request: Request,
    reader: InterviewReader,
    _raw: request_input.RawBody,
    body: Annotated[CallTimeRequest, Body(openapi_examples=QUESTIONS)],
) -> JSONResponse:
    refuse_any(body.contradictions())
    answer = await reader.ask(reader.use_cases.explain.preview, body.to_question())
    return responses.answered(request, CallTimeView.of(answer))
