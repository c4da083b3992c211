"""HTTP routes for voice servers: find a call by its token, and report the outcome of its conversation."""

from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response

from api_shim import request_input, responses
from api_shim.assembly import app_context
from api_shim.auth import VoiceServer
from api_shim.dispatch import CommandSender
from api_shim.openapi import command_answers, error_answers, lacks_scope
from api_shim.request_input import CallToken, HowAsked, Preferred
from api_shim.schemas.conversation import REPORTS, ConversationAnswer, ConversationView, OutcomeAnswer
from scheduler.domain import refusals
from scheduler.domain.principal import VOICE
from scheduler.lifecycle.state_machine import REFUSALS
from scheduler.wire.named_fields import OF_THE_TIME, refuse_any
from scheduler.wire.requests import OutcomeReport

_NAMED_CALL = "/call-attempts/by-token/{token}"
router = APIRouter(route_class=request_input.JsonRoute, tags=["call attempts"])


@router.get(
    _NAMED_CALL,
    operation_id="getConversation",
    summary="Find a call by its token",
    description="For the voice server that talks in the call. Requires the scope `voice`, which no key has by default."
    " The token names the company, so an ATS key sends no `companyId`. It is valid until one hour after the end of its"
    " call. If that end is unknown, the hour starts when the call must have ended.",
    responses={200: {"model": ConversationAnswer}, **error_answers(400, 401, 403, 404, 500, 503), **lacks_scope(VOICE)},
)
async def get_conversation(request: Request, principal: VoiceServer, token: CallToken) -> JSONResponse:
    context = app_context(request)
    conversation = await context.ask(context.use_cases.explain.conversation, principal, token)
    return responses.answered(request, ConversationView.of(conversation))


@router.post(
    _NAMED_CALL + "/outcome",
    operation_id="reportOutcome",
    summary="Report the outcome of a conversation",
    description="During an answered call, or within two minutes of its end. A call without a report in time counts as"
    " FINISHED. After CALL_BACK the next attempt is due at `callBackAt`, which is checked like `scheduledAt` and uses"
    " up no retry. SCREENED, HUNG_UP_EARLY and TECHNICAL are retried by `retryPolicy`, with the delays of VOICEMAIL,"
    " NO_ANSWER and CARRIER_ERROR. The same report again returns the first response. OPTED_OUT and"
    " WRONG_PERSON are accepted while the token is valid, also after another outcome, VOICEMAIL, INSTRUCTIONS_FAILED or"
    " OUTCOME_UNKNOWN, and after a deletion: they block the number and cancel a pending attempt to it. An ATS key sends"
    " no `companyId`.",
    responses=command_answers(
        HTTPStatus.OK,
        OutcomeAnswer,
        "The report is stored.",
        *OF_THE_TIME,
        refusals.NoCommonOpening,
        refusals.CallNotAnswered,
        refusals.OutcomeReported,
        refusals.TooManyCallBacks,
        refusals.TooManyAttempts,
    )
    | lacks_scope(VOICE),
)
async def report_outcome(
    request: Request,
    principal: VoiceServer,
    token: CallToken,
    asked: HowAsked,
    preferred: Preferred,
    raw: request_input.RawBody,
    body: Annotated[OutcomeReport, Body(openapi_examples=REPORTS)],
) -> Response:
    refuse_any(body.contradictions())
    context = app_context(request)
    find = partial(context.use_cases.explain.reported_call, refuses_number=body.outcome in REFUSALS)
    attempt = await context.ask(find, principal, token)
    sender = CommandSender(
        request=request,
        context=context,
        principal=principal,
        company_id=attempt.company_id,
        asked=asked,
        preferred=preferred,
    )
    return await sender.command(body.to_command(attempt.interview_id, attempt.id), raw)
