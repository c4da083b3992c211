"""Hashes of requests: keyed, so that an erased person's number is not found in them by trying."""

import hashlib
import json
from datetime import date
from typing import Any

import httpx
import pytest

from scheduler.domain.command import CreateInterview
from scheduler.domain.interview import NewCandidate
from scheduler.hashing import Hasher, fingerprint
from scheduler.persistence.json_columns import content_as_json
from scheduler.persistence.tables import metadata
from scheduler.wire.json_values import canonical
from tests.api_shim.answers import data, refusal
from tests.api_shim.bodies import candidate
from tests.api_shim.carrier_callbacks import FORM, call_back, token_of
from tests.api_shim.intake import KEY, PEPPER, Intake
from tests.conftest import Seeded
from tests.support.builders import Tenant, a_number, a_placed_attempt


def sent(intake: Intake, path: str, body: dict[str, Any]) -> httpx.Response:
    return intake.post(path, body, headers=KEY)


def bodies(intake: Intake, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build two different requests of a person with a number."""
    people = [candidate(phoneNumber=a_number()) for _ in range(2)]
    if path == "/candidates":
        return people[0], people[1]
    return intake.body(candidate=people[0]), intake.body(candidate=people[1])


def plain(path: str, body: dict[str, Any]) -> bytes:
    """Compute the hash that an earlier version stored."""
    return fingerprint(b"POST", f"{path}?".encode(), canonical(body), b"")


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("path", ["/interviews", "/candidates"])
def test_stored_hash_of_a_request_is_keyed(intake: Intake, path: str) -> None:
    body, _ = bodies(intake, path)
    assert sent(intake, path, body).status_code == 201
    [(stored,)] = intake.ask("SELECT request_hash FROM inbox")
    assert bytes(stored) == Hasher(PEPPER).request_content(plain(path, body)) != plain(path, body)


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


# ---- hashes of contents, with which a repeat is recognised by its external id


def contents(sent: dict[str, Any], seeded: Seeded) -> set[bytes]:
    """Compute the plain hashes of an interview and of its inline person, as the first release also computes them."""
    person = NewCandidate(
        first_name=sent["candidate"]["firstName"],
        last_name=sent["candidate"]["lastName"],
        email=sent["candidate"]["email"],
        phone_number=sent["candidate"]["phoneNumber"],
        external_id=sent["candidate"]["externalId"],
        gdpr_expiry_date=date.fromisoformat(sent["candidate"]["gdprExpiryDate"]),
    )
    interview = CreateInterview(agent_id=seeded.agent_id, candidate=person, external_id=sent["externalId"])
    numbers = {hashlib.sha256(person.phone_number.encode()).digest()} if person.phone_number else set()
    return {fingerprint(canonical(content_as_json(each))) for each in (person, interview)} | numbers


def stored_anywhere(intake: Intake, hashes: set[bytes]) -> list[str]:
    """Find the tables in whose rows one of the hashes is found, in any column."""
    pattern = "|".join(each.hex() for each in hashes)
    return [
        table.name
        for table in metadata.sorted_tables
        if intake.ask(f"SELECT 1 FROM {table.name} t WHERE t::text ~ :pattern", pattern=pattern)
    ]


@pytest.mark.usefixtures("worker")
def test_no_plain_hash_of_an_erased_person_is_left(intake: Intake) -> None:
    """Not of a candidate, nor of an interview that ended, was deleted or still waits, nor of a repeat."""
    person = candidate(phoneNumber=a_number(), externalId="p")
    bodies = [intake.body(candidate=person, externalId=each) for each in ("waits", "deleted", "completed")]
    interviews = [data(intake.create(each, headers={"Idempotency-Key": each["externalId"]}), 201) for each in bodies]
    assert len({each["candidateId"] for each in interviews}) == 1
    data(intake.delete(f"/interviews/{interviews[1]['id']}"))
    intake.change(
        "UPDATE interviews SET status = 'COMPLETED', finished_at = created_at WHERE external_id = 'completed'"
    )
    hashes = set[bytes]().union(*(contents(each, intake.seeded) for each in bodies))
    hashes |= {plain("/interviews", each) for each in bodies}
    assert set(stored_anywhere(intake, hashes)) == {"candidates", "interviews"}, "next to the number itself"
    assert data(intake.delete(f"/candidates/{interviews[0]['candidateId']}")) is True
    assert stored_anywhere(intake, hashes) == []


def test_stored_hash_of_a_callback_is_keyed(intake: Intake, tenant: Tenant) -> None:
    token = token_of(a_placed_attempt(tenant))
    assert call_back(intake, token).status_code == 204
    [(stored,)] = intake.ask("SELECT fingerprint FROM carrier_events")
    former = fingerprint(token.encode(), json.dumps(dict(FORM), sort_keys=True).encode())
    assert bytes(stored) == Hasher(PEPPER).callback(former)
    assert call_back(intake, token).status_code == 204
    assert intake.count("carrier_events") == 1, "the same callback is stored once"
