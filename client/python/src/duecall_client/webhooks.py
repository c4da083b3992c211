"""Verification of webhooks."""

from collections.abc import Mapping, Sequence

from standardwebhooks import Webhook, WebhookVerificationError

from duecall_client.errors import InvalidWebhook
from duecall_client.events import Event


def verify_webhook(body: bytes | str, headers: Mapping[str, str], secrets: Sequence[str]) -> Event:
    """Return the event of a webhook that is signed with one of these secrets. Raises InvalidWebhook.

    `body` is the body as it was received: JSON that was parsed and written again has another signature. Pass the old
    and the new secret while a secret is replaced.
    """
    if isinstance(secrets, str):
        raise TypeError("secrets must be a list of secrets, for example [secret]")
    faults = []
    for verifier in [Webhook(secret) for secret in secrets]:
        try:
            return Event.from_json(verifier.verify(body, dict(headers)))
        # The library raises a ValueError for a malformed header, and for a body that is not JSON or not UTF-8.
        except (WebhookVerificationError, ValueError) as error:
            faults.append(str(error))
        except (KeyError, TypeError):
            faults.append("it is not an event of Duecall")
    raise InvalidWebhook(f"The webhook is refused: {'; '.join(dict.fromkeys(faults)) or 'no secret was given'}.")
