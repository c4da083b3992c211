"""Requests that are sent again, with the same idempotency key, while the server does not answer or is overloaded."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from duecall_client.errors import ApiError, Unreachable, code_in

IDEMPOTENCY_KEY = "Idempotency-Key"
_STATUSES = frozenset({429, 500, 502, 503, 504})
_IN_PROGRESS = "IDEMPOTENCY_IN_PROGRESS"
_NOT_SENT = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Errors of the request itself: it would fail again."""
_SPREAD = secrets.SystemRandom()


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Number of tries of a request, and the waits between them in seconds."""

    tries: int = 5
    first_wait_s: float = 0.5
    """The wait after the first try. It doubles with each try."""
    longest_wait_s: float = 60.0
    """The longest wait, also if the server asks for a longer one: then the request fails at once."""

    def wait_s(self, tried: int, retry_after: str | None) -> float | None:
        """Return the seconds to wait after this number of tries, or None if the request is not sent again.

        A server that is overloaded names the wait in `Retry-After`. Other waits are between half and all of their
        length, because clients that failed together would return together.
        """
        if tried >= self.tries:
            return None
        if retry_after is not None and retry_after.isdecimal():
            wait_s = float(retry_after)
            return wait_s if wait_s <= self.longest_wait_s else None
        longest: float = min(self.first_wait_s * 2 ** (tried - 1), self.longest_wait_s)
        return _SPREAD.uniform(longest / 2, longest)


class RetryingClient(httpx.Client):
    """An HTTP client that repeats requests, and raises `ApiError` for every response that is not a success.

    Each POST, PATCH and DELETE gets an idempotency key unless it has one. All tries have the same key, so the server
    carries out the request once.
    """

    def __init__(self, *, retries: Retries, sleep: Callable[[float], None] = time.sleep, **options: Any) -> None:
        super().__init__(**options)
        self._retries = retries
        self._sleep = sleep

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.method not in {"GET", "HEAD"}:
            request.headers.setdefault(IDEMPOTENCY_KEY, str(uuid4()))
        request.read()  # a body that is a file would be empty at the second try
        tried = 0
        while True:
            tried += 1
            lost: httpx.TransportError | None = None
            retry_after = None
            try:
                response = super().send(request, **options)
            except httpx.TransportError as error:
                if isinstance(error, _NOT_SENT):
                    raise
                lost = error
            else:
                if response.is_success:
                    return response
                if response.status_code not in _STATUSES and code_in(response) != _IN_PROGRESS:
                    raise ApiError.of(response)
                retry_after = response.headers.get("Retry-After")
            wait_s = self._retries.wait_s(tried, retry_after)
            if wait_s is None:
                raise ApiError.of(response) if lost is None else Unreachable(request, lost) from lost
            self._sleep(wait_s)
