"""The client: a key of the API, and what takes more than one request."""

import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Protocol, Self, TypeVar, cast
from uuid import UUID

import httpx

from duecall_client.errors import ApiError, CommandNotApplied
from duecall_client.events import Event
from duecall_client.generated import AuthenticatedClient
from duecall_client.generated.api.commands import get_command
from duecall_client.generated.models import CommandAnswer, CommandState, CommandView, WaitingAnswer
from duecall_client.generated.types import Response
from duecall_client.retries import Retries, RetryingClient

Data = TypeVar("Data")
Data_co = TypeVar("Data_co", covariant=True)

TIMEOUT_S = 40.0
"""Longer than the longest wait of the API for the result of a command, 30 s."""
_FIRST_POLL_S, _LONGEST_POLL_S = 0.2, 2.0


class Answer(Protocol[Data_co]):
    """The generated model of a response."""

    @property
    def data(self) -> Data_co: ...


class Client:
    """A client with one API key. Pass its `api` to the generated operations, as their `client`.

    It may be used by several threads. Use it in a `with` statement, or close it.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        retries: Retries | None = None,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
        **options: Any,
    ) -> None:
        """`url` is the address of the API, with or without `/v1`. `options` are those of `httpx.Client`."""
        self._sleep = sleep
        self._http = RetryingClient(
            retries=retries or Retries(),
            sleep=sleep,
            base_url=url,
            timeout=httpx.Timeout(timeout_s),
            headers={"Authorization": f"Bearer {key}"},
            **options,
        )
        self.api = AuthenticatedClient(base_url=url, token=key).set_httpx_client(self._http)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def result(self, response: Response[Any], model: type[Answer[Data]], *, timeout_s: float = 60.0) -> Data:
        """Return the data of a response with this model. If the API answered 202, wait for the command first.

        Raises ApiError if the command is refused, and CommandNotApplied if it takes longer.
        """
        answer = response.parsed
        if isinstance(answer, WaitingAnswer):
            command = self.wait_for_command(answer.data.id, timeout_s=timeout_s)
            envelope = {"timestamp": answer.timestamp.isoformat(), "traceId": answer.trace_id}
            answer = cast("Any", model).from_dict({**envelope, "data": command.to_dict()["result"]})
        if not isinstance(answer, model):
            raise TypeError(f"the response is {type(answer).__name__} and not {model.__name__}")
        return answer.data

    def finish(self, response: Response[Any], *, timeout_s: float = 60.0) -> None:
        """Return when the command of a response without data is applied. Raises as `result` does."""
        if isinstance(response.parsed, WaitingAnswer):
            self.wait_for_command(response.parsed.data.id, timeout_s=timeout_s)

    def wait_for_command(self, command_id: UUID, *, timeout_s: float = 60.0) -> CommandView:
        """Return a command once it is applied. Raises ApiError if it was refused, and CommandNotApplied if it waits."""
        waited_s, pause_s = 0.0, _FIRST_POLL_S
        while True:
            command = self.result(get_command.sync_detailed(str(command_id), client=self.api), CommandAnswer)
            if command.status == CommandState.APPLIED:
                return _accepted(command)
            if waited_s >= timeout_s:
                raise CommandNotApplied(command_id, command.status)
            self._sleep(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, _LONGEST_POLL_S)

    def events(
        self,
        *,
        after: int = 0,
        types: Sequence[str] = (),
        company_id: UUID | None = None,
        follow: bool = True,
        every_s: float = 2.0,
    ) -> Iterator[Event]:
        """Yield the events after this place, then each new one. Without `follow`, end after the last that exists.

        Store the `place` of the last event that you have handled, and pass it as `after` to continue.
        """
        query: dict[str, str | int] = {"limit": 100}
        if types:
            query["types"] = ",".join(types)
        if company_id is not None:
            query["companyId"] = str(company_id)
        while True:
            page = self._http.get("/events", params={**query, "after": after}).json()["data"]
            yield from map(Event.from_json, page["items"])
            after = page["after"]
            if page["hasMore"]:
                continue
            if not follow:
                return
            self._sleep(every_s)


def _accepted(command: CommandView) -> CommandView:
    if command.status_code is not None and command.status_code >= HTTPStatus.BAD_REQUEST:
        error = command.to_dict()["result"]
        raise ApiError(
            status=command.status_code, code=error["code"], message=error["message"], details=error.get("details")
        )
    return command
