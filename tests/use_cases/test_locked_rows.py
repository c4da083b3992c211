"""Rows of one company that another transaction has locked: everything of other companies is done without waiting.

Each test counts transactions or rounds: the others are done in the first one, while the lock is held.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from scheduler.domain.attempt import Attempt, Phase, Reason
from scheduler.domain.batch import BatchState
from scheduler.domain.call import Accepted
from scheduler.domain.command import CommandKind, DeleteAttempt, UpdateInterview
from scheduler.persistence.json_columns import request_as_json
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.apply_batches import ApplyBatches
from scheduler.use_cases.dialling.record import SomeHeld
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.resources.batches import Batches
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites
from scheduler.use_cases.shared import hints as tasks
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_candidate,
    a_claimed_attempt,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    a_waiting_command,
)
from tests.support.statements import statements_of
from tests.use_cases.conftest import Perform
from tests.use_cases.test_apply import a_wish, sent
from tests.use_cases.test_apply_batches import count, shown
from tests.use_cases.test_apply_batches import stored as stored_batch
from tests.use_cases.test_batches import BUSY, stored
from tests.use_cases.test_hear import a_form
from tests.use_cases.webhooks.endpoints import ACCEPTED, EVERYTHING, ScriptedSender, Webhooks
from workers.tasks import _together

LOCKS = {
    "company": "SELECT FROM companies WHERE id = ANY (%s) FOR UPDATE",
    "candidate": "SELECT FROM candidates WHERE id = ANY (%s) FOR UPDATE",
    "interview": "SELECT FROM interviews WHERE id = ANY (%s) FOR UPDATE",
    "attempt": "SELECT FROM attempts WHERE id = ANY (%s) FOR UPDATE",
    "endpoint": "SELECT FROM webhook_endpoints WHERE id = ANY (%s) FOR UPDATE",
}


@contextmanager
def held(url: str, table: str, ids: Sequence[UUID]) -> Iterator[None]:
    """A transaction of an operator that is forgotten until the end."""
    with psycopg.connect(url) as connection:
        connection.execute(LOCKS[table].encode(), [list(ids)])
        yield


def begun(statements: Sequence[str]) -> int:
    return sum("BEGIN" in each for each in statements)


def put_off(hints: RecordingHints) -> set[UUID]:
    return {each for _, ids, _ in hints.put_off for each in ids}


# ---- commands


@guards("held_candidate")
def test_commands_of_a_locked_candidate_delay_no_other(
    tenant: Tenant, other: Tenant, apply: Apply, hints: RecordingHints, postgres_url: str
) -> None:
    candidate_id = a_candidate(other).id
    stuck = [sent(other, a_wish(other, candidate_id=candidate_id)).id for _ in range(19)]
    mine = sent(tenant, a_wish(tenant)).id
    with held(postgres_url, "candidate", [candidate_id]), statements_of(tenant.database) as statements:
        assert apply.batch([*stuck, mine]) == []
        assert hints.answers == [mine]
        assert begun(statements) == 1, "nothing is tried again"
    assert put_off(hints) == set(stuck)
    assert apply.batch(stuck) == []
    assert count(tenant, "interviews") == 20


@guards("held_command")
@pytest.mark.parametrize("table", ["interview", "attempt", "company"])
def test_commands_of_locked_interviews_delay_no_other(
    tenant: Tenant,
    other: Tenant,
    apply: Apply,
    accept: Perform,
    hints: RecordingHints,
    postgres_url: str,
    table: str,
) -> None:
    theirs = [a_pending_attempt(other) for _ in range(5)]
    mine = a_pending_attempt(tenant)
    stuck = [_cancelling(other, each) for each in theirs]
    free = accept(_cancel(mine)).id
    ids = {"interview": [each.interview_id for each in theirs], "attempt": [each.id for each in theirs]}
    ids["company"] = [other.company_id]
    with held(postgres_url, table, ids[table]), capture_logs() as logs:
        _together([*stuck, free], apply.batch, apply.command)
        assert tenant.attempt(mine.id).reason is Reason.CANCELLED_BY_USER
    assert not [each for each in logs if "conflict" in each["event"]], "nothing waited for a lock"
    assert put_off(hints) == set(stuck)
    _together(stuck, apply.batch, apply.command)
    assert {other.attempt(each.id).reason for each in theirs} == {Reason.CANCELLED_BY_USER}


def test_commands_of_a_locked_interview_keep_their_order(
    tenant: Tenant, apply: Apply, accept: Perform, hints: RecordingHints, postgres_url: str
) -> None:
    attempt = a_pending_attempt(tenant)
    first, second = (
        accept(UpdateInterview(interview_id=attempt.interview_id, metadata={"step": step})) for step in ("1", "2")
    )
    with held(postgres_url, "interview", [attempt.interview_id]):
        _together([first.id, second.id], apply.batch, apply.command)
        assert put_off(hints) == {first.id}, "the second one is not next"
    apply.command(second.id)
    assert hints.answers == []
    apply.command(first.id)
    apply.command(second.id)
    assert hints.answers == [first.id, second.id]
    assert tenant.interview(attempt.interview_id).metadata == {"step": "2"}


def test_lock_that_is_not_skipped_delays_only_its_company(
    tenant: Tenant, other: Tenant, apply: Apply, hints: RecordingHints, postgres_url: str
) -> None:
    stuck = [sent(other, a_wish(other)).id for _ in range(10)]
    mine = [sent(tenant, a_wish(tenant)).id for _ in range(3)]
    with psycopg.connect(postgres_url) as connection, statements_of(tenant.database) as statements:
        connection.execute("SELECT FROM agents WHERE id = %s FOR UPDATE", [other.agent_id])
        assert apply.batch([*stuck, *mine]) == []
        assert set(hints.answers) == set(mine)
        # All together, the companies of the commands, and each of the two companies.
        assert begun(statements) == 4
    assert apply.batch(stuck) == []


def test_hint_of_a_locked_command_follows_soon(
    tenant: Tenant, apply: Apply, accept: Perform, hints: RecordingHints, now: TestClock, postgres_url: str
) -> None:
    attempt = a_pending_attempt(tenant)
    command = accept(_cancel(attempt))
    with held(postgres_url, "interview", [attempt.interview_id]):
        for waited in (0.0, 0.3, 5.0, 20.0):
            now.instant = command.received_at + timedelta(seconds=waited)
            apply.command(command.id)
    assert hints.put_off == [(tasks.APPLY, (command.id,), after) for after in (0.1, 0.3, 1.0)]


# ---- callbacks


def test_callbacks_of_locked_interviews_delay_no_other(
    tenant: Tenant, other: Tenant, hear: Hear, hints: RecordingHints, postgres_url: str
) -> None:
    theirs, mine = [a_placed_attempt(other) for _ in range(40)], a_placed_attempt(tenant)
    event_ids = stored(hear, hints, [(each, a_form(each, **BUSY)) for each in (*theirs, mine)])
    with (
        held(postgres_url, "interview", [each.interview_id for each in theirs]),
        statements_of(tenant.database) as statements,
    ):
        _together(event_ids, hear.batch, hear.event)
        assert begun(statements) == 1
        assert tenant.attempt(mine.id).reason is Reason.BUSY
    assert put_off(hints) == set(event_ids[:-1])
    _together(event_ids, hear.batch, hear.event)
    assert {other.attempt(each.id).reason for each in theirs} == {Reason.BUSY}


# ---- batches


@guards("held_item", "held_candidate")
def test_batch_of_a_locked_person_delays_no_other_batch(
    tenant: Tenant, other: Tenant, hints: RecordingHints, now: TestClock, postgres_url: str
) -> None:
    candidate_id = a_candidate(other).id
    writes = IdempotentWrites(tenant.database, tenant.now)
    lists = Batches(tenant.database, writes, hints)
    work = ApplyBatches(tenant.context, hints)
    stuck = stored_batch(lists, other, [a_wish(other, candidate_id=candidate_id) for _ in range(100)])
    mine = stored_batch(lists, tenant, [a_wish(tenant) for _ in range(3)])
    with held(postgres_url, "candidate", [candidate_id]), statements_of(tenant.database) as statements:
        work.turn()
        # A look and the first items of each batch, and the look that finds nothing.
        assert begun(statements) == 5
        assert shown(lists, tenant, mine).state is BatchState.COMPLETED
        assert shown(lists, other, stuck).waiting == 100
    now.move(timedelta(seconds=5))
    work.turn()
    assert shown(lists, other, stuck).state is BatchState.COMPLETED


# ---- records of calls


def test_record_of_a_locked_interview_delays_no_other(tenant: Tenant, other: Tenant, postgres_url: str) -> None:
    theirs, mine = [a_claimed_attempt(other) for _ in range(10)], a_claimed_attempt(tenant)
    answers = [(each, Accepted(call_sid=a_sid())) for each in (*theirs, mine)]
    with (
        held(postgres_url, "interview", [each.interview_id for each in theirs]),
        statements_of(tenant.database) as statements,
        pytest.raises(SomeHeld) as raised,
    ):
        tenant.dial.record(answers)
    assert tenant.attempt(mine.id).phase is Phase.PLACED
    assert begun(statements) == 1
    assert raised.value.attempt_ids == {each.id for each in theirs}
    tenant.dial.record([each for each in answers if each[0].id in raised.value.attempt_ids])
    assert {other.attempt(each.id).phase for each in theirs} == {Phase.PLACED}


# ---- webhooks


def test_result_of_a_locked_endpoint_delays_no_other(
    tenant: Tenant, other: Tenant, hints: RecordingHints, postgres_url: str
) -> None:
    theirs, mine = (Webhooks(tenant=each, hints=hints) for each in (other, tenant))
    stuck, free = theirs.endpoint(), mine.endpoint()
    for each in (theirs, theirs, mine):
        each.event(uuid4())
    mine.number()
    deliver = mine.deliver(ScriptedSender(ACCEPTED))
    results = [deliver.send(each) for each in deliver.claim(EVERYTHING)]
    with held(postgres_url, "endpoint", [stuck]), statements_of(tenant.database) as statements:
        left = deliver.record(results)
        assert begun(statements) == 1
        assert {each.state for each in mine.deliveries(free)} == {"DELIVERED"}
    assert {each.claimed.delivery.endpoint_id for each in left} == {stuck}
    assert deliver.record(left) == []
    assert {each.state for each in mine.deliveries(stuck)} == {"DELIVERED"}


def _cancel(attempt: Attempt) -> DeleteAttempt:
    return DeleteAttempt(interview_id=attempt.interview_id, attempt_id=attempt.id)


def _cancelling(tenant: Tenant, attempt: Attempt) -> UUID:
    """Store the command that cancels an attempt of this company."""
    body = request_as_json(CommandKind.DELETE_ATTEMPT, _cancel(attempt))
    command = a_waiting_command(tenant, attempt.interview_id, body)
    tenant.change("UPDATE inbox SET kind = 'delete_attempt' WHERE id = :id", id=command.id)
    return command.id
