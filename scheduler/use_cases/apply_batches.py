"""Apply batches: create the interviews of batches, some items in one transaction, and cancel those of cancelled ones.

The rows are the progress. A worker that dies loses one transaction, and any number may run: each transaction locks its
batch, and stores the outcome of an item with its interview.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from scheduler.domain.attempt import AttemptState, Cancelled, Reason
from scheduler.domain.batch import (
    ITEMS_A_TRANSACTION,
    MOST_FAILURES,
    Batch,
    BatchItem,
    BatchState,
    ItemState,
    WaitingItem,
)
from scheduler.domain.command import Command, CommandKind, CreateInterview, Refusal, refusal_of
from scheduler.domain.interview import Interview, InterviewStatus, InterviewStory
from scheduler.domain.refusals import InvalidRequest, Refused
from scheduler.failpoints import failpoint
from scheduler.lifecycle import partner_events, retries
from scheduler.lifecycle.policy import BATCH_RETRIED_AFTER
from scheduler.logs import log, place_of
from scheduler.persistence.batches import Work
from scheduler.persistence.database import BATCH_LOCK_S
from scheduler.persistence.errors import DatabaseAway, LockTaken, StatementFailed
from scheduler.persistence.json_columns import request_from_json
from scheduler.persistence.stores import Stores
from scheduler.use_cases.applying import NewInterviews
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.conflicts import blaming, together
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints, take_turn
from scheduler.use_cases.shared.turn import SharedReads, Turn, named_candidates
from scheduler.wire import named_fields
from scheduler.wire.named_fields import named

_log = log(__name__)
_PAUSE_S = 0.05
"""The wait while single commands go first."""
_CANCELLED_A_TRANSACTION = 100
_GOING_ON = frozenset({BatchState.ACCEPTED, BatchState.RUNNING})
_FAILED = Refusal(
    family=InvalidRequest.__name__,
    code="INTERNAL_ERROR",
    message="An unexpected error occurred each time that this item was applied. Send it again later.",
)


@dataclass(frozen=True, kw_only=True)
class _Done:
    """The outcomes of some items."""

    applied: int = 0
    existing: int = 0
    refused: int = 0
    first_due_at: datetime | None = None


class ApplyBatches:
    def __init__(self, context: Context, hints: Hints) -> None:
        self._database = context.database
        self._hints = hints
        self._new = NewInterviews(context.hasher, context.policy)
        self._now = context.now
        self._never_set = threading.Event()

    def turn(self) -> None:
        """Work on all unfinished batches for one turn. Raises DatabaseAway."""
        if take_turn(self._do_next):
            self._hints.send(tasks.BATCHES)

    def _do_next(self) -> bool:
        """Do the next work, or pause while single commands go first. False: no batch needs a worker."""
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores:
            now = stores.instant(self._now)
            work = stores.batches.next_work(now, ITEMS_A_TRANSACTION)
            is_one_due = work is not None or stores.batches.is_one_due(now)
        if work is not None:
            self._do(work)
        elif is_one_due:
            self._never_set.wait(_PAUSE_S)
        return is_one_due

    def _do(self, work: Work) -> None:
        if work.is_cancelled:
            self._cancel_next(work.batch_id)
        elif work.indexes:
            self._apply_fresh(work.batch_id, work.indexes)
        elif work.failed is not None:
            self._apply_alone(work.batch_id, work.failed)

    def _apply_fresh(self, batch_id: UUID, indexes: Sequence[int]) -> None:
        """Apply items that have not failed. The first lock that they wait for puts the batch off."""
        try:
            alone = together(indexes, lambda some: self._apply(batch_id, some))
        except LockTaken:
            self._put_off(batch_id)
            return
        for index in alone:
            if not self._apply_alone(batch_id, index):
                return

    def _apply_alone(self, batch_id: UUID, index: int) -> bool:
        """Apply an item that may fail. After some failures it is refused. Return False if the batch was put off."""
        try:
            self._apply(batch_id, [index])
        except (LockTaken, StatementFailed):
            self._put_off(batch_id)
            return False
        except DatabaseAway:
            raise
        except Exception as error:  # noqa: BLE001 - the others are applied
            self._count_failure(batch_id, index, place_of(error))
        return True

    def _apply(self, batch_id: UUID, indexes: Sequence[int]) -> Sequence[int]:
        """Apply the items among these that wait, unless another worker has the batch. Nothing is left to do alone.

        Items whose rows another transaction has locked put the batch off, so that other batches go on.
        """
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            batch = stores.batches.lock_free(batch_id)
            if batch is None or batch.state not in _GOING_ON:  # guard: batch_stopped
                return ()
            items = stores.batches.lock_items(batch_id, indexes)
            commands = [_command(batch, each) for each in items]
            reads = SharedReads(stores)
            held = reads.held(commands, named_candidates)
            now = stores.instant(self._now)
            failpoint("batch.applying")
            outcomes = []
            for place, (item, command) in enumerate(zip(items, commands, strict=True)):
                if place in held:
                    continue
                with blaming([item.index], of=len(items)):
                    outcomes.append(
                        self._apply_item(Turn(stores=stores, reads=reads, command=command, now=now), batch, item)
                    )
            stores.connection.send()
            work_at = now
            if held:  # guard: held_item
                work_at = now + BATCH_RETRIED_AFTER
            save_or_finish(stores, _counted(batch, outcomes, now), now, work_at)
            failpoint("batch.answering")
        failpoint("batch.applied")
        return ()

    def _apply_item(self, turn: Turn, batch: Batch, item: WaitingItem) -> _Done:
        """Create the interview of an item, or refuse it as a command is refused. Then its writes are undone."""
        try:
            with turn.stores.connection.undoable():
                story, existed = self._of_item(turn, item)
        except Refused as refused:
            outcome = BatchItem(index=item.index, state=ItemState.REFUSED, error=refusal_of(refused))
            turn.stores.batches.answer(batch.id, outcome)
            return _Done(refused=1)
        applied = BatchItem(index=item.index, state=ItemState.APPLIED, interview_id=story.interview.id, existed=existed)
        turn.stores.batches.answer(batch.id, applied)
        due = [each.due_at for each in story.attempts if each.state is AttemptState.PENDING]
        return _Done(applied=1, existing=int(existed), first_due_at=min(due, default=story.interview.scheduled_at))

    def _of_item(self, turn: Turn, item: WaitingItem) -> tuple[InterviewStory, bool]:
        request = _request(item)
        turn.company()  # also for an interview that exists
        with named(named_fields.of_command(request)):
            return self._new.of_request(turn, request)

    def _count_failure(self, batch_id: UUID, index: int, failed_with: str) -> None:
        with self._database.transaction() as stores:
            batch = stores.batches.lock_free(batch_id)
            # If it was paused since, its state would become RUNNING again.
            if batch is None or batch.state not in _GOING_ON:  # guard: batch_paused
                return
            now = stores.instant(self._now)
            failures = stores.batches.count_failure(batch_id, index)
            if failures is None:
                return
            _log.error(
                "batch_item_failed: an item of a batch failed for an unknown reason",
                batch_id=str(batch_id),
                index=index,
                cause=failed_with,
                count=failures,
            )
            if failures < MOST_FAILURES:
                stores.batches.save(batch, now + BATCH_RETRIED_AFTER)
                return
            stores.batches.answer(batch_id, BatchItem(index=index, state=ItemState.REFUSED, error=_FAILED))
            save_or_finish(stores, _counted(batch, [_Done(refused=1)], now), now)

    def _put_off(self, batch_id: UUID) -> None:
        _log.warning("batch_put_off: a row was locked for too long, so the batch waits", batch_id=str(batch_id))
        with self._database.transaction() as stores:
            batch = stores.batches.lock_free(batch_id)
            if batch is not None:
                stores.batches.save(batch, stores.instant(self._now) + BATCH_RETRIED_AFTER)

    def _cancel_next(self, batch_id: UUID) -> None:
        """Cancel the next calls of a cancelled batch. If that fails, other batches go first."""
        try:
            self._cancel_some(batch_id)
        except (LockTaken, StatementFailed):
            pass
        except DatabaseAway:
            raise
        except Exception as error:  # noqa: BLE001 - it is tried again, after the others
            _log.error(
                "batch_not_cancelled: calls of a cancelled batch could not be cancelled; it is tried again",
                batch_id=str(batch_id),
                cause=place_of(error),
            )
        else:
            return
        self._put_off(batch_id)

    def _cancel_some(self, batch_id: UUID) -> None:
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores:
            batch = stores.batches.lock_free(batch_id)
            if batch is not None and batch.state is BatchState.CANCELLED and batch.finished_at is None:
                cancel_interviews(stores, batch, stores.instant(self._now))


def save_or_finish(stores: Stores, batch: Batch, now: datetime, work_at: datetime | None = None) -> Batch:
    """Save a batch, as completed if no item waits any longer. Partners with a reader learn it from the same commit.

    `work_at`: no worker looks at it before. None: at once.
    """
    if batch.waiting == 0:
        batch = replace(batch, state=BatchState.COMPLETED, finished_at=now)
        stores.events.note([partner_events.of_finished_batch(batch, now)])
    stores.batches.save(batch, work_at or now)
    return batch


def cancel_interviews(stores: Stores, batch: Batch, now: datetime) -> Batch:
    """Cancel pending calls of the next interviews of a locked, cancelled batch. The last ones finish the batch.

    A call in progress goes on, and nothing follows it, because its interview is cancelled. A failed interview is also
    cancelled if a call of it may be proven late: a time that the person named in it would be planned then.
    """
    some = stores.batches.interviews_to_cancel(batch.id, _CANCELLED_A_TRANSACTION)
    locked = stores.interviews.lock_all([interview_id for _, interview_id in some])
    scheduled = [each for each in locked if retries.may_go_on(each)]
    ids = [each.id for each in scheduled]
    unproven = _unproven(stores, [each for each in locked if each.id not in ids])
    # No other transaction adds or ends an attempt of an interview that this one has locked.
    attempts = stores.attempts.lock_all(ids, list(stores.attempts.open_of(ids).values()))
    actor = f"key:{batch.key_id}"
    with stores.connection.together():
        for attempt in attempts:
            if attempt.state is AttemptState.PENDING:
                cancelled = Cancelled(reason=Reason.CANCELLED_BY_USER, note=_NOTE)
                stores.attempts.save(attempt, cancelled, actor, now)  # guard: batch_cancel
        for interview in scheduled:
            stores.interviews.set_status(interview, InterviewStatus.CANCELLED, now)  # guard: batch_no_more
        for interview in unproven:
            stores.interviews.set_status(interview, InterviewStatus.CANCELLED, now)  # guard: batch_unproven
    if some:
        stores.batches.cancelled_to(batch.id, some[-1][0])
    if len(some) < _CANCELLED_A_TRANSACTION:
        batch = replace(batch, updated_at=now, finished_at=now)
        stores.events.note([partner_events.of_finished_batch(batch, now)])
    stores.batches.save(batch, now)
    failpoint("batch.cancelling")
    return batch


def _unproven(stores: Stores, interviews: Sequence[Interview]) -> list[Interview]:
    """List the failed interviews among these that would go on if a call of theirs were proven late."""
    failed = [each for each in interviews if retries.may_call_back(each)]
    ids = stores.conversations.to_be_proven([each.id for each in failed]) if failed else ()
    return [each for each in failed if each.id in ids]


_NOTE = "the batch was cancelled"


def _counted(batch: Batch, outcomes: Sequence[_Done], now: datetime) -> Batch:
    due = [each.first_due_at for each in outcomes if each.first_due_at is not None]
    known = [] if batch.first_due_at is None else [batch.first_due_at]
    return replace(
        batch,
        state=BatchState.RUNNING,
        applied=batch.applied + sum(each.applied for each in outcomes),
        existing=batch.existing + sum(each.existing for each in outcomes),
        refused=batch.refused + sum(each.refused for each in outcomes),
        first_due_at=min([*known, *due], default=None),
        started_at=batch.started_at or now,
        updated_at=now,
    )


def _command(batch: Batch, item: WaitingItem) -> Command:
    """Convert an item to the command that a single request would be."""
    return Command(
        id=batch.id,
        kind=CommandKind.CREATE_INTERVIEW,
        principal_id=batch.principal_id,
        key_id=batch.key_id,
        company_id=batch.company_id,
        idempotency_key=None,
        request_hash=b"",
        received_at=batch.created_at,
        body=dict(item.body),
    )


def _request(item: WaitingItem) -> CreateInterview:
    request = request_from_json(CommandKind.CREATE_INTERVIEW, dict(item.body))
    assert isinstance(request, CreateInterview)
    return request
