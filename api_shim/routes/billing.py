"""What calls have cost, over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from fastapi.responses import JSONResponse
from pydantic import WithJsonSchema

from api_shim import answers, auth
from api_shim.auth import READ_BILLING
from api_shim.house import house
from api_shim.openapi import IfSent, error_answers
from api_shim.schemas.usage import UsageAnswer, UsageView
from scheduler.domain import refusals
from scheduler.domain.principal import Principal

router = APIRouter(tags=["billing"])
_Bound = Annotated[
    IfSent[str],
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]
_A_BOUND = "An ISO 8601 date, which is its midnight in UTC, or a date-time; without an offset that is UTC too."


@router.get(
    "/billing/usage",
    operation_id="getUsage",
    summary="Get the usage of one company, or of all of an ATS key",
    description="A regular key gets its own company. An ATS key gets all its companies and their total, or the one that"
    " `companyId` names.",
    responses={
        200: {"model": UsageAnswer},
        **error_answers(400, 401, 403, 500, 503, refusals=(refusals.InvalidDateFormat, refusals.InvalidPeriod)),
    },
)
async def get_usage(
    request: Request,
    principal: Annotated[Principal, Security(auth.principal, scopes=[READ_BILLING])],
    start: Annotated[_Bound, Query(description=f"From here on. {_A_BOUND} Left out: 30 days before the end.")] = None,
    end: Annotated[
        _Bound,
        Query(description=f"Until before here, at most 366 days after the start. {_A_BOUND} Left out: now."),
    ] = None,
    company_id: Annotated[
        IfSent[str],
        Query(
            alias="companyId",
            description="With an ATS key: only this company. Ignored with a regular key.",
            json_schema_extra={"format": "uuid"},
        ),
    ] = None,
) -> JSONResponse:
    here = house(request)
    one = auth.named_company(principal, company_id)
    companies = await here.ask(here.doors.usage.of, principal, one, start, end)
    return answers.answered(request, UsageView.of(companies))
