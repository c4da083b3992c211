"""Validation of the reasons of operators' acts, which other people read and the database keeps."""

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
"""ISO 8601 dates and UUIDs: many digits, but no phone number."""
_NUMBER = re.compile(r"\d(?:[\s()./\\_\u2010-\u2015-]*\d){6,}")
"""Seven or more digits with any separators: shorter numbers are local only."""
_ADDRESS = re.compile(r"\S@\S")


def optional(text: str | None) -> str | None:
    """Return a reason that may be left out. Raises InvalidPauseReason like `checked`."""
    return None if text is None else checked(text)


def checked(text: str) -> str:
    """Return the trimmed reason if it is one printable line without anything like a number or address of a person.

    Raises InvalidPauseReason, which says what to change and never quotes the text.
    """
    reason = text.strip()
    if not reason:
        raise InvalidPauseReason("The reason is empty. Write why the calls or the key are stopped.")
    for position, character in enumerate(reason, start=1):
        if not character.isprintable():
            raise InvalidPauseReason(
                f"The reason must be one line of printable text. Remove character {position}, U+{ord(character):04X}."
            )
    if len(reason) > LONGEST:
        raise InvalidPauseReason(f"The reason has {len(reason)} characters. Shorten it to {LONGEST}.")
    if reason.upper().startswith(ALARM.strip()):
        raise InvalidPauseReason(
            f"The prefix {ALARM.strip()} is reserved for alarms. Begin the reason with another word."
        )
    # Digits and signs of other scripts count like their ASCII equivalents.
    plain = unicodedata.normalize("NFKC", reason)
    if _ADDRESS.search(plain):
        raise InvalidPauseReason(f"The reason contains text like an e-mail address. {_INSTEAD}")
    if _NUMBER.search(_NO_NUMBER.sub("x", plain)):
        raise InvalidPauseReason(
            f"The reason contains text like a phone number. {_INSTEAD} Write dates like 2026-04-06."
        )
    return reason


_INSTEAD = (
    "Other people read the reason, so it must not identify a person. Remove that text, or use the id of an interview or"
    " a candidate."
)
