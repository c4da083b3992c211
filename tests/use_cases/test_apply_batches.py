"""Batches: each item is decided as a single request, once, whatever fails, and by as many statements as one."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from scheduler import failpoints
from scheduler.domain.attempt import AttemptState, Reason
from scheduler.domain.batch import ITEMS_A_TRANSACTION, Batch, BatchState, ItemState
from scheduler.domain.command import CommandKind, CreateInterview, refusal_of
from scheduler.domain.interview import InterviewStatus, NewJob
from scheduler.domain.refusals import InvalidFields
from scheduler.domain.resource import NEWEST_FIRST, KeysetSlice
from scheduler.persistence.batches import Work
from scheduler.persistence.errors import CommitInDoubt
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.apply_batches import ApplyBatches
from scheduler.use_cases.operations.erase import Erase, Purge
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.agents import add_job
from scheduler.use_cases.resources.batches import Batches
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest
from scheduler.use_cases.shared import hints as tasks
from scheduler.wire.batches import Item
from tests.architecture.guards import guards
from tests.conftest import TestClock
from tests.support.builders import RecordingHints, Tenant, a_candidate, a_number, a_write
from tests.support.statements import statements_of
from tests.use_cases.conftest import refusing, with_reader
from tests.use_cases.test_apply import a_new_candidate, a_wish, answer_of, sent
from tests.use_cases.test_intake_statements import sent_within
from tests.use_cases.test_partner_events import noted


class Died(BaseException):
    """The process ends here."""


@pytest.fixture
def bulk(tenant: Tenant, hints: RecordingHints) -> ApplyBatches:
    return ApplyBatches(tenant.context, hints)


def write(tenant: Tenant, kind: CommandKind, key: str | None = None) -> WriteRequest:
    return a_write(kind, tenant.principal, key=key, request_hash=b"same")


def stored(batches: Batches, tenant: Tenant, wishes: Sequence[CreateInterview | None], key: str | None = None) -> Batch:
    """Store a batch. None is an item that was refused at once."""
    refused = refusal_of(InvalidFields(fields=[]))
    items = [
        Item(index=index, refusal=refused)
        if wish is None
        else Item(index=index, request=wish, external_id=wish.external_id)
        for index, wish in enumerate(wishes)
    ]
    batch = batches.create(write(tenant, CommandKind.CREATE_BATCH, key), None, "a test", items).record
    assert isinstance(batch, Batch)
    return batch


def shown(batches: Batches, tenant: Tenant, batch: Batch) -> Batch:
    return batches.get(tenant.principal, None, batch.id)


def items_of(batches: Batches, tenant: Tenant, batch: Batch, state: ItemState | None = None) -> Any:
    return batches.items(tenant.principal, None, batch.id, state, -1, 100).items


def cancel(batches: Batches, tenant: Tenant, batch: Batch) -> Batch:
    record = batches.cancel(write(tenant, CommandKind.CANCEL_BATCH), None, batch.id).record
    assert isinstance(record, Batch)
    return record


def count(tenant: Tenant, table: str) -> int:
    return int(tenant.ask(f"SELECT count(*) FROM {table}")[0][0])


def work_of(tenant: Tenant) -> Work:
    with tenant.database.transaction() as stores:
        work = stores.batches.next_work(tenant.now(), ITEMS_A_TRANSACTION)
    assert work is not None
    return work


# ---- applying


def test_batch_creates_an_interview_for_each_item(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(150)])
    assert (batch.state, batch.waiting) == (BatchState.ACCEPTED, 150)
    bulk.turn()
    done = shown(batches, tenant, batch)
    assert (done.state, done.applied, done.refused, done.waiting) == (BatchState.COMPLETED, 150, 0, 0)
    assert done.finished_at is not None
    assert done.first_due_at is not None
    assert count(tenant, "interviews") == 150
    assert count(tenant, "attempts") == 150
    assert count(tenant, "batch_items WHERE body IS NOT NULL") == 0
    items = items_of(batches, tenant, batch)
    assert [each.index for each in items] == list(range(100))
    assert {each.state for each in items} == {ItemState.APPLIED}


def test_item_gets_the_error_of_a_single_request(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, apply: Apply
) -> None:
    wrong = [
        a_wish(tenant, candidate_id=uuid4()),
        a_wish(tenant, scheduled_at="2026-13-01T09:00:00Z"),
        a_wish(tenant, candidate=a_new_candidate("+4219")),
        a_wish(tenant, job_id=uuid4()),
        a_wish(tenant, scheduled_at="1999-01-01T09:00:00Z", time_name="scheduleTime"),
    ]
    batch = stored(batches, tenant, [*wrong, a_wish(tenant)])
    bulk.turn()
    errors = [each.error for each in items_of(batches, tenant, batch, ItemState.REFUSED)]
    for wish, error in zip(wrong, errors, strict=True):
        command = sent(tenant, wish)
        apply.command(command.id)
        assert answer_of(tenant, command).refusal == error
    assert shown(batches, tenant, batch).applied == 1
    assert count(tenant, "interviews") == 1


def test_item_refused_at_once_is_not_applied(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    batch = stored(batches, tenant, [None, a_wish(tenant), None])
    assert batch.refused == 2
    bulk.turn()
    done = shown(batches, tenant, batch)
    assert (done.state, done.applied, done.refused) == (BatchState.COMPLETED, 1, 2)


def test_batch_of_refused_items_is_completed_at_once(tenant: Tenant, batches: Batches, hints: RecordingHints) -> None:
    with_reader(tenant)
    batch = stored(batches, tenant, [None, None])
    assert batch.state is BatchState.COMPLETED
    assert noted(tenant) == ["batch.completed"]
    assert hints.rings == []


def test_completion_is_reported_once_with_its_counts(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    with_reader(tenant)
    batch = stored(batches, tenant, [a_wish(tenant), None])
    bulk.turn()
    bulk.turn()
    [[data]] = tenant.ask("SELECT data FROM events WHERE type = 'batch.completed'")
    assert data == {"batchId": str(batch.id), "status": "COMPLETED", "applied": 1, "refused": 1, "cancelled": 0}
    assert noted(tenant) == ["interview.scheduled", "call_attempt.scheduled", "batch.completed"]


def test_time_is_judged_as_of_the_receipt(tenant: Tenant, batches: Batches, bulk: ApplyBatches, now: TestClock) -> None:
    soon = (now() + timedelta(seconds=30)).isoformat()
    batch = stored(batches, tenant, [a_wish(tenant, scheduled_at=soon)])
    now.move(timedelta(minutes=3))
    bulk.turn()
    assert shown(batches, tenant, batch).applied == 1


def test_statements_do_not_grow_with_the_items(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    counts = set()
    for number in (1, 10):
        wishes = [a_wish(tenant, external_id=f"{number}-{each}") for each in range(number)]
        with statements_of(tenant.database) as storing:
            stored(batches, tenant, wishes)
        with statements_of(tenant.database) as applying:
            bulk.turn()
        counts.add((len(sent_within(storing)), len(sent_within(applying))))
    assert len(counts) == 1, counts


def _of_named_candidates(tenant: Tenant, size: int) -> list[CreateInterview]:
    return [a_wish(tenant, candidate_id=a_candidate(tenant).id) for _ in range(size)]


def _of_one_candidate(tenant: Tenant, size: int) -> list[CreateInterview]:
    candidate_id = a_candidate(tenant).id
    return [a_wish(tenant, candidate_id=candidate_id) for _ in range(size)]


def _of_new_external_ids(tenant: Tenant, size: int) -> list[CreateInterview]:
    ids = [uuid4().hex for _ in range(size)]
    return [a_wish(tenant, candidate=replace(a_new_candidate(), external_id=each), external_id=each) for each in ids]


def _of_existing_candidates(tenant: Tenant, size: int) -> list[CreateInterview]:
    """Build wishes with candidates that an earlier command has created, named by external ids."""
    wishes = [replace(each, external_id=None) for each in _of_new_external_ids(tenant, size)]
    _applied_before(tenant, wishes)
    return wishes


def _of_existing_interviews(tenant: Tenant, size: int) -> list[CreateInterview]:
    wishes = _of_new_external_ids(tenant, size)
    _applied_before(tenant, wishes)
    return wishes


def _of_a_job(tenant: Tenant, size: int) -> list[CreateInterview]:
    """Build wishes with new candidates and a job that exists."""
    with tenant.database.transaction() as stores:
        job_id = add_job(stores, tenant.company_id, NewJob(title="Baker", description="Bread"), tenant.now()).id
    return [a_wish(tenant, job_id=job_id) for _ in range(size)]


def _applied_before(tenant: Tenant, wishes: Sequence[CreateInterview]) -> None:
    batches = Batches(tenant.database, IdempotentWrites(tenant.database, tenant.now), RecordingHints())
    stored(batches, tenant, wishes)
    ApplyBatches(tenant.context, RecordingHints()).turn()


@pytest.mark.parametrize(
    ("wishes", "for_each"),
    [
        pytest.param(_of_named_candidates, 3, id="named candidates"),
        pytest.param(_of_one_candidate, 6, id="one candidate"),
        pytest.param(_of_new_external_ids, 0, id="new external ids"),
        pytest.param(_of_existing_candidates, 3, id="existing candidates"),
        pytest.param(_of_existing_interviews, 2, id="existing interviews"),
        pytest.param(_of_a_job, 1, id="a job"),
    ],
)
def test_items_that_name_rows_take_few_statements_each(
    tenant: Tenant,
    batches: Batches,
    bulk: ApplyBatches,
    wishes: Callable[[Tenant, int], list[CreateInterview]],
    for_each: int,
) -> None:
    """A row that an item names is locked and read when its turn comes, after what earlier items have changed."""
    counts = {}
    for size in (1, 2, 10):
        stored(batches, tenant, wishes(tenant, size))
        work = work_of(tenant)
        with statements_of(tenant.database) as applying:
            bulk._do(work)
        counts[size] = len(sent_within(applying))
    per_item = [(counts[size] - counts[1]) / (size - 1) for size in (2, 10)]
    assert per_item == [for_each] * 2, counts


# ---- external ids


def test_batch_sent_again_creates_only_what_is_missing(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    wishes = [a_wish(tenant, external_id=f"row-{number}") for number in range(3)]
    first = stored(batches, tenant, wishes[:2])
    bulk.turn()
    again = stored(batches, tenant, wishes)
    bulk.turn()
    before, after = items_of(batches, tenant, first), items_of(batches, tenant, again)
    assert [each.interview_id for each in after[:2]] == [each.interview_id for each in before]
    assert [each.existed for each in after] == [True, True, False]
    assert [each.external_id for each in after] == ["row-0", "row-1", "row-2"]
    assert count(tenant, "interviews") == 3


@guards("external_content")
def test_other_content_of_an_external_id_is_refused(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    wish = a_wish(tenant, external_id="row")
    batch = stored(batches, tenant, [wish, replace(wish, is_test=True), wish])
    bulk.turn()
    first, second, third = items_of(batches, tenant, batch)
    assert second.error.code == "EXTERNAL_ID_REUSED"
    assert second.external_id == "row"
    assert third.interview_id == first.interview_id
    assert count(tenant, "interviews") == 1


# ---- idempotency, crashes, failures


def test_batch_with_the_same_key_is_stored_once(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    first = stored(batches, tenant, [a_wish(tenant)], "key")
    bulk.turn()
    again = stored(batches, tenant, [a_wish(tenant)], "key")
    assert again == first
    assert (count(tenant, "batches"), count(tenant, "interviews")) == (1, 1)


@pytest.mark.parametrize("name", failpoints.OF_BATCHES[:-1])
def test_crash_anywhere_leaves_each_item_once(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def die() -> None:
        failpoints.arm("")
        raise Died

    monkeypatch.setattr(failpoints, "_act", die)
    failpoints.arm(name)
    wishes = [a_wish(tenant) for _ in range(3)]
    died = False
    try:
        stored(batches, tenant, wishes, "key")
        bulk.turn()
    except Died:
        died = True
    finally:
        failpoints.arm("")
    assert died
    batch = stored(batches, tenant, wishes, "key")
    bulk.turn()
    assert shown(batches, tenant, batch).applied == 3
    assert (count(tenant, "interviews"), count(tenant, "attempts"), count(tenant, "batches")) == (3, 3, 1)


@guards("item_once")
def test_second_worker_does_not_apply_an_item_again(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    """Both have read the same work. The batch goes on, so only the item itself tells that it is applied."""
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(2)])
    for _ in range(2):
        bulk._apply(batch.id, [0])
    running = shown(batches, tenant, batch)
    assert (running.state, running.applied, running.waiting) == (BatchState.RUNNING, 1, 1)
    assert count(tenant, "interviews") == 1


def poison(tenant: Tenant, batch: Batch, index: int) -> None:
    """Store a body that cannot be read."""
    tenant.change(
        "UPDATE batch_items SET body = :body WHERE batch_id = :id AND index = :index",
        body=json.dumps({"agent_id": "no id"}),
        id=batch.id,
        index=index,
    )


def test_item_that_fails_does_not_stop_the_others(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, now: TestClock
) -> None:
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(10)])
    poison(tenant, batch, 4)
    with capture_logs() as lines:
        bulk.turn()
    running = shown(batches, tenant, batch)
    assert (running.state, running.applied, running.waiting) == (BatchState.RUNNING, 9, 1)
    assert [line["index"] for line in lines if line["event"].startswith("batch_item_failed")] == [4]
    for _ in range(4):
        now.move(timedelta(seconds=6))
        bulk.turn()
    done = shown(batches, tenant, batch)
    assert (done.state, done.applied, done.refused) == (BatchState.COMPLETED, 9, 1)
    [item] = items_of(batches, tenant, batch, ItemState.REFUSED)
    assert (item.index, item.error.code) == (4, "INTERNAL_ERROR")


def test_failed_item_is_never_applied_with_others_again(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, now: TestClock
) -> None:
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(3)])
    poison(tenant, batch, 0)
    bulk.turn()
    now.move(timedelta(seconds=6))
    other = stored(batches, tenant, [a_wish(tenant) for _ in range(3)])
    with capture_logs() as lines:
        bulk.turn()
    assert not [line for line in lines if line["event"].startswith("batch_split")]
    assert shown(batches, tenant, other).applied == 3


def test_commit_in_doubt_is_not_counted_as_a_failure(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(batches, tenant, [a_wish(tenant)])

    def doubt(*_: Any, **__: Any) -> None:
        raise CommitInDoubt("lost")

    with monkeypatch.context() as patched:
        patched.setattr(ApplyBatches, "_apply_item", doubt)
        with pytest.raises(CommitInDoubt):
            bulk.turn()
    assert tenant.ask("SELECT failures FROM batch_items") == [(0,)]


# ---- turns


def test_companies_take_turns(
    tenant: Tenant, other: Tenant, batches: Batches, bulk: ApplyBatches, now: TestClock
) -> None:
    stored(batches, tenant, [a_wish(tenant) for _ in range(201)])
    now.move(timedelta(seconds=1))
    small = stored(batches, other, [a_wish(other)])
    order = []
    for _ in range(4):
        with tenant.database.transaction() as stores:
            work = stores.batches.next_work(now(), 100)
        assert work is not None
        order.append(work.batch_id == small.id)
        now.move(timedelta(milliseconds=10))
        bulk._do(work)
    assert order == [False, True, False, False]


def test_batch_goes_on_in_another_turn(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, hints: RecordingHints, short_turns: None
) -> None:
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(ITEMS_A_TRANSACTION + 1)])
    hints.rings.clear()
    bulk.turn()
    assert (shown(batches, tenant, batch).applied, hints.rings) == (ITEMS_A_TRANSACTION, [(tasks.BATCHES, ())])
    bulk.turn()
    assert shown(batches, tenant, batch).state is BatchState.COMPLETED


def test_single_commands_of_the_company_go_first(
    tenant: Tenant, batches: Batches, now: TestClock, apply: Apply
) -> None:
    stored(batches, tenant, [a_wish(tenant)])
    command = sent(tenant, a_wish(tenant))
    with tenant.database.transaction() as stores:
        assert stores.batches.next_work(now(), 100) is None
        assert stores.batches.next_work(now() + timedelta(seconds=2), 100) is not None
    apply.command(command.id)
    with tenant.database.transaction() as stores:
        assert stores.batches.next_work(now(), 100) is not None


def test_clock_sends_a_hint_for_a_batch_without_worker(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, now: TestClock, hints: RecordingHints
) -> None:
    release = Release(tenant.context, hints, tenant.account_id)
    stored(batches, tenant, [a_wish(tenant)])
    hints.rings.clear()
    release.hint_sweep()
    assert tasks.BATCHES not in [task for task, _ in hints.rings]
    now.move(timedelta(seconds=3))
    release.hint_sweep()
    assert tasks.BATCHES in [task for task, _ in hints.rings]
    bulk.turn()
    hints.rings.clear()
    release.hint_sweep()
    assert tasks.BATCHES not in [task for task, _ in hints.rings]


def test_batch_in_a_state_of_a_later_release_is_not_due(tenant: Tenant, batches: Batches, now: TestClock) -> None:
    """Otherwise a worker would ask for it every 50 ms, and a hint would follow each turn."""
    stored(batches, tenant, [a_wish(tenant)])
    with suppress(Died), tenant.database.transaction() as stores:
        assert stores.batches.is_one_due(now())
        stores.connection.execute(text("ALTER TABLE batches DROP CONSTRAINT ck_batches_state"))
        stores.connection.execute(text("UPDATE batches SET state = 'OF_A_LATER_RELEASE'"))
        assert stores.batches.next_work(now(), 100) is None
        assert not stores.batches.is_one_due(now())
        raise Died  # the constraint is kept


# ---- pause, resume, cancel


def pause(batches: Batches, tenant: Tenant, batch: Batch) -> Any:
    return batches.pause(write(tenant, CommandKind.PAUSE_BATCH), None, batch.id)


@guards("batch_stopped")
@pytest.mark.parametrize("state", [BatchState.PAUSED, BatchState.CANCELLED])
def test_worker_stops_for_a_change_since_it_read_its_work(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, state: BatchState
) -> None:
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(2)])
    work = work_of(tenant)
    if state is BatchState.PAUSED:
        pause(batches, tenant, batch)
    else:
        cancel(batches, tenant, batch)
    bulk._do(work)
    assert (shown(batches, tenant, batch).state, count(tenant, "interviews")) == (state, 0)


@guards("batch_company")
def test_key_of_another_company_changes_no_batch(
    tenant: Tenant, other: Tenant, batches: Batches, bulk: ApplyBatches
) -> None:
    batch = stored(batches, tenant, [a_wish(tenant)])
    for verb in (batches.pause, batches.resume, batches.cancel):
        refusal = verb(write(other, CommandKind.CANCEL_BATCH), None, batch.id).refusal
        assert refusal is not None
        assert refusal.family == "NotFound"
    bulk.turn()
    assert shown(batches, tenant, batch).state is BatchState.COMPLETED


def test_paused_batch_creates_nothing_until_resumed(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    batch = stored(batches, tenant, [a_wish(tenant)])
    pause(batches, tenant, batch)
    bulk.turn()
    assert (shown(batches, tenant, batch).state, count(tenant, "interviews")) == (BatchState.PAUSED, 0)
    batches.resume(write(tenant, CommandKind.RESUME_BATCH), None, batch.id)
    bulk.turn()
    assert shown(batches, tenant, batch).state is BatchState.COMPLETED


@guards("batch_paused")
def test_failure_of_a_paused_batch_does_not_resume_it(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(3)])
    tenant.change("UPDATE batch_items SET failures = 4 WHERE index = 0")
    pause(batches, tenant, batch)
    bulk._count_failure(batch.id, 0, "somewhere")  # the item failed just before the pause
    bulk.turn()
    assert (shown(batches, tenant, batch).state, count(tenant, "interviews")) == (BatchState.PAUSED, 0)


@guards("batch_finished")
def test_finished_batch_is_neither_paused_nor_resumed(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    batch = stored(batches, tenant, [a_wish(tenant)])
    bulk.turn()
    for verb in (batches.pause, batches.resume):
        refusal = verb(write(tenant, CommandKind.PAUSE_BATCH), None, batch.id).refusal
        assert refusal is not None
        assert refusal.code == "BATCH_FINISHED"


@guards("batch_cancel", "batch_no_more")
def test_cancelled_batch_cancels_items_and_pending_calls(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    with_reader(tenant)
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(3)])
    bulk.turn()
    open_batch = stored(batches, tenant, [a_wish(tenant) for _ in range(2)])
    noted(tenant)
    assert cancel(batches, tenant, open_batch).cancelled == 2
    done = cancel(batches, tenant, batch)
    assert (done.state, done.applied, done.finished_at is not None) == (BatchState.CANCELLED, 3, True)
    for item in items_of(batches, tenant, batch):
        assert tenant.interview(item.interview_id).status is InterviewStatus.CANCELLED
        [attempt] = tenant.attempts(item.interview_id)
        assert (attempt.state, attempt.reason) == (AttemptState.CANCELLED, Reason.CANCELLED_BY_USER)
    assert count(tenant, "batch_items WHERE body IS NOT NULL") == 0
    assert noted(tenant).count("batch.completed") == 2
    bulk.turn()
    assert count(tenant, "interviews") == 3


def test_long_cancellation_is_continued_by_a_worker(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, hints: RecordingHints
) -> None:
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(ITEMS_A_TRANSACTION + 1)])
    bulk.turn()
    hints.rings.clear()
    assert cancel(batches, tenant, batch).finished_at is None
    assert [task for task, _ in hints.rings] == [tasks.BATCHES]
    assert count(tenant, "attempts WHERE state = 'PENDING'") == 1
    bulk.turn()
    assert shown(batches, tenant, batch).finished_at is not None
    assert count(tenant, "attempts WHERE state = 'PENDING'") == 0


def test_failing_cancellation_holds_up_no_other_batch(
    tenant: Tenant, other: Tenant, batches: Batches, bulk: ApplyBatches
) -> None:
    stuck = stored(batches, tenant, [a_wish(tenant) for _ in range(101)])
    bulk.turn()
    assert cancel(batches, tenant, stuck).finished_at is None
    small = stored(batches, other, [a_wish(other)])
    with refusing(tenant, "UPDATE ON interviews", f"OLD.company_id = '{tenant.company_id}'"):
        bulk.turn()
    assert shown(batches, other, small).state is BatchState.COMPLETED
    assert shown(batches, tenant, stuck).finished_at is None


@guards("item_existed")
def test_cancelling_leaves_interviews_of_earlier_requests(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    wish = a_wish(tenant, external_id="row")
    first = stored(batches, tenant, [wish])
    bulk.turn()
    second = stored(batches, tenant, [wish])
    bulk.turn()
    cancel(batches, tenant, second)
    [item] = items_of(batches, tenant, first)
    assert tenant.interview(item.interview_id).status is InterviewStatus.SCHEDULED


def test_cancelled_batch_stays_cancelled(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    batch = stored(batches, tenant, [a_wish(tenant)])
    first = cancel(batches, tenant, batch)
    bulk.turn()
    assert cancel(batches, tenant, batch) == first
    assert count(tenant, "interviews") == 0


# ---- reads, retention


def test_batches_are_listed_newest_first(tenant: Tenant, batches: Batches, other: Tenant, now: TestClock) -> None:
    ids = []
    for _ in range(3):
        ids.append(stored(batches, tenant, [None]).id)
        now.move(timedelta(seconds=1))
    stored(batches, other, [None])
    page = batches.page(tenant.principal, None, KeysetSlice(limit=2, sort=NEWEST_FIRST))
    assert [each.id for each in page.items] == [ids[2], ids[1]]
    rest = batches.page(tenant.principal, None, KeysetSlice(limit=2, sort=NEWEST_FIRST, after=page.next))
    assert [each.id for each in rest.items] == [ids[0]]


def test_pace_tells_when_the_last_item_is_applied(tenant: Tenant, batches: Batches) -> None:
    batch = stored(batches, tenant, [a_wish(tenant)])
    assert batch.expected_done_at(tenant.now()) is None
    at = tenant.now()
    running = replace(
        batch, state=BatchState.RUNNING, total=300, applied=100, started_at=at, updated_at=at + timedelta(seconds=1)
    )
    assert running.expected_done_at(at) == at + timedelta(seconds=2)


def test_finished_batch_is_purged_after_a_month(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, now: TestClock, hints: RecordingHints
) -> None:
    stored(batches, tenant, [a_wish(tenant)])
    bulk.turn()
    purge = Purge(tenant.database, hints, tenant.now)
    now.move(timedelta(days=29))
    purge.round()
    assert count(tenant, "batch_items") == 1
    now.move(timedelta(days=2))
    purge.round()
    assert (count(tenant, "batches"), count(tenant, "batch_items")) == (0, 0)


def test_paused_batch_is_cancelled_after_a_month(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, now: TestClock, hints: RecordingHints
) -> None:
    with_reader(tenant)
    batch = stored(batches, tenant, [a_wish(tenant) for _ in range(ITEMS_A_TRANSACTION + 1)])
    bulk._do(work_of(tenant))
    pause(batches, tenant, batch)
    now.move(timedelta(days=31))
    Purge(tenant.database, hints, tenant.now).round()
    assert count(tenant, "batch_items WHERE body IS NOT NULL") == 0
    bulk.turn()
    done = shown(batches, tenant, batch)
    assert (done.state, done.cancelled, done.finished_at is not None) == (BatchState.CANCELLED, 1, True)
    assert count(tenant, "attempts WHERE state = 'PENDING'") == 0
    assert noted(tenant).count("batch.completed") == 1


def test_erasure_of_a_company_deletes_its_batches(
    tenant: Tenant, batches: Batches, bulk: ApplyBatches, hints: RecordingHints
) -> None:
    stored(batches, tenant, [a_wish(tenant)])
    bulk.turn()
    stored(batches, tenant, [a_wish(tenant), None])
    with tenant.database.transaction() as stores:
        stores.companies.delete(tenant.company_id, tenant.now())
        stores.erasures.ask(tenant.company_id, tenant.now())
    Erase(tenant.context, hints).company(tenant.company_id)
    [[erased]] = tenant.ask("SELECT erased FROM erasures")
    assert (erased["batches"], erased["batchItems"]) == (2, 3)
    assert (count(tenant, "batches"), count(tenant, "batch_items")) == (0, 0)


def test_deleted_candidate_leaves_no_data_in_items(tenant: Tenant, batches: Batches, bulk: ApplyBatches) -> None:
    number = a_number()
    stored(batches, tenant, [a_wish(tenant, candidate=a_new_candidate(number, first_name="Zdenka"))])
    stored(batches, tenant, [a_wish(tenant, candidate_id=a_candidate(tenant, number).id, external_id="z")])
    bulk.turn()
    text = str(tenant.ask("SELECT row_to_json(i) FROM batch_items i"))
    assert number not in text
    assert "Zdenka" not in text
    assert "'z'" not in text
