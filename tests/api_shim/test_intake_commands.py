"""Every kind of command is accepted, waited for, applied once, and replayed with the same answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api_shim.routes.interviews import READS
from scheduler.domain.command import CommandKind
from scheduler.use_cases.resources.keys import ALL_SCOPES
from tests.api_shim.answers import data, refusal
from tests.api_shim.bodies import AN_HOUR_LATER, EMAIL, FIRST_NAME, NUMBER, TOMORROW
from tests.api_shim.calls import Call, a_call, call_of
from tests.api_shim.intake import ASYNC, KEY, Intake, Worker, a_worker, an_intake, applied
from tests.conftest import NOON
from tests.support.builders import Tenant, a_number, a_placed_attempt


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A command for a pending call: its request, a different request, and its answer."""

    name: str
    method: str
    path: Callable[[Call], str]
    body: dict[str, Any] | None
    other: dict[str, Any]
    """Another body for the same command, so a different request."""
    status: int
    tells: Callable[[Any], bool]
    """Returns whether `data` is valid for such an answer."""

    def send(self, intake: Intake, call: Call, asked: dict[str, str], **more: Any) -> httpx.Response:
        sent: dict[str, Any] = {"json": self.body} if self.body is not None else {}
        headers = {**asked, **more.pop("headers", {})}
        return intake.send(self.method, self.path(call), headers=headers, **(sent | more))


KINDS = [
    Kind(
        name="invoke_attempt",
        method="POST",
        path=lambda call: call.attempts,
        body={"scheduledAt": AN_HOUR_LATER},
        other={"json": {"scheduledAt": TOMORROW}},
        status=201,
        tells=lambda data: data["status"] == "PENDING" and data["scheduledAt"] == AN_HOUR_LATER,
    ),
    Kind(
        name="reschedule_attempt",
        method="PATCH",
        path=lambda call: call.attempt,
        body={"scheduledAt": AN_HOUR_LATER},
        other={"json": {"scheduledAt": TOMORROW}},
        status=204,
        tells=lambda data: data is None,
    ),
    Kind(
        name="delete_attempt",
        method="DELETE",
        path=lambda call: call.attempt,
        body=None,
        other={"headers": {"If-Match": "*"}},
        status=204,
        tells=lambda data: data is None,
    ),
    Kind(
        name="update_interview",
        method="PATCH",
        path=lambda call: call.interview,
        body={"metadata": {"ref": "A-18"}},
        other={"json": {"metadata": {"ref": "A-19"}}},
        status=200,
        tells=lambda data: data["metadata"] == {"ref": "A-18", "kept": 1} and len(data["callAttempts"]) == 1,
    ),
    Kind(
        name="delete_interview",
        method="DELETE",
        path=lambda call: call.interview,
        body=None,
        other={"params": {"companyId": str(uuid4())}},
        status=200,
        tells=lambda data: data is True,
    ),
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
METADATA = {"ref": "A-17", "kept": 1}


@pytest.fixture
def call(intake: Intake) -> Call:
    """A pending call. Later commands are applied only if a test asks for a worker."""
    with a_worker(intake.settings):
        return a_call(intake, metadata=METADATA)


@each_kind
def test_command_is_applied_once_and_answered_again(intake: Intake, call: Call, worker: Worker, kind: Kind) -> None:
    first = kind.send(intake, call, KEY)
    assert first.status_code == kind.status, first.text
    assert kind.tells(data_of(first))
    assert "Idempotent-Replayed" not in first.headers
    done = (intake.ask("SELECT event FROM attempt_history ORDER BY id"), intake.count("attempts"))
    second = kind.send(intake, call, KEY)
    assert (second.status_code, second.headers["Idempotent-Replayed"]) == (kind.status, "true")
    assert data_of(second) == data_of(first)
    for other in (kind.send(intake, call, KEY, **kind.other), intake.create(headers=KEY)):
        assert refusal(other) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (intake.ask("SELECT event FROM attempt_history ORDER BY id"), intake.count("attempts")) == done
    assert intake.count("inbox") == 2  # and the command that created the interview
    kind.send(intake, call, {})
    assert intake.count("inbox") == 3, "without a key it is always a new one"


@each_kind
def test_command_without_a_worker_is_accepted_and_found_later(intake: Intake, call: Call, kind: Kind) -> None:
    answer = kind.send(intake, call, {**KEY, "Prefer": "wait=0"})
    assert answer.status_code == 202
    assert refusal(kind.send(intake, call, {**KEY, "Prefer": "wait=0"})) == (409, "IDEMPOTENCY_IN_PROGRESS")
    assert answer.json()["data"]["status"] == "WAITING"
    waiting = data(intake.get(answer.headers["Location"]))
    assert (waiting["kind"], waiting["status"]) == (kind.name, "WAITING")
    assert waiting["result"] is waiting["statusCode"] is waiting["appliedAt"] is None
    with a_worker(intake.settings):
        command = applied(intake, answer)
    assert command["statusCode"] == kind.status
    assert kind.tells(command["result"])
    assert data(intake.get("/commands/k")) == command


def test_key_with_another_method_on_a_path_is_another_request(intake: Intake, call: Call, worker: Worker) -> None:
    assert intake.patch(call.attempt, {"scheduledAt": AN_HOUR_LATER}, headers=KEY).status_code == 204
    assert intake.delete(call.attempt, headers=KEY).status_code == 422
    assert intake.get(call.attempt).status_code == 200


def test_no_body_and_an_empty_object_are_the_same_request(intake: Intake, call: Call, worker: Worker) -> None:
    first, second = (intake.post(call.attempts, headers=KEY), intake.post(call.attempts, {}, headers=KEY))
    assert second.json()["data"]["id"] == first.json()["data"]["id"]
    deletes = {"Idempotency-Key": "d"}
    assert intake.delete(call.interview, headers=deletes).status_code == 200
    assert intake.delete(call.interview, json={}, headers=deletes).headers["Idempotent-Replayed"] == "true"


def test_refusal_is_replayed_even_if_it_would_succeed_now(intake: Intake, call: Call, worker: Worker) -> None:
    headers = {**KEY, "If-Match": '"other"'}
    first = intake.delete(call.attempt, headers=headers)
    second = intake.delete(call.attempt, headers=headers)
    assert first.status_code == second.status_code == 412
    assert second.json()["error"] == first.json()["error"]
    assert second.headers["Idempotent-Replayed"] == "true"
    command = data(intake.get("/commands/k"))
    assert (command["statusCode"], command["result"]) == (412, first.json()["error"])


def test_replayed_change_shows_old_answer_with_current_metadata(intake: Intake, call: Call, worker: Worker) -> None:
    change = {"scheduledAt": AN_HOUR_LATER, "metadata": {"ref": 1}}
    first = intake.patch(call.interview, change, headers=KEY).json()["data"]
    assert (first["scheduledAt"], first["metadata"]) == (AN_HOUR_LATER, {"ref": 1, "kept": 1})
    later = {"scheduledAt": TOMORROW, "metadata": {"ref": 2, "kept": None}}
    assert intake.patch(call.interview, later).status_code == 200
    second = intake.patch(call.interview, change, headers=KEY).json()["data"]
    assert second == {**first, "metadata": {"ref": 2}}


def test_command_of_a_deleted_interview_has_no_metadata(intake: Intake, call: Call, worker: Worker) -> None:
    change = {"metadata": {"ref": 1}}
    first = intake.patch(call.interview, change, headers=KEY).json()["data"]
    assert intake.delete(call.interview).status_code == 200
    again = intake.patch(call.interview, change, headers=KEY)
    assert again.status_code == 200
    assert again.json()["data"] == {**first, "metadata": {}}


def test_times_are_judged_as_of_the_receipt(intake: Intake, call: Call) -> None:
    soon = "2026-04-02T12:10:00Z"
    accepted = intake.patch(call.attempt, {"scheduledAt": soon}, headers=ASYNC)
    offset = intake.settings.duecall_clock_offset_s + 3600
    later = intake.settings.model_copy(update={"duecall_clock_offset_s": offset})
    with an_intake(later, intake.database, intake.seeded), a_worker(later):
        assert applied(intake, accepted)["statusCode"] == 204
    assert data(intake.get(call.attempt))["scheduledAt"] == soon


def test_stored_answer_has_no_personal_data_and_no_metadata(intake: Intake, tenant: Tenant, worker: Worker) -> None:
    number = a_number()
    call = call_of(a_placed_attempt(tenant, number))
    changed = intake.patch(call.interview, {"metadata": {"ref": "A-18"}})
    assert changed.json()["data"]["callAttempts"][0]["status"] == "IN_PROGRESS"
    assert intake.post(a_call(intake).attempts, {"scheduledAt": AN_HOUR_LATER}).status_code == 201
    kept = str(intake.ask("SELECT answer, body FROM inbox"))
    assert kept.count("attempts") == 3
    assert not [each for each in (number[1:], NUMBER[1:], "A-18", FIRST_NAME, EMAIL) if each in kept]
    assert [body for body, _ in intake.ask("SELECT body, answer FROM inbox") if body is not None] == []


def test_each_kind_of_command_has_a_read_scope() -> None:
    # No key finds the commands of operators.
    assert set(READS) == set(CommandKind) - {CommandKind.DECIDE_OUTCOME, CommandKind.CANCEL_ATTEMPT}
    assert set(READS.values()) <= ALL_SCOPES


def test_quarantined_command_is_reported_as_quarantined(intake: Intake, call: Call) -> None:
    accepted = intake.delete(call.attempt, headers=ASYNC)
    intake.change("UPDATE inbox SET quarantined_at = :now WHERE applied_at IS NULL", now=NOON)
    command = data(intake.get(accepted.headers["Location"]))
    assert (command["status"], command["result"], command["statusCode"]) == ("QUARANTINED", None, None)


def test_repeat_of_a_quarantined_command_reports_the_quarantine(intake: Intake, call: Call) -> None:
    again = {"Idempotency-Key": "again"}
    intake.delete(call.attempt, headers=ASYNC | again)
    intake.change("UPDATE inbox SET quarantined_at = :now WHERE applied_at IS NULL", now=NOON)
    repeated = intake.delete(call.attempt, headers=again | {"Prefer": "wait=1"})
    assert (repeated.status_code, repeated.json()["data"]["status"]) == (202, "QUARANTINED")


def test_invalid_command_reference_gets_404(intake: Intake) -> None:
    for reference in ("%00", "%EF%BF%BD", "x" * 256):
        assert intake.get(f"/commands/{reference}").status_code == 404


def data_of(answer: httpx.Response) -> Any:
    """The `data`, or None without a body."""
    return answer.json()["data"] if answer.content else None
