"""Twilio's published Calls API as facts, and violations of it by requests and by the simulator's own answers.

The simulated carrier itself reads requests as leniently as Twilio does. This module is the strict reader beside it: the
verdict names every difference. `tests/standalone/test_published_api.py` compares the facts with Twilio's own SDK.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

# --- Kinds of values, each as the pattern of its text


class Kind(StrEnum):
    TEXT = "text"
    URL = "URL"
    ENDPOINT = "phone number, SIP address or client"
    WHOLE = "whole number"
    DATE = "date"
    INSTANT = "RFC 2822 instant in UTC"
    PATH = "path below the API"
    CALL = "call SID"
    ACCOUNT = "account SID"
    NUMBER = "phone number SID"
    NOTIFICATION = "notification SID"
    APPLICATION = "application SID"
    BYOC = "BYOC trunk SID"
    TRUNK = "trunk SID"
    GROUP = "group SID"
    CURRENCY = "currency"
    DECIMAL = "decimal number"
    KEYS = "keys of a telephone"
    INTEGER = "JSON integer"
    PATHS = "JSON object of paths"


def _sid(prefix: str) -> str:
    return prefix + "[0-9a-fA-F]{32}"


_PATTERNS = {
    Kind.TEXT: re.compile(r"(?s).*"),
    Kind.ENDPOINT: re.compile(r"\+[1-9][0-9]{6,14}|sip:\S+|client:\S+"),
    Kind.WHOLE: re.compile(r"[0-9]{1,10}"),
    Kind.DATE: re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?"),
    Kind.INSTANT: re.compile(
        "(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4}"
        r" ([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9] \+0000"
    ),
    Kind.PATH: re.compile(r"/2010-04-01/Accounts/AC[0-9a-fA-F]{32}/\S+"),
    Kind.CALL: re.compile(_sid("CA")),
    Kind.ACCOUNT: re.compile(_sid("AC")),
    Kind.NUMBER: re.compile(_sid("PN")),
    Kind.NOTIFICATION: re.compile(_sid("NO")),
    Kind.APPLICATION: re.compile(_sid("AP")),
    Kind.BYOC: re.compile(_sid("BY")),
    Kind.TRUNK: re.compile(_sid("TK")),
    Kind.GROUP: re.compile(_sid("GP")),
    Kind.CURRENCY: re.compile("[A-Z]{3}"),
    Kind.DECIMAL: re.compile(r"-?[0-9]+(\.[0-9]+)?"),
    Kind.KEYS: re.compile("[0-9A-D#*wW]{1,32}"),
}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9a-f:.]+")


class Fact(NamedTuple):
    """A parameter or field: its kind, its words or limits, and if it may be sent several times."""

    kind: Kind = Kind.TEXT
    words: tuple[str, ...] = ()
    lowest: int | None = None
    highest: int | None = None
    """Of a number its value, and of a text its length."""
    repeats: bool = False
    is_required: bool = False
    """Of a field: never null."""

    def allows(self, value: object) -> bool:
        """Check a value that is not null."""
        if self.kind is Kind.INTEGER:
            return type(value) is int
        if self.kind is Kind.PATHS:
            return isinstance(value, dict) and all(_allows_text(Kind.PATH, each) for each in value.values())
        if not isinstance(value, str):
            return False
        if self.words:
            return value in self.words
        if not _allows_text(self.kind, value):
            return False
        size = int(value) if self.kind is Kind.WHOLE else len(value)
        return (self.lowest or 0) <= size and (self.highest is None or size <= self.highest)


def _allows_text(kind: Kind, text: object) -> bool:
    if not isinstance(text, str):
        return False
    if kind is Kind.URL:
        return is_url(text)
    if not _PATTERNS[kind].fullmatch(text):
        return False
    return kind is not Kind.DATE or _is_a_day(text[:10])


def _is_a_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_url(text: str) -> bool:
    """Check that Twilio may request this URL: absolute, and its host has no underscore."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        return False
    is_one_word = text.isascii() and text.isprintable() and " " not in text
    return is_one_word and parts.scheme in {"http", "https"} and _HOST.fullmatch(host) is not None


# --- Parameters of requests


_METHOD = Fact(words=("GET", "POST"))
_URL = Fact(Kind.URL)
_STATUSES = ("queued", "ringing", "in-progress", "completed", "busy", "failed", "no-answer", "canceled")
_PAGES = {
    "PageSize": Fact(Kind.WHOLE, lowest=1, highest=1000),
    "Page": Fact(Kind.WHOLE),
    "PageToken": Fact(),
}

_CREATE = {
    "To": Fact(Kind.ENDPOINT, is_required=True),
    "From": Fact(Kind.ENDPOINT, is_required=True),
    "Url": _URL,
    "Method": _METHOD,
    "Twiml": Fact(highest=4000),
    "ApplicationSid": Fact(Kind.APPLICATION),
    "FallbackUrl": _URL,
    "FallbackMethod": _METHOD,
    "StatusCallback": _URL,
    "StatusCallbackEvent": Fact(words=("initiated", "ringing", "answered", "completed"), repeats=True),
    "StatusCallbackMethod": _METHOD,
    "SendDigits": Fact(Kind.KEYS),
    "Timeout": Fact(Kind.WHOLE, lowest=1, highest=600),
    "TimeLimit": Fact(Kind.WHOLE, lowest=1),
    "Record": Fact(words=("true", "false")),
    "RecordingChannels": Fact(words=("mono", "dual")),
    "RecordingTrack": Fact(words=("inbound", "outbound", "both")),
    "RecordingStatusCallback": _URL,
    "RecordingStatusCallbackMethod": _METHOD,
    "RecordingStatusCallbackEvent": Fact(words=("in-progress", "completed", "absent"), repeats=True),
    "RecordingConfigurationId": Fact(),
    "Trim": Fact(words=("trim-silence", "do-not-trim")),
    "SipAuthUsername": Fact(),
    "SipAuthPassword": Fact(),
    "MachineDetection": Fact(words=("Enable", "DetectMessageEnd")),
    "MachineDetectionTimeout": Fact(Kind.WHOLE, lowest=1),
    "MachineDetectionSpeechThreshold": Fact(Kind.WHOLE, lowest=1000, highest=6000),
    "MachineDetectionSpeechEndThreshold": Fact(Kind.WHOLE, lowest=500, highest=5000),
    "MachineDetectionSilenceTimeout": Fact(Kind.WHOLE, lowest=2000, highest=10_000),
    "AsyncAmd": Fact(words=("true", "false")),
    "AsyncAmdStatusCallback": _URL,
    "AsyncAmdStatusCallbackMethod": _METHOD,
    "CallerId": Fact(Kind.ENDPOINT),
    "CallReason": Fact(highest=50),
    "CallToken": Fact(),
    "ClientNotificationUrl": _URL,
    "Passports": Fact(),
    "Byoc": Fact(Kind.BYOC),
}
_UPDATE = {
    **{name: _CREATE[name] for name in ("Url", "Method", "Twiml", "FallbackUrl", "FallbackMethod", "TimeLimit")},
    **{name: _CREATE[name] for name in ("StatusCallback", "StatusCallbackMethod")},
    "Status": Fact(words=("canceled", "completed")),
}
_LIST = {
    "To": Fact(Kind.ENDPOINT),
    "From": Fact(Kind.ENDPOINT),
    "ParentCallSid": Fact(Kind.CALL),
    "Status": Fact(words=_STATUSES),
    **{f"{time}{sign}": Fact(Kind.DATE) for time in ("StartTime", "EndTime") for sign in ("", "<", ">")},
    **_PAGES,
}
_LIST_NOTIFICATIONS = {
    "Log": Fact(Kind.WHOLE),
    **{f"MessageDate{sign}": Fact(Kind.DATE) for sign in ("", "<", ">")},
    **_PAGES,
}


# --- Fields of answers


_CALL = {
    "sid": Fact(Kind.CALL, is_required=True),
    "date_created": Fact(Kind.INSTANT, is_required=True),
    "date_updated": Fact(Kind.INSTANT, is_required=True),
    "parent_call_sid": Fact(Kind.CALL),
    "account_sid": Fact(Kind.ACCOUNT, is_required=True),
    "to": Fact(Kind.ENDPOINT, is_required=True),
    "to_formatted": Fact(is_required=True),
    "from": Fact(Kind.ENDPOINT, is_required=True),
    "from_formatted": Fact(is_required=True),
    "phone_number_sid": Fact(Kind.NUMBER),
    "status": Fact(words=_STATUSES, is_required=True),
    "start_time": Fact(Kind.INSTANT),
    "end_time": Fact(Kind.INSTANT),
    "duration": Fact(Kind.WHOLE),
    "price": Fact(Kind.DECIMAL),
    "price_unit": Fact(Kind.CURRENCY),
    "direction": Fact(
        words=("inbound", "outbound-api", "outbound-dial", "trunking-terminating", "trunking-originating"),
        is_required=True,
    ),
    "answered_by": Fact(
        words=(
            *("human", "machine", "machine_start", "machine_end_beep", "machine_end_silence", "machine_end_other"),
            *("fax", "unknown"),
        )
    ),
    "api_version": Fact(words=("2010-04-01",), is_required=True),
    "forwarded_from": Fact(),
    "group_sid": Fact(Kind.GROUP),
    "caller_name": Fact(),
    "queue_time": Fact(Kind.WHOLE, is_required=True),
    "stir_verstat": Fact(),
    "trunk_sid": Fact(Kind.TRUNK),
    "uri": Fact(Kind.PATH, is_required=True),
    "subresource_uris": Fact(Kind.PATHS, is_required=True),
}
_NOTIFICATION = {
    "sid": Fact(Kind.NOTIFICATION, is_required=True),
    "account_sid": Fact(Kind.ACCOUNT, is_required=True),
    "call_sid": Fact(Kind.CALL, is_required=True),
    "api_version": Fact(is_required=True),
    "date_created": Fact(Kind.INSTANT, is_required=True),
    "date_updated": Fact(Kind.INSTANT, is_required=True),
    "message_date": Fact(Kind.INSTANT, is_required=True),
    "error_code": Fact(Kind.WHOLE),
    "log": Fact(words=("0", "1")),
    "message_text": Fact(),
    "more_info": _URL,
    "request_method": _METHOD,
    "request_url": Fact(),
    "request_variables": Fact(),
    "response_body": Fact(),
    "response_headers": Fact(),
    "uri": Fact(Kind.PATH, is_required=True),
}
_PAGE = {
    **{name: Fact(Kind.INTEGER, is_required=True) for name in ("page", "page_size", "start", "end")},
    **{name: Fact(Kind.PATH, is_required=True) for name in ("uri", "first_page_uri")},
    **{name: Fact(Kind.PATH) for name in ("next_page_uri", "previous_page_uri")},
}
_REFUSAL = {
    **{name: Fact(Kind.INTEGER, is_required=True) for name in ("code", "status")},
    "message": Fact(is_required=True),
    "more_info": _URL,
}
_OF_ONE_ALONE = frozenset({"request_variables", "response_body", "response_headers"})
"""Fields of a notification that is fetched alone."""
_LISTED_NOTIFICATION = {name: fact for name, fact in _NOTIFICATION.items() if name not in _OF_ONE_ALONE}
_NEW = frozenset({"stir_verstat"})
"""Fields that an older SDK or server does not know."""


class Operation(NamedTuple):
    """A request to the API: its parameters, and the fields of its answer."""

    name: str
    parameters: Mapping[str, Fact]
    status: int
    fields: Mapping[str, Fact]
    items: str | None = None
    """The field with the items of a list. `fields` are those of an item."""
    is_form: bool = False
    """The parameters are in the body of a POST, and otherwise in the query."""


CREATE = Operation("create", _CREATE, 201, _CALL, is_form=True)
UPDATE = Operation("update", _UPDATE, 200, _CALL, is_form=True)
FETCH = Operation("fetch", {}, 200, _CALL)
LIST = Operation("list", _LIST, 200, _CALL, items="calls")
LIST_NOTIFICATIONS = Operation(
    "list of notifications", _LIST_NOTIFICATIONS, 200, _LISTED_NOTIFICATION, items="notifications"
)
OPERATIONS = (CREATE, UPDATE, FETCH, LIST, LIST_NOTIFICATIONS)


# --- Violations, in words without values


_FORM = re.compile(r"application/x-www-form-urlencoded(; ?charset=utf-8)?", re.IGNORECASE)
_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


def violations_of_request(operation: Operation, *, query: str, content_type: str, body: bytes) -> Iterator[str]:
    """Compare a request with the parameters that Twilio publishes: names, types, limits and encoding."""
    if query if operation.is_form else body:
        yield "a POST with a query" if operation.is_form else "a GET with a body"
    if operation.is_form and not _FORM.fullmatch(content_type):
        yield "a body that is not declared as a URL-encoded form"
    yield from _of_parameters(operation, _pairs(body if operation.is_form else query.encode()))


def _of_parameters(operation: Operation, pairs: Sequence[tuple[str, str]] | None) -> Iterator[str]:
    if pairs is None:
        yield "parameters that are not URL-encoded"
        return
    times = Counter(name for name, _ in pairs)
    for name, value in pairs:
        fact = operation.parameters.get(name)
        if fact is None:
            yield f"an unknown parameter {name}"
        elif not value or not fact.allows(value):
            yield f"{name} is not a valid {fact.kind}" if not fact.words else f"{name} has an unknown word"
        elif times[name] > 1 and not fact.repeats:
            yield f"{name} is sent several times"
    yield from (f"{name} is missing" for name, fact in operation.parameters.items() if _lacks(times, name, fact))
    if operation is CREATE and not any(times[name] for name in ("Url", "Twiml", "ApplicationSid")):
        yield "no instructions: Url, Twiml or ApplicationSid"


def _lacks(times: Counter[str], name: str, fact: Fact) -> bool:
    return fact.is_required and not times[name]


def _pairs(encoded: bytes) -> list[tuple[str, str]] | None:
    try:
        text = encoded.decode("ascii")
        if _BROKEN_ESCAPE.search(text):
            return None
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
    except ValueError:
        return None


def violations_of_answer(operation: Operation, status: int, answer: Mapping[str, Any]) -> Iterator[str]:
    """Compare an answer with the fields that Twilio publishes: no other, none missing, each of its type."""
    if status >= 400:  # noqa: PLR2004 - a refusal
        yield from _of_fields(_REFUSAL, answer)
        if answer.get("status") != status:
            yield "status differs from the HTTP status"
        return
    if status != operation.status:
        yield f"status {status} instead of {operation.status}"
    if operation.items is None:
        yield from _of_fields(operation.fields, answer)
        return
    items: Sequence[Mapping[str, Any]] = answer.get(operation.items, ())
    yield from _of_fields(_PAGE, {name: value for name, value in answer.items() if name != operation.items})
    for item in items:
        yield from _of_fields(operation.fields, item)


def _of_fields(facts: Mapping[str, Fact], answer: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"the answer has an unknown field {name}" for name in answer.keys() - facts.keys())
    for name, fact in facts.items():
        if name not in answer:
            if name not in _NEW:
                yield f"the answer lacks {name}"
        elif answer[name] is None:
            if fact.is_required:
                yield f"the answer's {name} is null"
        elif not fact.allows(answer[name]):
            yield f"the answer's {name} is not a valid {fact.kind}"
