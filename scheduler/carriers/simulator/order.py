"""What a form asks of the carrier: whom to ring, for how long, and whom to tell."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict

from scheduler.carriers.simulator.refusals import RefusedByTwilio

Form = Mapping[str, Sequence[str]]

CALLBACK_EVENTS = ("initiated", "ringing", "answered", "completed")
MACHINE_DETECTIONS = ("Enable", "DetectMessageEnd")
DEFAULT_TIMEOUT_S = 60
LONGEST_TIMEOUT_S = 600
DEFAULT_TIME_LIMIT_S = 4 * 60 * 60
LONGEST_TIME_LIMIT_S = 24 * 60 * 60

_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_WRITTEN_BETWEEN_DIGITS = str.maketrans("", "", " -.()")
_HTTP_METHODS = ("GET", "POST")


class Order(BaseModel):
    """A call that Twilio would place; what is documented but changes nothing here is accepted and let go."""

    model_config = ConfigDict(frozen=True)

    to: str
    from_: str
    timeout_s: int
    time_limit_s: int
    status_callback: str | None
    status_callback_method: str
    events: tuple[str, ...]
    """The callback events that were subscribed to."""
    machine_detection: str | None


def read_form(content_type: str, body: bytes) -> Form:
    """The fields of a URL-encoded body, repeated ones in order; a body of another type has none."""
    if not content_type.lower().startswith("application/x-www-form-urlencoded"):
        return {}
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def field(form: Form, name: str) -> str | None:
    """The first value of a field; one that was sent empty is one that was not sent."""
    return next(iter(form.get(name, ())), "").strip() or None


def token_of(status_callback: str | None) -> str | None:
    """The last segment of the callback URL's path: how the caller names the attempt to itself."""
    if status_callback is None:
        return None
    return urlsplit(status_callback).path.rstrip("/").rpartition("/")[2] or None


def read_order(form: Form) -> Order:
    """Raises RefusedByTwilio with the code that names the first wrong field."""
    to = _number(field(form, "To"), missing=21201, invalid=21211)
    from_ = _number(field(form, "From"), missing=21213, invalid=21212)
    _check_instructions(form)
    for name in ("Method", "FallbackMethod", "StatusCallbackMethod", "RecordingStatusCallbackMethod"):
        _method(form, name)
    # With an application its own settings count, and the callback fields of the request do not.
    callbacks = {} if field(form, "ApplicationSid") else form
    return Order(
        to=to,
        from_=from_,
        timeout_s=_seconds(form, "Timeout", default=DEFAULT_TIMEOUT_S, longest=LONGEST_TIMEOUT_S, invalid=21208),
        time_limit_s=_time_limit(form),
        status_callback=_url(callbacks, "StatusCallback", invalid=21609),
        status_callback_method=_method(callbacks, "StatusCallbackMethod"),
        events=_events(callbacks),
        machine_detection=_machine_detection(form),
    )


def read_changes(form: Form) -> dict[str, Any]:
    """What an update of a living call changes about its order."""
    changes: dict[str, Any] = {}
    if url := _url(form, "StatusCallback", invalid=21609):
        changes["status_callback"] = url
    if field(form, "StatusCallbackMethod"):
        changes["status_callback_method"] = _method(form, "StatusCallbackMethod")
    if field(form, "TimeLimit"):
        changes["time_limit_s"] = _time_limit(form)
    return changes


def gives_instructions(form: Form) -> bool:
    """Whether an update tells a call what to do next, which only one that is answered can hear."""
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
    return _seconds(form, "TimeLimit", default=DEFAULT_TIME_LIMIT_S, longest=LONGEST_TIME_LIMIT_S, invalid=20001)


def _events(form: Form) -> tuple[str, ...]:
    """One event a field. Of several joined by spaces Twilio hears only the first: a trap, and kept true."""
    values = form.get("StatusCallbackEvent")
    if not values:
        return ("completed",)
    heard = {value.split()[0] for value in values if value.split()}
    return tuple(event for event in CALLBACK_EVENTS if event in heard)


def _machine_detection(form: Form) -> str | None:
    asked = field(form, "MachineDetection")
    return asked if asked in MACHINE_DETECTIONS else None
