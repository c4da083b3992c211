"""Who gets in: a key that is known, alive, and has the scope; and nobody before that is told anything."""

from uuid import uuid4

import pytest

from scheduler.use_cases.keys import new_secret
from tests.api_shim.intake import Intake, Worker
from tests.conftest import NOON

INTERVIEW = f"/interviews/{uuid4()}"
ATTEMPT = f"{INTERVIEW}/call-attempts/{uuid4()}"
SCOPES = {
    ("POST", "/interviews"): "write:interviews",
    ("GET", INTERVIEW): "read:interviews",
    ("PATCH", INTERVIEW): "write:interviews",
    ("DELETE", INTERVIEW): "delete:interviews",
    ("GET", f"{INTERVIEW}/call-attempts"): "read:interviews",
    ("POST", f"{INTERVIEW}/call-attempts"): "write:interviews",
    ("GET", ATTEMPT): "read:interviews",
    ("PATCH", ATTEMPT): "write:interviews",
    ("DELETE", ATTEMPT): "write:interviews",
    ("GET", f"{ATTEMPT}/explanation"): "read:interviews",
    ("POST", "/call-times/preview"): "read:interviews",
    ("GET", "/commands/k"): "read:interviews",
}
ROUTES = list(SCOPES)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param("Bearer", id="no key"),
        pytest.param("Basic a2V5", id="another scheme"),
        pytest.param("Bearer sk_live_mistyped", id="a mistyped key"),
        pytest.param(f"Bearer {new_secret()}", id="an unknown key"),
    ],
)
def test_without_a_valid_key_nothing_is_told(intake: Intake, method: str, path: str, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = intake.client.request(method, path, headers=headers, content=b"not even JSON")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "INVALID_API_KEY"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert intake.count("inbox") == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("revoked_at = :now", "INVALID_API_KEY"),
        ("expires_at = :now", "INVALID_API_KEY"),
        ("suspended_at = :now", "API_KEY_SUSPENDED"),
    ],
)
def test_a_key_that_was_stopped_opens_nothing(intake: Intake, change: str, code: str) -> None:
    intake.change(f"UPDATE api_keys SET {change}", now=NOON)
    answer = intake.create()
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == code


def test_a_key_of_a_deleted_company_opens_nothing(intake: Intake) -> None:
    intake.change("UPDATE companies SET deleted_at = :now", now=NOON)
    assert intake.create().status_code == 401


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_key_without_the_scope_is_told_which(intake: Intake, method: str, path: str) -> None:
    missing = SCOPES[method, path]
    others = {"read:interviews", "write:interviews", "delete:interviews", "read:candidates"} - {missing}
    answer = intake.with_new_key(*others).send(method, path, content=b"not even JSON")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "INSUFFICIENT_PERMISSIONS"
    assert answer.json()["error"]["details"] == {"missingScopes": [missing]}


def test_a_key_with_the_one_scope_is_enough(intake: Intake, worker: Worker) -> None:
    made = intake.with_new_key("write:interviews").create()
    assert made.status_code == 201
    reader = intake.with_new_key("read:interviews")
    assert reader.get(f"/interviews/{made.json()['data']['id']}").status_code == 200


def test_health_needs_no_key(intake: Intake) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        assert intake.client.get(path).status_code == 200
