"""Commands as messages: permissions, stored refusals, and messages that leave no trace."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from scheduler.domain.command import Command, CommandKind, CommandState
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import NotFound
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.resources.keys import ALL_SCOPES, Keys
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Submit
from scheduler.use_cases.submit_message import Messages
from scheduler.wire.json_values import LARGEST_BODY
from tests.architecture.guards import guards
from tests.conftest import TestClock, seed
from tests.support.builders import RecordingHints, Tenant, a_candidate, a_pending_attempt

CANARY = "Kanarienvogel"
Message = dict[str, Any]


@pytest.fixture
def keys(tenant: Tenant) -> Keys:
    return Keys(tenant.database, tenant.hasher, tenant.now)


@pytest.fixture
def messages(keys: Keys, submit: Submit) -> Messages:
    return Messages(keys, submit)


@pytest.fixture
def principal(keys: Keys, tenant: Tenant) -> Principal:
    return keys.create(kind=KeyKind.REGULAR, name="a backend", company_id=tenant.company_id)[0]


@pytest.fixture
def message(principal: Principal, tenant: Tenant) -> Message:
    """A message that is right in every point."""
    return {
        "apiKeyId": str(principal.key_id),
        "idempotencyKey": "order-4711",
        "kind": "create_interview",
        "body": {"candidateId": str(a_candidate(tenant).id), "agentId": str(tenant.agent_id)},
    }


def _commands(tenant: Tenant) -> int:
    return int(tenant.ask("SELECT count(*) FROM inbox")[0][0])


def _answer(submit: Submit, principal: Principal, message: Message) -> Command:
    return submit.find(principal, message["idempotencyKey"])


def test_message_is_accepted_once_and_hinted(
    messages: Messages, message: Message, submit: Submit, principal: Principal, hints: RecordingHints, tenant: Tenant
) -> None:
    for _ in range(3):
        messages.take(message)
    command = _answer(submit, principal, message)
    assert (command.kind, command.state) == (CommandKind.CREATE_INTERVIEW, CommandState.WAITING)
    assert (command.company_id, command.key_id) == (tenant.company_id, principal.key_id)
    assert set(hints.rung) == {(tasks.APPLY, command.id)}
    assert _commands(tenant) == 1


def test_concurrent_copies_of_a_message_are_one_command(messages: Messages, message: Message, tenant: Tenant) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(messages.take, [message] * 40))
    assert _commands(tenant) == 1


def test_command_of_a_message_is_applied_like_any_other(
    messages: Messages, message: Message, submit: Submit, principal: Principal, apply: Apply, tenant: Tenant
) -> None:
    messages.take(message)
    apply.command(_answer(submit, principal, message).id)
    answer = _answer(submit, principal, message).answer
    assert answer is not None
    assert answer.refusal is None
    assert tenant.ask("SELECT state FROM attempts") == [("PENDING",)]


def test_message_with_reordered_fields_is_the_same_request(
    messages: Messages, message: Message, submit: Submit, principal: Principal, tenant: Tenant
) -> None:
    messages.take(message)
    first = _answer(submit, principal, message)
    messages.take({**message, "body": dict(reversed(message["body"].items()))})
    messages.take({**message, "body": {**message["body"], "isTest": True}})
    messages.take({**message, "kind": "delete_interview", "body": {"interviewId": str(uuid4())}})
    assert _answer(submit, principal, message) == first
    assert _commands(tenant) == 1


@guards("tenant", "own_key")
def test_message_cannot_cross_the_wall_between_tenants(
    messages: Messages, message: Message, keys: Keys, tenant: Tenant, submit: Submit, principal: Principal
) -> None:
    """Another company's key reaches neither this one's interviews nor its answers."""
    other = seed(tenant.database, tenant.now())
    theirs, _ = keys.create(kind=KeyKind.REGULAR, name="theirs", company_id=other.company_id)
    attempt = a_pending_attempt(tenant)
    messages.take(
        {
            **message,
            "apiKeyId": str(theirs.key_id),
            "kind": "delete_interview",
            "body": {"interviewId": str(attempt.interview_id), "companyId": str(tenant.company_id)},
        }
    )
    answer = _answer(submit, theirs, message).answer
    assert answer is not None
    assert answer.refusal is not None
    assert answer.refusal.code == "RESOURCE_NOT_FOUND"
    with pytest.raises(NotFound):
        _answer(submit, principal, message)
    assert tenant.ask("SELECT state, deleted_at FROM attempts") == [("PENDING", None)]


@guards("reach")
def test_ats_key_reaches_only_its_own_companies(
    messages: Messages, message: Message, keys: Keys, tenant: Tenant, submit: Submit
) -> None:
    ats, _ = keys.create(kind=KeyKind.ATS, name="an ATS")
    theirs = {**message, "apiKeyId": str(ats.key_id)}
    messages.take({**theirs, "idempotencyKey": "which"})
    refusal = _refusal(submit, ats, "which")
    assert refusal["code"] == "COMPANY_ID_REQUIRED"
    messages.take({**theirs, "body": {**message["body"], "companyId": str(tenant.company_id)}})
    with pytest.raises(NotFound):
        _answer(submit, ats, message)
    tenant.change(f"UPDATE companies SET ats_principal_id = '{ats.id}'")
    messages.take({**theirs, "body": {**message["body"], "companyId": str(tenant.company_id)}})
    assert _answer(submit, ats, message).state is CommandState.WAITING


@pytest.mark.parametrize(
    ("kind", "body", "fields"),
    [
        pytest.param("create_interview", {}, {"candidateId": "MISSING_FIELD", "agentId": "MISSING_FIELD"}, id="empty"),
        pytest.param("create_interview", None, {"": "WRONG_TYPE"}, id="no body"),
        pytest.param("create_interview", [1], {"": "WRONG_TYPE"}, id="a list"),
        pytest.param("delete_interview", {"interviewId": uuid4()}, {"interviewId": "WRONG_TYPE"}, id="no JSON"),
        pytest.param("delete_interview", {"interviewId": "x"}, {"interviewId": "INVALID_UUID"}, id="no UUID"),
        pytest.param("update_interview", {"interviewId": str(uuid4())}, {"": "NOTHING_TO_CHANGE"}, id="no change"),
        pytest.param(
            "invoke_attempt",
            {"interviewId": str(uuid4()), "scheduledAt": "a", "scheduleTime": "b"},
            {"scheduleTime": "CONFLICTING_FIELDS"},
            id="two times",
        ),
        pytest.param(
            "delete_attempt",
            {"interviewId": str(uuid4()), "attemptId": str(uuid4()), "ifMatch": "12"},
            {"ifMatch": "INVALID_IF_MATCH"},
            id="no ETag",
        ),
        pytest.param(
            "update_interview",
            {"interviewId": str(uuid4()), "metadata": {"note": "\0"}},
            {"metadata.note": "INVALID_CHARACTER"},
            id="NUL",
        ),
        pytest.param(
            "invoke_attempt",
            {"interviewId": str(uuid4()), "scheduledAt": "x" * LARGEST_BODY},
            {"": "TOO_LONG"},
            id="too large",
        ),
        pytest.param(
            "create_interview",
            {"candidateId": str(uuid4()), "agentId": str(uuid4()), "job": {"title": CANARY}},
            {"job": "UNKNOWN_FIELD"},
            id="an inline job",
        ),
    ],
)
def test_invalid_body_is_answered_with_a_refusal(
    messages: Messages,
    message: Message,
    submit: Submit,
    principal: Principal,
    kind: str,
    body: object,
    fields: dict[str, str],
) -> None:
    messages.take({**message, "kind": kind, "body": body})
    refusal = _refusal(submit, principal, message["idempotencyKey"])
    assert refusal["code"] == "VALIDATION_ERROR"
    assert {each["field"]: each["code"] for each in refusal["details"]["fields"]} == fields


def test_nul_in_a_time_is_an_invalid_time(
    messages: Messages, message: Message, submit: Submit, principal: Principal
) -> None:
    body = {"interviewId": str(uuid4()), "attemptId": str(uuid4()), "scheduledAt": "\0"}
    messages.take({**message, "kind": "reschedule_attempt", "body": body})
    refusal = _refusal(submit, principal, message["idempotencyKey"])
    assert (refusal["code"], refusal["details"]["field"]) == ("INVALID_DATE_FORMAT", "scheduledAt")


@pytest.mark.parametrize("depth", [100, 400, 700, 900])
def test_body_of_any_depth_is_answered_or_logged(
    messages: Messages, message: Message, tenant: Tenant, depth: int
) -> None:
    with capture_logs() as logs:
        messages.take({**message, "body": json.loads("[" * depth + "]" * depth)})
    assert (_commands(tenant), len(logs)) in {(1, 0), (0, 1)}


def test_stored_refusal_contains_no_personal_data(
    messages: Messages, message: Message, tenant: Tenant, submit: Submit, principal: Principal
) -> None:
    """Not even if an unknown field's name is a person's name."""
    body = {**message["body"], "+421915123456": 1, "Jana Nováková": 2, "candidate": {"firstName": CANARY}}
    messages.take({**message, "body": body})
    fields = {each["field"] for each in _refusal(submit, principal, message["idempotencyKey"])["details"]["fields"]}
    assert fields == {"?", "candidate"}
    [(row,)] = tenant.ask("SELECT inbox::text FROM inbox")
    assert not [word for word in ("915", "Nov", CANARY) if word in row]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"apiKeyId": str(uuid4())}, id="a key that is not there"),
        pytest.param({"apiKeyId": "sk_live_x"}, id="no id"),
        pytest.param({"apiKeyId": 7}, id="a number"),
        pytest.param({"apiKeyId": ...}, id="no key"),
        pytest.param({"idempotencyKey": ""}, id="an empty idempotency key"),
        pytest.param({"idempotencyKey": ...}, id="no idempotency key"),
        pytest.param({"idempotencyKey": "x" * 256}, id="a long one"),
        pytest.param({"kind": "create_company"}, id="a write that goes over HTTP"),
        pytest.param({"kind": ["create_interview"]}, id="an unknown kind"),
        pytest.param({"body": ...}, id="no body at all"),
    ],
)
def test_message_without_a_possible_answer_is_only_logged(
    messages: Messages, message: Message, tenant: Tenant, changes: Message
) -> None:
    with capture_logs() as logs:
        messages.take({name: value for name, value in (message | changes).items() if value is not ...})
    assert _commands(tenant) == 0
    assert [line["event"] for line in logs] == ["message_refused: a command message was rejected"]


def _suspend(keys: Keys, key_id: UUID) -> None:
    keys.suspend(key_id, None)


def _revoke(keys: Keys, key_id: UUID) -> None:
    keys.revoke(key_id)


@pytest.mark.parametrize("end", [_suspend, _revoke])
def test_unusable_key_cannot_send_messages(
    messages: Messages, message: Message, tenant: Tenant, keys: Keys, principal: Principal, end: Any
) -> None:
    end(keys, principal.key_id)
    messages.take(message)
    assert _commands(tenant) == 0


def test_expired_key_cannot_send_messages(
    messages: Messages, message: Message, tenant: Tenant, keys: Keys, now: TestClock
) -> None:
    ends_at = now() + timedelta(hours=1)
    short, _ = keys.create(kind=KeyKind.REGULAR, name="short", company_id=tenant.company_id, expires_at=ends_at)
    now.move(timedelta(hours=1))
    messages.take({**message, "apiKeyId": str(short.key_id)})
    assert _commands(tenant) == 0


def test_key_of_a_deleted_company_cannot_send_messages(messages: Messages, message: Message, tenant: Tenant) -> None:
    tenant.change("UPDATE companies SET deleted_at = created_at")
    messages.take(message)
    assert _commands(tenant) == 0


@pytest.mark.parametrize(
    ("lacking", "kind"),
    [
        pytest.param("write:interviews", "create_interview", id="to write"),
        pytest.param("delete:interviews", "delete_interview", id="to delete"),
    ],
)
def test_message_needs_the_same_scope_as_over_http(
    messages: Messages,
    message: Message,
    tenant: Tenant,
    keys: Keys,
    submit: Submit,
    lacking: str,
    kind: str,
) -> None:
    body = (
        message["body"] if kind == "create_interview" else {"interviewId": str(a_pending_attempt(tenant).interview_id)}
    )
    for scopes, commands in ((ALL_SCOPES - {lacking}, 0), (frozenset({lacking}), 1)):
        key, _ = keys.create(kind=KeyKind.REGULAR, name="a key", company_id=tenant.company_id, scopes=scopes)
        messages.take({**message, "apiKeyId": str(key.key_id), "kind": kind, "body": body})
        assert _commands(tenant) == commands
    assert _answer(submit, key, message).state is CommandState.WAITING


def test_message_updates_last_used_at_of_its_key(
    messages: Messages, message: Message, tenant: Tenant, now: TestClock, principal: Principal
) -> None:
    messages.take(message)
    assert tenant.ask(f"SELECT last_used_at FROM api_keys WHERE id = '{principal.key_id}'") == [(now(),)]


def _refusal(submit: Submit, principal: Principal, idempotency_key: str) -> dict[str, Any]:
    answer = submit.find(principal, idempotency_key).answer
    assert answer is not None
    assert answer.refusal is not None
    return {"code": answer.refusal.code, "details": answer.refusal.details}
