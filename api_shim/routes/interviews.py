"""HTTP routes for interviews, and for the commands that change them and other resources."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import auth, request_input, responses
from api_shim.assembly import app_context
from api_shim.auth import (
    READ_AGENTS,
    READ_CANDIDATES,
    READ_COMPANIES,
    READ_INTERVIEWS,
    READ_JOBS,
    READ_WEBHOOKS,
    InterviewReader,
)
from api_shim.dispatch import InterviewDeleter, InterviewWriter
from api_shim.list_queries import LISTS_BY_CURSOR, InterviewList
from api_shim.openapi import IfSent, command_answers, error_answers, links
from api_shim.request_input import ExternalIdQuery, InterviewId
from api_shim.schemas.envelope import CommandAnswer, CursorPage, DoneAnswer
from api_shim.schemas.interview import InterviewAnswer, InterviewsAnswer, InterviewView
from api_shim.schemas.requested_calls import CHANGES, EXAMPLES, InterviewRequest
from scheduler.domain import refusals
from scheduler.domain.command import CommandKind, DeleteInterview
from scheduler.domain.interview import InterviewFilter, InterviewStatus
from scheduler.domain.principal import VOICE, Principal
from scheduler.use_cases.resources.keys import must_have
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
    view = CursorPage.of(query.name_of(_LIST), listed, lambda story: InterviewView.of(story, now))
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


# --- HTTP route for accepted commands


commands = APIRouter(tags=["commands"])

READS: Mapping[CommandKind, str] = {
    CommandKind.CREATE_INTERVIEW: READ_INTERVIEWS,
    CommandKind.UPDATE_INTERVIEW: READ_INTERVIEWS,
    CommandKind.DELETE_INTERVIEW: READ_INTERVIEWS,
    CommandKind.INVOKE_ATTEMPT: READ_INTERVIEWS,
    CommandKind.RESCHEDULE_ATTEMPT: READ_INTERVIEWS,
    CommandKind.DELETE_ATTEMPT: READ_INTERVIEWS,
    CommandKind.REPORT_OUTCOME: VOICE,
    CommandKind.CREATE_COMPANY: READ_COMPANIES,
    CommandKind.UPDATE_COMPANY: READ_COMPANIES,
    CommandKind.DELETE_COMPANY: READ_COMPANIES,
    CommandKind.CREATE_JOB: READ_JOBS,
    CommandKind.UPDATE_JOB: READ_JOBS,
    CommandKind.DELETE_JOB: READ_JOBS,
    CommandKind.CREATE_CANDIDATE: READ_CANDIDATES,
    CommandKind.UPDATE_CANDIDATE: READ_CANDIDATES,
    CommandKind.DELETE_CANDIDATE: READ_CANDIDATES,
    CommandKind.CREATE_AGENT: READ_AGENTS,
    CommandKind.UPDATE_AGENT: READ_AGENTS,
    CommandKind.DELETE_AGENT: READ_AGENTS,
    CommandKind.CREATE_WEBHOOK: READ_WEBHOOKS,
    CommandKind.UPDATE_WEBHOOK: READ_WEBHOOKS,
    CommandKind.DELETE_WEBHOOK: READ_WEBHOOKS,
    CommandKind.TEST_WEBHOOK: READ_WEBHOOKS,
    CommandKind.RESET_WEBHOOK_CIRCUIT: READ_WEBHOOKS,
    CommandKind.ROTATE_WEBHOOK: READ_WEBHOOKS,
    CommandKind.REPLAY_DELIVERY: READ_WEBHOOKS,
    CommandKind.REPLAY_DELIVERIES: READ_WEBHOOKS,
    CommandKind.CREATE_BATCH: READ_INTERVIEWS,
    CommandKind.PAUSE_BATCH: READ_INTERVIEWS,
    CommandKind.RESUME_BATCH: READ_INTERVIEWS,
    CommandKind.CANCEL_BATCH: READ_INTERVIEWS,
}
"""Scope required to read a command: the read scope of the resource that it changed."""


# `:path`, because an idempotency key may contain a slash.
@commands.get(
    "/commands/{reference:path}",
    operation_id="getCommand",
    summary="Get a command by its id or idempotency key",
    description="Returns commands sent by this key or its rotations. Requires the read scope of the resource that the"
    f" command changed: {', '.join(f'`{scope}`' for scope in dict.fromkeys(READS.values()))}. Commands on call attempts"
    " require `read:interviews`.",
    responses={200: {"model": CommandAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_command(
    request: Request, principal: Annotated[Principal, Security(auth.principal)], reference: str
) -> JSONResponse:
    context = app_context(request)
    command = await context.ask(context.use_cases.submit.find, principal, reference)
    must_have(principal, [READS[command.kind]])
    command = await responses.with_titles(request, principal, command)
    texts = await responses.live_texts(request, principal, command)
    return responses.answered(request, responses.command_view(request, command, texts))
