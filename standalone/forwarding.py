"""Forwards the events of an API to the machine of a developer, signed as deliveries to webhooks are."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scheduler.domain.webhook import WebhookAnswer, WebhookRequest
from scheduler.webhooks.sender import WebhookSender
from scheduler.webhooks.sending import body_of
from standalone.api_client import ApiAnswer, ApiAway, ApiClient

_PAGE = 100
_EVERY_S = 1.0
"""Events are numbered once a second."""


@dataclass(frozen=True, kw_only=True)
class Forwarded:
    """An event that was posted, and the answer."""

    type: str
    id: str
    answer: WebhookAnswer


class Forwarding:
    """Reads the events of an API. Each is posted once, in their order, whatever the answer is."""

    def __init__(
        self,
        api: ApiClient,
        sender: WebhookSender,
        url: str,
        secret: str,
        *,
        types: str | None = None,
        wait: Callable[[float], object],
        tell: Callable[[str], object],
    ) -> None:
        """`wait` waits for some seconds. `tell` reports that it is ready, that the API is away, and that it is back."""
        self._api = api
        self._sender = sender
        self._url = url
        self._secret = secret
        self._types = types
        self._wait = wait
        self._tell = tell

    def once(self, after: int) -> Iterator[Forwarded]:
        """Forward the events after a place that exist now. Raises ApiAway, ApiRefused."""
        has_more = True
        while has_more:
            data = self._read(after, None).data
            yield from map(self._post, data["items"])
            after, has_more = data["after"], data["hasMore"]

    def follow(self, after: int | None) -> Iterator[Forwarded]:
        """Forward events until the caller stops. An API that is away is asked again. Raises ApiRefused.

        `after`: the place of the last event before them. None: events that occur from now on, by the API's clock.
        """
        since, failures = None, 0
        while True:
            try:
                if after is None and since is None:
                    since = self._read(0, None).timestamp
                    self._tell("Waiting for new events …")
                data = self._read(after or 0, since).data
            except ApiAway as away:
                failures += 1
                self._tell(f"{away}; trying again in {away.pause_s(failures):g} s")
                self._wait(away.pause_s(failures))
                continue
            if failures:
                self._tell("the API answers again")
            failures = 0
            yield from map(self._post, data["items"])
            after = data["after"]
            if not data["hasMore"]:
                self._wait(_EVERY_S)

    def _read(self, after: int, since: str | None) -> ApiAnswer:
        params = {"after": after, "limit": _PAGE, "from": since, "types": self._types}
        return self._api.send("GET", "/events", params=params)

    def _post(self, event: Mapping[str, Any]) -> Forwarded:
        occurred_at = datetime.fromisoformat(event["timestamp"])
        body = body_of(event["type"], event["deliveryId"], occurred_at, event["sequence"], event["data"])
        message = WebhookRequest(url=self._url, message_id=event["deliveryId"], body=body, secrets=(self._secret,))
        return Forwarded(type=event["type"], id=event["deliveryId"], answer=self._sender.post(message))
