"""Forwards the events of an API to the machine of a developer, signed as deliveries to webhooks are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.domain.webhook import WebhookAnswer, WebhookRequest
from scheduler.webhooks.sending import WebhookSender, body_of
from standalone.api_client import ApiAway, ApiClient

# --- `GET /events` of an API, as the developer of a partner follows it


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


# --- Forwards events to the machine of a developer, signed as deliveries to webhooks are


_EVERY_S = 1.0
"""Events are numbered once a second."""
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Forwarded:
    """An event that was posted, and the answer."""

    type: str
    id: str
    answer: WebhookAnswer


@dataclass(frozen=True, kw_only=True)
class Start:
    """The first events to forward."""

    after: int = 0
    only_new: bool = True
    """Those that occur from now on, by the clock of the API."""


class Forwarding:
    """Follows the events of an API. Each is posted once, in their order, whatever the answer is."""

    def __init__(
        self,
        api: EventApi,
        sender: WebhookSender,
        url: str,
        secret: str,
        *,
        wait: Callable[[float], object],
        tell: Callable[[str], object],
    ) -> None:
        """`wait` waits for some seconds. `tell` reports that it is ready, that the API is away, and that it is back."""
        self._api = api
        self._sender = sender
        self._url = url
        self._secret = secret
        self._wait = wait
        self._tell = tell

    def once(self, start: Start) -> Iterator[Forwarded]:
        """Forward the events that exist now. Raises ApiAway, ApiRefused."""
        after, has_more = start.after, True
        while has_more:
            page = self._api.page(after, None)
            yield from map(self._post, page.events)
            after, has_more = page.after, page.has_more

    def follow(self, start: Start) -> Iterator[Forwarded]:
        """Forward events until the caller stops. An API that is away is asked again. Raises ApiRefused."""
        after, since, failures = start.after, None, 0
        while True:
            try:
                if start.only_new and since is None:
                    since = self._api.page(after, None).now
                    self._tell("Waiting for new events …")
                page = self._api.page(after, since)
            except ApiAway as away:
                failures += 1
                seconds = away.retry_after_s or min(2.0 ** (failures - 1), _LONGEST_WAIT_S)
                self._tell(f"{away}; trying again in {seconds:g} s")
                self._wait(seconds)
                continue
            if failures:
                self._tell("the API answers again")
            failures = 0
            yield from map(self._post, page.events)
            after = page.after
            if not page.has_more:
                self._wait(_EVERY_S)

    def _post(self, event: Mapping[str, Any]) -> Forwarded:
        occurred_at = datetime.fromisoformat(event["timestamp"])
        body = body_of(event["type"], event["deliveryId"], occurred_at, event["sequence"], event["data"])
        message = WebhookRequest(url=self._url, message_id=event["deliveryId"], body=body, secrets=(self._secret,))
        return Forwarded(type=event["type"], id=event["deliveryId"], answer=self._sender.post(message))
