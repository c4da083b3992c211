"""Rotation of WEBHOOK_KEY: after `duecall webhooks encrypt`, the first key alone decrypts everything."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from scheduler.use_cases.operations import webhooks
from scheduler.use_cases.operations.webhooks import Encrypted, EncryptWebhooks
from scheduler.webhooks.sending import Encryption, NotDecrypted, headers_place, secret_place
from tests.support.builders import Tenant

OLD, NEW, LOST = (bytes([each]) * 32 for each in (1, 2, 3))


def an_endpoint(tenant: Tenant, key: bytes) -> UUID:
    endpoint_id, at = uuid4(), tenant.now()
    encryption = Encryption([key])
    tenant.insert(
        "webhook_endpoints",
        id=endpoint_id,
        principal_id=uuid4(),
        api_key_id=uuid4(),
        url="https://example.com",
        events=["ping"],
        max_retries=9,
        timeout_ms=15_000,
        secret=encryption.encrypt("whsec_new", secret_place(endpoint_id)),
        old_secret=encryption.encrypt("whsec_old", secret_place(endpoint_id)),
        old_secret_until=at,
        headers=encryption.encrypt('{"X-Tenant": "north"}', headers_place(endpoint_id)),
        created_at=at,
        updated_at=at,
    )
    return endpoint_id


def texts(tenant: Tenant, endpoint_id: UUID, *keys: bytes) -> list[str]:
    [row] = tenant.ask("SELECT secret, old_secret, headers FROM webhook_endpoints WHERE id = :id", id=endpoint_id)
    secret, headers = secret_place(endpoint_id), headers_place(endpoint_id)
    return [
        Encryption(keys).decrypt(bytes(text), place) for text, place in zip(row, (secret, secret, headers), strict=True)
    ]


def run(tenant: Tenant, *keys: bytes) -> Encrypted:
    return EncryptWebhooks(tenant.database, Encryption(keys)).all()


ALL: list[Any] = ["whsec_new", "whsec_old", '{"X-Tenant": "north"}']


def test_secrets_are_readable_without_the_old_key(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_BATCH_SIZE", 2)
    old = [an_endpoint(tenant, OLD) for _ in range(5)]
    new = an_endpoint(tenant, NEW)
    with pytest.raises(NotDecrypted):
        texts(tenant, old[0], NEW)
    assert run(tenant, NEW, OLD) == Encrypted(changed=5, current=1, unreadable=())
    assert all(texts(tenant, each, NEW) == ALL for each in (*old, new))
    assert run(tenant, NEW, OLD) == Encrypted(changed=0, current=6, unreadable=())


def test_unreadable_webhook_is_named_and_stops_no_other(tenant: Tenant) -> None:
    lost, old = an_endpoint(tenant, LOST), an_endpoint(tenant, OLD)
    assert run(tenant, NEW, OLD) == Encrypted(changed=1, current=0, unreadable=(lost,))
    assert texts(tenant, old, NEW) == ALL
    assert texts(tenant, lost, LOST) == ALL
