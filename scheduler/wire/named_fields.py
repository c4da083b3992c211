"""Field errors: which field is wrong, under the client's name, why, and what to change. No value is quoted."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from scheduler.domain import refusals
from scheduler.domain.command import (
    CancelAttempt,
    CommandKind,
    CreateInterview,
    DecideOutcome,
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    ReportOutcome,
    Request,
    RescheduleAttempt,
    UpdateInterview,
)
from scheduler.domain.explanation import CallTimeQuestion
from scheduler.domain.refusals import Refused

# --- Field errors: which field is wrong, why, and what to change
# They never quote the value that was sent.


_LONGEST_NAME = 128
_QUERY_LEVELS = 2
"""Names in the location of a query parameter. A third one is a place among its values."""
_LOCATIONS = frozenset({"body", "path", "query", "header"})

_WORDS: Mapping[str, tuple[str, str]] = {
    "missing": ("MISSING_FIELD", "This field is required; add it."),
    "extra_forbidden": ("UNKNOWN_FIELD", "This field does not exist; check its spelling, or remove it."),
    "read_only": ("READ_ONLY_FIELD", "This field is read-only; remove it."),
    "string_type": ("WRONG_TYPE", "This must be a string."),
    "bool_type": ("WRONG_TYPE", "This must be true or false."),
    "list_type": ("WRONG_TYPE", "This must be an array."),
    "dict_type": ("WRONG_TYPE", "This must be an object."),
    "model_type": ("WRONG_TYPE", "This must be an object."),
    "model_attributes_type": ("WRONG_TYPE", "This must be an object."),
    "int_type": ("WRONG_TYPE", "This must be a whole number."),
    "int_parsing": ("WRONG_TYPE", "This must be a whole number."),
    "uuid_type": ("WRONG_TYPE", "This must be a string with a UUID."),
    "uuid_parsing": ("INVALID_UUID", "This must be a UUID, such as 3f0c0f3e-8f1e-4b59-9d0b-3a8f0a4c1d11."),
    "string_too_short": ("TOO_SHORT", "This must have at least {min_length} characters."),
    "string_too_long": ("TOO_LONG", "This must have at most {max_length} characters."),
    "too_short": ("TOO_FEW", "This must have at least {min_length} elements."),
    "too_long": ("TOO_MANY", "This must have at most {max_length} elements."),
    "greater_than_equal": ("OUT_OF_RANGE", "This must be at least {ge}."),
    "literal_error": ("INVALID_VALUE", "This must be {expected}."),
    "enum": ("INVALID_VALUE", "This must be {expected}."),
    "less_than_equal": ("OUT_OF_RANGE", "This must be at most {le}."),
}
_READ_ONLY = frozenset(
    {
        *("id", "createdAt", "updatedAt", "apiKeyId", "maxRetries", "timeoutMs", "consecutiveFailures"),
        *("circuitOpenedAt", "disabledAt", "disabledCause", "signingSecret"),
    }
)
"""Fields of responses that no request sets. Clients send them back with a resource that they have read."""
OURS = "duecall_"
"""Prefix of the error types that our own validators raise; the rest of the type is the code."""


class FieldError(BaseModel):
    field: str
    code: str
    message: str


def refuse_any(fields: Iterable[FieldError]) -> None:
    """Raise InvalidFields if there are errors."""
    errors = list(fields)
    if errors:
        raise invalid_fields(errors)


def invalid_fields(fields: Sequence[FieldError]) -> refusals.InvalidFields:
    """Build the refusal that lists these errors."""
    names = ", ".join(dict.fromkeys(each.field for each in fields if each.field))
    return refusals.InvalidFields(
        f"Some fields are missing or invalid: {names}." if names else None,
        fields=[each.model_dump() for each in fields],
    )


def unknown_field(name: str) -> FieldError:
    """Describe a field that the request must not have."""
    return _field_error({"type": "extra_forbidden", "loc": ("body", name)})


def unknown_parameter(name: str, known: Sequence[str]) -> FieldError:
    """Describe a query parameter that the route does not have. `known` are the parameters that it has."""
    hint = f"This route accepts {', '.join(known)}." if known else "This route accepts no query parameters."
    message = f"This query parameter does not exist; check its spelling, or remove it. {hint}"
    return FieldError(field=name[:_LONGEST_NAME], code="UNKNOWN_PARAMETER", message=message)


def field_errors(errors: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """Translate the errors of pydantic. Equal ones, of a parameter that is repeated, are returned once."""
    translated = (_field_error(error) for error in errors)
    return list({(each.field, each.code, each.message): each for each in translated}.values())


def _field_error(error: Mapping[str, Any]) -> FieldError:
    kind: str = error["type"]
    if kind == "extra_forbidden" and _name(error["loc"]) in _READ_ONLY:
        kind = "read_only"
    if kind.startswith(OURS):
        code, message = kind.removeprefix(OURS).upper(), str(error["msg"])
    else:
        code, message = _WORDS.get(kind, ("INVALID_VALUE", "This value is invalid; see /docs."))
        message = message.format_map(error.get("ctx", {}))
    location = error["loc"]
    if kind == "enum" and location[0] == "query" and len(location) > _QUERY_LEVELS:
        message += f" For several, repeat {location[1]}=."
    return FieldError(field=_name(location), code=code, message=message)


def _name(location: Sequence[str | int]) -> str:
    parts = location[1:] if location and location[0] in _LOCATIONS else location
    if location and location[0] == "query":
        parts = parts[:1]  # without the place among the values of a repeated parameter
    return ".".join(str(part) for part in parts)[:_LONGEST_NAME]


# --- Named fields: map a refusal to the request field that it is about, under the name that the client used
# A rule knows the error but not the field's name. One rule serves `scheduledAt` and `scheduleTime`,
# `candidate.phoneNumber` and `candidateId`.


Fields = Mapping[type[Refused], str]
"""Field names by class of refusal. Refusals that are about no field of this request are left out."""

OF_THE_TIME: tuple[type[Refused], ...] = (
    refusals.InvalidDateFormat,
    refusals.ScheduleInPast,
    refusals.ScheduleTooFar,
    refusals.OutsideCallTimeInterval,
    refusals.TimezoneAmbiguous,
    refusals.TimezoneUnknown,
    refusals.OffsetMustMatchNumber,
    refusals.ConsentExpired,
    refusals.NoOpeningBeforeExpiry,
)
OF_EXPIRY: Fields = {refusals.TimezoneUnknown: "expiresAt", refusals.TimezoneAmbiguous: "expiresAt"}
OF_AN_INLINE_AGENT: Fields = {
    refusals.AgentNumberRequired: "agent.companyPhoneNumberId",
    refusals.NotFound: "agent.companyPhoneNumberId",
}


@contextmanager
def named(fields: Fields) -> Iterator[None]:
    """Add `details.field` to a refusal that does not name its field yet."""
    try:
        yield
    except Refused as refused:
        if type(refused) in fields:
            refused.details.setdefault("field", fields[type(refused)])
        raise


@contextmanager
def within(parent: str) -> Iterator[None]:
    """Prefix the field that a refusal names with the name of its parent."""
    try:
        yield
    except Refused as refused:
        if "field" in refused.details:
            refused.details["field"] = f"{parent}.{refused.details['field']}"
        raise


def of_command(request: Request) -> Fields:
    """Name the fields of a request that a worker applies."""
    match request:
        case CreateInterview():
            return {**_of_person(request), **_OF_A_JOB, **_of_times(request)}
        case UpdateInterview():
            return {**_METADATA, refusals.StatusNotSettable: "status", **_of_times(request)}
        case InvokeAttempt() if request.scheduled_at is not None:
            return _all(OF_THE_TIME, request.time_name)
        case ReportOutcome() if request.call_back_at is not None:
            return {**_all(OF_THE_TIME, "callBackAt"), refusals.NoOpeningBeforeExpiry: "callBackAt"}
        case RescheduleAttempt():
            return _all(OF_THE_TIME, "scheduledAt")
        case InvokeAttempt() | DeleteInterview() | DeleteAttempt():
            return {}
        case ReportOutcome() | DecideOutcome() | CancelAttempt():
            return {}


def of_question(question: CallTimeQuestion) -> Fields:
    """Name the fields of a question about a call time."""
    person = "candidateId" if question.candidate_id is not None else "phoneNumber"
    time = {} if question.scheduled_at is None else _all(OF_THE_TIME, "scheduledAt")
    return {**_all(_OF_A_PERSON, person), refusals.InvalidTimezone: "timezone", **time}


def of_write(kind: CommandKind, body: Mapping[str, Any]) -> Fields:
    """Name the fields of a request that the API applies itself. `body` is the client's original body."""
    if kind in {CommandKind.CREATE_COMPANY, CommandKind.UPDATE_COMPANY}:
        return {**_METADATA, refusals.InvalidTimezone: "settings.timezone"}
    return {
        **_METADATA,
        refusals.InvalidTimezone: "timezone",
        refusals.PhoneNumberInvalid: "phoneNumber",
        refusals.NumberNotAllowed: "phoneNumber",
        refusals.ContactRequired: "phoneNumber" if body.get("phoneNumber", "") is None else "email",
        refusals.UnknownJobs: "jobId" if body.get("jobIds") is None else "jobIds",
        refusals.AgentNumberRequired: "companyPhoneNumberId",
    }


_METADATA: Fields = {refusals.MetadataTooLarge: "metadata"}
_OF_A_PERSON: tuple[type[Refused], ...] = (
    refusals.PhoneNumberRequired,
    refusals.PhoneNumberInvalid,
    refusals.NumberNotAllowed,
    refusals.NoCommonOpening,
    refusals.TimezoneUnknown,
    refusals.ConsentExpired,
)
_OF_A_JOB: Fields = {
    refusals.JobRequired: "jobId",
    refusals.JobAmbiguous: "jobId",
    refusals.JobNotAssigned: "jobId",
    refusals.TooManyJobs: "job",
}


def _of_person(request: CreateInterview) -> Fields:
    if request.candidate is None:
        return _all(_OF_A_PERSON, "candidateId")
    return {
        **_all(_OF_A_PERSON, "candidate.phoneNumber"),
        refusals.NoCommonOpening: "candidate.timezone",
        refusals.TimezoneUnknown: "candidate.timezone",
        refusals.InvalidTimezone: "candidate.timezone",
        refusals.ConsentExpired: "candidate.gdprExpiryDate",
    }


def _of_times(request: CreateInterview | UpdateInterview) -> Fields:
    time = {} if request.scheduled_at is None else _all(OF_THE_TIME, request.time_name)
    return time if request.expires_at is None else {**time, refusals.NoOpeningBeforeExpiry: "expiresAt"}


def _all(kinds: Iterable[type[Refused]], field: str) -> Fields:
    return dict.fromkeys(kinds, field)


# --- Messages of errors, for readers without the details and for counts of the same error


_ABOUT_DETAILS = re.compile(r" \(see details[^)]*\)|(?:;|(?<=\.)) ?[^.;(]*\bdetails\b.*$")
_POSITION = re.compile(r" \(position \d+\)")
_NUMBERS = re.compile(r"\d+")


def message_alone(message: str, details: Mapping[str, Any]) -> str:
    """Choose the message for a reader without the details. With several wrong fields it is the first one's."""
    fields = details.get("fields")
    text = _ABOUT_DETAILS.sub("", fields[0]["message"] if fields else message)
    return text if text.endswith((".", "?")) else f"{text}."


def message_of_many(message: str) -> str:
    """Strip the message of its position, which differs between requests with the same error."""
    return _POSITION.sub("", message)


def without_numbers(message: str) -> str:
    """Keep what messages about the same error have in common. Their times and counts may differ."""
    return _NUMBERS.sub("", message)
