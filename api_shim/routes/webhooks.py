"""HTTP routes for webhooks."""

import asyncio
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import auth, request_input, responses
from api_shim.assembly import AppContext, app_context
from api_shim.auth import READ_WEBHOOKS, WRITE_WEBHOOKS
from api_shim.dispatch import WriteSender, sender_of_principal
from api_shim.openapi import IfSent, error_answers, links, written_answers
from api_shim.request_input import PageQuery, Preferred, WebhookId
from api_shim.schemas.envelope import Page
from api_shim.schemas.webhook import (
    WEBHOOK_CHANGES,
    WEBHOOKS,
    NewSecretAnswer,
    WebhookAnswer,
    WebhooksAnswer,
    WebhookTestAnswer,
    WebhookTestView,
    WebhookView,
)
from api_shim.thread_pools import MAX_S
from scheduler.clock import monotonic, set_deadline
from scheduler.domain import refusals
from scheduler.domain.command import CommandKind
from scheduler.domain.delivery_history import SENT_AT_ONCE
from scheduler.domain.principal import Principal
from scheduler.domain.webhook import MOST_OF_A_KEY, EndpointTest, TestProgress
from scheduler.persistence.errors import DatabaseAway
from scheduler.wire.named_fields import refuse_any
from scheduler.wire.webhooks import CreateWebhook, UpdateWebhook, contradictions

_ALL = "/webhooks"
_ONE = _ALL + "/{webhookId}"
router = APIRouter(route_class=request_input.JsonRoute, tags=["webhooks"])

Reader = Annotated[Principal, Security(auth.principal, scopes=[READ_WEBHOOKS])]
Writer = Annotated[WriteSender, Security(sender_of_principal, scopes=[WRITE_WEBHOOKS])]

WAIT_S = 20.0
"""Longer than a delivery may take."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LONGER = 0.05, 1.0, 1.5
_SENDS_WAITING = (
    f"Deliveries that wait for a later try are sent now: up to {SENT_AT_ONCE:,}, those whose try is next. The others"
    " keep their times until the request is repeated."
)


@router.get(
    _ALL,
    operation_id="listWebhooks",
    summary="List webhooks",
    description="Returns the webhooks of this key and of other keys of the company, newest first. An ATS key gets those"
    " of all its companies.",
    responses={200: {"model": WebhooksAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_webhooks(
    request: Request,
    principal: Reader,
    page: PageQuery,
    company_id: Annotated[
        IfSent[str],
        Query(
            alias="companyId",
            description="ATS keys: only webhooks for this company, without those for all companies. Ignored for regular"
            " keys.",
            json_schema_extra={"format": "uuid"},
        ),
    ] = None,
) -> JSONResponse:
    context = app_context(request)
    company = auth.named_company(principal, company_id)
    listed = await context.ask(context.use_cases.webhooks.page, principal, company, page)
    return responses.answered(request, Page.of(listed, WebhookView.of))


@router.post(
    _ALL,
    operation_id="createWebhook",
    summary="Create a webhook",
    description="Each event of the chosen types is posted to the URL as JSON, signed by Standard Webhooks, until the"
    " receiver answers with a status from 200 to 299 within 15 seconds: ten tries in about three days. Only this"
    " response contains `signingSecret`. Only this key and its rotations can change the webhook. Other keys of the"
    " company, and its ATS, can see and delete it. A key and its rotations can have"
    f" {MOST_OF_A_KEY}.",
    status_code=HTTPStatus.CREATED,
    responses=written_answers(
        HTTPStatus.CREATED,
        NewSecretAnswer,
        "The created webhook, with its secret.",
        refusals.TooManyWebhooks,
        response_links=links(
            "getWebhook",
            "updateWebhook",
            "deleteWebhook",
            "testWebhook",
            "resetWebhookCircuit",
            "rotateWebhookSecret",
            webhookId="id",
        ),
    ),
)
async def create_webhook(
    sender: Writer, raw: request_input.RawBody, body: Annotated[CreateWebhook, Body(openapi_examples=WEBHOOKS)]
) -> Response:
    webhooks = sender.use_cases.webhooks
    refuse_any(contradictions(body, https_only=webhooks.https_only))
    return await sender.write(
        CommandKind.CREATE_WEBHOOK, webhooks.create, webhooks.comparable(raw), body.to_new_endpoint()
    )


@router.get(
    _ONE,
    operation_id="getWebhook",
    summary="Get a webhook",
    description="Returns its settings and its health: whether it is active, its failures in a row, and why it was"
    " disabled.",
    responses={200: {"model": WebhookAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_webhook(request: Request, principal: Reader, webhook_id: WebhookId) -> JSONResponse:
    context = app_context(request)
    endpoint = await context.ask(context.use_cases.webhooks.get, principal, webhook_id)
    return responses.answered(request, WebhookView.of(endpoint))


@router.patch(
    _ONE,
    operation_id="updateWebhook",
    summary="Update a webhook",
    description="`isActive: false` pauses the webhook: new events are not delivered to it, and waiting deliveries wait."
    " `isActive: true` also enables a webhook that Duecall has disabled. If the webhook was not active, its waiting"
    " deliveries are then sent as `POST /webhooks/{id}/reset-circuit` sends them.",
    responses=written_answers(HTTPStatus.OK, WebhookAnswer, "The updated webhook."),
)
async def update_webhook(
    sender: Writer,
    webhook_id: WebhookId,
    raw: request_input.RawBody,
    body: Annotated[UpdateWebhook, Body(openapi_examples=WEBHOOK_CHANGES)],
) -> Response:
    webhooks = sender.use_cases.webhooks
    refuse_any(contradictions(body, https_only=webhooks.https_only))
    return await sender.write(
        CommandKind.UPDATE_WEBHOOK, webhooks.change, webhooks.comparable(raw), webhook_id, body.to_changes()
    )


@router.delete(
    _ONE,
    operation_id="deleteWebhook",
    summary="Delete a webhook",
    description="Waiting deliveries are cancelled. A request that is being sent may still arrive.",
    status_code=HTTPStatus.NO_CONTENT,
    responses=written_answers(HTTPStatus.NO_CONTENT, None, "The webhook was deleted."),
)
async def delete_webhook(sender: Writer, webhook_id: WebhookId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(CommandKind.DELETE_WEBHOOK, sender.use_cases.webhooks.delete, raw, webhook_id)


@router.post(
    _ONE + "/test",
    operation_id="testWebhook",
    summary="Send a ping to a webhook",
    description=f"Sends an event of type `ping`, once, and waits up to {WAIT_S:g} seconds for the answer, or as long as"
    " `Prefer` says. The response is 200 for a failed ping, too: `data.success` has the result. The webhook needs no"
    " subscription to `ping`.",
    responses=written_answers(HTTPStatus.OK, WebhookTestAnswer, "The result of the test.", refusals.WebhookNotActive),
)
async def test_webhook(
    sender: Writer, preferred: Preferred, webhook_id: WebhookId, raw: request_input.EmptyBody
) -> Response:
    request, kind = sender.request, CommandKind.TEST_WEBHOOK
    written = await sender.carry_out(kind, sender.use_cases.webhooks.test, raw, webhook_id)
    if not isinstance(written.record, EndpointTest):
        return responses.written(request, kind, written)
    seconds = preferred.wait_s if preferred.names_wait else WAIT_S
    progress = await _outcome_of(sender.context, sender.principal, written.record, seconds)
    headers = {"Idempotent-Replayed": "true"} if written.replayed else {}
    return responses.answered(request, WebhookTestView.of(written.record, progress), headers=headers)


@router.post(
    _ONE + "/reset-circuit",
    operation_id="resetWebhookCircuit",
    summary="Reset the circuit of a webhook",
    description=f"Forgets its failures, and sets `isActive` to true. {_SENDS_WAITING}",
    responses=written_answers(HTTPStatus.OK, WebhookAnswer, "The webhook."),
)
async def reset_webhook_circuit(sender: Writer, webhook_id: WebhookId, raw: request_input.EmptyBody) -> Response:
    reset = sender.use_cases.webhooks.reset_circuit
    return await sender.write(CommandKind.RESET_WEBHOOK_CIRCUIT, reset, raw, webhook_id)


@router.post(
    _ONE + "/rotate-secret",
    operation_id="rotateWebhookSecret",
    summary="Replace the secret of a webhook",
    description="Only this response contains the new secret. For 24 hours each delivery has two signatures, by the new"
    " and the old secret, so that you can replace it in the meantime. A secret that was already old ends at once.",
    responses=written_answers(HTTPStatus.OK, NewSecretAnswer, "The webhook, with its new secret."),
)
async def rotate_webhook_secret(sender: Writer, webhook_id: WebhookId, raw: request_input.EmptyBody) -> Response:
    rotate = sender.use_cases.webhooks.rotate_secret
    return await sender.write(CommandKind.ROTATE_WEBHOOK, rotate, raw, webhook_id)


async def _outcome_of(
    context: AppContext, principal: Principal, test: EndpointTest, seconds: float
) -> TestProgress | None:
    """Query the progress of a test until it is over, for at most `seconds`. None: the database is unavailable.

    Between two queries the request holds neither a thread nor a connection. Raises NotFound if the webhook was
    deleted.
    """
    ends = monotonic() + seconds
    pause = _FIRST_PAUSE_S
    progress = None
    while True:
        set_deadline(MAX_S)  # the test is stored, so each query gets a deadline of its own
        try:
            progress = await context.ask(context.use_cases.webhooks.progress, principal, test)
        except DatabaseAway:
            progress = None
        is_over = progress is not None and progress.is_over
        # Without Redis, the process that delivers does not learn of the ping.
        if is_over or context.waiter.is_off or monotonic() + pause > ends:
            return progress
        await asyncio.sleep(pause)
        pause = min(pause * _LONGER, _LONGEST_PAUSE_S)
