"""Requests of the Python client that are sent again, and requests that are not."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import httpx
import pytest

from tests.client.scripted_server import TRACE, Waits, a_scripted_server, address, ok, refused
from tests.support.webhook_receivers import Behaviour, WebhookReceiver, answers, hangs, resets

COMPANY = {"id": "0d6e5a4e-7d39-4d0c-9f6e-2f1f0f3c7a55", "name": "Acme"}
Ask = Callable[..., Any]


@contextmanager
def asked(package: Any, *script: Behaviour, **options: Any) -> Iterator[tuple[Any, WebhookReceiver, Waits]]:
    """A client of a scripted server, the server, and the waits of the client."""
    waits = Waits()
    with a_scripted_server(*script) as server:
        client = package.Client(f"{address(server)}/v1", "sk_live_key", sleep=waits, **options)
        with client:
            yield client, server, waits


def send(client: Any, method: str = "POST", **headers: str) -> httpx.Response:
    response: httpx.Response = client.api.get_httpx_client().request(method, "/company", headers=headers)
    return response


def keys_of(server: WebhookReceiver) -> list[str | None]:
    return [visit.headers.get("idempotency-key") for visit in server.visits]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(resets, id="the connection is lost"),
        pytest.param(hangs, id="no response"),
        pytest.param(answers(502, body=b"<html>"), id="a proxy"),
        pytest.param(refused(503, "COMMIT_UNKNOWN", check="/commands/17"), id="unknown commit"),
        pytest.param(refused(409, "IDEMPOTENCY_IN_PROGRESS"), id="in progress"),
        pytest.param(refused(500, "INTERNAL_ERROR"), id="an error of the server"),
        pytest.param(answers(200, "Content-Length: 9", body=b"{"), id="half a response"),
    ],
)
def test_failed_request_is_repeated_with_its_key(client_package: Any, failure: Behaviour) -> None:
    timeout_s = 3.0 if failure is hangs else 60.0
    with asked(client_package, failure, failure, ok(COMPANY, 201), timeout_s=timeout_s) as (client, server, waits):
        assert send(client).status_code == 201
    [key] = set(keys_of(server))
    assert key
    assert [visit.head.split()[0] for visit in server.visits] == ["POST"] * 3
    assert [0.25 <= waits.seconds[0] <= 0.5, 0.5 <= waits.seconds[1] <= 1.0] == [True, True]


def test_requests_have_different_keys(client_package: Any) -> None:
    with asked(client_package, ok(COMPANY), ok(COMPANY)) as (client, server, _):
        send(client)
        send(client, "DELETE")
    assert len(set(keys_of(server))) == 2
    assert None not in keys_of(server)
    assert {visit.headers["authorization"] for visit in server.visits} == {"Bearer sk_live_key"}


def test_key_of_the_caller_is_kept(client_package: Any) -> None:
    with asked(client_package, resets, ok(COMPANY)) as (client, server, _):
        send(client, **{"Idempotency-Key": "order-17"})
    assert keys_of(server) == ["order-17", "order-17"]


def test_reading_is_repeated_without_a_key(client_package: Any) -> None:
    with asked(client_package, resets, ok([])) as (client, server, _):
        send(client, "GET")
    assert keys_of(server) == [None, None]


def test_overloaded_server_decides_the_wait(client_package: Any) -> None:
    limited = refused(429, "RATE_LIMIT_EXCEEDED", "Retry-After: 17")
    with asked(client_package, limited, ok([])) as (client, _, waits):
        send(client)
    assert waits.seconds == [17.0]


def test_longer_wait_than_allowed_is_an_error_at_once(client_package: Any) -> None:
    limited = refused(429, "RATE_LIMIT_EXCEEDED", "Retry-After: 3600")
    with (
        asked(client_package, limited) as (client, _, waits),
        pytest.raises(client_package.ApiError, match="429 RATE_LIMIT_EXCEEDED"),
    ):
        send(client)
    assert waits.seconds == []


def test_refusal_is_an_error_with_code_and_details(client_package: Any) -> None:
    fields = [{"field": "name", "code": "missing", "message": "Send it."}]
    with (
        asked(client_package, refused(400, "VALIDATION_ERROR", fields=fields)) as (client, server, waits),
        pytest.raises(client_package.ApiError) as caught,
    ):
        send(client)
    error = caught.value
    assert (error.status, error.code, error.message) == (400, "VALIDATION_ERROR", "It is VALIDATION_ERROR.")
    assert (error.details, error.trace_id) == ({"fields": fields}, TRACE)
    assert keys_of(server) == [error.idempotency_key]
    assert waits.seconds == []


def test_lost_request_can_be_repeated_by_the_caller(client_package: Any) -> None:
    with (
        asked(client_package, resets, resets, retries=client_package.Retries(tries=2)) as (client, server, _),
        pytest.raises(client_package.Unreachable, match="POST /v1/company has no response") as caught,
    ):
        send(client)
    assert keys_of(server) == [caught.value.idempotency_key] * 2


@pytest.mark.parametrize(
    ("answer", "code"),
    [(answers(301, "Location: /login"), "HTTP_301"), (answers(404, body=b"<html>not here</html>"), "HTTP_404")],
)
def test_response_of_another_server_is_an_error(client_package: Any, answer: Behaviour, code: str) -> None:
    with (
        asked(client_package, answer) as (client, _, _),
        pytest.raises(client_package.ApiError, match="not from Duecall") as caught,
    ):
        send(client)
    assert caught.value.code == code


def test_invalid_url_is_not_repeated(client_package: Any) -> None:
    waits = Waits()
    with (
        client_package.Client("ftp://duecall.example.com", "key", sleep=waits) as client,
        pytest.raises(httpx.UnsupportedProtocol),
    ):
        send(client)
    assert waits.seconds == []


COMMAND = {
    "id": "019ac4a1-7f0e-7c55-8d0a-3a8f0a4c1d11",
    "kind": "DELETE_INTERVIEW",
    "receivedAt": "2026-04-02T07:00:00Z",
}
WAITING = {**COMMAND, "status": "WAITING", "appliedAt": None, "statusCode": None, "result": None}
APPLIED = {**WAITING, "status": "APPLIED", "appliedAt": "2026-04-02T07:00:01Z", "statusCode": 200, "result": True}


def deleted(package: Any, client: Any) -> Any:
    delete: Any = importlib.import_module(f"{package.__name__}.generated.api.interviews.delete_interview")
    return delete.sync_detailed("019ac49f-0b6e-7f6a-9f5e-2b1c0d4e5f60", client=client.api)


def test_command_that_waits_is_read_until_applied(client_package: Any) -> None:
    accepted = ok({"id": COMMAND["id"], "status": "WAITING"}, 202)
    with asked(client_package, accepted, ok(WAITING), ok(WAITING), ok(APPLIED)) as (client, server, waits):
        client.finish(deleted(client_package, client))
    assert [visit.head.split()[1] for visit in server.visits[1:]] == [f"/v1/commands/{COMMAND['id']}"] * 3
    assert waits.seconds == [0.2, 0.4]


def test_refused_command_is_an_error(client_package: Any) -> None:
    error = {"code": "INTERVIEW_FINISHED", "message": "It has ended.", "details": {"status": "COMPLETED"}}
    with (
        asked(client_package, ok({**APPLIED, "statusCode": 409, "result": error})) as (client, _, _),
        pytest.raises(client_package.ApiError) as caught,
    ):
        client.wait_for_command(COMMAND["id"])
    assert (caught.value.status, caught.value.code) == (409, "INTERVIEW_FINISHED")
    assert caught.value.details == {"status": "COMPLETED"}


def test_command_that_waits_too_long_is_an_error(client_package: Any) -> None:
    with (
        asked(client_package, ok(WAITING), ok({**WAITING, "status": "QUARANTINED"})) as (client, _, _),
        pytest.raises(client_package.CommandNotApplied, match="still QUARANTINED") as caught,
    ):
        client.wait_for_command(COMMAND["id"], timeout_s=0.1)
    assert caught.value.command_id == COMMAND["id"]


def test_result_of_another_kind_is_an_error(client_package: Any) -> None:
    models: Any = importlib.import_module(f"{client_package.__name__}.generated.models")
    with (
        asked(client_package, ok(data=True)) as (client, _, _),
        pytest.raises(TypeError, match="DoneAnswer and not InterviewAnswer"),
    ):
        client.result(deleted(client_package, client), models.InterviewAnswer)


def test_body_that_is_a_file_is_sent_again_as_a_whole(client_package: Any) -> None:
    with asked(client_package, resets, ok(COMPANY, 202)) as (client, server, _):
        client.api.get_httpx_client().request("POST", "/batches", content=BytesIO(b'{"agentId": 1}\n'))
    assert [visit.body for visit in server.visits] == [b'{"agentId": 1}\n'] * 2
