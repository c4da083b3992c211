"""HTTP routes for companies, their usage, and the acceptance of invitations by their owners."""

from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Request, Security
from fastapi.responses import JSONResponse, Response
from pydantic import WithJsonSchema

from api_shim import auth, request_input, responses
from api_shim.assembly import app_context
from api_shim.auth import DELETE_COMPANIES, READ_BILLING, READ_COMPANIES, WRITE_COMPANIES
from api_shim.dispatch import WriteSender, confirm_commit, sender_of_principal
from api_shim.errors import CommitUnknown
from api_shim.openapi import IfSent, error_answers, links, written_answers
from api_shim.request_input import CompanyId, PageQuery, refuse_wrong_query
from api_shim.schemas.company import (
    ACCEPTANCES,
    COMPANIES,
    COMPANY_CHANGES,
    Acceptance,
    CompaniesAnswer,
    CompanyAnswer,
    CompanyChange,
    CompanyRequest,
    CompanyView,
    OwnerAnswer,
    OwnerView,
)
from api_shim.schemas.envelope import DoneAnswer, Page
from api_shim.schemas.usage import UsageAnswer, UsageView
from api_shim.thread_pools import run_write
from scheduler.domain import refusals
from scheduler.domain.command import CommandKind
from scheduler.domain.principal import Principal
from scheduler.persistence.errors import Commit, CommitInDoubt

_ALL = "/company"
_ONE = _ALL + "/{companyId}"
_SETTINGS = (refusals.InvalidTimezone, refusals.InvalidInterval, refusals.NeverOpen, refusals.InvalidRetryPolicy)
router = APIRouter(route_class=request_input.JsonRoute, tags=["companies"])

Reader = Annotated[Principal, Security(auth.principal, scopes=[READ_COMPANIES])]
Deleter = Annotated[WriteSender, Security(sender_of_principal, scopes=[DELETE_COMPANIES])]
Writer = Annotated[WriteSender, Security(sender_of_principal, scopes=[WRITE_COMPANIES])]


@router.get(
    _ALL,
    operation_id="listCompanies",
    summary="List companies",
    description="A regular key returns its own company. An ATS key returns the companies that it created, newest"
    " first.",
    responses={200: {"model": CompaniesAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_companies(request: Request, principal: Reader, page: PageQuery) -> JSONResponse:
    context = app_context(request)
    listed = await context.ask(context.use_cases.companies.page, principal, page)
    return responses.answered(request, Page.of(listed, CompanyView.of))


@router.post(
    _ALL,
    operation_id="createCompany",
    summary="Create a company",
    description="Requires an ATS key, which has access to the company from then on.",
    status_code=HTTPStatus.CREATED,
    responses=written_answers(
        HTTPStatus.CREATED,
        CompanyAnswer,
        "The created company.",
        *_SETTINGS,
        refusals.CompanyDeleted,
        response_links=links("getCompany", "updateCompany", "deleteCompany", companyId="id"),
    ),
)
async def create_company(
    sender: Writer, raw: request_input.RawBody, body: Annotated[CompanyRequest, Body(openapi_examples=COMPANIES)]
) -> Response:
    new = body.to_new_company()
    return await sender.write(CommandKind.CREATE_COMPANY, sender.use_cases.companies.create, raw, new)


@router.get(
    _ONE,
    operation_id="getCompany",
    summary="Get a company",
    responses={200: {"model": CompanyAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def get_company(request: Request, principal: Reader, company_id: CompanyId) -> JSONResponse:
    context = app_context(request)
    company = await context.ask(context.use_cases.companies.get, principal, company_id)
    return responses.answered(request, CompanyView.of(company))


@router.patch(
    _ONE,
    operation_id="updateCompany",
    summary="Update a company",
    description="Pending calls are rescheduled if calling hours, time zone or allowed countries change.",
    responses=written_answers(HTTPStatus.OK, CompanyAnswer, "The updated company.", *_SETTINGS),
)
async def update_company(
    sender: Writer,
    company_id: CompanyId,
    raw: request_input.RawBody,
    body: Annotated[CompanyChange, Body(openapi_examples=COMPANY_CHANGES)],
) -> Response:
    return await sender.write(
        CommandKind.UPDATE_COMPANY, sender.use_cases.companies.change, raw, company_id, body.to_changes()
    )


@router.delete(
    _ONE,
    operation_id="deleteCompany",
    summary="Delete a company",
    description="Places no further calls for the company and erases all its data.",
    responses=written_answers(
        HTTPStatus.OK,
        DoneAnswer,
        "The company was deleted. Its keys are invalid and its data can no longer be read. The data is erased after"
        " calls in progress have been ended.",
    ),
)
async def delete_company(sender: Deleter, company_id: CompanyId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(CommandKind.DELETE_COMPANY, sender.use_cases.companies.delete, raw, company_id)


# --- HTTP route that accepts an invitation. Opening the link in the e-mail changes nothing


invitations = APIRouter(
    route_class=request_input.JsonRoute, tags=["invitations"], dependencies=[Depends(refuse_wrong_query)]
)


@invitations.post(
    "/invitations/accept",
    operation_id="acceptInvitation",
    summary="Accept an invitation to own a company",
    description="This endpoint needs no API key and ignores `Idempotency-Key`. A used token always returns 410, even to"
    " the person who used it.",
    responses={
        200: {"model": OwnerAnswer},
        **error_answers(400, 413, 500, 503, refusals=(refusals.InvitationGone,), writes=True),
    },
)
async def accept_invitation(
    request: Request, _: request_input.RawBody, body: Annotated[Acceptance, Body(openapi_examples=ACCEPTANCES)]
) -> JSONResponse:
    context = app_context(request)
    commit = Commit()
    try:
        accept = partial(context.use_cases.owners.accept, body.token, body.name, commit=commit)
        owner = await run_write(context.threads.without_key, commit, accept)
    except CommitInDoubt as doubt:
        owner = await confirm_commit(context, commit, doubt, _acceptance_unknown)
    return responses.answered(request, OwnerView.of(owner))


def _acceptance_unknown() -> CommitUnknown:
    return CommitUnknown(
        "The database connection was lost, so the invitation may have been accepted. Send the request again: 410 then"
        " means that it was accepted or can no longer be used.",
        may_send_again=True,
    )


# --- HTTP route for usage


billing = APIRouter(tags=["billing"])
_Bound = Annotated[
    IfSent[str],
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]
_BOUND_FORMAT = "An ISO 8601 date (midnight UTC) or date-time (UTC unless it has an offset)."


@billing.get(
    "/billing/usage",
    operation_id="getUsage",
    summary="Get the usage of one company or of all companies",
    description="A regular key returns its own company. An ATS key returns all its companies and their totals, or only"
    " the company in `companyId`.",
    responses={
        200: {"model": UsageAnswer},
        **error_answers(400, 401, 403, 500, 503, refusals=(refusals.InvalidDateFormat, refusals.InvalidPeriod)),
    },
)
async def get_usage(
    request: Request,
    principal: Annotated[Principal, Security(auth.principal, scopes=[READ_BILLING])],
    start: Annotated[
        _Bound, Query(description=f"Start (inclusive). {_BOUND_FORMAT} Default: 30 days before `end`.")
    ] = None,
    end: Annotated[
        _Bound, Query(description=f"End (exclusive), at most 366 days after `start`. {_BOUND_FORMAT} Default: now.")
    ] = None,
    company_id: Annotated[
        IfSent[str],
        Query(
            alias="companyId",
            description="ATS keys: return only this company. Ignored for regular keys.",
            json_schema_extra={"format": "uuid"},
        ),
    ] = None,
) -> JSONResponse:
    context = app_context(request)
    company = auth.named_company(principal, company_id)
    companies = await context.ask(context.use_cases.usage.of, principal, company, start, end)
    return responses.answered(request, UsageView.of(companies))
