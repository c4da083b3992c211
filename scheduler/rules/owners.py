"""Rules of owners: e-mail addresses, and when invitations are sent again."""

from datetime import datetime, timedelta

from email_validator import EmailNotValidError, validate_email

from scheduler.lifecycle.bounds import SLACK

# --- Validation and canonical form of e-mail addresses. The only use of email_validator


LONGEST = 254
_DECODED_BY_MAIL_READERS = "=?"
"""The start of an encoded word (RFC 2047), which mail readers would decode and display as other text."""


class NotAnAddress(ValueError):
    """The text is not a valid e-mail address."""


def canonical(text: str) -> str:
    """Convert the address to lower case, its domain to ASCII (IDNA).

    Names, quoted local parts, comments, address literals and domains of a local network are refused, so that the result
    has no character that separates or quotes in a header or in SMTP. The mailbox is not checked. Raises NotAnAddress,
    whose text does not quote the input.
    """
    try:
        validated = validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        raise NotAnAddress from None  # its text quotes the input
    address = validated.ascii_email
    if address is None or _DECODED_BY_MAIL_READERS in address or len(address) > LONGEST:
        raise NotAnAddress
    return address.lower()


def sender(text: str) -> tuple[str, str]:
    """Split a sender such as `Duecall <mail@example.com>` into its name, possibly empty, and its address.

    Operators set it, so domains of a local network are allowed. Raises NotAnAddress.
    """
    try:
        validated = validate_email(
            text,
            check_deliverability=False,
            allow_smtputf8=False,
            allow_display_name=True,
            globally_deliverable=False,
        )
    except EmailNotValidError as error:
        raise NotAnAddress from error
    if validated.ascii_email is None:
        raise NotAnAddress
    return validated.display_name or "", validated.ascii_email


# --- The validity of an invitation, and the retries of its mail


LIFE = timedelta(days=7)
_AGAIN_AFTER = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=1),
)
"""Delays after the first failure, the second, ...; the last one repeats."""


def try_again_at(tries: int, now: datetime, expires_at: datetime) -> datetime | None:
    """Decide when to send again after `tries` failures (at least 1), or None if the invitation expires before."""
    again = now + _AGAIN_AFTER[min(tries, len(_AGAIN_AFTER)) - 1]
    return again if again < expires_at else None


def latest_try(now: datetime) -> datetime:
    """Compute the latest time at which a mail can be due. A wrong clock has set a later one."""
    return now + _AGAIN_AFTER[-1] + SLACK
