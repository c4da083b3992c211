"""Refusals: the reasons for rejecting a request. Each kind of answer has one base class, each reason one subclass.

    Refused
    ├── InvalidRequest      the request is wrong and must be changed
    ├── NotFound            the resource does not exist, or the caller may not see it
    ├── AccessDenied        the key has no access to the company
    ├── Conflict            the request does not fit the current state
    ├── Gone                the resource never existed, or was removed permanently
    ├── PreconditionFailed  the resource has changed since the caller last read it
    ├── Unprocessable       the request contradicts an earlier one
    ├── NotAuthenticated    the API key is missing or invalid
    ├── Forbidden           the key lacks a permission
    └── RateLimitExceeded   the key has sent too many requests

A class's docstring is its default message, and its name in capitals is its code: ScheduleInPast is SCHEDULE_IN_PAST.
Other codes are set. `details` holds only values that the caller sent or may read.
"""

import re
from typing import Any, ClassVar

_NEXT_WORD = re.compile(r"(?<!^)(?=[A-Z])")


class Refused(Exception):
    """The request was refused."""

    code: ClassVar[str] = "REFUSED"

    def __init__(self, message: str | None = None, **details: Any) -> None:  # noqa: ANN401 - JSON values
        self.message = message or (type(self).__doc__ or "").strip()
        self.details: dict[str, Any] = details
        super().__init__(self.message)

    def __init_subclass__(cls) -> None:
        """Name the code after the class, unless the class sets one. A generated page lists all codes."""
        if "code" not in vars(cls):
            cls.code = _NEXT_WORD.sub("_", cls.__name__).upper()


class InvalidRequest(Refused):
    """The request is wrong and must be changed."""

    code = "VALIDATION_ERROR"


class NotFound(Refused):
    """The resource does not exist."""

    code = "RESOURCE_NOT_FOUND"


class AccessDenied(Refused):
    """This API key has no access to that company."""

    code = "RESOURCE_ACCESS_DENIED"


class Conflict(Refused):
    """The request does not fit the current state."""


class InvalidFields(InvalidRequest):
    """Some fields are missing or invalid. See details.fields."""

    code = "VALIDATION_ERROR"


class InvalidDateFormat(InvalidRequest):
    """The value is not a valid date-time. See details (field, value, reason, position)."""


class ScheduleInPast(InvalidRequest):
    """The time is in the past. Send a later one."""


class ScheduleTooFar(InvalidRequest):
    """The time is more than 30 days ahead. Send an earlier one."""


class OutsideCallTimeInterval(InvalidRequest):
    """This person may not be called at that time. The next allowed time is in details.nextAllowedAt."""


class NoOpeningBeforeExpiry(InvalidRequest):
    """This person may not be called at any time before the interview expires."""


class NoCommonOpening(InvalidRequest):
    """The number's time zones have no common opening hours. Set the candidate's timezone."""


class TimezoneAmbiguous(InvalidRequest):
    """The number's time zones disagree on that local time. Send an offset, or set the candidate's timezone."""


class TimezoneUnknown(InvalidRequest):
    """The time zone is unknown. Send an offset, or set the candidate's or the company's timezone."""


class InvalidTimezone(InvalidRequest):
    """The time zone is not a valid IANA name. Write it like Europe/Bratislava."""

    code = "TIMEZONE_INVALID"


class InvalidInterval(InvalidRequest):
    """The call time intervals are invalid. See details.field and details.reason."""

    code = "CALL_TIME_INTERVALS_INVALID"


class InvalidRetryPolicy(InvalidRequest):
    """The retry policy is invalid. See details.field and details.reason."""

    code = "RETRY_POLICY_INVALID"


class NeverOpen(InvalidRequest):
    """callTimeIntervals must not be empty: without an interval no call could ever be placed."""


class OffsetMustMatchNumber(InvalidRequest):
    """The offset matches no time zone of the phone number at that time. Send a matching offset, or none."""

    code = "OFFSET_DIFFERS_FROM_PHONE_NUMBER"


class PhoneNumberRequired(InvalidRequest):
    """A phone interview needs a candidate with a phone number and an agent with a caller id."""


class AgentNumberRequired(InvalidRequest):
    """An agent of type PHONE needs companyPhoneNumberId, one of the company's numbers (GET /phone-numbers)."""

    code = "COMPANY_PHONE_NUMBER_REQUIRED"


class UnknownJobs(InvalidRequest):
    """Some of the jobs do not exist, or belong to another company. See details.jobIds."""

    code = "JOB_NOT_FOUND"


class TooManyJobs(InvalidRequest):
    """A candidate can be assigned to at most 50 jobs. Remove some from the candidate's jobIds first."""


class ContactRequired(InvalidRequest):
    """A candidate needs an e-mail address or a phone number. Keep at least one of them."""


class PhoneNumberInvalid(InvalidRequest):
    """The phone number is invalid. Write it in E.164, like +421915123456."""


class NumberNotAllowed(InvalidRequest):
    """The number is premium, shared-cost or satellite, or its country is not in the company's allowedCountries."""


class ConsentExpired(InvalidRequest):
    """The candidate's consent ends before the call. Send a later gdprExpiryDate, or an earlier time."""


class InvalidPauseReason(InvalidRequest):
    """The reason of a pause or suspension must be one line of at most 200 characters and must not name a person."""

    code = "PAUSE_REASON_INVALID"


class InvalidKeyName(InvalidRequest):
    """A key's name must be one line of 1 to 100 visible characters. Companies see it in the history of their calls."""

    code = "KEY_NAME_INVALID"


class CompanyIdRequired(InvalidRequest):
    """An ATS key must name a company: ?companyId= in the URL, or companyId in the body of a message."""


class JobRequired(InvalidRequest):
    """This agent's focus needs a job, and the candidate has no open job. Send jobId or job."""


class JobAmbiguous(InvalidRequest):
    """The candidate is assigned to several open jobs. Send the jobId of one of them (see details.jobs)."""


class JobNotAssigned(InvalidRequest):
    """The candidate is not assigned to that job. Add it to the candidate's jobIds first, or send another jobId."""


class CallAttemptsNotSupported(InvalidRequest):
    """An ONLINE interview has no call attempts. Only PHONE interviews are called."""


class MetadataTooLarge(InvalidRequest):
    """With this change the metadata would exceed 10 KB, 5 levels or 50 keys. Send less."""


class UnknownScopes(InvalidRequest):
    """The scope does not exist."""

    code = "SCOPES_UNKNOWN"


class ExpiryInPast(InvalidRequest):
    """The expiry of a key must be in the future."""


class StatusNotSettable(InvalidRequest):
    """Only the status of an ONLINE interview can be set. That of a PHONE interview follows from its calls."""


class InvalidPeriod(InvalidRequest):
    """The period is invalid: it ends before its start, or is longer than 366 days."""


class InvalidPrice(InvalidRequest):
    """A price is invalid. See details.field."""

    code = "PRICE_INVALID"


class CallAttemptInProgress(Conflict):
    """A call may be in progress. Wait until it has ended."""


class CallNotAnswered(Conflict):
    """No person has answered this call, as far as is known. While details.status is IN_PROGRESS, report again."""


class OutcomeReported(Conflict):
    """Another outcome of this call was reported before, or none in time. See details.outcome."""


class TooManyCallBacks(Conflict):
    """At most 3 calls of a chain can follow from a time that the person named. Report another outcome."""


class CallAttemptNotPending(Conflict):
    """Only a pending call attempt can be rescheduled. Invoke a new one instead."""


class OutcomeNotUnknown(Conflict):
    """The outcome of this call attempt is not unknown, so there is nothing to decide."""


class OutcomeDecided(Conflict):
    """Another decision about this call attempt was made before. See details.decision."""


class DecisionWaiting(Conflict):
    """A decision about this interview waits for a worker, which applies it within seconds. Open the list after that."""


class CancelledInPart(Conflict):
    """Only a part of these calls was cancelled in time. Send the form again for the others."""


class NewerCallAttempt(Conflict):
    """The interview has a newer call attempt, so this one is not repeated. See details.attemptId."""


class CommandDropped(Conflict):
    """The command failed each time it was tried and changed nothing. Send it again with a new Idempotency-Key."""


class KeyRevoked(Conflict):
    """A revoked key cannot be restored. Create another key of its principal: `duecall keys create --rotate KEY_ID`."""


class KeySuspended(Conflict):
    """A suspended key cannot be rotated, because the new key would be active. Resume it first."""


class TooManyLiveKeys(Conflict):
    """A principal can have at most two live keys, one replacing the other. Revoke one of them first."""


class InterviewFinished(Conflict):
    """The interview is completed or cancelled. Create a new one to call again."""


class TooManyAttempts(Conflict):
    """An interview can have at most 200 call attempts. Create a new interview to call again."""


class TooManyWebhooks(Conflict):
    """A key can have at most 50 webhooks, together with its rotations. Delete one of them first."""


class WebhookNotActive(Conflict):
    """The webhook is paused or disabled, so it gets no deliveries. Set isActive to true first."""


class BatchFinished(Conflict):
    """The batch is completed or cancelled, so it can be neither paused nor resumed."""


class ExternalIdReused(Conflict):
    """Another resource has this externalId, or was created with it and with other content. See details.resourceId."""


class Gone(Refused):
    """The resource no longer exists."""


class InvitationGone(Gone):
    """This invitation was used or withdrawn, has expired, or never existed. Ask for a new invitation."""


class CompanyDeleted(Gone):
    """The company that this request created has been deleted. Send a new Idempotency-Key to create another one."""


class PreconditionFailed(Refused):
    """The resource does not match the If-Match header. Read it again before changing it."""


class EtagDiffers(PreconditionFailed):
    """The call attempt has changed since that ETag was issued. Read it again before changing it."""

    code = "PRECONDITION_FAILED"


class Unprocessable(Refused):
    """The request contradicts an earlier one."""


class IdempotencyKeyReused(Unprocessable):
    """This Idempotency-Key was already sent with another request. Use a new key for a new request."""


class NotAuthenticated(Refused):
    """The request has no valid API key."""

    code = "INVALID_API_KEY"


class InvalidApiKey(NotAuthenticated):
    """The API key is missing, unknown, revoked or expired. Send: Authorization: Bearer sk_live_..."""


class ApiKeySuspended(NotAuthenticated):
    """The API key is suspended. Contact the operator of this installation."""


class Forbidden(Refused):
    """The API key lacks a permission for this request."""

    code = "INSUFFICIENT_PERMISSIONS"


class InsufficientPermissions(Forbidden):
    """The API key lacks the scope that this request needs."""


class RateLimitExceeded(Refused):
    """Rate limit exceeded. Retry after the number of seconds in the Retry-After header."""
