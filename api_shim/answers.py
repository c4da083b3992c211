"""How what became of a command is told."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api_shim import errors
from api_shim.house import house
from api_shim.schemas.command import CommandView, WaitingView
from api_shim.schemas.envelope import Answer, ErrorView
from api_shim.schemas.interview import InterviewView
from scheduler.domain.command import Command
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import AccessDenied, NotFound
from scheduler.persistence.json_forms import STORY


def answered(
    request: Request,
    data: BaseModel,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Success, in the envelope."""
    content = Answer(data=data, timestamp=house(request).doors.now(), trace_id=request.state.trace_id)
    return JSONResponse(
        content.model_dump(mode="json", by_alias=True, serialize_as_any=True),
        status,
        headers=None if headers is None else dict(headers),
    )


def still_waiting(request: Request, command: Command, headers: Mapping[str, str]) -> JSONResponse:
    """202: it is durable, and where to ask for what becomes of it."""
    return answered(
        request,
        WaitingView(id=command.id, status=command.state),
        HTTPStatus.ACCEPTED,
        {"Location": f"/commands/{command.id}", **headers},
    )


def applied(request: Request, command: Command, metadata: dict[str, Any], headers: Mapping[str, str]) -> JSONResponse:
    """The answer that was stored when it was applied; `metadata` is kept with the interview alone."""
    assert command.answer is not None
    if command.answer.refusal is not None:
        return errors.refused(request, command.answer.refusal, headers)
    return answered(request, _interview(request, command, metadata), HTTPStatus.CREATED, headers)


def command_view(request: Request, command: Command, metadata: dict[str, Any]) -> CommandView:
    status, result = _outcome(request, command, metadata)
    return CommandView(
        id=command.id,
        kind=command.kind,
        status=command.state,
        received_at=command.received_at,
        applied_at=command.applied_at,
        status_code=status,
        result=None if result is None else result.model_dump(mode="json", by_alias=True),
    )


async def live_metadata(request: Request, principal: Principal, command: Command) -> dict[str, Any]:
    """The metadata of the interview that the command made, as it is now; none when there is no such interview."""
    if command.interview_id is None:
        return {}
    interview_id: UUID = command.interview_id
    here = house(request)
    try:
        story = await here.ask(here.doors.explain.interview, principal, command.company_id, interview_id)
    except (NotFound, AccessDenied):
        return {}
    return story.interview.metadata


def _interview(request: Request, command: Command, metadata: dict[str, Any]) -> InterviewView:
    assert command.answer is not None
    story = STORY.validate_python(command.answer.snapshot)
    return InterviewView.of(story, metadata, house(request).doors.now())


def _outcome(
    request: Request, command: Command, metadata: dict[str, Any]
) -> tuple[HTTPStatus, BaseModel] | tuple[None, None]:
    if command.answer is None:
        return None, None
    refusal = command.answer.refusal
    if refusal is None:
        return HTTPStatus.CREATED, _interview(request, command, metadata)
    error = ErrorView(code=refusal.code, message=refusal.message, details=refusal.details or None)
    return errors.STATUS_OF[refusal.family], error
