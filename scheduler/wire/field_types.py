"""Types of the fields that clients send, and the base model of all. Errors never quote the value that was sent."""

import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import MINYEAR, UTC, date, datetime
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from scheduler.domain.command import TimeName
from scheduler.domain.resource import LONGEST_EXTERNAL_ID, Changes
from scheduler.rules import owners
from scheduler.rules.resources import fault, is_printable
from scheduler.timing import callee_zones
from scheduler.wire.json_values import unstorable
from scheduler.wire.named_fields import OURS, FieldError

T = TypeVar("T")

# --- Base model of everything on the wire: camelCase names in JSON


class Wire(BaseModel):
    """camelCase on the wire, snake_case inside."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, serialize_by_alias=True
    )

    @classmethod
    def view_of(cls, instance: object, **given: object) -> Self:
        """Fill each field from `given`, or a field without default from the attribute of the same name.

        A field with a default is filled only from `given`: an attribute that is added later must not replace a constant
        of the API unnoticed. Raises ValidationError.
        """
        needed = [name for name, field in cls.model_fields.items() if field.is_required()]
        same = {name: getattr(instance, name) for name in needed if hasattr(instance, name)}
        return cls.model_validate({**same, **given}, by_name=True)


# --- Types of the fields that clients send. Their errors say what to change and never quote the value


_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_FRACTION = re.compile(r"(\.[0-9]{6})[0-9]+")
"""PostgreSQL stores microseconds."""


def _error(code: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(OURS + code, message)


def _e164(number: str) -> str:
    if not _E164.fullmatch(number):
        fault = callee_zones.e164_fault(number) or "it is too short"
        raise _error("not_e164", f"The phone number is invalid: {fault}. Write it like +421915123456.")
    return number


def _email(address: str) -> str:
    if not _EMAIL.fullmatch(address):
        raise _error("invalid_email", "This must be an e-mail address, such as name@example.com.")
    return address


def _canonical(address: str) -> str:
    try:
        return owners.canonical(address)
    except owners.NotAnAddress:
        raise _error(
            "invalid_email", "This must be one e-mail address that can receive mail, such as name@example.com."
        ) from None


def printable(name: str) -> str:
    if not is_printable(name):
        raise _error("not_printable", "Remove invisible characters, such as line breaks.")
    return name


def _date(value: object) -> date:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise _error("invalid_date", "This must be a date, such as 2026-12-31.")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise _error("invalid_date", "This date does not exist in the calendar; check day and month.") from None


def _instant(value: object) -> datetime:
    if not isinstance(value, str) or not _INSTANT.fullmatch(value):
        raise _error(
            "invalid_date_time",
            "This must be a date-time with Z or an offset, such as 2026-12-31T08:00:00Z. Write a + in a URL as %2B.",
        )
    try:
        at = datetime.fromisoformat(_FRACTION.sub(r"\1", value.upper()))
    except ValueError:
        raise _error("invalid_date_time", "This time does not exist; check day, month, hour and offset.") from None
    try:
        return at.astimezone(UTC)
    except OverflowError:
        # Within a day of the first or the last instant that there is.
        return datetime.min.replace(tzinfo=UTC) if at.year == MINYEAR else datetime.max.replace(tzinfo=UTC)


def _metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    if error := fault(metadata):
        code, message = error
        raise _error(code.lower(), message)
    return metadata


def _country(code: str) -> str:
    if not callee_zones.is_country(code):
        raise _error("invalid_country", "This must be a country's two-letter code (ISO 3166), such as SK.")
    return code


def is_idempotency_key(text: str) -> bool:
    """Return whether the text is 1 to 255 printable ASCII characters."""
    return _IDEMPOTENCY_KEY.fullmatch(text) is not None


def is_external_id(text: str) -> bool:
    """Return whether the text is one that an `ExternalIdText` may have."""
    return 1 <= len(text) <= LONGEST_EXTERNAL_ID and not unstorable(text)


def _storable(text: str) -> str:
    if unstorable(text):
        raise _error("invalid_character", "Remove the NUL character or the half of a surrogate pair.")
    return text


ExternalIdText = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_EXTERNAL_ID), AfterValidator(_storable)
]
"""Compared exactly, with its case and spaces."""
SearchedText = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_storable)]
Instant = Annotated[datetime, BeforeValidator(_instant)]
"""An instant of a filter, in the form of RFC 3339."""
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
PhoneNumber = Annotated[str, AfterValidator(_e164), Field(json_schema_extra={"pattern": f"^{_E164.pattern}$"})]
Email = Annotated[str, StringConstraints(max_length=254), AfterValidator(_email)]
"""Stored and returned unchanged; no mail is sent to it. The rule of `MailAddress` would refuse real addresses (letters
of any script before the `@`) and change the spelling of others."""
MailAddress = Annotated[
    str,
    StringConstraints(max_length=owners.LONGEST),
    AfterValidator(_canonical),
    Field(json_schema_extra={"format": "email"}),
]
"""An address in canonical form: lower case, the domain in ASCII. Unlike to an `Email`, mail is sent to it."""
Day = Annotated[date, BeforeValidator(_date)]
ZoneName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
CountryCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$"), AfterValidator(_country)]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]

A_TIME = Field(
    examples=["2026-04-02T07:00:00+10:30"],
    description="ISO 8601 / RFC 3339, with an offset, Z, neither, or a zone in brackets (RFC 9557). An offset or zone"
    " determines the clock on which calling hours are checked.",
)


EXTERNAL_ID = Field(
    examples=["ats-4711"],
    description="Your own id of this resource, unique among those of its kind in the company. A request with the same"
    " id and the same content returns the existing resource. Other content returns 409 `EXTERNAL_ID_REUSED`.",
)
NEW_EXTERNAL_ID = Field(
    description="Your own id of this resource. Another resource of its kind must not have it (409"
    " `EXTERNAL_ID_REUSED`)."
)


class Strict(Wire):
    """A request body. Unknown fields are refused by name, so that a typo cannot lose a time."""

    model_config = ConfigDict(extra="forbid", validate_by_name=False, validate_by_alias=True)


def left_out() -> Any:  # noqa: ANN401 - it may be any field of a change
    """Declare the default of a field that may be absent but not null."""
    return None


def named(body: Strict, *names: str) -> Changes:
    """Collect the values of the fields that were sent, nulls included."""
    return {name: getattr(body, name) for name in names if name in body.model_fields_set}


def new_of(kind: type[T], body: Strict, **given: object) -> T:
    """Make a value of this dataclass from `given`, and from the fields of the body with the same names."""
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{**{name: value for name, value in body if name in names}, **given})


def without_nulls(details: dict[str, Any]) -> dict[str, Any]:
    """Drop the nulls from the details of a new resource: null means absent there."""
    return {name: value for name, value in details.items() if value is not None}


class MayNameATime(Strict):
    """A request with an optional time, under either of two names."""

    scheduled_at: Annotated[str | None, A_TIME] = None
    schedule_time: Annotated[str | None, Field(description="Alternative name of scheduledAt.")] = None

    @property
    def time_asked_for(self) -> str | None:
        return self.schedule_time if self.scheduled_at is None else self.scheduled_at

    @property
    def time_name(self) -> TimeName:
        """The field name that the client used for the time."""
        return "scheduledAt" if self.schedule_time is None or self.scheduled_at is not None else "scheduleTime"

    def contradictions(self) -> Iterator[FieldError]:
        """Yield the errors between fields that are valid by themselves."""
        if None not in (self.scheduled_at, self.schedule_time) and self.scheduled_at != self.schedule_time:
            message = "scheduledAt and scheduleTime are two names of one field; send only one of them."
            yield FieldError(field="scheduleTime", code="CONFLICTING_FIELDS", message=message)
