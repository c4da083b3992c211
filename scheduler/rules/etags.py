"""Is an attempt still as its caller last saw it? By RFC 9110's entity tags; its epoch rises with every event."""

import re

from scheduler.domain.attempt import Attempt
from scheduler.domain.refusals import EtagDiffers

_TAG = r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"'
IF_MATCH = re.compile(rf"\*|[ \t,]*{_TAG}([ \t]*,[ \t,]*{_TAG})*[ \t,]*")
"""What an If-Match header may say, by RFC 9110 sections 8.8.3 and 13.1.1; empty elements of its list are read, as
section 5.6.1.2 asks."""


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
