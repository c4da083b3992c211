"""HTTP route for events."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from fastapi.responses import JSONResponse
from pydantic import WithJsonSchema

from api_shim import auth, responses
from api_shim.auth import READ_WEBHOOKS
from api_shim.context import app_context
from api_shim.openapi_responses import IfSent, error_answers
from api_shim.schemas.event import EventsAnswer, EventsView
from scheduler.domain import refusals
from scheduler.domain.partner_event import EventType
from scheduler.domain.principal import Principal
from scheduler.wire.field_errors import FieldError, invalid_fields

router = APIRouter(tags=["events"])
_Bound = Annotated[
    IfSent[str],
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}),
]
_BOUND_FORMAT = "An ISO 8601 date (midnight UTC) or date-time (UTC unless it has an offset)."
_MAX_PLACE = 2**63 - 1


def _types_of(text: str | None) -> frozenset[EventType] | None:
    """Parse types that are separated by commas. Raises InvalidFields."""
    if text is None:
        return None
    names = {name.strip() for name in text.split(",")}
    if not names <= {each.value for each in EventType}:
        message = "These must be event types separated by commas, such as interview.completed,call_attempt.ended."
        raise invalid_fields([FieldError(field="types", code="INVALID_VALUE", message=message)])
    return frozenset(EventType(name) for name in names)


@router.get(
    "/events",
    operation_id="listEvents",
    summary="List events of interviews, calls and companies",
    description="Oldest first, kept for 30 days. A regular key returns the events of its company. An ATS key returns"
    " those of all its companies, or only of the company in `companyId`. Events are written only while a key with the"
    " scope `read:webhooks` or a webhook exists for the company, and appear here about a second later.",
    responses={
        200: {"model": EventsAnswer},
        **error_answers(400, 401, 403, 500, 503, refusals=(refusals.InvalidDateFormat,)),
    },
)
async def list_events(
    request: Request,
    principal: Annotated[Principal, Security(auth.principal, scopes=[READ_WEBHOOKS])],
    after: Annotated[
        int, Query(ge=0, le=_MAX_PLACE, description="Return only events after this place. Default: from the oldest.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    types: Annotated[
        IfSent[str], Query(description="Only these types, separated by commas.", examples=["interview.completed"])
    ] = None,
    since: Annotated[_Bound, Query(alias="from", description=f"Only from this time on. {_BOUND_FORMAT}")] = None,
    until: Annotated[_Bound, Query(alias="to", description=f"Only before this time. {_BOUND_FORMAT}")] = None,
    company_id: Annotated[
        IfSent[str],
        Query(
            alias="companyId",
            description="ATS keys: return only events of this company. Ignored for regular keys.",
            json_schema_extra={"format": "uuid"},
        ),
    ] = None,
) -> JSONResponse:
    context = app_context(request)
    company = auth.named_company(principal, company_id)
    bounds = since, until
    page = await context.ask(
        context.use_cases.events.after, principal, company, _types_of(types), bounds, after=after, limit=limit
    )
    return responses.answered(request, EventsView.of(page))
