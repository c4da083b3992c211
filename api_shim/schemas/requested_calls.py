"""Schemas of requests for calls, with examples: a new interview, and the check of a call time."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import Field

from api_shim.schemas.agent import AgentRequest
from api_shim.schemas.candidate import Person, not_in_future
from api_shim.schemas.envelope import ErrorView, answer
from api_shim.schemas.interview import ScheduleView
from api_shim.schemas.job import MAX_SKILLS, JobRequest
from scheduler.domain.call import ScheduleWarning
from scheduler.domain.command import CreateInterview
from scheduler.domain.explanation import CallTimeAnswer, CallTimeQuestion
from scheduler.wire.batches import Reader, validated
from scheduler.wire.field_types import A_TIME, PhoneNumber, Strict, Wire, ZoneName
from scheduler.wire.named_fields import FieldError, refuse_any
from scheduler.wire.requests import InterviewTerms

# --- Example requests for interviews and call attempts


CALLS: dict[str, Example] = {
    "as soon as allowed": {"summary": "As soon as calling hours allow", "value": {}},
    "at a time": {
        "summary": "At 09:00 on a clock 10:30 ahead of UTC",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
}
MOVES: dict[str, Example] = {
    "to a time": {
        "summary": "To 09:00 on a clock 10:30 ahead of UTC",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
}
CHANGES: dict[str, Example] = {
    "move it": {
        "summary": "Another time for the interview or its pending call",
        "value": {"scheduledAt": "2026-04-02T09:00:00+10:30"},
    },
    "change the metadata": {
        "summary": "A new value for one key. Null would remove the key",
        "value": {"metadata": {"ref": "A-18"}},
    },
    "end an online one": {
        "summary": "Completion of an ONLINE interview",
        "value": {"status": "COMPLETED"},
    },
}


# --- Request schema for creating an interview


class InlineCandidate(Person):
    """A new candidate. At least one of `email` and `phoneNumber` is required."""

    job_id: UUID | None = Field(None, description="Same as `jobId` of the request. Send only one of them.")


class InterviewRequest(InterviewTerms):
    """An interview: candidate, agent, job and time. Without a time, the call is placed as soon as allowed.

    `candidate`, `agent` and `job` are created with the interview and kept. A rejected request creates nothing.
    """

    candidate_id: UUID | None = Field(None, description="A candidate of the company. Alternative: `candidate`.")
    candidate: InlineCandidate | None = Field(None, description="A new candidate. Alternative: `candidateId`.")
    agent_id: UUID | None = Field(None, description="An agent of the company. Alternative: `agent`.")
    agent: AgentRequest | None = Field(None, description="A new agent. Alternative: `agentId`.")
    job: JobRequest | None = Field(
        None,
        description="A new job, to which the candidate is assigned. Its two lists of skills have at most 10 entries"
        " together.",
    )

    def contradictions(self) -> Iterator[FieldError]:
        yield from self._named_twice_or_not_at_all()
        if self.candidate is not None and not (self.candidate.email or self.candidate.phone_number):
            message = "A candidate needs an e-mail address (email) or a phone number (phoneNumber)."
            yield FieldError(field="candidate", code="CONTACT_REQUIRED", message=message)
        if self.job is not None:
            skills = (self.job.required_skills or []) + (self.job.nice_to_have_skills or [])
            if len(skills) > MAX_SKILLS:
                message = f"requiredSkills and niceToHaveSkills may have at most {MAX_SKILLS} skills together."
                yield FieldError(field="job.niceToHaveSkills", code="TOO_MANY", message=message)
        yield from super().contradictions()

    def _named_twice_or_not_at_all(self) -> Iterator[FieldError]:
        for name, needed, known, new in (
            ("candidate", True, self.candidate_id, self.candidate),
            ("agent", True, self.agent_id, self.agent),
            ("job", False, self.job_id, self.job),
        ):
            if needed and known is None and new is None:
                yield FieldError(field=name, code="MISSING_FIELD", message=f"Send {name} or {name}Id.")
            if known is not None and new is not None:
                message = f"Send either {name} or {name}Id, not both."
                yield FieldError(field=f"{name}Id", code="CONFLICTING_FIELDS", message=message)
        job_of_candidate = None if self.candidate is None else self.candidate.job_id
        if job_of_candidate is not None and (self.job_id is not None or self.job is not None):
            message = "The job is named twice. Send only one of candidate.jobId, jobId and job."
            yield FieldError(field="candidate.jobId", code="CONFLICTING_FIELDS", message=message)

    def stale(self, today: date) -> Iterator[FieldError]:
        """Yield errors in fields that were valid on an earlier day."""
        if self.candidate is not None:
            yield from not_in_future(self.candidate.gdpr_expiry_date, today, field="candidate.gdprExpiryDate")

    def to_command(self) -> CreateInterview:
        job_of_candidate = None if self.candidate is None else self.candidate.job_id
        return self.command_for(
            candidate_id=self.candidate_id,
            candidate=None if self.candidate is None else self.candidate.to_new_candidate(),
            agent_id=self.agent_id,
            agent=None if self.agent is None else self.agent.to_new_agent(),
            job_id=self.job_id or job_of_candidate,
            job=None if self.job is None else self.job.to_new_job(),
        )


def item_reader(today: date) -> Reader:
    """Build the reader of a batch's items: it gives each the error that a single request would get."""

    def read_item(body: dict[str, Any]) -> CreateInterview:
        sent = validated(InterviewRequest, body)
        refuse_any(sent.contradictions())
        refuse_any(sent.stale(today))
        return sent.to_command()

    return read_item


EXAMPLES: dict[str, Example] = {
    "at a time": {
        "summary": "A new candidate, at 09:00 on a clock 10:30 ahead of UTC",
        "value": {
            "candidate": {
                "firstName": "Jana",
                "lastName": "Nováková",
                "gdprExpiryDate": "2030-12-31",
                "phoneNumber": "+61870701234",
            },
            "agentId": "3f0c0f3e-8f1e-4b59-9d0b-3a8f0a4c1d11",
            "scheduledAt": "2026-04-02T09:00:00+10:30",
            "metadata": {"ref": "A-17"},
        },
    },
    "as soon as allowed": {
        "summary": "An existing candidate, as soon as calling hours allow",
        "value": {
            "candidateId": "9a1d2f5e-3c77-4c52-8a9b-5f0f7f3b2a10",
            "agentId": "3f0c0f3e-8f1e-4b59-9d0b-3a8f0a4c1d11",
        },
    },
    "about a job": {
        "summary": "An existing candidate and one of their jobs, required if several are OPEN",
        "value": {
            "candidateId": "9a1d2f5e-3c77-4c52-8a9b-5f0f7f3b2a10",
            "agentId": "7c2a4b1d-6e0f-4f4e-8d3a-2b9c5e1f0a22",
            "jobId": "c0d1e2f3-1a2b-4c3d-8e4f-5a6b7c8d9e0f",
        },
    },
    "all of it new": {
        "summary": "Candidate, agent and job created with the interview",
        "value": {
            "candidate": {
                "firstName": "Jana",
                "lastName": "Nováková",
                "gdprExpiryDate": "2030-12-31",
                "phoneNumber": "+421915123456",
                "timezone": "Europe/Bratislava",
            },
            "agent": {
                "name": "Screening by phone",
                "type": "PHONE",
                "focus": "SCREENING",
                "language": "SK",
                "duration": 15,
                "companyPhoneNumberId": "5f0f7f3b-2a10-4c52-8a9b-9a1d2f5e3c77",
            },
            "job": {
                "title": "Warehouse operator",
                "description": "Picks and packs, in three shifts.",
                "requiredSkills": ["forklift licence"],
            },
        },
    },
}

# --- Request and response schemas for checking a call time


class CallTimeRequest(Strict):
    """The person and the time. Send either phoneNumber or candidateId. Without a time: as soon as allowed."""

    phone_number: PhoneNumber | None = Field(None, examples=["+421915123456"], repr=False)
    candidate_id: UUID | None = Field(None, description="A candidate of the company.")
    timezone: ZoneName | None = Field(
        None, examples=["Europe/Bratislava"], description="IANA name. Overrides the number's time zones."
    )
    scheduled_at: Annotated[str | None, A_TIME] = None

    def contradictions(self) -> Iterator[FieldError]:
        """Yield errors between fields that are valid on their own."""
        if self.phone_number is None and self.candidate_id is None:
            yield FieldError(field="phoneNumber", code="MISSING_FIELD", message="Send phoneNumber or candidateId.")
        if self.phone_number is not None and self.candidate_id is not None:
            message = "Send either phoneNumber or candidateId, not both."
            yield FieldError(field="candidateId", code="CONFLICTING_FIELDS", message=message)

    def to_question(self) -> CallTimeQuestion:
        return CallTimeQuestion(**dict(self))


class CallTimeView(Wire):
    """The answer that an interview with this person and time would get. Nothing was created."""

    allowed: bool
    refusal: ErrorView | None = Field(description="The error with which the interview would be rejected.")
    schedule: ScheduleView | None = Field(description="Null if the interview would be rejected.")
    warnings: list[ScheduleWarning]
    next_possible_at: datetime | None = Field(
        description="When the call would be due. For a rejected time: the next allowed time, if there is one."
    )

    @classmethod
    def of(cls, answer: CallTimeAnswer) -> Self:
        refusal, schedule = answer.refusal, answer.schedule
        return cls.view_of(
            answer,
            allowed=refusal is None,
            refusal=None if refusal is None else ErrorView.of(refusal),
            schedule=None if schedule is None else ScheduleView.of(schedule, schedule.due_at),
        )


CallTimeAnswered = answer("CallTimeAnswered", CallTimeView, "The result of a call time check.")


QUESTIONS: dict[str, Example] = {
    "a number, a time": {
        "summary": "Check whether a number may be called at nine in the evening",
        "value": {"phoneNumber": "+421915123456", "scheduledAt": "2026-04-02T21:00:00+02:00"},
    },
    "a candidate, now": {
        "summary": "Check when a candidate may be called next",
        "value": {"candidateId": "9a1d2f5e-3c77-4c52-8a9b-5f0f7f3b2a10"},
    },
}
