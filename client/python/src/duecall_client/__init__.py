"""A typed client for the API of Duecall.

`duecall_client.generated` has a function for each operation and a class for each model. This layer adds retries with
the same idempotency key, the wait for a command, lists page by page, events, and the verification of webhooks.
"""

from duecall_client.client import Client
from duecall_client.errors import ApiError, CommandNotApplied, DuecallError, InvalidWebhook, Unreachable
from duecall_client.events import Event
from duecall_client.pages import items
from duecall_client.retries import Retries
from duecall_client.webhooks import verify_webhook

__all__ = [
    "ApiError",
    "Client",
    "CommandNotApplied",
    "DuecallError",
    "Event",
    "InvalidWebhook",
    "Retries",
    "Unreachable",
    "items",
    "verify_webhook",
]
