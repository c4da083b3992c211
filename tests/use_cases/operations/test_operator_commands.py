"""An operator's cancellations are commands: what was cancelled does not ring, what was claimed continues."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from scheduler.clock import deadline_in
from scheduler.domain.attempt import Attempt, AttemptState, Reason
from scheduler.domain.command import DeleteAttempt, DeleteInterview
from scheduler.domain.principal import OPERATORS
from scheduler.domain.refusals import CancelledInPart
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.schema import Logins
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.unknown_outcomes import BATCH_SIZE, OperatorCommands, lock_pending
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.alarms import Acts
from tests.architecture.guards import guards
from tests.support.builders import RecordingHints, Tenant, a_claimed_attempt, a_pending_attempt, an_operator
from tests.support.statements import statements_of
from tests.use_cases.conftest import IN_PROGRESS, Perform
from tests.verification.world.bulk_attempts import bulk_attempts

JANA = "link:jana"
WHY = "wrong campaign"


@pytest.fixture
def commands(tenant: Tenant, logins: Logins) -> Iterator[OperatorCommands]:
    """On a connection of the console, which reads no personal data."""
    assert logins.operator is not None
    database = Database(logins.operator, pool_size=2, operates=True)
    yield OperatorCommands(database, tenant.now, an_operator(tenant, JANA))
    database.close()


def waiting(tenant: Tenant) -> list[UUID]:
    return [row[0] for row in tenant.ask("SELECT id FROM inbox WHERE applied_at IS NULL ORDER BY seq")]


def apply_all(tenant: Tenant, apply: Apply) -> None:
    for each in waiting(tenant):
        apply.command(each)


def ends_of(tenant: Tenant, *attempts: Attempt) -> list[tuple[AttemptState, Reason | None]]:
    return [(each.state, each.reason) for each in (tenant.attempt(attempt.id) for attempt in attempts)]


CANCELLED = (AttemptState.CANCELLED, Reason.CANCELLED_BY_USER)


def test_accepted_cancellation_blocks_the_call(tenant: Tenant, commands: OperatorCommands, apply: Apply) -> None:
    attempt = a_pending_attempt(tenant)
    assert commands.cancel([attempt.id], WHY) == 1
    assert not tenant.dial.claim([attempt.id]).claimed
    apply_all(tenant, apply)
    assert ends_of(tenant, attempt) == [CANCELLED]
    assert not tenant.dial.claim([attempt.id]).claimed
    assert tenant.history(attempt.id) == ["created", "cancelled"]


def test_hints_of_accepted_cancellations_are_sent(tenant: Tenant, commands: OperatorCommands) -> None:
    class AfterTheCommit(RecordingHints):
        def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
            assert set(ids) <= set(waiting(tenant)), "a worker would not find the command"
            super().send(task, ids, due_at)

    first, second, gone = a_pending_attempt(tenant), a_pending_attempt(tenant), a_claimed_attempt(tenant)
    hints = AfterTheCommit()
    hinting = OperatorCommands(commands._database, tenant.now, JANA, hints)
    assert hinting.cancel([first.id, second.id, gone.id], WHY) == 2
    assert hints.rung == [(tasks.APPLY, each) for each in waiting(tenant)]
    assert len(hints.rung) == 2


def test_history_names_the_operator_and_the_reason(
    tenant: Tenant, commands: OperatorCommands, apply: Apply, explain: Explain
) -> None:
    attempt = a_pending_attempt(tenant)
    commands.cancel([attempt.id], WHY)
    apply_all(tenant, apply)
    last = explain.explanation_of(attempt.id).happenings[-1]
    assert (last.actor, last.detail) == (JANA, {"reason": "CANCELLED_BY_USER", "note": WHY})
    for_company = explain.explanation(tenant.principal, None, attempt.interview_id, attempt.id).happenings[-1]
    assert (for_company.actor, for_company.detail["note"]) == ("operator", WHY)


@pytest.mark.parametrize("build", IN_PROGRESS)
def test_call_in_progress_is_left_out(tenant: Tenant, commands: OperatorCommands, build: object) -> None:
    assert callable(build)
    attempt = build(tenant)
    assert commands.cancel([attempt.id], WHY) == 0
    assert waiting(tenant) == []
    assert Acts(tenant.database).newest(AuditFilter(), None, 1) == []


def test_call_that_was_given_back_after_acceptance_is_cancelled(
    tenant: Tenant, commands: OperatorCommands, apply: Apply
) -> None:
    attempt, other = a_claimed_attempt(tenant), a_pending_attempt(tenant)
    assert commands.cancel([attempt.id, other.id], WHY) == 1
    tenant.dial.give_back(attempt, "A_TEST")
    assert commands.cancel([attempt.id], WHY) == 1
    apply_all(tenant, apply)
    assert ends_of(tenant, attempt, other) == [CANCELLED, CANCELLED]


def test_repeated_cancellation_stores_no_second_command(tenant: Tenant, commands: OperatorCommands) -> None:
    attempt = a_pending_attempt(tenant)
    assert [commands.cancel([attempt.id], WHY) for _ in range(2)] == [1, 0]
    assert len(waiting(tenant)) == 1


def test_client_that_was_first_wins(tenant: Tenant, commands: OperatorCommands, apply: Apply, accept: Perform) -> None:
    deleted, gone = a_pending_attempt(tenant), a_pending_attempt(tenant)
    accept(DeleteAttempt(interview_id=deleted.interview_id, attempt_id=deleted.id))
    accept(DeleteInterview(interview_id=gone.interview_id))
    assert commands.cancel([deleted.id, gone.id], WHY) == 2
    apply_all(tenant, apply)
    assert ends_of(tenant, deleted, gone) == [CANCELLED, (AttemptState.CANCELLED, Reason.INTERVIEW_DELETED)]
    assert tenant.history(deleted.id) == ["created", "cancelled", "deleted"]
    assert waiting(tenant) == []


def test_calls_of_a_deleted_company_are_left_out(tenant: Tenant, other: Tenant, commands: OperatorCommands) -> None:
    mine, theirs = a_pending_attempt(tenant), a_pending_attempt(other)
    tenant.change("UPDATE companies SET deleted_at = now() WHERE id = :id", id=tenant.company_id)
    assert commands.cancel([mine.id, theirs.id], WHY) == 1


def test_audit_counts_by_company(tenant: Tenant, other: Tenant, commands: OperatorCommands) -> None:
    attempts = [a_pending_attempt(each) for each in (tenant, other, tenant)]
    commands.cancel([each.id for each in attempts], WHY, {"state": "due"})
    entries = Acts(tenant.database).newest(AuditFilter(), None, 10)
    assert {each.company_id: each.after for each in entries} == {
        tenant.company_id: {"count": 2, "filter": {"state": "due"}},
        other.company_id: {"count": 1, "filter": {"state": "due"}},
    }
    assert {(each.actor, each.verb, each.reason) for each in entries} == {(JANA, "attempt.cancel", WHY)}


def test_one_cancelled_call_is_the_target_of_its_entry(tenant: Tenant, commands: OperatorCommands) -> None:
    attempt = a_pending_attempt(tenant)
    commands.cancel([attempt.id], WHY)
    [entry] = Acts(tenant.database).newest(AuditFilter(), None, 10)
    assert entry.target == f"attempt:{attempt.id}"


def test_batch_has_a_constant_number_of_statements(
    tenant: Tenant, commands: OperatorCommands, postgres_url: str
) -> None:
    def statements(count: int) -> int:
        ids = bulk_attempts(postgres_url, tenant, count, due_at=tenant.now())
        with statements_of(commands._database) as sent:
            assert commands.cancel(ids, WHY) == count
        return len(sent)

    one, many = statements(1), statements(20)
    assert one == many <= 9
    assert statements(BATCH_SIZE + 1) == 2 * one


def test_deadline_ends_a_large_cancellation_between_batches(
    tenant: Tenant, commands: OperatorCommands, postgres_url: str
) -> None:
    ids = bulk_attempts(postgres_url, tenant, BATCH_SIZE + 1, due_at=tenant.now())
    hurried = OperatorCommands(commands._database, tenant.now, JANA, batch_takes_s=1000)
    with deadline_in(100), pytest.raises(CancelledInPart, match="200 of 201 calls are cancelled"):
        hurried.cancel(ids, WHY)
    assert len(waiting(tenant)) == BATCH_SIZE
    assert commands.cancel(ids, WHY) == 1


def test_failure_after_a_batch_says_what_was_cancelled(
    tenant: Tenant, commands: OperatorCommands, postgres_url: str
) -> None:
    ids = bulk_attempts(postgres_url, tenant, BATCH_SIZE + 1, due_at=tenant.now())
    locked = tenant.attempt(ids[-1]).interview_id
    with tenant.database.transaction() as stores:
        assert stores.interviews.lock(locked)
        with pytest.raises(CancelledInPart, match="200 of 201"):
            commands.cancel(ids, WHY)
        with pytest.raises(DatabaseAway):
            commands.cancel(ids[-1:], WHY)
    assert len(waiting(tenant)) == BATCH_SIZE


@guards("cancellation")
def test_attempt_is_not_claimed_while_it_is_being_cancelled(tenant: Tenant) -> None:
    attempt = a_pending_attempt(tenant)
    with tenant.database.transaction() as accepting:
        assert [each.id for each in lock_pending(accepting, [attempt.id])] == [attempt.id]
        claims = tenant.dial.claim([attempt.id])
    assert claims.claimed == ()
    assert claims.waiting == {attempt.id}, "it is looked at again soon"


def test_console_stores_commands_of_operators_only(commands: OperatorCommands, tenant: Tenant) -> None:
    columns = "id, principal_id, company_id, request_hash, kind, body, received_at, rung_at, failures"
    values = ":id, :principal, :company, '', :kind, '{}', now(), now(), 0"
    for principal, kind, may in (
        (OPERATORS, "cancel_attempt", True),
        (OPERATORS, "delete_attempt", False),
        (tenant.company_id, "cancel_attempt", False),
    ):
        with commands._database.transaction() as stores, nullcontext() if may else pytest.raises(ProgrammingError):
            stores.connection.execute(
                text(f"INSERT INTO inbox ({columns}) VALUES ({values})"),
                {"id": uuid4(), "principal": principal, "company": tenant.company_id, "kind": kind},
            )
