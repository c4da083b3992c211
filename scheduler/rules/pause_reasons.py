"""May this text stand as the reason of a pause, or why a key is suspended? Others read it, and rows keep it."""

import re
import unicodedata

from scheduler.domain.company import ALARM
from scheduler.domain.refusals import InvalidPauseReason

LONGEST = 200
_NO_NUMBER = re.compile(
    r"(?<![\d+-])(?:19|20)\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?(?!\d)"
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    re.IGNORECASE,
)
"""Dates as ISO 8601 writes them, and ids: many digits that reach nobody."""
_NUMBER = re.compile(r"\d(?:[\s()./\\_\u2010-\u2015-]*\d){6,}")
"""Seven digits or more, however they are set apart: fewer reach nobody from another town."""
_ADDRESS = re.compile(r"\S@\S")


def checked(text: str) -> str:
    """The reason, trimmed: one line that prints, and names nobody as far as can be told.

    Raises InvalidPauseReason, which says what to do and never repeats the text.
    """
    reason = text.strip()
    if not reason:
        raise InvalidPauseReason("Say why: whoever finds it stopped will ask.")
    for position, character in enumerate(reason, start=1):
        if not character.isprintable():
            raise InvalidPauseReason(
                f"The reason must be one line of printable text; character {position} of it is U+{ord(character):04X}."
                " Leave it out."
            )
    if len(reason) > LONGEST:
        raise InvalidPauseReason(f"The reason has {len(reason)} characters; say it in {LONGEST}.")
    if reason.upper().startswith(ALARM.strip()):
        raise InvalidPauseReason(
            f"A reason that begins with {ALARM.strip()} means that no person did it; begin otherwise."
        )
    # Digits and signs of other scripts count as what they stand for.
    plain = unicodedata.normalize("NFKC", reason)
    if _ADDRESS.search(plain):
        raise InvalidPauseReason(f"The reason holds what looks like an e-mail address. {_INSTEAD}")
    if _NUMBER.search(_NO_NUMBER.sub("x", plain)):
        raise InvalidPauseReason(
            f"The reason holds what looks like a phone number. {_INSTEAD} Write dates as 2026-04-06."
        )
    return reason


_INSTEAD = "Others read it, so it may name no person: leave that out, or give the id of an interview or a candidate."
