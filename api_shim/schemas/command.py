"""Response schemas for accepted commands."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from api_shim.schemas.envelope import Answer
from scheduler.domain.command import CommandKind, CommandState
from scheduler.wire.camel_model import Wire


class WaitingView(Wire):
    """A command that was accepted and stored, and is not applied yet."""

    id: UUID
    status: CommandState


class WaitingAnswer(Answer[WaitingView]):
    """The command was accepted. Poll the URL in the `Location` header for its result."""


class WrittenView(Wire):
    """A resource that the API wrote itself. Its own URL has its current state."""

    id: UUID
    company_id: UUID | None = Field(description="Company of the resource. Null for a company itself.")


class CommandView(Wire):
    id: UUID
    kind: CommandKind
    status: CommandState
    received_at: datetime
    applied_at: datetime | None
    status_code: int | None = Field(description="HTTP status that was returned for the command, or would have been.")
    result: dict[str, Any] | bool | None = Field(
        description="The `data` or the `error` of that response, or null if it has no body. For a company, job,"
        " candidate, agent or webhook that was created or changed, only its `id` and `companyId`. Its own URL has its"
        " state."
    )


class CommandAnswer(Answer[CommandView]):
    """A command."""
