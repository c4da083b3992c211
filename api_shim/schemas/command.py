"""How a command that was accepted is shown."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from api_shim.schemas.envelope import Answer
from scheduler.domain.command import CommandKind, CommandState
from scheduler.wire.base import Wire


class WaitingView(Wire):
    """Accepted and durable; what became of it is told at another address."""

    id: UUID
    status: CommandState


class WaitingAnswer(Answer[WaitingView]):
    """What became of it stands at the address in the header Location."""


class CommandView(Wire):
    id: UUID
    kind: CommandKind
    status: CommandState
    received_at: datetime
    applied_at: datetime | None
    status_code: int | None = Field(description="Which status it was, or would have been, answered with.")
    result: dict[str, Any] | bool | None = Field(
        description="The `data` of that answer, or its `error`; null where it has no body."
    )


class CommandAnswer(Answer[CommandView]):
    """A command."""
