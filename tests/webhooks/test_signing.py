"""Signatures and encrypted secrets of endpoints, and the body of a delivered event."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from api_shim.schemas.event import EventData
from scheduler.setting_values import check_webhook_secret
from scheduler.webhooks.sending import DATA_FIELDS, Encryption, NotDecrypted, body_of, new_secret, signed_headers
from tests.architecture.guards import guards
from tests.conftest import NOON, real_now

KEYS = tuple(bytes([number]) * 32 for number in range(3))


def test_new_secret_is_random_and_of_the_standards_form() -> None:
    secrets = {new_secret() for _ in range(20)}
    assert len(secrets) == 20
    for secret in secrets:
        check_webhook_secret(secret)
        assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=9, minutes=30)), timezone(-timedelta(hours=5))])
def test_signature_is_right_in_any_zone(zone: timezone) -> None:
    secret, now = new_secret(), real_now()
    headers = signed_headers("evt_1", "{}", (secret,), now.astimezone(zone))
    Webhook(secret).verify("{}", headers)
    assert headers["webhook-timestamp"] == str(int(now.timestamp()))


def test_signature_is_the_one_of_the_specification() -> None:
    """The example of the specification's own libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at = datetime(2021, 2, 25, 15, 4, 25, tzinfo=UTC)
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', (secret,), at)
    assert headers["webhook-timestamp"] == "1614265465"
    expected = Webhook(secret).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}')
    assert headers["webhook-signature"] == expected
    assert len(headers["webhook-signature"].split(" ")) == 1


@given(text=st.text(st.characters(codec="utf-8"), max_size=300), place=st.text(st.characters(codec="utf-8")))
def test_encrypted_text_is_decrypted(text: str, place: str) -> None:
    encryption = Encryption(KEYS[:1])
    encrypted = encryption.encrypt(text, place)
    assert encryption.decrypt(encrypted, place) == text
    assert encrypted != encryption.encrypt(text, place), "equal secrets do not look equal"
    assert len(text) < 4 or text.encode() not in encrypted


def test_old_key_decrypts_while_it_is_set() -> None:
    old = Encryption(KEYS[:1]).encrypt("a secret", "here")
    both = Encryption((KEYS[1], KEYS[0]))
    assert both.decrypt(old, "here") == "a secret"
    assert not both.is_current(old)
    again = both.encrypt(both.decrypt(old, "here"), "here")
    assert both.is_current(again)
    assert Encryption(KEYS[1:2]).decrypt(again, "here") == "a secret"
    with pytest.raises(NotDecrypted):
        Encryption(KEYS[1:2]).decrypt(old, "here")


@given(position=st.integers(0, 35), bit=st.integers(0, 7))
def test_changed_text_is_not_decrypted(position: int, bit: int) -> None:
    encryption = Encryption(KEYS[:1])
    encrypted = bytearray(encryption.encrypt("secret", "here"))
    encrypted[position] ^= 1 << bit
    with pytest.raises(NotDecrypted):
        encryption.decrypt(bytes(encrypted), "here")


@pytest.mark.parametrize("length", range(38))
def test_truncated_text_is_not_decrypted(length: int) -> None:
    encryption = Encryption(KEYS[:1])
    with pytest.raises(NotDecrypted):
        encryption.decrypt(encryption.encrypt("secret", "here")[:length], "here")


def test_text_of_another_row_is_not_decrypted() -> None:
    encryption = Encryption(KEYS[:1])
    with pytest.raises(NotDecrypted):
        encryption.decrypt(encryption.encrypt("secret", "one endpoint"), "another endpoint")


def test_body_has_the_fields_of_the_contract() -> None:
    at = NOON.astimezone(timezone(timedelta(hours=2)))
    body = body_of("call_attempt.ended", "evt_1", at, 17, {"status": "ENDED", "interviewId": "i"})
    assert json.loads(body) == {
        "type": "call_attempt.ended",
        "event": "call_attempt.ended",
        "timestamp": "2026-04-02T12:00:00Z",
        "deliveryId": "evt_1",
        "sequence": 17,
        "data": {"status": "ENDED", "interviewId": "i"},
    }


@guards("data_fields")
@given(
    data=st.dictionaries(st.sampled_from(["name", "phoneNumber", "title", "metadata", "email", "status"]), st.text())
)
def test_body_has_no_field_that_is_not_listed(data: dict[str, str]) -> None:
    sent = json.loads(body_of("ping", "evt_1", NOON, None, data))
    assert set(sent["data"]) == set(data) & {"status"}
    assert sent["sequence"] is None


def test_listed_fields_are_those_of_the_contract() -> None:
    contract = "companyId interviewId callAttemptId candidateId jobId status reasonCode retryNumber nextAttemptId dueAt"
    ours = "applied by batchId cancelled commandId decision outcome refused webhookId"
    assert set(f"{contract} timezone externalId {ours}".split()) == DATA_FIELDS


def test_webhooks_and_the_list_of_events_have_the_same_fields() -> None:
    assert {field.alias for field in EventData.model_fields.values()} == DATA_FIELDS
