"""What a request for an interview looks like, and the command that it becomes."""

import json
import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any
from uuid import UUID

from fastapi.openapi.models import Example
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints
from pydantic_core import PydanticCustomError

from api_shim.schemas.envelope import Wire
from api_shim.schemas.fields import OURS, FieldError
from scheduler.domain.candidate import NewCandidate
from scheduler.domain.command import CreateInterview

MAX_METADATA_BYTES = 10 * 1024
MAX_METADATA_LEVELS = 5
MAX_METADATA_KEYS = 50
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _not(code: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(OURS + code, message)


def _e164(number: str) -> str:
    if not _E164.fullmatch(number):
        raise _not("not_e164", "Write the number in E.164: a plus sign, country code, number, as +421915123456.")
    return number


def _email(address: str) -> str:
    if not _EMAIL.fullmatch(address):
        raise _not("invalid_email", "This must be an email address, such as name@example.com.")
    return address


def _a_date(value: object) -> date:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise _not("invalid_date", "This must be a date, written as 2026-12-31.")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise _not("invalid_date", "There is no such day in the calendar.") from None


def _levels(value: Any) -> int:  # noqa: ANN401 - JSON
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_levels, inner), default=0)


def _keys(value: Any) -> int:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if isinstance(value, list) else 0


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    size = len(json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_METADATA_BYTES:
        raise _not("metadata_too_large", "Metadata may have at most 10 KB of JSON.")
    if _levels(metadata) > MAX_METADATA_LEVELS:
        raise _not("metadata_too_deep", "Metadata may have at most 5 levels, itself included.")
    if _keys(metadata) > MAX_METADATA_KEYS:
        raise _not("metadata_too_many_keys", "Metadata may have at most 50 keys, nested ones included.")
    return metadata


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
PhoneNumber = Annotated[str, AfterValidator(_e164), Field(json_schema_extra={"pattern": f"^{_E164.pattern}$"})]
Email = Annotated[str, StringConstraints(max_length=254), AfterValidator(_email)]
Day = Annotated[date, BeforeValidator(_a_date)]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]


class Strict(Wire):
    """Fields that are not known are refused by name: a typo must not lose a time."""

    model_config = ConfigDict(extra="forbid", validate_by_name=False, validate_by_alias=True)


class InlineCandidate(Strict):
    """A person who is not known here yet; at least one of email and phoneNumber."""

    first_name: Name = Field(examples=["Jana"], repr=False)
    last_name: Name = Field(examples=["Nováková"], repr=False)
    gdpr_expiry_date: Day = Field(
        examples=["2030-12-31"], description="The last day on which this person may be called; in the future."
    )
    email: Email | None = Field(None, examples=["jana@example.com"], repr=False)
    phone_number: PhoneNumber | None = Field(None, examples=["+421915123456"], repr=False)
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = Field(
        None, examples=["Europe/Bratislava"], description="IANA name; decides over the phone number's zones."
    )

    def to_new_candidate(self) -> NewCandidate:
        return NewCandidate(
            first_name=self.first_name,
            last_name=self.last_name,
            gdpr_expiry_date=self.gdpr_expiry_date,
            email=self.email,
            phone_number=self.phone_number,
            timezone=self.timezone,
        )


class InterviewRequest(Strict):
    """An interview: with whom, by which agent, and when. Without a time it is called as soon as allowed."""

    candidate_id: UUID | None = Field(None, description="A candidate of the company; or send `candidate`.")
    candidate: InlineCandidate | None = Field(None, description="A new candidate; or send `candidateId`.")
    agent_id: UUID
    scheduled_at: str | None = Field(
        None,
        examples=["2026-04-02T07:00:00+10:30"],
        description="ISO 8601 / RFC 3339, with offset, Z, neither, or a zone in brackets (RFC 9557). An offset"
        " decides whose clock counts.",
    )
    schedule_time: str | None = Field(None, description="Another name of scheduledAt.")
    expires_at: str | None = Field(None, description="After this nobody is called; default 7 days after due.")
    is_test: StrictBool = Field(False, description="Checked like any other and completed at once; nobody rings.")
    metadata: Metadata = Field(
        default_factory=dict, description="At most 10 KB, 5 levels, 50 keys.", examples=[{"ref": "A-17"}]
    )

    def contradictions(self) -> Iterator[FieldError]:
        """What is wrong between fields that are each right."""
        if self.candidate_id is None and self.candidate is None:
            yield FieldError(field="candidate", code="MISSING_FIELD", message="Send candidate or candidateId.")
        if self.candidate_id is not None and self.candidate is not None:
            message = "Send either candidate or candidateId, not both."
            yield FieldError(field="candidateId", code="CONFLICTING_FIELDS", message=message)
        if self.candidate is not None and not (self.candidate.email or self.candidate.phone_number):
            message = "A candidate needs an email or a phoneNumber."
            yield FieldError(field="candidate", code="CONTACT_REQUIRED", message=message)
        if None not in (self.scheduled_at, self.schedule_time) and self.scheduled_at != self.schedule_time:
            message = "scheduledAt and scheduleTime are one field with two names; send one of them."
            yield FieldError(field="scheduleTime", code="CONFLICTING_FIELDS", message=message)

    def stale(self, today: date) -> Iterator[FieldError]:
        """What was right on another day."""
        if self.candidate is not None and self.candidate.gdpr_expiry_date <= today:
            message = "The consent must end in the future; send a later date, or call nobody."
            yield FieldError(field="candidate.gdprExpiryDate", code="NOT_IN_FUTURE", message=message)

    def to_command(self) -> CreateInterview:
        return CreateInterview(
            agent_id=self.agent_id,
            candidate_id=self.candidate_id,
            candidate=None if self.candidate is None else self.candidate.to_new_candidate(),
            scheduled_at=self.schedule_time if self.scheduled_at is None else self.scheduled_at,
            expires_at=self.expires_at,
            is_test=self.is_test,
            metadata=self.metadata,
        )


EXAMPLES: dict[str, Example] = {
    "at a time": {
        "summary": "Somebody new, at nine in the morning on a clock that is 10:30 ahead of UTC",
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
        "summary": "Somebody known, now or at the next opening",
        "value": {
            "candidateId": "9a1d2f5e-3c77-4c52-8a9b-5f0f7f3b2a10",
            "agentId": "3f0c0f3e-8f1e-4b59-9d0b-3a8f0a4c1d11",
        },
    },
}
