"""Entity tags (RFC 9110) of attempts, made from the epoch, which increases with every event."""

import re

from scheduler.domain.attempt import Attempt
from scheduler.domain.refusals import EtagDiffers

_TAG = r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"'
IF_MATCH = re.compile(rf"\*|[ \t,]*{_TAG}([ \t]*,[ \t,]*{_TAG})*[ \t,]*")
"""The syntax of an If-Match header (RFC 9110 sections 8.8.3 and 13.1.1), including empty list elements (5.6.1.2)."""


def etag_of(attempt: Attempt) -> str:
    """Return the attempt's current strong entity tag, quotes included."""
    return f'"{attempt.epoch}"'


def must_match(if_match: str | None, attempt: Attempt) -> None:
    """Raise EtagDiffers unless the If-Match header contains the attempt's current tag. None: no header was sent.

    A weak tag never matches (RFC 9110 section 13.1.1).
    """
    if if_match is None or if_match.strip() == "*":
        return
    if etag_of(attempt) not in {tag.strip() for tag in if_match.split(",")}:
        raise EtagDiffers(etag=etag_of(attempt))
