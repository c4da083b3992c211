"""A server of HTTP that plays a script: the first request gets the first answer, and so on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.webhook_receivers import Behaviour, Visit, WebhookReceiver, a_webhook_receiver, answers

TRACE = "8d1f0c7e5b7a4e0c9a52d3c1f6b0a4e7"
AT = "2026-04-02T07:00:00Z"


@dataclass(kw_only=True)
class Waits:
    """A client's `sleep` that returns at once."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def ok(data: Any, status: int = 200) -> Behaviour:
    return _json(status, {"success": True, "data": data, "error": None, "timestamp": AT, "traceId": TRACE})


def refused(status: int, code: str, *headers: str, **details: Any) -> Behaviour:
    error = {"code": code, "message": f"It is {code}.", "details": details}
    body = {"success": False, "data": None, "error": error, "timestamp": AT, "traceId": TRACE}
    return _json(status, body, *headers)


def _json(status: int, body: Any, *headers: str) -> Behaviour:
    # The server ends each connection. Without the header, a client may send its next request into the old one.
    own = ("Content-Type: application/json", "Connection: close")
    return answers(status, *own, *headers, body=json.dumps(body).encode())


@contextmanager
def a_scripted_server(*script: Behaviour) -> Iterator[WebhookReceiver]:
    """Serve the script. A request after its end fails the test by a broken connection."""
    left = iter(script)

    def play(visit: Visit) -> None:
        next(left, lambda _: None)(visit)

    with a_webhook_receiver(play) as server:
        yield server


def address(server: WebhookReceiver) -> str:
    return f"http://127.0.0.1:{server.port}"
