"""HTTP route for accepted commands."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Request, Security
from fastapi.responses import JSONResponse

from api_shim import auth, responses
from api_shim.auth import READ_AGENTS, READ_CANDIDATES, READ_COMPANIES, READ_INTERVIEWS, READ_JOBS, READ_WEBHOOKS
from api_shim.context import app_context
from api_shim.openapi import error_answers
from api_shim.schemas.envelope import CommandAnswer
from scheduler.domain.command import CommandKind
from scheduler.domain.principal import Principal
from scheduler.use_cases.resources.keys import must_have

router = APIRouter(tags=["commands"])

READS: Mapping[CommandKind, str] = {
    CommandKind.CREATE_INTERVIEW: READ_INTERVIEWS,
    CommandKind.UPDATE_INTERVIEW: READ_INTERVIEWS,
    CommandKind.DELETE_INTERVIEW: READ_INTERVIEWS,
    CommandKind.INVOKE_ATTEMPT: READ_INTERVIEWS,
    CommandKind.RESCHEDULE_ATTEMPT: READ_INTERVIEWS,
    CommandKind.DELETE_ATTEMPT: READ_INTERVIEWS,
    CommandKind.CREATE_COMPANY: READ_COMPANIES,
    CommandKind.UPDATE_COMPANY: READ_COMPANIES,
    CommandKind.DELETE_COMPANY: READ_COMPANIES,
    CommandKind.CREATE_JOB: READ_JOBS,
    CommandKind.UPDATE_JOB: READ_JOBS,
    CommandKind.DELETE_JOB: READ_JOBS,
    CommandKind.CREATE_CANDIDATE: READ_CANDIDATES,
    CommandKind.UPDATE_CANDIDATE: READ_CANDIDATES,
    CommandKind.DELETE_CANDIDATE: READ_CANDIDATES,
    CommandKind.CREATE_AGENT: READ_AGENTS,
    CommandKind.UPDATE_AGENT: READ_AGENTS,
    CommandKind.DELETE_AGENT: READ_AGENTS,
    CommandKind.CREATE_WEBHOOK: READ_WEBHOOKS,
    CommandKind.UPDATE_WEBHOOK: READ_WEBHOOKS,
    CommandKind.DELETE_WEBHOOK: READ_WEBHOOKS,
    CommandKind.TEST_WEBHOOK: READ_WEBHOOKS,
    CommandKind.RESET_WEBHOOK_CIRCUIT: READ_WEBHOOKS,
    CommandKind.ROTATE_WEBHOOK: READ_WEBHOOKS,
    CommandKind.REPLAY_DELIVERY: READ_WEBHOOKS,
    CommandKind.REPLAY_DELIVERIES: READ_WEBHOOKS,
    CommandKind.CREATE_BATCH: READ_INTERVIEWS,
    CommandKind.PAUSE_BATCH: READ_INTERVIEWS,
    CommandKind.RESUME_BATCH: READ_INTERVIEWS,
    CommandKind.CANCEL_BATCH: READ_INTERVIEWS,
}
"""Scope required to read a command: the read scope of the resource that it changed."""


# `:path`, because an idempotency key may contain a slash.
@router.get(
    "/commands/{reference:path}",
    operation_id="getCommand",
    summary="Get a command by its id or idempotency key",
    description="Returns commands sent by this key or its rotations. Requires the read scope of the resource that the"
    f" command changed: {', '.join(f'`{scope}`' for scope in dict.fromkeys(READS.values()))}. Commands on call attempts"
    " require `read:interviews`.",
    responses={200: {"model": CommandAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_command(
    request: Request, principal: Annotated[Principal, Security(auth.principal)], reference: str
) -> JSONResponse:
    context = app_context(request)
    command = await context.ask(context.use_cases.submit.find, principal, reference)
    must_have(principal, [READS[command.kind]])
    command = await responses.with_titles(request, principal, command)
    texts = await responses.live_texts(request, principal, command)
    return responses.answered(request, responses.command_view(request, command, texts))
