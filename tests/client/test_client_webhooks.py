"""Webhooks that the Python client verifies. They are signed by the product."""

import json
from datetime import timedelta
from typing import Any

import pytest

from scheduler.webhooks.sending import body_of, new_secret, signed_headers
from tests.conftest import NOON, real_now

ID = "019ac4a1-7f0e-7c55-8d0a-3a8f0a4c1d11"
OLD, NEW = new_secret(), new_secret()


def webhook(body: str | None = None, *, secrets: tuple[str, ...] = (NEW,), age_s: float = 0) -> tuple[str, Any]:
    """Build the body and the headers of a webhook."""
    if body is None:
        body = body_of("call_attempt.ended", ID, NOON, 5, {"status": "FAILED", "reasonCode": "BUSY"})
    return body, signed_headers(ID, body, secrets, real_now() - timedelta(seconds=age_s))


def test_signed_webhook_is_an_event(client_package: Any) -> None:
    event = client_package.verify_webhook(*webhook(), [NEW])
    assert (event.type, event.id, event.at, event.sequence) == ("call_attempt.ended", ID, NOON, 5)
    assert (event.data, event.place) == ({"status": "FAILED", "reasonCode": "BUSY"}, None)


@pytest.mark.parametrize("known", [[OLD], [NEW], [OLD, NEW]], ids=["old", "new", "both"])
def test_webhook_is_valid_with_both_secrets_of_a_rotation(client_package: Any, known: list[str]) -> None:
    assert client_package.verify_webhook(*webhook(secrets=(NEW, OLD)), known).id == ID


def test_bytes_and_any_case_of_header_names_are_taken(client_package: Any) -> None:
    body, headers = webhook()
    upper = {name.title(): value for name, value in headers.items()}
    assert client_package.verify_webhook(body.encode(), upper, [NEW]).id == ID


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"webhook-signature": "no comma"}, "unpack", id="a signature without a comma"),
        pytest.param({"webhook-signature": "v1,!"}, "No matching signature", id="a signature that is not base64"),
        pytest.param({"webhook-signature": "v1,AAAA"}, "No matching signature", id="another signature"),
        pytest.param({"webhook-timestamp": "soon"}, "Invalid Signature Headers", id="an invalid timestamp"),
        pytest.param({"webhook-id": "another"}, "No matching signature", id="another id"),
        pytest.param({"webhook-id": ""}, "Missing required headers", id="no id"),
    ],
)
def test_webhook_with_wrong_headers_is_refused(client_package: Any, change: dict[str, str], says: str) -> None:
    body, headers = webhook()
    with pytest.raises(client_package.InvalidWebhook, match=says):
        client_package.verify_webhook(body, {**headers, **change}, [OLD, NEW])


@pytest.mark.parametrize("age_s", [330, -330], ids=["old", "of the future"])
def test_webhook_of_another_time_is_refused(client_package: Any, age_s: float) -> None:
    with pytest.raises(client_package.InvalidWebhook, match="Message timestamp too"):
        client_package.verify_webhook(*webhook(age_s=age_s), [NEW])


@pytest.mark.parametrize(
    "body", ["", "not JSON", "[]", "{}", json.dumps({"type": "ping"})], ids=["empty", "text", "list", "object", "half"]
)
def test_signed_webhook_without_an_event_is_refused(client_package: Any, body: str) -> None:
    with pytest.raises(client_package.InvalidWebhook):
        client_package.verify_webhook(*webhook(body), [NEW])


def test_changed_body_is_refused(client_package: Any) -> None:
    body, headers = webhook()
    for changed in (body.replace("FAILED", "COMPLETED"), body + " ", b"\xff" + body.encode()):
        with pytest.raises(client_package.InvalidWebhook):
            client_package.verify_webhook(changed, headers, [NEW])


def test_wrong_secrets_of_the_receiver_are_errors_of_their_own(client_package: Any) -> None:
    with pytest.raises(TypeError, match="list of secrets"):
        client_package.verify_webhook(*webhook(), NEW)
    with pytest.raises(ValueError, match="ASCII"):
        client_package.verify_webhook(*webhook(), [f"{NEW}\u00e9"])
    with pytest.raises(client_package.InvalidWebhook, match="no secret"):
        client_package.verify_webhook(*webhook(), [])
