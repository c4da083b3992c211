"""HTTP routes for events, and for the history of their deliveries to webhooks."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import auth, request_input, responses
from api_shim.assembly import app_context
from api_shim.auth import READ_WEBHOOKS, WRITE_WEBHOOKS
from api_shim.dispatch import WriteSender, sender_of_principal
from api_shim.list_queries import EventPeriod, EventTypes, PlaceQuery, place_of
from api_shim.openapi import IfSent, error_answers, written_answers
from api_shim.request_input import DeliveryId, EventId, WebhookId
from api_shim.schemas.envelope import CursorPage, CursorPagination, DoneAnswer, list_name, place_text
from api_shim.schemas.event import EventAnswer, EventsAnswer, EventsView, EventView
from api_shim.schemas.webhook import (
    REPLAYS,
    DeliveriesAnswer,
    DeliveryAnswer,
    DeliveryHistoryView,
    DeliveryView,
    ReplayAnswer,
)
from scheduler.domain.command import CommandKind
from scheduler.domain.delivery_history import BATCHES_A_REPLAY, REPLAYED_A_BATCH, DeliveryFilter
from scheduler.domain.principal import Principal
from scheduler.domain.webhook import DeliveryState
from scheduler.wire.named_fields import refuse_any
from scheduler.wire.requests import ReplayRequest

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


# --- HTTP routes for the history of deliveries to webhooks, and for replays


_ONE_WEBHOOK = "/webhooks/{webhookId}"
_ALL_DELIVERIES = _ONE_WEBHOOK + "/deliveries"
_DELIVERIES = "deliveries"
deliveries = APIRouter(route_class=request_input.JsonRoute, tags=["webhooks"])

DeliveryReader = Annotated[Principal, Security(auth.principal, scopes=[READ_WEBHOOKS])]
DeliveryWriter = Annotated[WriteSender, Security(sender_of_principal, scopes=[WRITE_WEBHOOKS])]
_INERT = (
    " A replay has the same id and is signed with the present secret. It waits for no other delivery, and its failure"
    " does not count towards the circuit of the webhook."
)


@deliveries.get(
    _ALL_DELIVERIES,
    operation_id="listWebhookDeliveries",
    summary="List the deliveries to a webhook",
    description="Newest event first, for 30 days. The list is read by `cursor`. The body of an answer is neither stored"
    " nor shown.",
    responses={
        200: {"model": DeliveriesAnswer},
        **error_answers(400, 401, 403, 404, 500, 503),
    },
)
async def list_webhook_deliveries(
    request: Request,
    principal: DeliveryReader,
    webhook_id: WebhookId,
    types: EventTypes,
    period: EventPeriod,
    state: Annotated[IfSent[DeliveryState], Query(description="Only deliveries in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: PlaceQuery = None,
) -> JSONResponse:
    context = app_context(request)
    since, until = period
    wanted = DeliveryFilter(state=state, types=types, since=since, until=until)
    name = list_name(f"{_DELIVERIES}-{webhook_id}", request.query_params.multi_items())
    before = place_of(name, cursor)
    deliveries = context.use_cases.webhook_deliveries
    found = await context.ask(deliveries.page, principal, webhook_id, wanted, before=before, limit=limit)
    end = None if found.before is None else place_text(name, found.before)
    pagination = CursorPagination.uncounted(limit, end, is_first=cursor is None)
    page = CursorPage(items=[DeliveryView.of(each) for each in found.deliveries], pagination=pagination)
    return responses.answered(request, page)


@deliveries.get(
    _ALL_DELIVERIES + "/{deliveryId}",
    operation_id="getWebhookDelivery",
    summary="Get a delivery to a webhook",
    description="Returns its tries with their outcomes. The body of an answer is neither stored nor shown.",
    responses={200: {"model": DeliveryAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_webhook_delivery(
    request: Request, principal: DeliveryReader, webhook_id: WebhookId, delivery_id: DeliveryId
) -> JSONResponse:
    context = app_context(request)
    found = await context.ask(context.use_cases.webhook_deliveries.get, principal, webhook_id, delivery_id)
    return responses.answered(request, DeliveryHistoryView.with_tries(found))


@deliveries.post(
    _ALL_DELIVERIES + "/{deliveryId}/replay",
    operation_id="replayWebhookDelivery",
    summary="Send a delivery again",
    description="A delivery that waits for its next try is sent now." + _INERT,
    status_code=HTTPStatus.ACCEPTED,
    responses=written_answers(HTTPStatus.ACCEPTED, DoneAnswer, "The delivery is sent again."),
)
async def replay_webhook_delivery(
    sender: DeliveryWriter, webhook_id: WebhookId, delivery_id: DeliveryId, raw: request_input.EmptyBody
) -> Response:
    replay = sender.use_cases.webhook_deliveries.replay_one
    return await sender.write(CommandKind.REPLAY_DELIVERY, replay, raw, webhook_id, delivery_id)


@deliveries.post(
    _ONE_WEBHOOK + "/replay",
    operation_id="replayWebhookDeliveries",
    summary="Send the deliveries of a range again",
    description="Replays the finished deliveries of a range of time, and delivers events of the range that were never"
    " sent although the webhook wants their types. Deliveries that wait are left alone. One request replays at most"
    f" {REPLAYED_A_BATCH * BATCHES_A_REPLAY:,}: while `hasMore` is true, send it again with `after`." + _INERT,
    status_code=HTTPStatus.ACCEPTED,
    responses=written_answers(HTTPStatus.ACCEPTED, ReplayAnswer, "The deliveries are sent again."),
)
async def replay_webhook_deliveries(
    sender: DeliveryWriter,
    webhook_id: WebhookId,
    raw: request_input.RawBody,
    body: Annotated[ReplayRequest, Body(openapi_examples=REPLAYS)],
) -> Response:
    refuse_any(body.contradictions())
    replay = sender.use_cases.webhook_deliveries.replay
    return await sender.write(CommandKind.REPLAY_DELIVERIES, replay, raw, webhook_id, body.to_filter(), body.after)
