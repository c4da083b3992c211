"""How it is told why an attempt stands as it does."""

from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field
from pydantic.alias_generators import to_camel

from api_shim.schemas.envelope import Answer
from api_shim.schemas.interview import ScheduleView
from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.call import Rank
from scheduler.domain.explanation import Block, Explanation, Happening, Rule
from scheduler.domain.schedule import ScheduleWarning
from scheduler.wire.base import Wire


class BlockView(Wire):
    """One rule that says no now."""

    rule: Rule
    until: datetime | None = Field(description="Null when nobody can say how long.")
    detail: str

    @classmethod
    def of(cls, block: Block) -> Self:
        return cls(rule=block.rule, until=block.until, detail=block.detail)


class HappeningView(Wire):
    """What happened to the attempt, when, and who did it."""

    at: datetime
    event: str = Field(examples=["claimed"])
    from_state: str | None = Field(
        serialization_alias="from", description="Null for the first one.", examples=["PENDING"]
    )
    to_state: str = Field(serialization_alias="to", examples=["IN_PROGRESS"])
    reason_code: str | None
    by: str = Field(
        description="`key:` and the key's id, or the part of Duecall that did it.",
        examples=["key:6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11", "dial"],
    )
    key_name: str | None = Field(description="What the key is called, where it is one of yours.")
    detail: dict[str, Any]

    @classmethod
    def of(cls, happening: Happening) -> Self:
        return cls(
            at=happening.at,
            event=happening.event,
            from_state=happening.from_state,
            to_state=happening.to_state,
            reason_code=happening.reason,
            by=happening.actor,
            key_name=happening.key_name,
            detail={to_camel(name): _on_the_wire(name, value) for name, value in happening.detail.items()},
        )


class ExplanationView(Wire):
    """What keeps the attempt from ringing now, whose clock decides, and what has happened so far."""

    attempt_id: UUID
    status: AttemptState
    reason_code: Reason | None
    waiting_for: str | None = Field(examples=["its time"])
    next_possible_at: datetime | None = Field(
        description="When it may ring at the earliest, as far as can be told; null when it is over, or nobody can tell."
    )
    blocks: list[BlockView] = Field(description="In the order in which the dialler asks; empty: it may ring now.")
    schedule: ScheduleView
    warnings: list[ScheduleWarning]
    expires_at: datetime = Field(description="After this it is not called.")
    history: list[HappeningView] = Field(description="Oldest first.")

    @classmethod
    def of(cls, explanation: Explanation) -> Self:
        attempt = explanation.attempt
        return cls(
            attempt_id=attempt.id,
            status=attempt.state,
            reason_code=attempt.reason,
            waiting_for=explanation.waits_for or None,
            next_possible_at=explanation.next_possible_at,
            blocks=[BlockView.of(each) for each in explanation.blocks],
            schedule=ScheduleView.of(attempt.schedule, attempt.due_at),
            warnings=list(attempt.warnings),
            expires_at=attempt.expires_at,
            history=[HappeningView.of(each) for each in explanation.happenings],
        )


class ExplanationAnswer(Answer[ExplanationView]):
    """Why an attempt stands as it does."""


def _on_the_wire(name: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    """Instants end in Z on the wire, and how far a call had come is a word; the history keeps offsets and numbers."""
    if name == "rank":
        return Rank(value).name
    if not name.endswith(("_at", "_until")) or not isinstance(value, str):
        return value
    return datetime.fromisoformat(value).astimezone(UTC)
