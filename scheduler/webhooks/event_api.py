"""`GET /events` of an API, as the developer of a partner follows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

_TIMEOUT_S = 10.0
_PAGE = 100


class ApiAway(Exception):
    """The API cannot be reached or is overloaded. Asking again later may help. The text says why."""

    def __init__(self, text: str, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class ApiRefused(Exception):
    """The request is refused, or the URL is not that of an API. The text says why and what to change."""


@dataclass(frozen=True, kw_only=True)
class EventsRead:
    """A page of events as JSON."""

    events: Sequence[Mapping[str, Any]]
    after: int
    has_more: bool
    now: str
    """The time of the API."""


class EventApi:
    """Reads the events that a key may read. The key is in no error message."""

    def __init__(self, url: str, key: str, types: str | None = None) -> None:
        self._url = url.rstrip("/") + "/events"
        self._key = key
        self._types = types

    def page(self, after: int, since: str | None) -> EventsRead:
        """Return the events after a place, and from a time on. Raises ApiAway, ApiRefused."""
        params: dict[str, str | int] = {"after": after, "limit": _PAGE}
        params |= {} if since is None else {"from": since}
        params |= {} if self._types is None else {"types": self._types}
        try:
            # By `auth`, because otherwise a password of a .netrc file replaces the key. A redirect would receive it.
            answer = requests.get(
                self._url, params=params, auth=self._authorise, timeout=_TIMEOUT_S, allow_redirects=False
            )
        except requests.RequestException as error:
            if isinstance(error, ValueError):  # the URL is invalid
                raise ApiRefused(f"{self._url} is no URL. Write it like https://api.example.com.") from None
            raise ApiAway(f"{self._url} cannot be reached ({type(error).__name__})") from None
        return self._read(answer)

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _read(self, answer: requests.Response) -> EventsRead:
        status = answer.status_code
        if status == requests.codes.too_many_requests or status >= requests.codes.server_error:
            wait = answer.headers.get("Retry-After", "")
            raise ApiAway(f"{self._url} answered {status}", float(wait) if wait.isdecimal() else None)
        try:
            body = answer.json()
            if status != requests.codes.ok:
                raise ApiRefused(f"{self._url} answered {status}: {body['error']['message']}")
            data = body["data"]
            return EventsRead(
                events=data["items"], after=data["after"], has_more=data["hasMore"], now=body["timestamp"]
            )
        except (ValueError, KeyError, TypeError):
            message = f"{self._url} answered {status}, and not as an API of Duecall does. Check --url."
            raise ApiRefused(message) from None
