"""Texts of the mails to company owners, in the language of the company's `settings.locale`, otherwise in English."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


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
