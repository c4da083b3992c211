"""A command: what somebody asked to be done. Durable before it is answered, applied by a worker, once."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from scheduler.domain.candidate import NewCandidate


class CommandKind(StrEnum):
    CREATE_INTERVIEW = "create_interview"


class CommandState(StrEnum):
    WAITING = "WAITING"
    APPLIED = "APPLIED"
    QUARANTINED = "QUARANTINED"
    """Failed five times for no known reason; it holds its own interview and no other."""


@dataclass(frozen=True, kw_only=True)
class CreateInterview:
    """Make an interview, and for a phone agent its first attempt."""

    agent_id: UUID
    candidate_id: UUID | None = None
    candidate: NewCandidate | None = None
    scheduled_at: str | None = None
    """The text as it was sent; it is read once, when the command is applied."""
    expires_at: str | None = None
    is_test: bool = False
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a command was not done; what `domain.refusals` says, in a form that can be stored."""

    family: str
    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a command: a refusal, or the interview as it stood when the command was applied.

    `snapshot` is an `InterviewStory` as JSON, without metadata; it holds no name, number or address.
    """

    refusal: Refusal | None = None
    snapshot: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A row of the inbox. Times are judged as of `received_at`."""

    id: UUID
    kind: CommandKind
    principal_id: UUID
    company_id: UUID
    idempotency_key: str | None
    request_hash: bytes = field(repr=False)
    received_at: datetime
    body: dict[str, Any] | None = field(default=None, repr=False)
    """Gone once the command is applied."""
    interview_id: UUID | None = None
    """The interview that it is about; None while it does not exist yet."""
    applied_at: datetime | None = None
    answer: Answer | None = None
    failures: int = 0
    quarantined_at: datetime | None = None

    @property
    def state(self) -> CommandState:
        if self.applied_at is not None:
            return CommandState.APPLIED
        return CommandState.QUARANTINED if self.quarantined_at is not None else CommandState.WAITING
