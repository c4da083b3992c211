"""`GET /events` of an API, as the developer of a partner follows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from standalone.api_client import ApiClient

_PAGE = 100


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

    def __init__(self, url: str | None, key: str, types: str | None = None) -> None:
        self._client = ApiClient(url, key)
        self._types = types

    def page(self, after: int, since: str | None) -> EventsRead:
        """Return the events after a place, and from a time on. Raises ApiAway, ApiRefused."""
        params: dict[str, str | int] = {"after": after, "limit": _PAGE}
        params |= {} if since is None else {"from": since}
        params |= {} if self._types is None else {"types": self._types}
        answer = self._client.get("/events", params)
        data = answer.data
        return EventsRead(events=data["items"], after=data["after"], has_more=data["hasMore"], now=answer.timestamp)
