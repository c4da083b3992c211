"""The documents in the repository that are generated from the code: OpenAPI, and the page of error codes."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path

from api_shim import errors
from api_shim.app import create_app
from scheduler.domain.command import refusal_of
from scheduler.domain.refusals import Refused

# --- The OpenAPI document in the repository, so that changes of the public API show up in reviews


class DocumentDiffers(Exception):
    """The file differs from the text that the code generates."""


def must_equal(path: Path, text: str) -> None:
    """Compare the file with a generated text, byte for byte. Raises DocumentDiffers, also if the file is missing."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        raise DocumentDiffers(f"{path} differs from the code. Run make openapi.")


def openapi_text() -> str:
    """Build the document that is served as /openapi.json, indented by two spaces, with a final newline."""
    return json.dumps(create_app().openapi(), indent=2, ensure_ascii=False) + "\n"


# --- The page of error codes: each code with its status, meaning and cause, generated from the refusals


_HEAD = """\
# Error codes

Generated from the code: change `command_line/documents.py` or `scheduler/domain/refusals.py` and run `make openapi`.

An error is `{"success": false, "data": null, "error": {"code", "message", "details"}, "timestamp", "traceId"}`. The
meaning below is the default message. A response may have a more exact one, and `details` with the values.
[rules](rules.md) explains ids such as F2-6.

A *call request* is `POST /interviews`, `POST …/call-attempts`, `PATCH …/call-attempts/{attemptId}`,
`PATCH /interviews/{id}` with `scheduledAt`, or `POST /call-times/preview`.
"""
_FIELDS = """
## Codes of fields

`VALIDATION_ERROR` lists each wrong field in `details.fields` as `{field, code, message}`.
"""
_UNAVAILABLE = """
## Retrying after a 503

After `DATABASE_AWAY` nothing was changed: send the request again. After `COMMIT_UNKNOWN` the request may have been
carried out. Ask the address in `details.check`, or send the request again with its `Idempotency-Key`. The response
contains `Retry-After` only if repeating the request cannot carry it out twice.
"""

_CAUSES: Mapping[str, str] = {
    "API_KEY_SUSPENDED": "any request with a key",
    "BATCH_FINISHED": "`POST /batches/{id}/pause` or `…/resume` (F7-10)",
    "BATCH_TOO_LARGE": "`POST /batches` (F7-10)",
    "CALL_ATTEMPTS_NOT_SUPPORTED": "an invoke of an ONLINE interview (F4-5)",
    "CALL_ATTEMPT_IN_PROGRESS": "moving, deleting or invoking while a call is in progress (F4-4)",
    "CALL_ATTEMPT_NOT_PENDING": "moving an attempt that is over (F4-2, F4-10)",
    "CALL_NOT_ANSWERED": "reporting an outcome before the call is answered, or of a call that no person answered",
    "CALL_TIME_INTERVALS_INVALID": "`settings.callTimeIntervals` of a company (F2-5)",
    "COMMAND_DROPPED": "a command that an operator dropped with `duecall quarantine drop`",
    "COMPANY_DELETED": "a repeated `POST /company` with its `Idempotency-Key`",
    "COMPANY_ID_REQUIRED": "a request with an ATS key for a resource of a company",
    "COMPANY_PHONE_NUMBER_REQUIRED": "an agent of type PHONE, inline or not (F1-6)",
    "CONSENT_EXPIRED": "a call request (F2-12), a report with `callBackAt` (F9-3)",
    "CONTACT_REQUIRED": "`PATCH /candidates/{id}`",
    "CONTENT_TYPE_NOT_JSON": "any request with a body",
    "CONTENT_TYPE_NOT_BATCH": "`POST /batches`",
    "EXTERNAL_ID_REUSED": "a request with `externalId`",
    "IDEMPOTENCY_IN_PROGRESS": "any request with an `Idempotency-Key`",
    "IDEMPOTENCY_KEY_REUSED": "any request with an `Idempotency-Key`",
    "INSUFFICIENT_PERMISSIONS": "any request with a key, or `POST /company` with a regular key",
    "INTERVIEW_FINISHED": "an invoke of a finished interview (F4-5), or `PATCH` of a finished ONLINE interview",
    "INVALID_API_KEY": "any request that needs a key",
    "INVALID_DATE_FORMAT": "a time of a call (F2-1), `callBackAt`, `expiresAt`, or an end of `GET /billing/usage`",
    "INVALID_PERIOD": "`GET /billing/usage` (F5-1)",
    "INVITATION_GONE": "`POST /invitations/accept` (F3-4)",
    "JOB_AMBIGUOUS": "`POST /interviews` without a job (F1-4)",
    "JOB_NOT_ASSIGNED": "`POST /interviews` with `jobId` (F1-5)",
    "JOB_NOT_FOUND": "`jobIds` of a candidate",
    "JOB_REQUIRED": "`POST /interviews` without a job (F1-4)",
    "MALFORMED_JSON": "any request with a body, or without the body that it needs",
    "METADATA_TOO_LARGE": "`PATCH` with `metadata`",
    "NEVER_OPEN": "`settings.callTimeIntervals` of a company (F2-5)",
    "NO_COMMON_OPENING": "a call request (F2-4)",
    "NO_OPENING_BEFORE_EXPIRY": "a call request, `expiresAt` (F2-7), or a report with `callBackAt` (F9-3)",
    "NUMBER_NOT_ALLOWED": "a call request (F1-6), or a new number for a candidate with a pending call",
    "OFFSET_DIFFERS_FROM_PHONE_NUMBER": "a call request with an offset (F2-3)",
    "OUTCOME_REPORTED": "reporting another outcome of the same call",
    "OUTSIDE_CALL_TIME_INTERVAL": "a call request with `scheduledAt` (F2-6), a report with `callBackAt` (F9-3)",
    "PHONE_NUMBER_INVALID": "a call request (F1-6), or a new number for a candidate with a pending call",
    "PHONE_NUMBER_REQUIRED": "a call request (F1-6)",
    "PRECONDITION_FAILED": "`PATCH` or `DELETE` of a call attempt with `If-Match` (F4-2)",
    "RATE_LIMIT_EXCEEDED": "any request with a key",
    "RESOURCE_ACCESS_DENIED": "any request about a company",
    "RESOURCE_NOT_FOUND": "any request about another resource",
    "RETRY_POLICY_INVALID": "`settings.retryPolicy` of a company",
    "SCHEDULE_IN_PAST": "a call request with `scheduledAt` (F2-6), a report with `callBackAt` (F9-3)",
    "SCHEDULE_TOO_FAR": "a call request with `scheduledAt` (F2-6), a report with `callBackAt` (F9-3)",
    "STATUS_NOT_SETTABLE": "`PATCH /interviews/{id}` with `status` (F4-10)",
    "TIMEZONE_AMBIGUOUS": "a call request with `scheduledAt` (F2-2), a report with `callBackAt` (F9-3)",
    "TIMEZONE_INVALID": "`timezone` of a candidate, of `settings` or of `POST /call-times/preview`",
    "TIMEZONE_UNKNOWN": "a call request (F2-2), or `expiresAt`",
    "TOO_MANY_JOBS": "`POST /interviews` with an inline job",
    "TOO_MANY_ATTEMPTS": "an invoke of an interview with 200 call attempts (F4-1)",
    "TOO_MANY_CALL_BACKS": "reporting `CALL_BACK` after three of them in a chain",
    "TOO_MANY_WEBHOOKS": "`POST /webhooks` (F7-3)",
    "VALIDATION_ERROR": "any request with an invalid body, header or query parameter",
    "WEBHOOK_NOT_ACTIVE": "`POST /webhooks/{id}/test` (F7-3)",
}
_OF_OPERATORS = frozenset(
    {
        "CANCELLED_IN_PART",
        "DECISION_WAITING",
        "EXPIRY_IN_PAST",
        "KEY_NAME_INVALID",
        "KEY_REVOKED",
        "KEY_SUSPENDED",
        "NEWER_CALL_ATTEMPT",
        "OUTCOME_DECIDED",
        "OUTCOME_NOT_UNKNOWN",
        "PAUSE_REASON_INVALID",
        "PRICE_INVALID",
        "SCOPES_UNKNOWN",
        "TOO_MANY_LIVE_KEYS",
    }
)
"""Refusals of the command line, which no request returns."""
_AWAY = HTTPStatus.SERVICE_UNAVAILABLE
_NOT_REFUSED = (
    (
        HTTPStatus.FORBIDDEN,
        "NOT_A_CALLBACK",
        "This callback was not signed by the carrier.",
        "`POST /carrier/twilio/…`",
    ),
    (HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "Unexpected error. Report the `traceId`.", "any request"),
    (_AWAY, "CLOCK_WRONG", "The server's clock is wrong. Nothing was changed.", "any write"),
    (_AWAY, "COMMIT_UNKNOWN", "The request may have been carried out, see below.", "any write"),
    (
        _AWAY,
        "DATABASE_AWAY",
        "The database is unavailable, or another change holds the data. Nothing was changed.",
        "any request",
    ),
    (_AWAY, "SCHEMA_NOT_READY", "The database needs `duecall db upgrade`.", "`GET /readyz`"),
)
"""Errors without a refusal: status, code, meaning, cause."""
FIELD_CODES: Mapping[str, str] = {
    "ADDRESS_FORBIDDEN": "The URL of a webhook must not name an address that is not public.",
    "CONFLICTING_FIELDS": "Two fields exclude each other.",
    "CONTACT_REQUIRED": "A candidate needs an e-mail address or a phone number.",
    "CURSOR_REQUIRED": "The list has no numbered pages. Its pages are read with `cursor`.",
    "FRAGMENT_NOT_ALLOWED": "The URL of a webhook must not have a part from `#` on.",
    "HEADER_NOT_SETTABLE": "The header is set by Duecall or by HTTP, as `Host`, `Content-*` and `webhook-*` are.",
    "HTTPS_REQUIRED": "The URL of a webhook must begin with `https://`.",
    "INVALID_CHARACTER": "The text contains NUL or half of a surrogate pair.",
    "INVALID_COUNTRY": "The value is not a two-letter country code (ISO 3166).",
    "INVALID_CURSOR": "The cursor was changed, or belongs to another list or order.",
    "INVALID_DATE": "The value is not a date, for example 2030-01-31.",
    "INVALID_DATE_TIME": "The value is not a date-time with `Z` or an offset, for example 2030-01-31T08:00:00Z.",
    "INVALID_EMAIL": "The value is not an e-mail address.",
    "INVALID_HEADER_NAME": "The name of a header must have 1 to 255 letters, digits and hyphens.",
    "INVALID_HEADER_VALUE": "The value of a header must have 1 to 4,096 visible ASCII characters.",
    "INVALID_HOST": "The URL of a webhook must name a host in ASCII.",
    "INVALID_IDEMPOTENCY_KEY": "The header must have 1 to 255 printable ASCII characters and be sent once.",
    "INVALID_IF_MATCH": "The header must be `*` or ETags in quotes.",
    "INVALID_RANGE": "The end of a range is not later than its start.",
    "INVALID_URL": "The URL of a webhook must be ASCII, without spaces and backslashes.",
    "INVALID_UUID": "The value is not a UUID.",
    "INVALID_VALUE": "The value is not one of the allowed ones.",
    "METADATA_TOO_DEEP": "Metadata has more than 5 levels.",
    "METADATA_TOO_LARGE": "Metadata has more than 10 KB.",
    "METADATA_TOO_MANY_KEYS": "Metadata has more than 50 keys.",
    "MISSING_FIELD": "A required field is missing.",
    "NOTHING_TO_CHANGE": "The body of `PATCH /interviews/{id}` names no field.",
    "NOT_E164": "The phone number is not in E.164, for example +421915123456.",
    "NOT_IN_FUTURE": "The date must be in the future.",
    "NOT_PRINTABLE": "The text contains characters that cannot be seen.",
    "OUT_OF_RANGE": "The number is too small or too large.",
    "PORT_NOT_ALLOWED": "The port of a webhook must be 443, or 1024 or higher.",
    "READ_ONLY_FIELD": "The field is set by Duecall. It must not be sent.",
    "REPEATED_EVENT": "An event is listed twice.",
    "REPEATED_HEADER": "A header is listed twice.",
    "REPEATED_PARAMETER": "A query parameter was sent more than once.",
    "TOO_DEEP": "A message has more than 64 levels. The same body over HTTP is `MALFORMED_JSON`.",
    "TOO_FEW": "The list has too few elements.",
    "TOO_LONG": "The text is too long.",
    "TOO_MANY": "The list has too many elements.",
    "TOO_SHORT": "The text is too short.",
    "UNKNOWN_EVENT": "The event does not exist.",
    "UNKNOWN_FIELD": "The field does not exist.",
    "UNKNOWN_PARAMETER": "The query parameter does not exist.",
    "USERINFO_NOT_ALLOWED": "The URL of a webhook must not contain a user or password.",
    "WRONG_TYPE": "The value has the wrong JSON type.",
}
"""Codes of `details.fields`, with their meaning."""


def error_codes_text() -> str:
    """Build the page. Raises KeyError for a refusal without a cause."""
    table = sorted({*_refusals(), *_framework(), *_NOT_REFUSED})
    codes = [f"| {int(status)} | `{code}` | {meaning} | {cause} |" for status, code, meaning, cause in table]
    fields = [f"| `{code}` | {meaning} |" for code, meaning in FIELD_CODES.items()]
    return "\n".join(
        (
            _HEAD,
            *("| status | code | meaning | returned for |", "|---|---|---|---|", *codes),
            _UNAVAILABLE.rstrip("\n"),
            _FIELDS,
            *("| code | meaning |", "|---|---|", *fields, ""),
        )
    )


def _refusals() -> Iterable[tuple[HTTPStatus, str, str, str]]:
    for kind in _leaves(Refused):
        if kind.code not in _OF_OPERATORS:
            refusal = refusal_of(kind())
            yield errors.STATUS_OF[refusal.family], kind.code, refusal.message, _CAUSES[kind.code]


def _leaves(kind: type[Refused]) -> Iterable[type[Refused]]:
    """List the classes without subclasses. The others are families, which are never raised."""
    for each in kind.__subclasses__():
        yield from _leaves(each) if each.__subclasses__() else (each,)


def _framework() -> Iterable[tuple[HTTPStatus, str, str, str]]:
    for status, (code, meaning) in errors.FRAMEWORK.items():
        yield status, code, meaning, "any request"
