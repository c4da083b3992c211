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

A class's docstring is its default message. `details` holds only values that the caller sent or may read.
"""

from typing import Any, ClassVar


class Refused(Exception):
    """The request was refused."""

    code: ClassVar[str] = "REFUSED"

    def __init__(self, message: str | None = None, **details: Any) -> None:  # noqa: ANN401 - JSON values
        self.message = message or (type(self).__doc__ or "").strip()
        self.details: dict[str, Any] = details
        super().__init__(self.message)


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

    code = "CONFLICT"


class InvalidFields(InvalidRequest):
    """Some fields are missing or invalid. See details.fields."""

    code = "VALIDATION_ERROR"


class InvalidDateFormat(InvalidRequest):
    """The value is not a valid date-time. See details (field, value, reason, position)."""

    code = "INVALID_DATE_FORMAT"


class ScheduleInPast(InvalidRequest):
    """The time is in the past. Send a later one."""

    code = "SCHEDULE_IN_PAST"


class ScheduleTooFar(InvalidRequest):
    """The time is more than 30 days ahead. Send an earlier one."""

    code = "SCHEDULE_TOO_FAR"


class OutsideCallTimeInterval(InvalidRequest):
    """This person may not be called at that time. The next allowed time is in details.nextAllowedAt."""

    code = "OUTSIDE_CALL_TIME_INTERVAL"


class NoOpeningBeforeExpiry(InvalidRequest):
    """This person may not be called at any time before the interview expires."""

    code = "NO_OPENING_BEFORE_EXPIRY"


class NoCommonOpening(InvalidRequest):
    """The number's time zones have no common opening hours. Set the candidate's timezone."""

    code = "NO_COMMON_OPENING"


class TimezoneAmbiguous(InvalidRequest):
    """The number's time zones disagree on that local time. Send an offset, or set the candidate's timezone."""

    code = "TIMEZONE_AMBIGUOUS"


class TimezoneUnknown(InvalidRequest):
    """The time zone is unknown. Send an offset, or set the candidate's or the company's timezone."""

    code = "TIMEZONE_UNKNOWN"


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

    code = "NEVER_OPEN"


class OffsetMustMatchNumber(InvalidRequest):
    """The offset matches no time zone of the phone number at that time. Send a matching offset, or none."""

    code = "OFFSET_DIFFERS_FROM_PHONE_NUMBER"


class PhoneNumberRequired(InvalidRequest):
    """A phone interview needs a candidate with a phone number and an agent with a caller id."""

    code = "PHONE_NUMBER_REQUIRED"


class AgentNumberRequired(InvalidRequest):
    """An agent of type PHONE needs companyPhoneNumberId, one of the company's numbers (GET /phone-numbers)."""

    code = "COMPANY_PHONE_NUMBER_REQUIRED"


class UnknownJobs(InvalidRequest):
    """Some of the jobs do not exist, or belong to another company. See details.jobIds."""

    code = "JOB_NOT_FOUND"


class TooManyJobs(InvalidRequest):
    """A candidate can be assigned to at most 50 jobs. Remove some from the candidate's jobIds first."""

    code = "TOO_MANY_JOBS"


class ContactRequired(InvalidRequest):
    """A candidate needs an e-mail address or a phone number. Keep at least one of them."""

    code = "CONTACT_REQUIRED"


class PhoneNumberInvalid(InvalidRequest):
    """The phone number is invalid. Write it in E.164, like +421915123456."""

    code = "PHONE_NUMBER_INVALID"


class NumberNotAllowed(InvalidRequest):
    """The number is premium, shared-cost or satellite, or its country is not in the company's allowedCountries."""

    code = "NUMBER_NOT_ALLOWED"


class ConsentExpired(InvalidRequest):
    """The candidate's consent ends before the call. Send a later gdprExpiryDate, or an earlier time."""

    code = "CONSENT_EXPIRED"


class InvalidPauseReason(InvalidRequest):
    """The reason of a pause or suspension must be one line of at most 200 characters and must not name a person."""

    code = "PAUSE_REASON_INVALID"


class InvalidKeyName(InvalidRequest):
    """A key's name must be one line of 1 to 100 visible characters. Companies see it in the history of their calls."""

    code = "KEY_NAME_INVALID"


class CompanyIdRequired(InvalidRequest):
    """An ATS key must name a company: ?companyId= in the URL, or companyId in the body of a message."""

    code = "COMPANY_ID_REQUIRED"


class JobRequired(InvalidRequest):
    """This agent's focus needs a job, and the candidate has no open job. Send jobId or job."""

    code = "JOB_REQUIRED"


class JobAmbiguous(InvalidRequest):
    """The candidate is assigned to several open jobs. Send the jobId of one of them (see details.jobs)."""

    code = "JOB_AMBIGUOUS"


class JobNotAssigned(InvalidRequest):
    """The candidate is not assigned to that job. Add it to the candidate's jobIds first, or send another jobId."""

    code = "JOB_NOT_ASSIGNED"


class CallAttemptsNotSupported(InvalidRequest):
    """An ONLINE interview has no call attempts. Only PHONE interviews are called."""

    code = "CALL_ATTEMPTS_NOT_SUPPORTED"


class MetadataTooLarge(InvalidRequest):
    """With this change the metadata would exceed 10 KB, 5 levels or 50 keys. Send less."""

    code = "METADATA_TOO_LARGE"


class UnknownScopes(InvalidRequest):
    """The scope does not exist."""

    code = "SCOPES_UNKNOWN"


class ExpiryInPast(InvalidRequest):
    """The expiry of a key must be in the future."""

    code = "EXPIRY_IN_PAST"


class StatusNotSettable(InvalidRequest):
    """Only the status of an ONLINE interview can be set. That of a PHONE interview follows from its calls."""

    code = "STATUS_NOT_SETTABLE"


class InvalidPeriod(InvalidRequest):
    """The period is invalid: it ends before its start, or is longer than 366 days."""

    code = "INVALID_PERIOD"


class InvalidPrice(InvalidRequest):
    """A price is invalid. See details.field."""

    code = "PRICE_INVALID"


class CallAttemptInProgress(Conflict):
    """A call may be in progress. Wait until it has ended."""

    code = "CALL_ATTEMPT_IN_PROGRESS"


class CallAttemptNotPending(Conflict):
    """Only a pending call attempt can be rescheduled. Invoke a new one instead."""

    code = "CALL_ATTEMPT_NOT_PENDING"


class OutcomeNotUnknown(Conflict):
    """The outcome of this call attempt is not unknown, so there is nothing to decide."""

    code = "OUTCOME_NOT_UNKNOWN"


class OutcomeDecided(Conflict):
    """Another decision about this call attempt was made before. See details.decision."""

    code = "OUTCOME_DECIDED"


class DecisionWaiting(Conflict):
    """A decision about this interview waits for a worker, which applies it within seconds. Open the list after that."""

    code = "DECISION_WAITING"


class CancelledInPart(Conflict):
    """Only a part of these calls was cancelled in time. Send the form again for the others."""

    code = "CANCELLED_IN_PART"


class NewerCallAttempt(Conflict):
    """The interview has a newer call attempt, so this one is not repeated. See details.attemptId."""

    code = "NEWER_CALL_ATTEMPT"


class CommandDropped(Conflict):
    """The command failed each time it was tried and changed nothing. Send it again with a new Idempotency-Key."""

    code = "COMMAND_DROPPED"


class KeyRevoked(Conflict):
    """A revoked key cannot be restored. Create another key of its principal: `duecall keys create --rotate KEY_ID`."""

    code = "KEY_REVOKED"


class KeySuspended(Conflict):
    """A suspended key cannot be rotated, because the new key would be active. Resume it first."""

    code = "KEY_SUSPENDED"


class TooManyLiveKeys(Conflict):
    """A principal can have at most two live keys, one replacing the other. Revoke one of them first."""

    code = "TOO_MANY_LIVE_KEYS"


class InterviewFinished(Conflict):
    """The interview is completed or cancelled. Create a new one to call again."""

    code = "INTERVIEW_FINISHED"


class TooManyAttempts(Conflict):
    """An interview can have at most 200 call attempts. Create a new interview to call again."""

    code = "TOO_MANY_ATTEMPTS"


class TooManyWebhooks(Conflict):
    """A key can have at most 50 webhooks, together with its rotations. Delete one of them first."""

    code = "TOO_MANY_WEBHOOKS"


class WebhookNotActive(Conflict):
    """The webhook is paused or disabled, so it gets no deliveries. Set isActive to true first."""

    code = "WEBHOOK_NOT_ACTIVE"


class BatchFinished(Conflict):
    """The batch is completed or cancelled, so it can be neither paused nor resumed."""

    code = "BATCH_FINISHED"


class ExternalIdReused(Conflict):
    """Another resource has this externalId, or was created with it and with other content. See details.resourceId."""

    code = "EXTERNAL_ID_REUSED"


class Gone(Refused):
    """The resource no longer exists."""

    code = "GONE"


class InvitationGone(Gone):
    """This invitation was used or withdrawn, has expired, or never existed. Ask for a new invitation."""

    code = "INVITATION_GONE"


class CompanyDeleted(Gone):
    """The company that this request created has been deleted. Send a new Idempotency-Key to create another one."""

    code = "COMPANY_DELETED"


class PreconditionFailed(Refused):
    """The resource does not match the If-Match header. Read it again before changing it."""

    code = "PRECONDITION_FAILED"


class EtagDiffers(PreconditionFailed):
    """The call attempt has changed since that ETag was issued. Read it again before changing it."""

    code = "PRECONDITION_FAILED"


class Unprocessable(Refused):
    """The request contradicts an earlier one."""

    code = "UNPROCESSABLE"


class IdempotencyKeyReused(Unprocessable):
    """This Idempotency-Key was already sent with another request. Use a new key for a new request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class NotAuthenticated(Refused):
    """The request has no valid API key."""

    code = "INVALID_API_KEY"


class InvalidApiKey(NotAuthenticated):
    """The API key is missing, unknown, revoked or expired. Send: Authorization: Bearer sk_live_..."""

    code = "INVALID_API_KEY"


class ApiKeySuspended(NotAuthenticated):
    """The API key is suspended. Contact the operator of this installation."""

    code = "API_KEY_SUSPENDED"


class Forbidden(Refused):
    """The API key lacks a permission for this request."""

    code = "INSUFFICIENT_PERMISSIONS"


class InsufficientPermissions(Forbidden):
    """The API key lacks the scope that this request needs."""

    code = "INSUFFICIENT_PERMISSIONS"


class RateLimitExceeded(Refused):
    """Rate limit exceeded. Retry after the number of seconds in the Retry-After header."""

    code = "RATE_LIMIT_EXCEEDED"
