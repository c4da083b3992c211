"""Response schemas for the explanation of a call attempt."""

from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field
from pydantic.alias_generators import to_camel

from api_shim.schemas.envelope import Answer
from api_shim.schemas.interview import ScheduleView
from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.call import CallProgress
from scheduler.domain.explanation import Explanation, HistoryEntry, Rule
from scheduler.domain.schedule import ScheduleWarning
from scheduler.wire.camel_model import Wire


class BlockView(Wire):
    """A rule that blocks the call now."""

    rule: Rule
    until: datetime | None = Field(description="Null if the end is unknown.")
    detail: str


class HappeningView(Wire):
    """An entry of the attempt's history: the event, its time and its author."""

    at: datetime
    event: str = Field(examples=["claimed"])
    from_state: str | None = Field(
        serialization_alias="from", description="Null for the first entry.", examples=["PENDING"]
    )
    to_state: str = Field(serialization_alias="to", examples=["IN_PROGRESS"])
    reason_code: str | None
    by: str = Field(
        description="`key:` and the id of an API key, `operator`, or a part of Duecall.",
        examples=["key:6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11", "dial"],
    )
    key_name: str | None = Field(description="Name of the key, if it is one of yours.")
    detail: dict[str, Any]

    @classmethod
    def of(cls, happening: HistoryEntry) -> Self:
        return cls.view_of(
            happening,
            reason_code=happening.reason,
            by=happening.actor,
            detail={to_camel(name): _on_the_wire(name, value) for name, value in happening.detail.items()},
        )


class ExplanationView(Wire):
    """The rules that block the call now, the clock that decides, and the history of the attempt."""

    attempt_id: UUID
    status: AttemptState
    reason_code: Reason | None
    waiting_for: str | None = Field(
        description="PENDING: the first rule in `blocks`, in words, or `its turn` if no rule blocks the call."
        " Otherwise the next event of the call. Null if nothing follows.",
        examples=["its time"],
    )
    next_possible_at: datetime | None = Field(
        description="Earliest time for the call, as far as known. Null if the attempt is finished or no time is known."
    )
    blocks: list[BlockView] = Field(
        description="In the order in which the rules are checked. Empty: the phone may ring now."
    )
    schedule: ScheduleView
    warnings: list[ScheduleWarning]
    expires_at: datetime = Field(description="The attempt is not called after this time.")
    history: list[HappeningView] = Field(description="Oldest first.")

    @classmethod
    def of(cls, explanation: Explanation) -> Self:
        attempt = explanation.attempt
        return cls.view_of(
            explanation,
            attempt_id=attempt.id,
            status=attempt.state,
            reason_code=attempt.reason,
            waiting_for=explanation.waits_for or None,
            blocks=[BlockView.view_of(each) for each in explanation.blocks],
            schedule=ScheduleView.of(attempt.schedule, attempt.due_at),
            warnings=attempt.warnings,
            expires_at=attempt.expires_at,
            history=[HappeningView.of(each) for each in explanation.happenings],
        )


class ExplanationAnswer(Answer[ExplanationView]):
    """The explanation of a call attempt."""


def _on_the_wire(name: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    """Convert a stored history value to its wire form: instants in UTC with Z, the progress of a call as a word."""
    if name == "rank":
        return CallProgress(value).name
    if not name.endswith(("_at", "_until")) or not isinstance(value, str):
        return value
    return datetime.fromisoformat(value).astimezone(UTC)
