"""Authentication: only a known, active key with the scope gets an answer, any other request learns nothing."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from scheduler.persistence.database import LOCK_S
from scheduler.use_cases.resources.keys import ALL_SCOPES, new_secret
from tests.api_shim.answers import data, refusal, refused
from tests.api_shim.bodies import JOB
from tests.api_shim.document_operations import OPERATIONS, address_of_nothing
from tests.api_shim.intake import KEY, Intake, Worker, taking_less_than
from tests.conftest import NOON, wait_until

KEYED = [
    (name, method, address_of_nothing(path), scope)
    for name, (method, path, scope, _) in OPERATIONS.items()
    if scope is not None
]
"""Operations that need a key, each with its scope. That of a command depends on the command."""


AUTHORIZATIONS = ("Bearer", "Basic a2V5", "Bearer sk_live_mistyped", f"Bearer {new_secret()}")


def test_request_without_a_valid_key_is_rejected(intake: Intake) -> None:
    """`test_access_matrix.py` has keys that were revoked or suspended, or have expired."""
    for name, method, path, _ in KEYED:
        for authorization in (None, *AUTHORIZATIONS) if name == KEYED[0][0] else (None,):
            headers = {"Authorization": authorization} if authorization else {}
            answer = intake.client.request(method, path, headers=headers, content=b"not even JSON")
            assert refusal(answer) == (401, "INVALID_API_KEY"), (name, authorization)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert intake.count("inbox") == 0


def test_suspended_key_gets_the_time_and_the_reason(intake: Intake) -> None:
    principal, secret = intake.new_key()
    theirs = intake.with_key(secret)
    intake.keys.suspend(principal.key_id, "the invoice of March")
    details = refused(theirs.get("/jobs"), 401, "API_KEY_SUSPENDED")["details"]
    assert details["reason"] == "the invoice of March"
    assert re.fullmatch(r"2026-04-02T12:[0-9:.]+Z", details["suspendedAt"]), details
    intake.keys.resume(principal.key_id)
    assert theirs.get("/jobs").status_code == 200
    intake.keys.revoke(principal.key_id)
    assert refusal(theirs.get("/jobs")) == (401, "INVALID_API_KEY")


def test_key_is_valid_until_it_expires(intake: Intake) -> None:
    intake.change("UPDATE api_keys SET expires_at = :soon", soon=intake.now() + timedelta(minutes=10))
    assert intake.get("/jobs").status_code == 200
    intake.change("UPDATE api_keys SET expires_at = :just, suspended_at = :just", just=intake.now())
    assert refusal(intake.get("/jobs")) == (401, "INVALID_API_KEY")


def test_two_keys_of_one_principal_work_and_share_commands(intake: Intake) -> None:
    principal, secret = intake.new_key()
    second, new_secret_ = intake.keys.rotate(principal.key_id, {})
    assert second == replace(principal, key_id=second.key_id)
    old, new = intake.with_key(secret), intake.with_key(new_secret_)
    made, again = old.made("/jobs", JOB, headers=KEY), new.post("/jobs", JOB, headers=KEY)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert data(again, 201)["id"] == made["id"]
    intake.keys.revoke(principal.key_id)
    assert old.get("/jobs").status_code == 401
    assert new.get("/jobs").status_code == 200


def test_another_key_of_the_same_company_is_another_principal(intake: Intake) -> None:
    made = [intake.with_new_key().made("/jobs", JOB, headers=KEY)["id"] for _ in range(2)]
    assert len(set(made)) == 2


def test_last_use_of_a_key_is_stored_to_the_minute(intake: Intake) -> None:
    def last_used() -> Any:
        [[at]] = intake.ask("SELECT last_used_at FROM api_keys")
        return at

    assert last_used() is None
    began = intake.now()
    assert intake.get("/jobs").status_code == 200
    first = wait_until(last_used, says="its use is stored")
    assert began <= first <= intake.now()
    assert [intake.get("/jobs").status_code for _ in range(5)] == [200] * 5
    assert last_used() == first
    intake.change("UPDATE api_keys SET last_used_at = last_used_at - interval '61 seconds'")
    assert intake.get("/jobs").status_code == 200
    wait_until(lambda: last_used() >= first, says="a minute later it is stored again")


def test_request_does_not_wait_for_the_last_use(intake: Intake) -> None:
    with intake.database.transaction() as stores:
        stores.connection.execute(text("SELECT FROM api_keys FOR UPDATE"))
        with taking_less_than(3 * LOCK_S):
            assert [intake.get("/jobs").status_code for _ in range(3)] == [200] * 3
        [[at]] = stores.connection.execute(text("SELECT last_used_at FROM api_keys"))
        assert at is None


def test_rejected_key_does_not_count_as_used(intake: Intake) -> None:
    intake.change("UPDATE api_keys SET suspended_at = :now", now=NOON)
    assert intake.get("/jobs").status_code == 401
    other = intake.with_new_key()
    assert other.get("/jobs").status_code == 200
    wait_until(lambda: intake.ask("SELECT FROM api_keys WHERE last_used_at IS NOT NULL"), says="the other was")
    assert intake.ask("SELECT last_used_at FROM api_keys WHERE suspended_at IS NOT NULL") == [(None,)]


def test_key_without_the_scope_gets_its_name(intake: Intake) -> None:
    without = {scope: intake.with_new_key(*ALL_SCOPES - {scope}) for *_, scope in KEYED if scope}
    for name, method, path, scope in KEYED:
        if scope:
            answer = without[scope].send(method, path, content=b"not even JSON")
            error = refused(answer, 403, "INSUFFICIENT_PERMISSIONS")
            assert error["details"] == {"missingScopes": [scope]}, name
            command = f"`duecall keys create --company {intake.seeded.company_id} --scopes {scope}`. It has only"
            assert command in error["message"]


def test_key_with_only_the_scope_is_accepted(intake: Intake, worker: Worker) -> None:
    made = intake.with_new_key("write:interviews").interview()
    assert intake.with_new_key("read:interviews").get(f"/interviews/{made['id']}").status_code == 200


def test_health_needs_no_key(intake: Intake) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert intake.client.get(path).status_code == 200
