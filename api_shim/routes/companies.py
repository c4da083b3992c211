"""HTTP routes for companies."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import auth, request_input, responses
from api_shim.auth import DELETE_COMPANIES, READ_COMPANIES, WRITE_COMPANIES
from api_shim.context import app_context
from api_shim.dispatch import WriteSender, sender_of_principal
from api_shim.openapi import error_answers, links, written_answers
from api_shim.request_input import CompanyId, PageQuery
from api_shim.schemas.company import (
    COMPANIES,
    COMPANY_CHANGES,
    CompaniesAnswer,
    CompanyAnswer,
    CompanyChange,
    CompanyPage,
    CompanyRequest,
    CompanyView,
)
from api_shim.schemas.envelope import DoneAnswer
from scheduler.domain import refusals
from scheduler.domain.command import CommandKind
from scheduler.domain.principal import Principal

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
    return responses.answered(request, CompanyPage.of(listed, CompanyView.of))


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
