"""What became of a command that was accepted."""

from typing import Annotated

from fastapi import APIRouter, Request, Security
from fastapi.responses import JSONResponse

from api_shim import answers, auth
from api_shim.auth import READ_INTERVIEWS
from api_shim.house import house
from api_shim.openapi import error_answers
from api_shim.schemas.command import CommandAnswer
from scheduler.domain.principal import Principal

router = APIRouter(tags=["commands"])


# An idempotency key may hold a slash.
@router.get(
    "/commands/{reference:path}",
    operation_id="getCommand",
    summary="A command, by its id or its idempotency key",
    responses={200: {"model": CommandAnswer}, **error_answers(401, 403, 404, 500, 503)},
)
async def get_command(
    request: Request,
    principal: Annotated[Principal, Security(auth.principal, scopes=[READ_INTERVIEWS])],
    reference: str,
) -> JSONResponse:
    here = house(request)
    command = await here.ask(here.doors.submit.find, principal, reference)
    command = await answers.with_titles(request, principal, command)
    metadata = await answers.live_metadata(request, principal, command)
    return answers.answered(request, answers.command_view(request, command, metadata))
