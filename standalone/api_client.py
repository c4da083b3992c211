"""Clients of an API of Duecall, for commands that need no database: requests, and events that are forwarded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import requests

from scheduler.domain.webhook import WebhookAnswer, WebhookRequest
from scheduler.webhooks.sender import WebhookSender
from scheduler.webhooks.sending import body_of
from scheduler.wire.named_fields import message_alone

# --- Requests, as a program of a partner sends them


DEFAULT_API = "http://127.0.0.1:8000"
_TIMEOUT_S = 10.0
_TEXT_TIMEOUT_S = 60.0
"""Longer than the API waits before it answers, because the response is the purpose of the command."""
_LONGEST_PAUSE_S = 30.0


class ApiAway(Exception):
    """The API cannot be reached or is overloaded. Asking again later may help. The text says why."""

    def __init__(self, text: str, retry_after_s: float | None = None, most_items: int | None = None) -> None:
        """`most_items`: the items of batches that the key may send an hour, if the batch would exceed them."""
        super().__init__(text)
        self._retry_after_s = retry_after_s
        self.most_items = most_items

    def pause_s(self, failures: int) -> float:
        """The seconds after which to ask again: as many as the API named, or more after each failure."""
        return self._retry_after_s or min(2.0 ** (failures - 1), _LONGEST_PAUSE_S)


class ApiRefused(Exception):
    """The request is refused, or the URL is not that of an API. The text says why and what to change."""

    def __init__(self, text: str, code: str | None = None) -> None:
        """`code`: that of the API's error, if the API answered."""
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class ApiAnswer:
    """The data of a successful response."""

    data: Any
    timestamp: str
    """The time of the API."""
    is_replayed: bool
    """An earlier request with the same Idempotency-Key was answered so."""


class ApiClient:
    """Sends requests with a key, or without one if it is empty. The key is in no error message."""

    def __init__(self, url: str | None, key: str) -> None:
        """Without `url` the default, which is probably wrong if nothing listens there at the first request."""
        self.url = (url or DEFAULT_API).rstrip("/")
        self._key = key
        self._may_be_wrong = url is None

    def send(self, method: str, path: str, **more: Any) -> ApiAnswer:  # noqa: ANN401 - options of requests
        """Send a request: `params`, `headers`, `json` or `data`, and `timeout_s`. Raises ApiAway, ApiRefused."""
        url = self.url + path
        return _read(url, self._answer(method, url, **more))

    def text(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> tuple[int, str]:
        """Send any request. Return the status and the body of the response. Raises ApiAway, ApiRefused."""
        data = None if body is None else body.encode()
        answer = self._answer(method, self.url + path, data=data, headers=headers, timeout_s=_TEXT_TIMEOUT_S)
        return answer.status_code, answer.text

    def _answer(self, method: str, url: str, *, timeout_s: float = _TIMEOUT_S, **more: Any) -> requests.Response:  # noqa: ANN401 - of requests
        try:
            # By `auth`, because otherwise a password of a .netrc file replaces the key. A redirect would receive it.
            answer = requests.request(
                method, url, auth=self._authorise, timeout=timeout_s, allow_redirects=False, **more
            )
        except requests.RequestException as error:
            if isinstance(error, ValueError):  # the URL is invalid
                raise ApiRefused(f"{url} is no URL. Write it like https://api.example.com.") from None
            if self._may_be_wrong and _is_refused_connection(error):
                raise ApiRefused(
                    f"Nothing listens at {DEFAULT_API} (the default). Name the API: --url URL, for example --url $API."
                ) from None
            raise ApiAway(f"{url} cannot be reached ({type(error).__name__})") from None
        self._may_be_wrong = False
        return answer

    def _authorise(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _read(url: str, answer: requests.Response) -> ApiAnswer:
    status = answer.status_code
    if status == requests.codes.too_many_requests or status >= requests.codes.server_error:
        wait = answer.headers.get("Retry-After", "")
        retry_after_s = float(wait) if wait.isdecimal() else None
        raise ApiAway(f"{url} answered {status}", retry_after_s, _most_items(answer))
    try:
        body = answer.json()
        if status >= requests.codes.multiple_choices:
            error = body["error"]
            if error["code"] == "IDEMPOTENCY_IN_PROGRESS":
                raise ApiAway(f"{url} is still working on the first request")
            raise ApiRefused(f"{url} answered {status}: {_message(error)}", error["code"])
        return ApiAnswer(
            data=body["data"],
            timestamp=body["timestamp"],
            is_replayed=answer.headers.get("Idempotent-Replayed") == "true",
        )
    except (ValueError, KeyError, TypeError):
        message = f"{url} answered {status}, and not as an API of Duecall does. Check --url."
        raise ApiRefused(message) from None


def _message(error: Mapping[str, Any]) -> str:
    details = error.get("details") or {}
    fields = details.get("fields")
    field = f"{fields[0]['field']}: " if fields and fields[0]["field"] else ""
    return field + message_alone(error["message"], details)


def _is_refused_connection(error: BaseException) -> bool:
    """Check whether nothing listens at the address. The error of the operating system is the cause of others."""
    causes: list[object] = [error]
    for cause in causes:
        if isinstance(cause, BaseException):
            causes += [cause.__cause__, getattr(cause, "reason", None), *cause.args]
    return any(isinstance(cause, ConnectionRefusedError) for cause in causes)


def _most_items(answer: requests.Response) -> int | None:
    try:
        details = answer.json()["error"]["details"]
        return int(details["limit"]) if details.get("unit") == "items" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


# --- Forwards the events of an API to the machine of a developer, signed as deliveries to webhooks are


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
