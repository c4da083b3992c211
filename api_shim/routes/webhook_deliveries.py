"""HTTP routes for the history of deliveries to webhooks, and for replays."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import auth, request_input, responses
from api_shim.auth import READ_WEBHOOKS, WRITE_WEBHOOKS
from api_shim.context import app_context
from api_shim.dispatch import WriteSender, sender_of_principal
from api_shim.list_queries import CursorText, EventPeriod, EventTypes, place_of
from api_shim.openapi import IfSent, error_answers, written_answers
from api_shim.request_input import DeliveryId, WebhookId
from api_shim.schemas.envelope import CursorPagination, DoneAnswer, list_name, place_text
from api_shim.schemas.webhook import (
    REPLAYS,
    DeliveriesAnswer,
    DeliveryAnswer,
    DeliveryHistoryView,
    DeliveryPage,
    DeliveryView,
    ReplayAnswer,
)
from scheduler.domain.command import CommandKind
from scheduler.domain.delivery_history import BATCHES_A_REPLAY, REPLAYED_A_BATCH, DeliveryFilter
from scheduler.domain.principal import Principal
from scheduler.domain.webhook import DeliveryState
from scheduler.wire.named_fields import refuse_any
from scheduler.wire.requests import ReplayRequest

_ONE = "/webhooks/{webhookId}"
_ALL = _ONE + "/deliveries"
_LIST = "deliveries"
router = APIRouter(route_class=request_input.JsonRoute, tags=["webhooks"])

Reader = Annotated[Principal, Security(auth.principal, scopes=[READ_WEBHOOKS])]
Writer = Annotated[WriteSender, Security(sender_of_principal, scopes=[WRITE_WEBHOOKS])]
_INERT = (
    " A replay has the same id and is signed with the present secret. It waits for no other delivery, and its failure"
    " does not count towards the circuit of the webhook."
)


@router.get(
    _ALL,
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
    principal: Reader,
    webhook_id: WebhookId,
    types: EventTypes,
    period: EventPeriod,
    state: Annotated[IfSent[DeliveryState], Query(description="Only deliveries in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[
        IfSent[CursorText], Query(description="The `nextCursor` of the page before, with the same filters.")
    ] = None,
) -> JSONResponse:
    context = app_context(request)
    since, until = period
    wanted = DeliveryFilter(state=state, types=types, since=since, until=until)
    name = list_name(f"{_LIST}-{webhook_id}", request.query_params.multi_items())
    before = place_of(name, cursor)
    deliveries = context.use_cases.webhook_deliveries
    found = await context.ask(deliveries.page, principal, webhook_id, wanted, before=before, limit=limit)
    end = None if found.before is None else place_text(name, found.before)
    pagination = CursorPagination.uncounted(limit, end, is_first=cursor is None)
    page = DeliveryPage(items=[DeliveryView.of(each) for each in found.deliveries], pagination=pagination)
    return responses.answered(request, page)


@router.get(
    _ALL + "/{deliveryId}",
    operation_id="getWebhookDelivery",
    summary="Get a delivery to a webhook",
    description="Returns its tries with their outcomes. The body of an answer is neither stored nor shown.",
    responses={200: {"model": DeliveryAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_webhook_delivery(
    request: Request, principal: Reader, webhook_id: WebhookId, delivery_id: DeliveryId
) -> JSONResponse:
    context = app_context(request)
    found = await context.ask(context.use_cases.webhook_deliveries.get, principal, webhook_id, delivery_id)
    return responses.answered(request, DeliveryHistoryView.with_tries(found))


@router.post(
    _ALL + "/{deliveryId}/replay",
    operation_id="replayWebhookDelivery",
    summary="Send a delivery again",
    description="A delivery that waits for its next try is sent now." + _INERT,
    status_code=HTTPStatus.ACCEPTED,
    responses=written_answers(HTTPStatus.ACCEPTED, DoneAnswer, "The delivery is sent again."),
)
async def replay_webhook_delivery(
    sender: Writer, webhook_id: WebhookId, delivery_id: DeliveryId, raw: request_input.EmptyBody
) -> Response:
    replay = sender.use_cases.webhook_deliveries.replay_one
    return await sender.write(CommandKind.REPLAY_DELIVERY, replay, raw, webhook_id, delivery_id)


@router.post(
    _ONE + "/replay",
    operation_id="replayWebhookDeliveries",
    summary="Send the deliveries of a range again",
    description="Replays the finished deliveries of a range of time, and delivers events of the range that were never"
    " sent although the webhook wants their types. Deliveries that wait are left alone. One request replays at most"
    f" {REPLAYED_A_BATCH * BATCHES_A_REPLAY:,}: while `hasMore` is true, send it again with `after`." + _INERT,
    status_code=HTTPStatus.ACCEPTED,
    responses=written_answers(HTTPStatus.ACCEPTED, ReplayAnswer, "The deliveries are sent again."),
)
async def replay_webhook_deliveries(
    sender: Writer,
    webhook_id: WebhookId,
    raw: request_input.RawBody,
    body: Annotated[ReplayRequest, Body(openapi_examples=REPLAYS)],
) -> Response:
    refuse_any(body.contradictions())
    replay = sender.use_cases.webhook_deliveries.replay
    return await sender.write(CommandKind.REPLAY_DELIVERIES, replay, raw, webhook_id, body.to_filter(), body.after)
