"""HTTP routes for candidates."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import request_input, responses
from api_shim.auth import DELETE_CANDIDATES, READ_CANDIDATES, WRITE_CANDIDATES, Client, authenticated_client
from api_shim.dispatch import WriteSender, write_sender
from api_shim.list_queries import LISTS_BY_CURSOR, RecordList
from api_shim.openapi import IfSent, error_answers, links, written_answers
from api_shim.request_input import CandidateId, ExternalIdQuery
from api_shim.schemas.candidate import (
    CANDIDATE_CHANGES,
    CANDIDATES,
    CandidateAnswer,
    CandidateChange,
    CandidatePage,
    CandidateRequest,
    CandidatesAnswer,
    CandidateView,
)
from api_shim.schemas.envelope import DoneAnswer
from scheduler.domain import refusals
from scheduler.domain.command import CommandKind
from scheduler.domain.interview import CandidateFilter, CandidateStatus
from scheduler.wire.field_types import SearchedText
from scheduler.wire.named_fields import refuse_any

_ALL = "/candidates"
_ONE = _ALL + "/{candidateId}"
_LIST = "candidates"
router = APIRouter(route_class=request_input.JsonRoute, tags=["candidates"])

Reader = Annotated[Client, Security(authenticated_client, scopes=[READ_CANDIDATES])]
Writer = Annotated[WriteSender, Security(write_sender, scopes=[WRITE_CANDIDATES])]
Deleter = Annotated[WriteSender, Security(write_sender, scopes=[DELETE_CANDIDATES])]


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
    return responses.answered(request, CandidatePage.of(query.name_of(_LIST), listed, CandidateView.of))


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
