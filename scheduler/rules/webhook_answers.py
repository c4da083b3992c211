"""Answers of webhook receivers: delivered, failed or gone, and when to try again at the earliest."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from scheduler.domain.webhook import ErrorKind, Outcome, WebhookAnswer

LONGEST_RETRY_AFTER = timedelta(days=1)
"""A receiver cannot delay a delivery beyond this, or it would never fail."""

_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)
_GONE = 410
_THROTTLED = frozenset({429, 503})
_MOST_DIGITS = 9


def answer_of(status: int, retry_after: str | None, now: datetime, milliseconds: int = 0) -> WebhookAnswer:
    """Classify an HTTP answer. Only 2xx is success: a redirect may be forged by a proxy, and is never followed."""
    kind = _error_kind(status)
    if kind is None:
        return WebhookAnswer(outcome=Outcome.DELIVERED, status=status, milliseconds=milliseconds)
    return WebhookAnswer(
        outcome=Outcome.GONE if kind is ErrorKind.GONE else Outcome.FAILED,
        status=status,
        error_kind=kind,
        retry_after=delay_of(retry_after, now) if kind is ErrorKind.THROTTLED else None,
        milliseconds=milliseconds,
    )


def no_answer(kind: ErrorKind, milliseconds: int = 0) -> WebhookAnswer:
    """Return the outcome of a request that got no answer."""
    return WebhookAnswer(outcome=Outcome.FAILED, error_kind=kind, milliseconds=milliseconds)


def delay_of(retry_after: str | None, now: datetime) -> timedelta | None:
    """Return the delay that a Retry-After header asks for (seconds or a date), between zero and a day.

    None if the header is missing or unreadable. `now` is the machine's time, as the receiver's date is.
    """
    text = "" if retry_after is None else retry_after.strip()
    if text.isascii() and text.isdecimal():
        if len(text.lstrip("0")) > _MOST_DIGITS:
            return LONGEST_RETRY_AFTER
        return min(timedelta(seconds=int(text)), LONGEST_RETRY_AFTER)
    try:
        at = parsedate_to_datetime(text)
        # A date without a zone is GMT, as every date in HTTP.
        asked = (at.replace(tzinfo=UTC) if at.tzinfo is None else at) - now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(asked, timedelta(0)), LONGEST_RETRY_AFTER)


def _error_kind(status: int) -> ErrorKind | None:
    if status in _SUCCESS:
        return None
    if status in _REDIRECTS:
        return ErrorKind.REDIRECT
    if status == _GONE:  # guard: hook_gone
        return ErrorKind.GONE
    return ErrorKind.THROTTLED if status in _THROTTLED else ErrorKind.HTTP_ERROR
