"""Signatures of posted messages, as Standard Webhooks (https://www.standardwebhooks.com) defines them."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_bytes

from standardwebhooks import Webhook

PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """Return a new secret for an endpoint: `whsec_` and the base64 of 32 random bytes."""
    return PREFIX + base64.b64encode(token_bytes(_SECRET_BYTES)).decode()


def signed_headers(message_id: str, body: str, secrets: Sequence[str], at: datetime) -> dict[str, str]:
    """Return the headers that identify and sign a message. Each secret adds a signature.

    `at` is the time of this try by the machine's clock: a receiver compares it with its own.
    """
    # The library reads the clock time of an aware datetime as UTC, whatever its offset is.
    at = at.astimezone(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, body) for secret in secrets),
    }
