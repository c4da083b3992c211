"""Response schemas for interviews, call attempts and what explains them."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import Field
from pydantic.alias_generators import to_camel

from api_shim.schemas.envelope import CursorPage, Page, answer, page
from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Reason
from scheduler.domain.call import CallProgress, Schedule, ScheduleWarning, TimezoneSource
from scheduler.domain.explanation import Explanation, HistoryEntry, Rule
from scheduler.domain.interview import SHOWN_ATTEMPTS, AgentType, InterviewStatus, InterviewStory
from scheduler.domain.refusals import TimezoneUnknown
from scheduler.timing import call_windows
from scheduler.timing.time_texts import offset_text, together
from scheduler.use_cases.explain import waits_for
from scheduler.wire.field_types import Wire


class ScheduleView(Wire):
    """The clock that decides, and its local time when the attempt is due."""

    requested: str | None = Field(description="The time as it was sent. Null if none was sent.")
    timezone: str | None = Field(
        description="IANA name, or several separated by commas. Null for an offset.", examples=["Europe/Bratislava"]
    )
    timezone_source: TimezoneSource
    utc_offset: str | None = Field(examples=["+10:30"])
    local_time: str | None = Field(
        description="Time on that clock, or several separated by commas if the zones differ.",
        examples=["2026-04-02T07:00:00"],
    )
    tzdata_version: str

    @classmethod
    def of(cls, schedule: Schedule, due_at: datetime) -> Self:
        clock = schedule.clock
        try:
            local = [each.isoformat(timespec="seconds") for each in call_windows.local_times(clock, due_at)]
            offsets = [offset_text(each) for each in call_windows.utc_offsets(clock, due_at)]
        except TimezoneUnknown:  # the zone was known when the attempt was scheduled, and is not now
            local = offsets = []
        return cls.view_of(
            schedule,
            timezone=", ".join(clock.zones) or None,
            timezone_source=clock.source,
            utc_offset=together(offsets) if offsets else None,
            local_time=together(local) if local else None,
        )


class AttemptView(Wire):
    id: UUID
    interview_id: UUID
    direction: Literal["OUTBOUND"] = "OUTBOUND"
    status: AttemptState
    reason_code: Reason | None
    outcome: ConversationOutcome | None = Field(
        description="The outcome of an answered call, as its conversation has reported it. FINISHED if no report came"
        " in time. Null before that, and if none was awaited."
    )
    outcome_note: str | None = Field(
        description="The note of that report. Null without one, and after the deletion of the candidate."
    )
    retry_number: int = Field(
        description="Place of the attempt in its chain, from 0. A call at a time that the person named (CALL_BACK)"
        " counts, and uses up no retry of `maxRetries`."
    )
    scheduled_at: datetime = Field(description="The call may be placed from this time on.")
    called_at: datetime | None
    duration: float | None = Field(description="Seconds.")
    ended_at: datetime | None
    notes: None = Field(default=None, description="Always null. The note of a report is `outcomeNote`.")
    recording_url: None = Field(default=None, description="Always null: Duecall records no calls.")
    schedule: ScheduleView
    warnings: list[ScheduleWarning]
    waiting_for: str | None = Field(
        description="Next event of the attempt, from its state and its due time alone: `its time`, `its turn` (also"
        " while calls are paused or the number is busy), `the carrier's answer`, `the call's end`, `proof of what"
        " became of it` or `the outcome of the conversation`. The explanation names the rule that blocks it. Null if"
        " nothing follows.",
        examples=["its time"],
    )
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, attempt: Attempt, now: datetime) -> Self:
        return cls.view_of(
            attempt,
            status=attempt.state,
            reason_code=attempt.reason,
            scheduled_at=attempt.due_at,
            called_at=attempt.claimed_at,
            duration=None if attempt.duration is None else attempt.duration.total_seconds(),
            schedule=ScheduleView.of(attempt.schedule, attempt.due_at),
            waiting_for=waits_for(attempt, now) or None,
        )


class InterviewView(Wire):
    id: UUID
    company_id: UUID
    candidate_id: UUID
    agent_id: UUID
    job_id: UUID | None = Field(description="The job of the interview. Null without a job.")
    type: AgentType
    status: InterviewStatus
    scheduled_at: datetime | None = Field(
        description="Time of the interview. PHONE: when the newest attempt is due, or null without attempts."
    )
    expires_at: datetime
    is_test: bool
    metadata: dict[str, Any]
    external_id: str | None = Field(description="Your own id of the interview.")
    duration_minutes: float | None = Field(
        description="Duration of the completed call, to one decimal: a call under 3 s shows 0.0."
        " Exact seconds are in the attempt's `duration`."
    )
    finished_date: datetime | None
    call_attempts: list[AttemptView] = Field(
        description=f"The newest {SHOWN_ATTEMPTS}, oldest first. Empty for an ONLINE interview."
        " `GET /interviews/{id}/call-attempts` lists all."
    )
    call_attempts_total: int = Field(description="All call attempts that are not deleted.")
    analysis: None = Field(default=None, description="Always null: Duecall analyses no interviews.")
    created_at: datetime
    updated_at: datetime = Field(
        description="Last change of the interview itself, such as its completion. A call that starts, or that fails and"
        " is retried, changes only the `updatedAt` of its attempt."
    )

    @classmethod
    def of(cls, story: InterviewStory, now: datetime) -> Self:
        interview = story.interview
        return cls.view_of(
            interview,
            status=story.status,
            scheduled_at=_scheduled_at(story),
            duration_minutes=_minutes_talked(story),
            finished_date=interview.finished_at,
            call_attempts=[AttemptView.of(attempt, now) for attempt in story.attempts],
            call_attempts_total=story.total,
        )


InterviewAnswer = answer("InterviewAnswer", InterviewView, "An interview.")
InterviewPage = page("InterviewPage", CursorPage, InterviewView, "Interviews.")
InterviewsAnswer = answer("InterviewsAnswer", InterviewPage, "A page of interviews.")
AttemptAnswer = answer("AttemptAnswer", AttemptView, "A call attempt.")
AttemptPage = page("AttemptPage", Page, AttemptView, "Attempts of one interview, newest first.")
CompanyAttemptPage = page("CompanyAttemptPage", CursorPage, AttemptView, "Attempts of all interviews of a company.")
CompanyAttemptsAnswer = answer("CompanyAttemptsAnswer", CompanyAttemptPage, "A page of attempts.")
AttemptsAnswer = answer("AttemptsAnswer", AttemptPage, "A page of attempts.")


def _scheduled_at(story: InterviewStory) -> datetime | None:
    if story.interview.type is AgentType.ONLINE:
        return story.interview.scheduled_at
    return story.attempts[-1].due_at if story.attempts else None


def _minutes_talked(story: InterviewStory) -> float | None:
    spans = [
        attempt.duration
        for attempt in story.attempts
        if attempt.state is AttemptState.COMPLETED and attempt.duration is not None
    ]
    return round(sum(spans, timedelta()) / timedelta(minutes=1), 1) if spans else None


# --- Response schemas for the explanation of a call attempt


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
    def of(cls, happening: HistoryEntry, **given: object) -> Self:
        return cls.view_of(
            happening,
            reason_code=happening.reason,
            by=happening.actor,
            detail={to_camel(name): _on_the_wire(name, value) for name, value in happening.detail.items()},
            **given,
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


ExplanationAnswer = answer("ExplanationAnswer", ExplanationView, "The explanation of a call attempt.")


def _on_the_wire(name: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    """Convert a stored history value to its wire form: instants in UTC with Z, the progress of a call as a word."""
    try:
        if name == "rank":
            return CallProgress(value).name
        if (name == "until" or name.endswith(("_at", "_until"))) and isinstance(value, str):
            return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        # The entry was changed. The evidence of the call reports it.
        return value
    return value
