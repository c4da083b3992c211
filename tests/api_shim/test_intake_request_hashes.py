"""Hashes of requests: keyed, so that an erased person's number is not found in them by trying."""

import json
from typing import Any

import httpx
import pytest

from scheduler.hashing import Hasher, fingerprint
from scheduler.wire.json_values import canonical
from tests.api_shim.answers import refusal
from tests.api_shim.bodies import candidate
from tests.api_shim.carrier_callbacks import FORM, call_back, token_of
from tests.api_shim.intake import KEY, PEPPER, Intake
from tests.support.builders import Tenant, a_number, a_placed_attempt


def sent(intake: Intake, path: str, body: dict[str, Any]) -> httpx.Response:
    return intake.post(path, body, headers=KEY)


def bodies(intake: Intake, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two different requests of a person with a number."""
    people = [candidate(phoneNumber=a_number()) for _ in range(2)]
    if path == "/candidates":
        return people[0], people[1]
    return intake.body(candidate=people[0]), intake.body(candidate=people[1])


def plain(path: str, body: dict[str, Any]) -> bytes:
    """Return the hash that an earlier version stored."""
    return fingerprint(b"POST", f"{path}?".encode(), canonical(body), b"")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("path", ["/interviews", "/candidates"])
def test_stored_hash_of_a_request_is_keyed(intake: Intake, path: str) -> None:
    body, _ = bodies(intake, path)
    assert sent(intake, path, body).status_code == 201
    [(stored,)] = intake.ask("SELECT request_hash FROM inbox")
    assert bytes(stored) != plain(path, body)
    assert bytes(stored) == Hasher(PEPPER).request_content(plain(path, body))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("path", ["/interviews", "/candidates"])
def test_repeat_of_a_request_to_an_earlier_version_is_replayed(intake: Intake, path: str) -> None:
    body, other = bodies(intake, path)
    first = sent(intake, path, body)
    intake.change("UPDATE inbox SET request_hash = :hash", hash=plain(path, body))
    again = sent(intake, path, body)
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert again.json()["data"]["id"] == first.json()["data"]["id"]
    assert refusal(sent(intake, path, other)) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_stored_hash_of_a_callback_is_keyed(intake: Intake, tenant: Tenant) -> None:
    token = token_of(a_placed_attempt(tenant))
    assert call_back(intake, token).status_code == 204
    [(stored,)] = intake.ask("SELECT fingerprint FROM carrier_events")
    former = fingerprint(token.encode(), json.dumps(dict(FORM), sort_keys=True).encode())
    assert bytes(stored) == Hasher(PEPPER).callback(former)
    assert call_back(intake, token).status_code == 204
    assert intake.count("carrier_events") == 1, "the same callback is stored once"
