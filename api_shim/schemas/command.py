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


class WrittenView(Wire):
    """What the API itself wrote; how it is now stands at its own address."""

    id: UUID
    company_id: UUID | None = Field(description="Whose it is; null for a company itself.")


class CommandView(Wire):
    id: UUID
    kind: CommandKind
    status: CommandState
    received_at: datetime
    applied_at: datetime | None
    status_code: int | None = Field(description="Which status it was, or would have been, answered with.")
    result: dict[str, Any] | bool | None = Field(
        description="The `data` of that answer, or its `error`; null where it has no body. Of a company, job, candidate"
        " or agent that was made or changed its `id` and `companyId` alone: how it is now stands at its own address."
    )


class CommandAnswer(Answer[CommandView]):
    """A command."""
