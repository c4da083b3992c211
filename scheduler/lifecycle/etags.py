"""Is an attempt still as its caller last saw it? By RFC 9110's entity tags; its epoch rises with every event."""

from scheduler.domain.attempt import Attempt
from scheduler.domain.refusals import EtagDiffers


def etag_of(attempt: Attempt) -> str:
    """The strong entity tag of the attempt as it is, quotes included."""
    return f'"{attempt.epoch}"'


def must_match(if_match: str | None, attempt: Attempt) -> None:
    """Raise EtagDiffers unless the If-Match header names the attempt as it is; None: it was not sent.

    A weak tag never matches (RFC 9110 section 13.1.1).
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag_of(attempt) not in {tag.strip() for tag in if_match.split(",")}:
        raise EtagDiffers(etag=etag_of(attempt))
