"""HTTP routes for candidates, and for the jobs that they are considered for."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import auth, request_input, responses
from api_shim.dispatch import WriteSender, write_sender
from api_shim.list_queries import LISTS_BY_CURSOR, RecordList
from api_shim.openapi import IfSent, error_answers, links, written_answers
from api_shim.request_input import CandidateId, ExternalIdQuery, JobId
from api_shim.schemas.candidate import (
    CANDIDATE_CHANGES,
    CANDIDATES,
    CandidateAnswer,
    CandidateChange,
    CandidateRequest,
    CandidatesAnswer,
    CandidateView,
)
from api_shim.schemas.envelope import CursorPage, DoneAnswer
from api_shim.schemas.job import JOB_CHANGES, JOBS, JobAnswer, JobChange, JobRequest, JobsAnswer, JobView
from scheduler.domain import refusals
from scheduler.domain.command import CommandKind
from scheduler.domain.interview import CandidateFilter, CandidateStatus, JobFilter, JobStatus
from scheduler.wire.field_types import SearchedText
from scheduler.wire.named_fields import refuse_any

# --- HTTP routes for jobs


_ALL_JOBS = "/jobs"
_ONE_JOB = _ALL_JOBS + "/{jobId}"
_JOBS = "jobs"
jobs = APIRouter(route_class=request_input.JsonRoute, tags=["jobs"])

JobReader = Annotated[auth.Client, Security(auth.authenticated_client, scopes=[auth.READ_JOBS])]
JobWriter = Annotated[WriteSender, Security(write_sender, scopes=[auth.WRITE_JOBS])]
JobDeleter = Annotated[WriteSender, Security(write_sender, scopes=[auth.DELETE_JOBS])]


@jobs.get(
    _ALL_JOBS,
    operation_id="listJobs",
    summary="List jobs",
    description=LISTS_BY_CURSOR,
    responses={200: {"model": JobsAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_jobs(
    request: Request,
    reader: JobReader,
    query: RecordList,
    status: Annotated[IfSent[list[JobStatus]], Query(description="Repeat it for jobs of several statuses.")] = None,
    external_id: ExternalIdQuery = None,
) -> JSONResponse:
    filters = JobFilter(statuses=frozenset(status or ()), external_id=external_id)
    asked = query.slice_or_keyset(_JOBS, has_one_status=len(filters.statuses) <= 1)
    listed = await reader.ask(reader.use_cases.jobs.page, asked, filters)
    return responses.answered(request, CursorPage.of(query.name_of(_JOBS), listed, JobView.of))


@jobs.post(
    _ALL_JOBS,
    operation_id="createJob",
    summary="Create a job",
    description="Candidates are assigned to a job with their `jobIds`.",
    status_code=HTTPStatus.CREATED,
    responses=written_answers(
        HTTPStatus.CREATED,
        JobAnswer,
        "The created job.",
        refusals.ExternalIdReused,
        response_links=links("getJob", "updateJob", "deleteJob", jobId="id"),
        existing=True,
    ),
)
async def create_job(
    sender: JobWriter, raw: request_input.RawBody, body: Annotated[JobRequest, Body(openapi_examples=JOBS)]
) -> Response:
    new = body.to_new_job()
    return await sender.write(CommandKind.CREATE_JOB, sender.use_cases.jobs.create, raw, sender.company_id, new)


@jobs.get(
    _ONE_JOB,
    operation_id="getJob",
    summary="Get a job",
    responses={200: {"model": JobAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_job(request: Request, reader: JobReader, job_id: JobId) -> JSONResponse:
    job = await reader.ask(reader.use_cases.jobs.get, job_id)
    return responses.answered(request, JobView.of(job))


@jobs.patch(
    _ONE_JOB,
    operation_id="updateJob",
    summary="Update a job",
    description="Set `status` to close the job or to open it again.",
    responses=written_answers(HTTPStatus.OK, JobAnswer, "The updated job.", refusals.ExternalIdReused),
)
async def update_job(
    sender: JobWriter,
    job_id: JobId,
    raw: request_input.RawBody,
    body: Annotated[JobChange, Body(openapi_examples=JOB_CHANGES)],
) -> Response:
    return await sender.write(
        CommandKind.UPDATE_JOB, sender.use_cases.jobs.change, raw, sender.company_id, job_id, body.to_changes()
    )


@jobs.delete(
    _ONE_JOB,
    operation_id="deleteJob",
    summary="Delete a job",
    description="Candidates are no longer assigned to the job. Its interviews are kept.",
    responses=written_answers(HTTPStatus.OK, DoneAnswer, "The job was deleted."),
)
async def delete_job(sender: JobDeleter, job_id: JobId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(CommandKind.DELETE_JOB, sender.use_cases.jobs.delete, raw, sender.company_id, job_id)


# --- HTTP routes for candidates


_ALL = "/candidates"
_ONE = _ALL + "/{candidateId}"
_LIST = "candidates"
router = APIRouter(route_class=request_input.JsonRoute, tags=["candidates"])

Reader = Annotated[auth.Client, Security(auth.authenticated_client, scopes=[auth.READ_CANDIDATES])]
Writer = Annotated[WriteSender, Security(write_sender, scopes=[auth.WRITE_CANDIDATES])]
Deleter = Annotated[WriteSender, Security(write_sender, scopes=[auth.DELETE_CANDIDATES])]


@router.get(
    _ALL,
    operation_id="listCandidates",
    summary="List candidates",
    description=LISTS_BY_CURSOR,
    responses={200: {"model": CandidatesAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_candidates(
    request: Request,
    reader: Reader,
    query: RecordList,
    job_id: Annotated[IfSent[UUID], Query(alias="jobId", description="Only candidates assigned to this job.")] = None,
    status: Annotated[
        IfSent[list[CandidateStatus]], Query(description="Repeat it for candidates of several statuses.")
    ] = None,
    search: Annotated[IfSent[SearchedText], Query(description="Part of a name or e-mail address.")] = None,
    external_id: ExternalIdQuery = None,
) -> JSONResponse:
    filters = CandidateFilter(job_id=job_id, statuses=frozenset(status or ()), search=search, external_id=external_id)
    asked = query.slice_or_keyset(_LIST, has_one_status=len(filters.statuses) <= 1)
    listed = await reader.ask(reader.use_cases.candidates.page, asked, filters)
    return responses.answered(request, CursorPage.of(query.name_of(_LIST), listed, CandidateView.of))


@router.post(
    _ALL,
    operation_id="createCandidate",
    summary="Create a candidate",
    description="Accepts any phone number in E.164. Whether it may be called is checked when a call is requested.",
    status_code=HTTPStatus.CREATED,
    responses=written_answers(
        HTTPStatus.CREATED,
        CandidateAnswer,
        "The created candidate.",
        refusals.ExternalIdReused,
        refusals.InvalidTimezone,
        refusals.UnknownJobs,
        response_links=links("getCandidate", "updateCandidate", "deleteCandidate", candidateId="id"),
        existing=True,
    ),
)
async def create_candidate(
    sender: Writer, raw: request_input.RawBody, body: Annotated[CandidateRequest, Body(openapi_examples=CANDIDATES)]
) -> Response:
    refuse_any(body.contradictions(sender.use_cases.now().date()))
    new = body.to_new_candidate()
    return await sender.write(
        CommandKind.CREATE_CANDIDATE, sender.use_cases.candidates.create, raw, sender.company_id, new
    )


@router.get(
    _ONE,
    operation_id="getCandidate",
    summary="Get a candidate",
    responses={200: {"model": CandidateAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_candidate(request: Request, reader: Reader, candidate_id: CandidateId) -> JSONResponse:
    candidate = await reader.ask(reader.use_cases.candidates.get, candidate_id)
    return responses.answered(request, CandidateView.of(candidate))


@router.patch(
    _ONE,
    operation_id="updateCandidate",
    summary="Update a candidate",
    description="Pending calls use the new phone number and its time zone. While a call is pending, only a number that"
    " may be called is accepted.",
    responses=written_answers(
        HTTPStatus.OK,
        CandidateAnswer,
        "The updated candidate.",
        refusals.ExternalIdReused,
        refusals.InvalidTimezone,
        refusals.PhoneNumberInvalid,
        refusals.NumberNotAllowed,
        refusals.UnknownJobs,
    ),
)
async def update_candidate(
    sender: Writer,
    candidate_id: CandidateId,
    raw: request_input.RawBody,
    body: Annotated[CandidateChange, Body(openapi_examples=CANDIDATE_CHANGES)],
) -> Response:
    refuse_any(body.contradictions(sender.use_cases.now().date()))
    return await sender.write(
        CommandKind.UPDATE_CANDIDATE,
        sender.use_cases.candidates.change,
        raw,
        sender.company_id,
        candidate_id,
        body.to_changes(),
    )


@router.delete(
    _ONE,
    operation_id="deleteCandidate",
    summary="Delete a candidate",
    description="Erases name, phone number and e-mail address and cancels pending calls. A call in progress is not"
    " interrupted. Interviews are kept without the personal data.",
    responses=written_answers(HTTPStatus.OK, DoneAnswer, "The candidate was erased."),
)
async def delete_candidate(sender: Deleter, candidate_id: CandidateId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(
        CommandKind.DELETE_CANDIDATE, sender.use_cases.candidates.delete, raw, sender.company_id, candidate_id
    )
