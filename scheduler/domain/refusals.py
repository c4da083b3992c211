"""Why a request is not done: one family a kind of answer, one class a reason.

    Refused
    ├── InvalidRequest      what was asked is wrong and must be changed
    ├── NotFound            it is not there, or not within the caller's reach
    ├── AccessDenied        a company that the key does not reach
    ├── Conflict            what was asked does not fit the present state
    ├── Gone                it was there, or never was; it will not come back
    ├── PreconditionFailed  it is not as the caller last saw it
    ├── Unprocessable       it contradicts an earlier request
    ├── NotAuthenticated    no key, or none that is valid
    ├── Forbidden           a key that may not do this
    └── RateLimitExceeded   a key that has asked too often

A class's docstring is its default message. `details` never holds more than the caller sent or may read.
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
    """There is no such resource."""

    code = "RESOURCE_NOT_FOUND"


class AccessDenied(Refused):
    """This key does not reach that company."""

    code = "RESOURCE_ACCESS_DENIED"


class Conflict(Refused):
    """The request does not fit the present state."""

    code = "CONFLICT"


class InvalidFields(InvalidRequest):
    """Some fields are not as they must be; see details.fields."""

    code = "VALIDATION_ERROR"


class InvalidDateFormat(InvalidRequest):
    """The text is not a date-time that can be read; details: field, value, reason, position."""

    code = "INVALID_DATE_FORMAT"


class ScheduleInPast(InvalidRequest):
    """The time lies in the past."""

    code = "SCHEDULE_IN_PAST"


class ScheduleTooFar(InvalidRequest):
    """The time lies more than 30 days ahead."""

    code = "SCHEDULE_TOO_FAR"


class OutsideCallTimeInterval(InvalidRequest):
    """At that time this person may not be called; details.nextAllowedAt says when next."""

    code = "OUTSIDE_CALL_TIME_INTERVAL"


class NoOpeningBeforeExpiry(InvalidRequest):
    """Until the interview expires there is no time at which this person may be called."""

    code = "NO_OPENING_BEFORE_EXPIRY"


class NoCommonOpening(InvalidRequest):
    """The number's time zones have no common opening hours; set the candidate's timezone."""

    code = "NO_COMMON_OPENING"


class TimezoneAmbiguous(InvalidRequest):
    """The number's time zones disagree on that local time; send an offset, or set the candidate's timezone."""

    code = "TIMEZONE_AMBIGUOUS"


class TimezoneUnknown(InvalidRequest):
    """Nothing says whose clock decides; send an offset, or set the candidate's or the company's timezone."""

    code = "TIMEZONE_UNKNOWN"


class InvalidTimezone(InvalidRequest):
    """That is not the IANA name of a time zone; write it as Europe/Bratislava."""

    code = "TIMEZONE_INVALID"


class InvalidInterval(InvalidRequest):
    """The call time intervals cannot be used; details.reason says why, details.field where."""

    code = "CALL_TIME_INTERVALS_INVALID"


class InvalidRetryPolicy(InvalidRequest):
    """The retry policy cannot be used; details.reason says why, details.field where."""

    code = "RETRY_POLICY_INVALID"


class NeverOpen(InvalidRequest):
    """Without any call time interval nobody could ever be called."""

    code = "NEVER_OPEN"


class OffsetMustMatchNumber(InvalidRequest):
    """No time zone of the phone number has that offset at that time."""

    code = "OFFSET_DIFFERS_FROM_PHONE_NUMBER"


class PhoneNumberRequired(InvalidRequest):
    """A phone interview needs a candidate with a phone number and an agent with a caller id."""

    code = "PHONE_NUMBER_REQUIRED"


class AgentNumberRequired(InvalidRequest):
    """An agent of type PHONE calls from a number of its company: companyPhoneNumberId, one of GET /phone-numbers."""

    code = "COMPANY_PHONE_NUMBER_REQUIRED"


class UnknownJobs(InvalidRequest):
    """Some of the jobs are not there, or are another company's; see details.jobIds."""

    code = "JOB_NOT_FOUND"


class TooManyJobs(InvalidRequest):
    """A candidate is considered for at most 50 jobs at once; take some from the candidate's jobIds first."""

    code = "TOO_MANY_JOBS"


class ContactRequired(InvalidRequest):
    """A candidate needs an email or a phone number; at least one of them must stay."""

    code = "CONTACT_REQUIRED"


class PhoneNumberInvalid(InvalidRequest):
    """The phone number is not one that exists; write it as +421915123456."""

    code = "PHONE_NUMBER_INVALID"


class NumberNotAllowed(InvalidRequest):
    """Premium, shared-cost and satellite numbers, and countries that the company does not allow, are not called."""

    code = "NUMBER_NOT_ALLOWED"


class ConsentExpired(InvalidRequest):
    """The candidate's consent (gdprExpiryDate) ends before the call."""

    code = "CONSENT_EXPIRED"


class InvalidPauseReason(InvalidRequest):
    """The reason of a pause, or of a suspension, is one line, at most 200 characters, and names no person."""

    code = "PAUSE_REASON_INVALID"


class InvalidKeyName(InvalidRequest):
    """A key's name is one line of 1 to 100 characters that can be seen; companies read it beside what it did."""

    code = "KEY_NAME_INVALID"


class CompanyIdRequired(InvalidRequest):
    """An ATS key reaches many companies; name one: ?companyId= in the address, or companyId in a message's body."""

    code = "COMPANY_ID_REQUIRED"


class JobRequired(InvalidRequest):
    """This agent's focus needs a job, and the candidate has no open one; name one with jobId, or send job."""

    code = "JOB_REQUIRED"


class JobAmbiguous(InvalidRequest):
    """The candidate is assigned to several open jobs; name one of them with jobId, see details.jobs."""

    code = "JOB_AMBIGUOUS"


class JobNotAssigned(InvalidRequest):
    """The candidate is not assigned to that job; add it to the candidate's jobIds first, or name another."""

    code = "JOB_NOT_ASSIGNED"


class CallAttemptsNotSupported(InvalidRequest):
    """An ONLINE interview is not called; it has no call attempts."""

    code = "CALL_ATTEMPTS_NOT_SUPPORTED"


class MetadataTooLarge(InvalidRequest):
    """With this change the metadata would be more than a resource may carry: 10 KB, 5 levels, 50 keys."""

    code = "METADATA_TOO_LARGE"


class UnknownScopes(InvalidRequest):
    """There is no such scope."""

    code = "SCOPES_UNKNOWN"


class ExpiryInPast(InvalidRequest):
    """A key that expires in the past would open nothing."""

    code = "EXPIRY_IN_PAST"


class StatusNotSettable(InvalidRequest):
    """The status of a PHONE interview follows from its calls; only an ONLINE one takes COMPLETED or CANCELLED."""

    code = "STATUS_NOT_SETTABLE"


class InvalidPeriod(InvalidRequest):
    """The period cannot be used: its end lies before its start, or it is longer than 366 days."""

    code = "INVALID_PERIOD"


class InvalidPrice(InvalidRequest):
    """A price is not as it must be; details.field says which."""

    code = "PRICE_INVALID"


class CallAttemptInProgress(Conflict):
    """The phone may be ringing; wait until this call is over."""

    code = "CALL_ATTEMPT_IN_PROGRESS"


class CallAttemptNotPending(Conflict):
    """Only a pending call attempt can be moved; invoke a new one instead."""

    code = "CALL_ATTEMPT_NOT_PENDING"


class CommandDropped(Conflict):
    """It failed here each time that it was tried, and nothing was changed. Send it again with a new Idempotency-Key."""

    code = "COMMAND_DROPPED"


class KeyRevoked(Conflict):
    """A revoked key stays revoked; make another one of its principal: `duecall keys create --rotate KEY_ID`."""

    code = "KEY_REVOKED"


class KeySuspended(Conflict):
    """A suspended key is not rotated, because the new key would be active; resume it first."""

    code = "KEY_SUSPENDED"


class TooManyLiveKeys(Conflict):
    """A principal has two live keys at most, while one replaces the other; revoke one of them first."""

    code = "TOO_MANY_LIVE_KEYS"


class InterviewFinished(Conflict):
    """The interview is completed or cancelled; make a new one to call again."""

    code = "INTERVIEW_FINISHED"


class Gone(Refused):
    """It is not there any more."""

    code = "GONE"


class InvitationGone(Gone):
    """This invitation cannot be accepted: it was used or withdrawn, it has expired, or there never was one."""

    code = "INVITATION_GONE"


class CompanyDeleted(Gone):
    """The company that this request made was deleted since; send a new Idempotency-Key to make another one."""

    code = "COMPANY_DELETED"


class PreconditionFailed(Refused):
    """It is not as the If-Match header says; read it again and decide anew."""

    code = "PRECONDITION_FAILED"


class EtagDiffers(PreconditionFailed):
    """The call attempt has changed since that ETag was given; read it again and decide anew."""

    code = "PRECONDITION_FAILED"


class Unprocessable(Refused):
    """The request contradicts an earlier one."""

    code = "UNPROCESSABLE"


class IdempotencyKeyReused(Unprocessable):
    """This Idempotency-Key was sent before with another request; use a new key for a new request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class NotAuthenticated(Refused):
    """The request names no key that is valid."""

    code = "INVALID_API_KEY"


class InvalidApiKey(NotAuthenticated):
    """The API key is missing, unknown, revoked or expired. Send: Authorization: Bearer sk_live_..."""

    code = "INVALID_API_KEY"


class ApiKeySuspended(NotAuthenticated):
    """The API key is suspended; ask whoever runs this installation."""

    code = "API_KEY_SUSPENDED"


class Forbidden(Refused):
    """The key may not do this."""

    code = "INSUFFICIENT_PERMISSIONS"


class InsufficientPermissions(Forbidden):
    """The API key lacks the scope that this request needs."""

    code = "INSUFFICIENT_PERMISSIONS"


class RateLimitExceeded(Refused):
    """This key has asked as often as it may; wait as many seconds as the Retry-After header says."""

    code = "RATE_LIMIT_EXCEEDED"
