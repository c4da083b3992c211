"""HTTP routes for jobs."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import request_input, responses
from api_shim.auth import DELETE_JOBS, READ_JOBS, WRITE_JOBS, Client, authenticated_client
from api_shim.dispatch import WriteSender, write_sender
from api_shim.list_queries import LISTS_BY_CURSOR, RecordList
from api_shim.openapi import IfSent, error_answers, links, written_answers
from api_shim.request_input import ExternalIdQuery, JobId
from api_shim.schemas.envelope import DoneAnswer
from api_shim.schemas.job import JOB_CHANGES, JOBS, JobAnswer, JobChange, JobPage, JobRequest, JobsAnswer, JobView
from scheduler.domain import refusals
from scheduler.domain.command import CommandKind
from scheduler.domain.interview import JobFilter, JobStatus

_ALL = "/jobs"
_ONE = _ALL + "/{jobId}"
_LIST = "jobs"
router = APIRouter(route_class=request_input.JsonRoute, tags=["jobs"])

Reader = Annotated[Client, Security(authenticated_client, scopes=[READ_JOBS])]
Writer = Annotated[WriteSender, Security(write_sender, scopes=[WRITE_JOBS])]
Deleter = Annotated[WriteSender, Security(write_sender, scopes=[DELETE_JOBS])]


@router.get(
    _ALL,
    operation_id="listJobs",
    summary="List jobs",
    description=LISTS_BY_CURSOR,
    responses={200: {"model": JobsAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_jobs(
    request: Request,
    reader: Reader,
    query: RecordList,
    status: Annotated[IfSent[list[JobStatus]], Query(description="Repeat it for jobs of several statuses.")] = None,
    external_id: ExternalIdQuery = None,
) -> JSONResponse:
    filters = JobFilter(statuses=frozenset(status or ()), external_id=external_id)
    asked = query.slice_or_keyset(_LIST, has_one_status=len(filters.statuses) <= 1)
    listed = await reader.ask(reader.use_cases.jobs.page, asked, filters)
    return responses.answered(request, JobPage.of(query.name_of(_LIST), listed, JobView.of))


@router.post(
    _ALL,
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
    sender: Writer, raw: request_input.RawBody, body: Annotated[JobRequest, Body(openapi_examples=JOBS)]
) -> Response:
    new = body.to_new_job()
    return await sender.write(CommandKind.CREATE_JOB, sender.use_cases.jobs.create, raw, sender.company_id, new)


@router.get(
    _ONE,
    operation_id="getJob",
    summary="Get a job",
    responses={200: {"model": JobAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_job(request: Request, reader: Reader, job_id: JobId) -> JSONResponse:
    job = await reader.ask(reader.use_cases.jobs.get, job_id)
    return responses.answered(request, JobView.of(job))


@router.patch(
    _ONE,
    operation_id="updateJob",
    summary="Update a job",
    description="Set `status` to close the job or to open it again.",
    responses=written_answers(HTTPStatus.OK, JobAnswer, "The updated job.", refusals.ExternalIdReused),
)
async def update_job(
    sender: Writer,
    job_id: JobId,
    raw: request_input.RawBody,
    body: Annotated[JobChange, Body(openapi_examples=JOB_CHANGES)],
) -> Response:
    return await sender.write(
        CommandKind.UPDATE_JOB, sender.use_cases.jobs.change, raw, sender.company_id, job_id, body.to_changes()
    )


@router.delete(
    _ONE,
    operation_id="deleteJob",
    summary="Delete a job",
    description="Candidates are no longer assigned to the job. Its interviews are kept.",
    responses=written_answers(HTTPStatus.OK, DoneAnswer, "The job was deleted."),
)
async def delete_job(sender: Deleter, job_id: JobId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(CommandKind.DELETE_JOB, sender.use_cases.jobs.delete, raw, sender.company_id, job_id)
