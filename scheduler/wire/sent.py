"""What a field that clients send may hold; a refusal says what to change, never what was sent."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from scheduler.domain.command import TimeName
from scheduler.domain.record import Changes
from scheduler.lifecycle import email_addresses
from scheduler.lifecycle.metadata import fault
from scheduler.lifecycle.shown_names import is_printable
from scheduler.timing import callee_zones
from scheduler.wire.base import Wire
from scheduler.wire.fields import OURS, FieldError
from scheduler.wire.json_values import unstorable

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")
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


def _canonical(address: str) -> str:
    try:
        return email_addresses.canonical(address)
    except email_addresses.NotAnAddress:
        raise _not(
            "invalid_email", "This must be one email address that mail can be sent to, such as name@example.com."
        ) from None


def printable(name: str) -> str:
    if not is_printable(name):
        raise _not("not_printable", "Remove the characters that cannot be seen, such as line breaks.")
    return name


def _a_date(value: object) -> date:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise _not("invalid_date", "This must be a date, written as 2026-12-31.")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise _not("invalid_date", "There is no such day in the calendar.") from None


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    if found := fault(metadata):
        code, message = found
        raise _not(code.lower(), message)
    return metadata


def _a_country(code: str) -> str:
    if not callee_zones.is_country(code):
        raise _not("invalid_country", "This must be a country's two-letter code (ISO 3166), such as SK.")
    return code


def is_idempotency_key(text: str) -> bool:
    """1 to 255 printable ASCII characters."""
    return _IDEMPOTENCY_KEY.fullmatch(text) is not None


def _storable(text: str) -> str:
    if unstorable(text):
        raise _not("invalid_character", "Remove the NUL character or the half of a surrogate pair.")
    return text


SearchedText = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_storable)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
PhoneNumber = Annotated[str, AfterValidator(_e164), Field(json_schema_extra={"pattern": f"^{_E164.pattern}$"})]
Email = Annotated[str, StringConstraints(max_length=254), AfterValidator(_email)]
"""Kept and told back as it was sent, and mailed by nobody; so it is not held to the rule of `MailAddress`, which would
refuse people's real addresses (letters of any script before the `@`), and change the spelling of others."""
MailAddress = Annotated[
    str,
    StringConstraints(max_length=email_addresses.LONGEST),
    AfterValidator(_canonical),
    Field(json_schema_extra={"format": "email"}),
]
"""In its one spelling: lower case, the domain in ASCII. Unlike `Email`, mail is sent there."""
Day = Annotated[date, BeforeValidator(_a_date)]
ZoneName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$"), AfterValidator(_a_country)]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]

A_TIME = Field(
    examples=["2026-04-02T07:00:00+10:30"],
    description="ISO 8601 / RFC 3339, with offset, Z, neither, or a zone in brackets (RFC 9557). An offset"
    " decides whose clock counts.",
)


class Strict(Wire):
    """Fields that are not known are refused by name: a typo must not lose a time."""

    model_config = ConfigDict(extra="forbid", validate_by_name=False, validate_by_alias=True)


def left_out() -> Any:  # noqa: ANN401 - it stands for any field of a change
    """The value of a field that was not sent: it may be absent, and may not be null."""
    return None


def named(body: Strict, *fields: str) -> Changes:
    """Those of the fields that were sent, with their values; a null among them is one."""
    return {name: getattr(body, name) for name in fields if name in body.model_fields_set}


class MayNameATime(Strict):
    """A request that may say when, under either of two names."""

    scheduled_at: Annotated[str | None, A_TIME] = None
    schedule_time: Annotated[str | None, Field(description="Another name of scheduledAt.")] = None

    @property
    def time_asked_for(self) -> str | None:
        return self.schedule_time if self.scheduled_at is None else self.scheduled_at

    @property
    def time_name(self) -> TimeName:
        """The name under which the time was sent."""
        return "scheduledAt" if self.schedule_time is None or self.scheduled_at is not None else "scheduleTime"

    def contradictions(self) -> Iterator[FieldError]:
        """What is wrong between fields that are each right."""
        if None not in (self.scheduled_at, self.schedule_time) and self.scheduled_at != self.schedule_time:
            message = "scheduledAt and scheduleTime are one field with two names; send one of them."
            yield FieldError(field="scheduleTime", code="CONFLICTING_FIELDS", message=message)
