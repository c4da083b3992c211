"""Endpoints as clients send them: each wrong field is named, and no value is quoted."""

from typing import Any

import pytest
from pydantic import ValidationError

from scheduler.wire.named_fields import field_errors
from scheduler.wire.webhooks import EVENT_TYPES, CreateWebhook, UpdateWebhook, contradictions

GOOD: dict[str, Any] = {
    "url": "https://hooks.example.com/duecall",
    "events": ["interview.completed", "ping"],
    "name": "  Our ATS ",
    "description": "Sends results",
    "headers": [{"name": "Authorization", "value": "Bearer secret"}],
    "companyId": "3f0c0f3e-8f1e-4b59-9d0b-3a8f0a4c1d11",
    "isActive": False,
}


def errors_of(
    body: dict[str, Any], schema: type[CreateWebhook] | type[UpdateWebhook] = CreateWebhook
) -> dict[str, str]:
    """Read the codes of a body's errors by field. Their texts quote nothing."""
    try:
        parsed = schema.model_validate(body)
    except ValidationError as error:
        found = field_errors(error.errors())
    else:
        found = list(contradictions(parsed, https_only=True))
    assert "secret" not in repr(found)
    return {each.field: each.code for each in found}


def test_endpoint_is_read() -> None:
    webhook = CreateWebhook.model_validate(GOOD)
    assert errors_of(GOOD) == {}
    assert (webhook.name, webhook.is_active) == ("Our ATS", False)
    assert webhook.headers[0].value == "Bearer secret"
    assert "Bearer" not in repr(webhook)


def test_url_and_events_are_enough() -> None:
    webhook = CreateWebhook.model_validate({"url": GOOD["url"], "events": list(EVENT_TYPES)})
    assert (webhook.company_id, webhook.name, webhook.headers, webhook.is_active) == (None, None, [], True)


def test_plain_http_is_refused_in_production_only() -> None:
    webhook = CreateWebhook.model_validate(GOOD | {"url": "http://127.0.0.1:3000/"})
    assert [each.code for each in contradictions(webhook, https_only=True)] == ["HTTPS_REQUIRED"]
    assert list(contradictions(webhook, https_only=False)) == []


def headers(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "value": "secret"} for name in names]


WRONG: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a url with a user": ({"url": "https://u:secret@example.com/"}, {"url": "USERINFO_NOT_ALLOWED"}),
    "a port": ({"url": "https://secret.example.com:25/"}, {"url": "PORT_NOT_ALLOWED"}),
    "no events": ({"events": []}, {"events": "TOO_FEW"}),
    "an unknown event": ({"events": ["ping", "secret"]}, {"events.1": "UNKNOWN_EVENT"}),
    "an event of another generation": ({"events": [3]}, {"events.0": "WRONG_TYPE"}),
    "an event twice": ({"events": ["ping", "ping"]}, {"events.1": "REPEATED_EVENT"}),
    "a header of ours": ({"headers": headers("X", "Webhook-Id")}, {"headers.1.name": "HEADER_NOT_SETTABLE"}),
    "a header twice": ({"headers": headers("X-a", "x-A")}, {"headers.1.name": "REPEATED_HEADER"}),
    "a line break": (
        {"headers": [{"name": "X", "value": "secret\r\nY: z"}]},
        {"headers.0.value": "INVALID_HEADER_VALUE"},
    ),
    "too many headers": ({"headers": headers(*(f"X-{n}" for n in range(51)))}, {"headers": "TOO_MANY"}),
    "a name with a control character": ({"name": "secret\x00"}, {"name": "NOT_PRINTABLE"}),
    "a name that is too long": ({"name": "x" * 256}, {"name": "TOO_LONG"}),
    "a company that is no id": ({"companyId": "secret"}, {"companyId": "INVALID_UUID"}),
    "a word for true": ({"isActive": "yes"}, {"isActive": "WRONG_TYPE"}),
    "headers as an object": ({"headers": {"X-Secret": "secret"}}, {"headers": "WRONG_TYPE"}),
    "a read-only field": ({"signingSecret": "secret"}, {"signingSecret": "READ_ONLY_FIELD"}),
    "an unknown field": ({"signingKey": "secret"}, {"signingKey": "UNKNOWN_FIELD"}),
}


@pytest.mark.parametrize(("change", "errors"), WRONG.values(), ids=WRONG)
def test_wrong_field_is_named(change: dict[str, Any], errors: dict[str, str]) -> None:
    assert errors_of(GOOD | change) == errors


def test_missing_fields_are_named() -> None:
    assert errors_of({}) == {"url": "MISSING_FIELD", "events": "MISSING_FIELD"}


def test_change_contains_only_what_was_sent() -> None:
    assert UpdateWebhook.model_validate({}).model_fields_set == set()
    assert errors_of({"headers": [], "name": None, "isActive": True}, UpdateWebhook) == {}
    assert errors_of({"url": None, "companyId": GOOD["companyId"]}, UpdateWebhook) == {
        "url": "WRONG_TYPE",
        "companyId": "UNKNOWN_FIELD",
    }
