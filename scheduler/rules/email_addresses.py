"""Which text is an email address, and its one spelling. The only use of email_validator."""

from email_validator import EmailNotValidError, validate_email

LONGEST = 254
_DECODED_BY_MAIL_READERS = "=?"
"""Begins an encoded word (RFC 2047): in a header it would be shown, and by some be read, as something else."""


class NotAnAddress(ValueError):
    """The text is not an address that mail can be sent to."""


def canonical(text: str) -> str:
    """The address in lower case, its domain in ASCII (IDNA); one address, and nothing but an address.

    No name, quoted local part, comment or address literal, no domain that only means something on one network: what is
    left has no character that separates or quotes in a header or in SMTP. Whether there is such a mailbox is not asked.
    Raises NotAnAddress, whose text does not quote what was sent.
    """
    try:
        found = validate_email(text, check_deliverability=False, allow_smtputf8=False, strict=True)
    except EmailNotValidError:
        raise NotAnAddress from None  # its text quotes what was sent
    address = found.ascii_email
    if address is None or _DECODED_BY_MAIL_READERS in address or len(address) > LONGEST:
        raise NotAnAddress
    return address.lower()


def sender(text: str) -> tuple[str, str]:
    """The name, maybe empty, and the address of whom mail comes from: `Duecall <mail@example.com>`.

    An operator names it, so any network's domain is good. Raises NotAnAddress.
    """
    try:
        found = validate_email(
            text,
            check_deliverability=False,
            allow_smtputf8=False,
            allow_display_name=True,
            globally_deliverable=False,
        )
    except EmailNotValidError as error:
        raise NotAnAddress from error
    if found.ascii_email is None:
        raise NotAnAddress
    return found.display_name or "", found.ascii_email
