"""Commands as messages: permissions, stored refusals, and messages that leave no trace."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from scheduler.domain.command import Command, CommandKind, CommandState, InvokeAttempt, Refusal
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import NotFound
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.resources.keys import ALL_SCOPES, Keys
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Messages, Submit
from scheduler.wire.json_values import LARGEST_BODY
from tests.architecture.guards import guards
from tests.conftest import seed
from tests.support.builders import RecordingHints, Tenant, a_candidate, a_pending_attempt, a_placed_attempt, of_company
from tests.use_cases.conftest import with_reader
from tests.use_cases.test_partner_events import noted

CANARY = "Kanarienvogel"
Message = dict[str, Any]
ONE = {"interviewId": str(uuid4())}


@pytest.fixture
def keys(tenant: Tenant) -> Keys:
    return Keys(tenant.database, tenant.hasher, tenant.now)


@dataclass(frozen=True, kw_only=True)
class Sender:
    """A backend that sends messages with its key, and asks for their results."""

    messages: Messages
    submit: Submit
    principal: Principal
    message: Message
    """A message that is right in every point."""

    def send(self, **changes: object) -> None:
        """Send the message with other fields. `...` leaves a field out."""
        fields = {**self.message, **changes}
        self.messages.take({name: value for name, value in fields.items() if value is not ...})

    def command(self, principal: Principal | None = None, idempotency_key: str | None = None) -> Command:
        """Read the command of the message, or of another principal's message with this key."""
        return self.submit.find(principal or self.principal, idempotency_key or self.message["idempotencyKey"])

    def refusal(self, principal: Principal | None = None, idempotency_key: str | None = None) -> Refusal:
        answer = self.command(principal, idempotency_key).answer
        assert answer is not None
        assert answer.refusal is not None
        return answer.refusal


@pytest.fixture
def sender(keys: Keys, submit: Submit, tenant: Tenant) -> Sender:
    principal, _ = keys.create(kind=KeyKind.REGULAR, name="a backend", company_id=tenant.company_id)
    message = {
        "apiKeyId": str(principal.key_id),
        "idempotencyKey": "order-4711",
        "kind": "create_interview",
        "body": {"candidateId": str(a_candidate(tenant).id), "agentId": str(tenant.agent_id)},
    }
    return Sender(messages=Messages(keys, submit, tenant.hasher), submit=submit, principal=principal, message=message)


def _commands(tenant: Tenant) -> int:
    return int(tenant.ask("SELECT count(*) FROM inbox")[0][0])


def test_message_is_accepted_once_and_hinted(sender: Sender, hints: RecordingHints, tenant: Tenant) -> None:
    for _ in range(3):
        sender.send()
    command = sender.command()
    assert (command.kind, command.state) == (CommandKind.CREATE_INTERVIEW, CommandState.WAITING)
    assert (command.company_id, command.key_id) == (tenant.company_id, sender.principal.key_id)
    assert set(hints.rung) == {(tasks.APPLY, command.id)}
    assert _commands(tenant) == 1


def test_concurrent_copies_of_a_message_are_one_command(sender: Sender, tenant: Tenant) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sender.messages.take, [sender.message] * 40))
    assert _commands(tenant) == 1


def test_command_of_a_message_is_applied_like_any_other(sender: Sender, apply: Apply, tenant: Tenant) -> None:
    sender.send()
    apply.command(sender.command().id)
    answer = sender.command().answer
    assert answer is not None
    assert answer.refusal is None
    assert tenant.ask("SELECT state FROM attempts") == [("PENDING",)]


def test_message_with_reordered_fields_is_the_same_request(sender: Sender, tenant: Tenant) -> None:
    sender.send()
    first = sender.command()
    sender.send(body=dict(reversed(sender.message["body"].items())))
    sender.send(body={**sender.message["body"], "isTest": True})
    sender.send(kind="delete_interview", body={"interviewId": str(uuid4())})
    assert sender.command() == first
    assert _commands(tenant) == 1


@guards("tenant", "own_key")
def test_message_cannot_cross_the_wall_between_tenants(sender: Sender, keys: Keys, tenant: Tenant) -> None:
    """Another company's key reaches neither this one's interviews nor its answers."""
    other = seed(tenant.database, tenant.now())
    theirs, _ = keys.create(kind=KeyKind.REGULAR, name="theirs", company_id=other.company_id)
    attempt = a_pending_attempt(tenant)
    body = {"interviewId": str(attempt.interview_id), "companyId": str(tenant.company_id)}
    sender.send(apiKeyId=str(theirs.key_id), kind="delete_interview", body=body)
    assert sender.refusal(theirs).code == "RESOURCE_NOT_FOUND"
    with pytest.raises(NotFound):
        sender.command()
    assert tenant.ask("SELECT state, deleted_at FROM attempts") == [("PENDING", None)]


@guards("reach")
def test_ats_key_reaches_only_its_own_companies(sender: Sender, keys: Keys, tenant: Tenant) -> None:
    ats, _ = keys.create(kind=KeyKind.ATS, name="an ATS")
    key_id, body = str(ats.key_id), {**sender.message["body"], "companyId": str(tenant.company_id)}
    sender.send(apiKeyId=key_id, idempotencyKey="which")
    assert sender.refusal(ats, "which").code == "COMPANY_ID_REQUIRED"
    sender.send(apiKeyId=key_id, body=body)
    with pytest.raises(NotFound):
        sender.command(ats)
    tenant.change(f"UPDATE companies SET ats_principal_id = '{ats.id}'")
    sender.send(apiKeyId=key_id, body=body)
    assert sender.command(ats).state is CommandState.WAITING


@pytest.mark.parametrize(
    ("kind", "body", "fields"),
    [
        pytest.param("create_interview", {}, {"candidateId": "MISSING_FIELD", "agentId": "MISSING_FIELD"}, id="empty"),
        pytest.param("create_interview", None, {"": "WRONG_TYPE"}, id="no body"),
        pytest.param("create_interview", [1], {"": "WRONG_TYPE"}, id="a list"),
        pytest.param("delete_interview", {"interviewId": uuid4()}, {"interviewId": "WRONG_TYPE"}, id="no JSON"),
        pytest.param("delete_interview", {"interviewId": "x"}, {"interviewId": "INVALID_UUID"}, id="no UUID"),
        pytest.param("update_interview", ONE, {"": "NOTHING_TO_CHANGE"}, id="no change"),
        pytest.param(
            "invoke_attempt",
            ONE | {"scheduledAt": "a", "scheduleTime": "b"},
            {"scheduleTime": "CONFLICTING_FIELDS"},
            id="two times",
        ),
        pytest.param(
            "delete_attempt",
            ONE | {"attemptId": str(uuid4()), "ifMatch": "12"},
            {"ifMatch": "INVALID_IF_MATCH"},
            id="no ETag",
        ),
        pytest.param(
            "update_interview", ONE | {"metadata": {"note": "\0"}}, {"metadata.note": "INVALID_CHARACTER"}, id="NUL"
        ),
        pytest.param("invoke_attempt", ONE | {"scheduledAt": "x" * LARGEST_BODY}, {"": "TOO_LONG"}, id="too large"),
        pytest.param(
            "create_interview",
            {"candidateId": str(uuid4()), "agentId": str(uuid4()), "job": {"title": CANARY}},
            {"job": "UNKNOWN_FIELD"},
            id="an inline job",
        ),
    ],
)
def test_invalid_body_is_answered_with_a_refusal(
    sender: Sender, kind: str, body: object, fields: dict[str, str]
) -> None:
    sender.send(kind=kind, body=body)
    refusal = sender.refusal()
    assert refusal.code == "VALIDATION_ERROR"
    assert {each["field"]: each["code"] for each in refusal.details["fields"]} == fields


def test_nul_in_a_time_is_an_invalid_time(sender: Sender) -> None:
    body = {"interviewId": str(uuid4()), "attemptId": str(uuid4()), "scheduledAt": "\0"}
    sender.send(kind="reschedule_attempt", body=body)
    refusal = sender.refusal()
    assert (refusal.code, refusal.details["field"]) == ("INVALID_DATE_FORMAT", "scheduledAt")


@pytest.mark.parametrize("depth", [100, 400, 700, 900])
def test_body_of_any_depth_is_answered_or_logged(sender: Sender, tenant: Tenant, depth: int) -> None:
    with capture_logs() as logs:
        sender.send(body=json.loads("[" * depth + "]" * depth))
    assert (_commands(tenant), len(logs)) in {(1, 0), (0, 1)}


def test_stored_refusal_contains_no_personal_data(sender: Sender, tenant: Tenant) -> None:
    """Not even if an unknown field's name is a person's name."""
    body = {**sender.message["body"], "+421915123456": 1, "Jana Nováková": 2, "candidate": {"firstName": CANARY}}
    sender.send(body=body)
    fields = {each["field"] for each in sender.refusal().details["fields"]}
    assert fields == {"?", "candidate"}
    [(row,)] = tenant.ask("SELECT inbox::text FROM inbox")
    assert not [word for word in ("915123456", "Nov", CANARY) if word in row]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param({}, "VALIDATION_ERROR", id="an invalid body"),
        pytest.param(ONE, "RESOURCE_NOT_FOUND", id="no such interview"),
    ],
)
def test_refusal_of_a_message_is_reported_once(sender: Sender, tenant: Tenant, body: dict[str, str], code: str) -> None:
    """In the transaction that stores it. The sender has no response, and may send the message again."""
    with_reader(tenant)
    for _ in range(3):
        sender.send(kind="invoke_attempt", body=body)
    sender.send(kind="invoke_attempt", body={"interviewId": str(uuid4())})
    [row] = tenant.ask(
        "SELECT e.company_id, e.interview_id, e.data, e.xmin::text = i.xmin::text AS is_together FROM events e, inbox i"
    )
    told = {"commandId": str(sender.command().id), "status": "REFUSED", "reasonCode": code}
    assert (row.company_id, row.interview_id, row.data, row.is_together) == (tenant.company_id, None, told, True)
    assert noted(tenant) == ["command.applied"]


def test_refusal_for_a_call_in_progress_is_reported(sender: Sender, tenant: Tenant) -> None:
    attempt = a_placed_attempt(tenant)
    with_reader(tenant)
    sender.send(kind="invoke_attempt", body={"interviewId": str(attempt.interview_id)})
    assert tenant.ask("SELECT data ->> 'reasonCode' FROM events") == [("CALL_ATTEMPT_IN_PROGRESS",)]


def test_refusal_that_is_a_response_is_not_reported(sender: Sender, tenant: Tenant) -> None:
    with_reader(tenant)
    request = InvokeAttempt(interview_id=uuid4())
    for key in (None, "order-4712"):
        accepted = sender.submit.command(
            sender.principal, None, request, idempotency_key=key, request_hash=b"", command_id=uuid4()
        )
        assert accepted.command.answer is not None
    assert noted(tenant) == []


def test_refusal_of_a_message_is_not_reported_without_reader(sender: Sender, tenant: Tenant) -> None:
    for number, body in enumerate(({}, ONE)):
        sender.send(kind="invoke_attempt", body=body, idempotencyKey=str(number))
    assert noted(tenant) == []


def test_message_for_another_company_is_reported_to_its_sender(sender: Sender, tenant: Tenant) -> None:
    """Without the interview: it is another company's, and so are its ids."""
    other = with_reader(of_company(tenant, seed(tenant.database, tenant.now())))
    with_reader(tenant)
    attempt = a_pending_attempt(other)
    noted(tenant)
    sender.send(kind="invoke_attempt", body={"interviewId": str(attempt.interview_id)})
    assert tenant.ask("SELECT company_id, interview_id FROM events") == [(tenant.company_id, None)]


def test_accepted_message_is_reported_when_it_is_applied(sender: Sender, tenant: Tenant, apply: Apply) -> None:
    with_reader(tenant)
    sender.send()
    assert noted(tenant) == []
    apply.command(sender.command().id)
    assert noted(tenant)[-1] == "command.applied"


def test_message_without_a_company_is_not_reported(sender: Sender, tenant: Tenant, keys: Keys) -> None:
    ats, _ = keys.create(kind=KeyKind.ATS, name="an ATS", scopes=ALL_SCOPES)
    tenant.change(f"UPDATE companies SET ats_principal_id = '{ats.id}'")
    sender.send(apiKeyId=str(ats.key_id))
    assert sender.refusal(ats).code == "COMPANY_ID_REQUIRED"
    assert noted(tenant) == []


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
def test_message_without_a_possible_answer_is_only_logged(sender: Sender, tenant: Tenant, changes: Message) -> None:
    with capture_logs() as logs:
        sender.send(**changes)
    assert _commands(tenant) == 0
    assert [line["event"] for line in logs] == ["message_refused: a command message was rejected"]


def suspended(tenant: Tenant, keys: Keys, key_id: UUID) -> None:
    keys.suspend(key_id, None)


def revoked(tenant: Tenant, keys: Keys, key_id: UUID) -> None:
    keys.revoke(key_id)


def expired(tenant: Tenant, keys: Keys, key_id: UUID) -> None:
    tenant.change("UPDATE api_keys SET expires_at = :at WHERE id = :id", at=tenant.now(), id=key_id)


def without_its_company(tenant: Tenant, keys: Keys, key_id: UUID) -> None:
    tenant.change("UPDATE companies SET deleted_at = created_at")


@pytest.mark.parametrize("end", [suspended, revoked, expired, without_its_company])
def test_unusable_key_cannot_send_messages(
    sender: Sender, tenant: Tenant, keys: Keys, end: Callable[[Tenant, Keys, UUID], None]
) -> None:
    end(tenant, keys, sender.principal.key_id)
    sender.send()
    assert _commands(tenant) == 0


@pytest.mark.parametrize(
    ("lacking", "kind"),
    [
        pytest.param("write:interviews", "create_interview", id="to write"),
        pytest.param("delete:interviews", "delete_interview", id="to delete"),
    ],
)
def test_message_needs_the_same_scope_as_over_http(
    sender: Sender, tenant: Tenant, keys: Keys, lacking: str, kind: str
) -> None:
    deletion = {"interviewId": str(a_pending_attempt(tenant).interview_id)}
    body = deletion if kind == "delete_interview" else sender.message["body"]
    for scopes, commands in ((ALL_SCOPES - {lacking}, 0), (frozenset({lacking}), 1)):
        key, _ = keys.create(kind=KeyKind.REGULAR, name="a key", company_id=tenant.company_id, scopes=scopes)
        sender.send(apiKeyId=str(key.key_id), kind=kind, body=body)
        assert _commands(tenant) == commands
    assert sender.command(key).state is CommandState.WAITING


def test_message_updates_last_used_at_of_its_key(sender: Sender, tenant: Tenant) -> None:
    sender.send()
    assert tenant.ask(f"SELECT last_used_at FROM api_keys WHERE id = '{sender.principal.key_id}'") == [(tenant.now(),)]
