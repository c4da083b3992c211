"""Named fields: map a refusal to the request field that it is about, under the name that the client used.

A rule knows the error but not the field's name. One rule serves `scheduledAt` and `scheduleTime`,
`candidate.phoneNumber` and `candidateId`.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from scheduler.domain import refusals
from scheduler.domain.command import (
    CancelAttempt,
    CommandKind,
    CreateInterview,
    DecideOutcome,
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    Request,
    RescheduleAttempt,
    UpdateInterview,
)
from scheduler.domain.explanation import CallTimeQuestion
from scheduler.domain.refusals import Refused

Fields = Mapping[type[Refused], str]
"""Field names by class of refusal. Refusals that are about no field of this request are left out."""

_OF_THE_TIME: tuple[type[Refused], ...] = (
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
    """Return the fields of a request that a worker applies."""
    match request:
        case CreateInterview():
            return {**_of_person(request), **_OF_A_JOB, **_of_times(request)}
        case UpdateInterview():
            return {**_METADATA, refusals.StatusNotSettable: "status", **_of_times(request)}
        case InvokeAttempt() if request.scheduled_at is not None:
            return _all(_OF_THE_TIME, request.time_name)
        case RescheduleAttempt():
            return _all(_OF_THE_TIME, "scheduledAt")
        case InvokeAttempt() | DeleteInterview() | DeleteAttempt() | DecideOutcome() | CancelAttempt():
            return {}


def of_question(question: CallTimeQuestion) -> Fields:
    """Return the fields of a question about a call time."""
    person = "candidateId" if question.candidate_id is not None else "phoneNumber"
    time = {} if question.scheduled_at is None else _all(_OF_THE_TIME, "scheduledAt")
    return {**_all(_OF_A_PERSON, person), refusals.InvalidTimezone: "timezone", **time}


def of_write(kind: CommandKind, body: Mapping[str, Any]) -> Fields:
    """Return the fields of a request that the API applies itself. `body` is the client's original body."""
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
    time = {} if request.scheduled_at is None else _all(_OF_THE_TIME, request.time_name)
    return time if request.expires_at is None else {**time, refusals.NoOpeningBeforeExpiry: "expiresAt"}


def _all(kinds: Iterable[type[Refused]], field: str) -> Fields:
    return dict.fromkeys(kinds, field)
