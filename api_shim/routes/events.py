"""HTTP route for events."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Security
from fastapi.responses import JSONResponse

from api_shim import auth, responses
from api_shim.auth import READ_WEBHOOKS
from api_shim.context import app_context
from api_shim.list_queries import EventPeriod, EventTypes
from api_shim.openapi import IfSent, error_answers
from api_shim.request_input import EventId
from api_shim.schemas.event import EventAnswer, EventsAnswer, EventsView, EventView
from scheduler.domain.principal import Principal

router = APIRouter(tags=["events"])
_MAX_PLACE = 2**63 - 1
_ONE = "/events/{eventId}"


@router.get(
    "/events",
    operation_id="listEvents",
    summary="List events of interviews, calls and companies",
    description="Oldest first, kept for 30 days. A regular key returns the events of its company. An ATS key returns"
    " those of all its companies, or only of the company in `companyId`. Events are written only while a key with the"
    " scope `read:webhooks` or a webhook exists for the company, and appear here about a second later.",
    responses={
        200: {"model": EventsAnswer},
        **error_answers(400, 401, 403, 500, 503),
    },
)
async def list_events(
    request: Request,
    principal: Annotated[Principal, Security(auth.principal, scopes=[READ_WEBHOOKS])],
    types: EventTypes,
    period: EventPeriod,
    after: Annotated[
        int, Query(ge=0, le=_MAX_PLACE, description="Return only events after this place. Default: from the oldest.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    delivery_success: Annotated[
        IfSent[bool],
        Query(
            alias="deliverySuccess",
            description="`false`: only events with a delivery to a webhook of this key that waits or has failed,"
            " without tests (`ping`). `true`: all others.",
        ),
    ] = None,
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
    page = await context.ask(
        context.use_cases.events.after,
        principal,
        company,
        types,
        period,
        delivery_success=delivery_success,
        after=after,
        limit=limit,
    )
    return responses.answered(request, EventsView.of(page))


@router.get(
    _ONE,
    operation_id="getEvent",
    summary="Get an event",
    description="`eventId` is the `deliveryId` of the event. An event appears about a second after its change, and"
    " stays for 30 days.",
    responses={200: {"model": EventAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_event(
    request: Request,
    principal: Annotated[Principal, Security(auth.principal, scopes=[READ_WEBHOOKS])],
    event_id: EventId,
) -> JSONResponse:
    context = app_context(request)
    event = await context.ask(context.use_cases.events.get, principal, event_id)
    return responses.answered(request, EventView.of(event))
