"""Rules of owners: e-mail addresses, when invitations are sent again, and the texts of mails in their language."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from email_validator import EmailNotValidError, validate_email

from scheduler.lifecycle.policy import SLACK

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


# --- Texts of the mails to company owners, in the language of the company's `settings.locale`, otherwise in English


@dataclass(frozen=True, kw_only=True)
class MailTexts:
    """The texts of one language. A subject is one line. Names in braces are replaced."""

    company: str
    """Instead of a name that a mail cannot contain."""
    invitation_subject: str
    invitation: str
    disabled_subject: str
    disabled: str
    disabled_causes: Mapping[str, str]


TEXTS = {
    "en": MailTexts(
        company="a company",
        invitation_subject="Invitation to become the owner of {company}",
        invitation="""\
You have been invited to become the owner of this company on Duecall:

    {company}

To accept, open this link and enter your name:

{link}

The link works once, until {until:%Y-%m-%d %H:%M} UTC.
If you did not expect this e-mail, you can ignore it.
""",
        disabled_subject="A webhook of {company} was disabled",
        disabled="""\
Duecall no longer sends events to a webhook of this company:

    {company}
    webhook {id}

{cause}

Repair the receiver, then enable the webhook: PATCH /webhooks/{id} with {{"isActive": true}}.
Events of the time in between stay in GET /events for 30 days, and can be replayed.
""",
        disabled_causes={
            "GONE": "Its receiver has answered 410 Gone, which means that it wants no events.",
            "FAILING": "Its receiver has accepted no event for five days.",
        },
    ),
    "de": MailTexts(
        company="eine Firma",
        invitation_subject="Einladung: Verwalten Sie {company}",
        invitation="""\
Sie wurden eingeladen, diese Firma bei Duecall als Inhaber zu verwalten:

    {company}

Wenn Sie annehmen, öffnen Sie diesen Link und geben Sie Ihren Namen ein:

{link}

Der Link funktioniert einmal, bis {until:%d.%m.%Y %H:%M} UTC.
Wenn Sie diese E-Mail nicht erwartet haben, brauchen Sie nichts zu tun.
""",
        disabled_subject="Ein Webhook von {company} wurde abgeschaltet",
        disabled="""\
Duecall sendet einem Webhook dieser Firma keine Ereignisse mehr:

    {company}
    Webhook {id}

{cause}

Reparieren Sie den Empfänger, und schalten Sie den Webhook wieder ein: PATCH /webhooks/{id} mit {{"isActive": true}}.
Ereignisse der Zwischenzeit bleiben 30 Tage lang in GET /events und können noch einmal gesendet werden.
""",
        disabled_causes={
            "GONE": "Sein Empfänger hat mit 410 Gone geantwortet. Das heißt, dass er keine Ereignisse mehr will.",
            "FAILING": "Sein Empfänger hat seit fünf Tagen kein Ereignis angenommen.",
        },
    ),
}
"""By language, as in the first part of a locale."""


def texts_for(locale: str | None) -> MailTexts:
    """Choose the texts for a locale such as de-AT or de_AT."""
    language = re.split("[-_]", locale or "en")[0].lower()
    return TEXTS.get(language, TEXTS["en"])
