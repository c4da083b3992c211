"""Orders: the form of a request to place a call, parsed and validated."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict

from standalone.simulator.refusals import RefusedByTwilio

Form = Mapping[str, Sequence[str]]

CALLBACK_EVENTS = ("initiated", "ringing", "answered", "completed")
MACHINE_DETECTIONS = ("Enable", "DetectMessageEnd")
DEFAULT_TIMEOUT_S = 60
MAX_TIMEOUT_S = 600
DEFAULT_TIME_LIMIT_S = 4 * 60 * 60
MAX_TIME_LIMIT_S = 24 * 60 * 60

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_WRITTEN_BETWEEN_DIGITS = str.maketrans("", "", " -.()")
_HTTP_METHODS = ("GET", "POST")


class Order(BaseModel):
    """A valid order for a call. Documented fields without an effect here are accepted and ignored."""

    model_config = ConfigDict(frozen=True)

    to: str
    from_: str
    timeout_s: int
    time_limit_s: int
    status_callback: str | None
    status_callback_method: str
    events: tuple[str, ...]
    """The subscribed callback events."""
    machine_detection: str | None


def read_form(content_type: str, body: bytes) -> Form:
    """Parse a URL-encoded body, with repeated fields in order. A body of another type has no fields."""
    if not content_type.lower().startswith("application/x-www-form-urlencoded"):
        return {}
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def field(form: Form, name: str) -> str | None:
    """Return the first value of a field. An empty field counts as missing."""
    return next(iter(form.get(name, ())), "").strip() or None


def token_of(status_callback: str | None) -> str | None:
    """Return the last segment of the callback URL's path, with which the caller names the attempt."""
    if status_callback is None:
        return None
    return urlsplit(status_callback).path.rstrip("/").rpartition("/")[2] or None


def read_order(form: Form) -> Order:
    """Parse an order. Raises RefusedByTwilio with the code for the first invalid field."""
    to = _number(field(form, "To"), missing=21201, invalid=21211)
    from_ = _number(field(form, "From"), missing=21213, invalid=21212)
    _check_instructions(form)
    for name in ("Method", "FallbackMethod", "StatusCallbackMethod", "RecordingStatusCallbackMethod"):
        _method(form, name)
    # With an application, its settings replace the callback fields of the request.
    callbacks = {} if field(form, "ApplicationSid") else form
    return Order(
        to=to,
        from_=from_,
        timeout_s=_seconds(form, "Timeout", default=DEFAULT_TIMEOUT_S, longest=MAX_TIMEOUT_S, invalid=21208),
        time_limit_s=_time_limit(form),
        status_callback=_url(callbacks, "StatusCallback", invalid=21609),
        status_callback_method=_method(callbacks, "StatusCallbackMethod"),
        events=_events(callbacks),
        machine_detection=_machine_detection(form),
    )


def read_changes(form: Form) -> dict[str, Any]:
    """Parse an update of a live call: the changes to its order."""
    changes: dict[str, Any] = {}
    if url := _url(form, "StatusCallback", invalid=21609):
        changes["status_callback"] = url
    if field(form, "StatusCallbackMethod"):
        changes["status_callback_method"] = _method(form, "StatusCallbackMethod")
    if field(form, "TimeLimit"):
        changes["time_limit_s"] = _time_limit(form)
    return changes


def gives_instructions(form: Form) -> bool:
    """Return True if an update contains instructions, which need an answered call."""
    return field(form, "Url") is not None or field(form, "Twiml") is not None


def _number(text: str | None, *, missing: int, invalid: int) -> str:
    if text is None:
        raise RefusedByTwilio(missing)
    number = text.translate(_WRITTEN_BETWEEN_DIGITS)
    if not _E164.fullmatch(number):
        raise RefusedByTwilio(invalid)
    return number


def _check_instructions(form: Form) -> None:
    if field(form, "Url"):
        _url(form, "Url", invalid=21205)
        return
    if not (field(form, "Twiml") or field(form, "ApplicationSid")):
        raise RefusedByTwilio(21205, message="Url, Twiml or ApplicationSid is required")


def _url(form: Form, name: str, *, invalid: int) -> str | None:
    url = field(form, name)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise RefusedByTwilio(invalid) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise RefusedByTwilio(invalid)
    return url


def _method(form: Form, name: str) -> str:
    method = (field(form, name) or "POST").upper()
    if method not in _HTTP_METHODS:
        raise RefusedByTwilio(20001, message=f"Invalid parameter: {name} must be GET or POST")
    return method


def _seconds(form: Form, name: str, *, default: int, longest: int, invalid: int) -> int:
    text = field(form, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= longest):
        raise RefusedByTwilio(invalid)
    return int(text)


def _time_limit(form: Form) -> int:
    return _seconds(form, "TimeLimit", default=DEFAULT_TIME_LIMIT_S, longest=MAX_TIME_LIMIT_S, invalid=20001)


def _events(form: Form) -> tuple[str, ...]:
    """Parse the events, one for each field. Like Twilio, use only the first of several names in one field."""
    values = form.get("StatusCallbackEvent")
    if not values:
        return ("completed",)
    names = {value.split()[0] for value in values if value.split()}
    return tuple(event for event in CALLBACK_EVENTS if event in names)


def _machine_detection(form: Form) -> str | None:
    detection = field(form, "MachineDetection")
    return detection if detection in MACHINE_DETECTIONS else None
