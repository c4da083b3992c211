"""HTTP routes for interviews."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from api_shim import request_input, responses
from api_shim.auth import InterviewReader
from api_shim.dispatch import InterviewDeleter, InterviewWriter
from api_shim.list_queries import LISTS_BY_CURSOR, InterviewList
from api_shim.openapi import IfSent, command_answers, error_answers, links
from api_shim.request_input import ExternalIdQuery, InterviewId
from api_shim.schemas.create_interview import CHANGES, EXAMPLES, InterviewRequest
from api_shim.schemas.envelope import DoneAnswer
from api_shim.schemas.interview import InterviewAnswer, InterviewPage, InterviewsAnswer, InterviewView
from scheduler.domain import refusals
from scheduler.domain.command import DeleteInterview
from scheduler.domain.interview import InterviewFilter, InterviewStatus
from scheduler.wire.named_fields import refuse_any
from scheduler.wire.requests import InterviewChange

_ALL = "/interviews"
_ONE = _ALL + "/{interviewId}"
_LIST = "interviews"
router = APIRouter(route_class=request_input.JsonRoute, tags=["interviews"])


async def _filters(
    candidate_id: Annotated[
        IfSent[UUID], Query(alias="candidateId", description="Only interviews with this candidate.")
    ] = None,
    agent_id: Annotated[IfSent[UUID], Query(alias="agentId", description="Only interviews of this agent.")] = None,
    job_id: Annotated[IfSent[UUID], Query(alias="jobId", description="Only interviews about this job.")] = None,
    status: Annotated[
        IfSent[list[InterviewStatus]], Query(description="Repeat it for interviews of several statuses.")
    ] = None,
    external_id: ExternalIdQuery = None,
) -> InterviewFilter:
    return InterviewFilter(
        candidate_id=candidate_id,
        agent_id=agent_id,
        job_id=job_id,
        statuses=frozenset(status or ()),
        external_id=external_id,
    )


@router.get(
    _ALL,
    operation_id="listInterviews",
    summary="List interviews with their call attempts",
    description=LISTS_BY_CURSOR,
    responses={200: {"model": InterviewsAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_interviews(
    request: Request,
    reader: InterviewReader,
    query: InterviewList,
    filters: Annotated[InterviewFilter, Depends(_filters)],
) -> JSONResponse:
    asked = query.slice_or_keyset(_LIST, has_one_status=len(filters.statuses) <= 1)
    listed = await reader.ask(reader.use_cases.explain.interviews, asked, filters)
    now = reader.use_cases.now()
    view = InterviewPage.of(query.name_of(_LIST), listed, lambda story: InterviewView.of(story, now))
    return responses.answered(request, view)


@router.post(
    _ALL,
    operation_id="createInterview",
    summary="Schedule an interview and its first call",
    description="A new candidate, agent or job in the request is created together with the interview. If the request"
    " is rejected, nothing is created.",
    status_code=HTTPStatus.CREATED,
    responses=command_answers(
        HTTPStatus.CREATED,
        InterviewAnswer,
        "The created interview with its first call attempt.",
        refusals.ExternalIdReused,
        refusals.OutsideCallTimeInterval,
        refusals.PhoneNumberRequired,
        refusals.NumberNotAllowed,
        refusals.AgentNumberRequired,
        refusals.JobRequired,
        refusals.JobAmbiguous,
        refusals.JobNotAssigned,
        refusals.TooManyJobs,
        response_links={
            **links("getInterview", "updateInterview", "deleteInterview", interviewId="id"),
            **links("listCallAttempts", "createCallAttempt", interviewId="id"),
            **links("getCallAttempt", interviewId="id", attemptId="callAttempts/0/id"),
        },
        existing=True,
    ),
)
async def create_interview(
    sender: InterviewWriter,
    raw: request_input.RawBody,
    body: Annotated[InterviewRequest, Body(openapi_examples=EXAMPLES)],
) -> Response:
    refuse_any(body.contradictions())
    stale = list(body.stale(sender.use_cases.now().date()))
    texts = responses.ClientTexts.of(body)
    return await sender.command(body.to_command(), raw, texts=texts, stale=stale)


@router.get(
    _ONE,
    operation_id="getInterview",
    summary="Get an interview with its call attempts",
    responses={200: {"model": InterviewAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_interview(request: Request, reader: InterviewReader, interview_id: InterviewId) -> JSONResponse:
    story = await reader.ask(reader.use_cases.explain.interview, interview_id)
    return responses.answered(request, InterviewView.of(story, reader.use_cases.now()))


@router.patch(
    _ONE,
    operation_id="updateInterview",
    summary="Update an interview",
    description="Changes time, expiry, metadata or external id, or the status of an ONLINE interview.",
    responses=command_answers(
        HTTPStatus.OK,
        InterviewAnswer,
        "The updated interview.",
        refusals.OutsideCallTimeInterval,
        refusals.StatusNotSettable,
        refusals.CallAttemptNotPending,
        refusals.CallAttemptInProgress,
        refusals.InterviewFinished,
        refusals.ExternalIdReused,
    ),
)
async def update_interview(
    sender: InterviewWriter,
    interview_id: InterviewId,
    raw: request_input.RawBody,
    body: Annotated[InterviewChange, Body(openapi_examples=CHANGES)],
) -> Response:
    refuse_any(body.contradictions())
    return await sender.command(body.to_command(interview_id), raw)


@router.delete(
    _ONE,
    operation_id="deleteInterview",
    summary="Delete an interview",
    description="Cancels a pending call. A call in progress is not interrupted. The interview can no longer be read.",
    responses=command_answers(HTTPStatus.OK, DoneAnswer, "The interview was deleted."),
)
async def delete_interview(
    sender: InterviewDeleter, interview_id: InterviewId, raw: request_input.EmptyBody
) -> Response:
    return await sender.command(DeleteInterview(interview_id=interview_id), raw)
