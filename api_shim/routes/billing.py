"""HTTP route for usage."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from fastapi.responses import JSONResponse
from pydantic import WithJsonSchema

from api_shim import auth, responses
from api_shim.auth import READ_BILLING
from api_shim.context import app_context
from api_shim.openapi import IfSent, error_answers
from api_shim.schemas.usage import UsageAnswer, UsageView
from scheduler.domain import refusals
from scheduler.domain.principal import Principal

router = APIRouter(tags=["billing"])
_Bound = Annotated[
    IfSent[str],
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]
_BOUND_FORMAT = "An ISO 8601 date (midnight UTC) or date-time (UTC unless it has an offset)."


@router.get(
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
