"""Records in: carrier answers are collected, and written in groups until each is written or given up."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    Deferred,
    Event,
    HangUpWanted,
    OfPost,
    Phase,
    Placed,
    Progressed,
)
from scheduler.domain.call import Accepted, AnswerUnknown, CallNews, CallStatus, CarrierAnswer, NeverTaken
from scheduler.failpoints import failpoint
from scheduler.lifecycle import breaker, decisions
from scheduler.lifecycle.capacity import RecordSize
from scheduler.lifecycle.decisions import Alarm
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, DEFERRED_DELAY
from scheduler.lifecycle.scheduling import Callee
from scheduler.logs import log
from scheduler.persistence.database import BATCH_LOCK_S
from scheduler.persistence.errors import DatabaseAway, LockTaken
from scheduler.persistence.stores import Stores
from scheduler.rules.tallies import Sent, of_post
from scheduler.use_cases.dialling import ACTOR
from scheduler.use_cases.dialling.watch import DatabaseThreads
from scheduler.use_cases.shared.batch import Batch, callee_from
from scheduler.use_cases.shared.carrier_state import CarrierJudge
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.effects import InvariantViolated

_log = log(__name__)
_FLUSH_EVERY = 0.02
_RETRY_AFTER = 0.5
_MAX_TRANSACTIONS = 4
"""Concurrent transactions. With a slow network they wait for round trips, not for each other."""

Answer = tuple[Attempt, CarrierAnswer]
Record = Callable[[Sequence[Answer], Mapping[UUID, Sent]], Sequence[str]]


class SomeHeld(Exception):
    """Other transactions have locked the rows of some answers. These were not recorded, and all others were."""

    def __init__(self, attempt_ids: frozenset[UUID], to_cancel: Sequence[str]) -> None:
        super().__init__()
        self.attempt_ids = attempt_ids
        self.to_cancel = to_cancel
        """The calls to cancel in the carrier's queue, of the recorded answers."""


class Recorder:
    """Collects answers for 20 ms and records groups of them. Belongs to one event loop.

    `record` is `Records.record`. `cancel` takes a call out of the carrier's queue. `on_recorded` runs after each group.
    """

    def __init__(
        self,
        record: Record,
        threads: DatabaseThreads,
        cancel: Callable[[str], Awaitable[object]],
        on_recorded: Callable[[], None],
    ) -> None:
        self._record = record
        self._threads = threads
        self._cancel = cancel
        self._on_recorded = on_recorded
        self._answers: list[Answer] = []
        self._again: list[list[Answer]] = []
        """Groups that are written by themselves, because they failed in a larger one."""
        self._held: list[Answer] = []
        """Answers that are tried again, whose rows were locked."""
        self._waiting = 0
        """The number of answers with locked rows that are not tried again yet."""
        self._sent: dict[UUID, Sent] = {}
        """The times of the POSTs of answers that are not written yet."""
        self._failures: set[UUID] = set()
        self._writing: dict[asyncio.Task[None], int] = {}
        self._cancelling: set[asyncio.Task[object]] = set()
        self._size = RecordSize()
        self._wake = asyncio.Event()
        self._conflicts = 0

    def __len__(self) -> int:
        """Count the answers that are not written yet."""
        return self.unwritten + len(self._held) + self._waiting

    @property
    def unwritten(self) -> int:
        """Count the answers that are not written yet and whose rows are not locked.

        A claim has room for fewer calls while answers wait. Locked rows of one company must not take it from others.
        """
        return len(self._answers) + sum(map(len, self._again)) + sum(self._writing.values())

    @property
    def has_failures(self) -> bool:
        """Return True while an answer that will open the breaker is not written yet."""
        return bool(self._failures)

    def add(self, attempt: Attempt, answer: CarrierAnswer, sent: Sent | None = None) -> None:
        """Record an answer, or the reason why nothing was sent. `sent`: the times of its POST."""
        self._answers.append((attempt, answer))
        if sent is not None:
            self._sent[attempt.id] = sent
        if isinstance(answer, AnswerUnknown) and breaker.opens_at_once(answer.cause):
            self._failures.add(attempt.id)
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Write answers until `is_over` returns True and none is left. After `is_over` changes, call `wake`."""
        while not (is_over() and not len(self)):
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_FLUSH_EVERY)
            while len(self._writing) < _MAX_TRANSACTIONS and (group := self._next_group()):
                task = asyncio.create_task(self._write_group(group))
                self._writing[task] = len(group)
                task.add_done_callback(self._written)
        if self._cancelling:
            await asyncio.wait(self._cancelling)

    def _next_group(self) -> list[Answer]:
        size = self._size.size
        group, self._answers = self._answers[:size], self._answers[size:]
        if not group and self._again:
            return self._again.pop(0)
        if not group:
            group, self._held = self._held[:size], self._held[size:]
        return group

    def _written(self, task: asyncio.Task[None]) -> None:
        del self._writing[task]
        self.wake()

    async def _write_group(self, group: list[Answer]) -> None:
        """Write a group in one call. Answers with locked rows are tried again later, and the others are written."""
        begun = monotonic()
        try:
            held = await self._record_group(group)
        except LockTaken:
            # A row that is not skipped, such as a line. Its company's answers must not keep those of others waiting.
            self._put_off_owners(group)
        except DatabaseAway:
            _log.warning("record_delayed: the database is unavailable, so the answers are retried", count=len(group))
            await asyncio.sleep(_RETRY_AFTER)
            self._again.append(group)
        except Exception:  # noqa: BLE001 - the loop goes on for the other answers
            if len(group) > 1:
                self._again += [[each] for each in group]
                return
            _log.exception(
                "record_failed: an unexpected error stopped a record, and the attempt will be settled",
                attempt_id=str(group[0][0].id),
            )
            self._forget([group[0][0].id])
        else:
            if held:
                self._put_off([each for each in group if each[0].id in held])
            else:
                self._size.took(len(group), monotonic() - begun)

    async def _record_group(self, group: list[Answer]) -> frozenset[UUID]:
        """Record a group, and act on the recorded answers. Return the attempts with locked rows."""
        ids = {attempt.id for attempt, _ in group}
        held: frozenset[UUID] = frozenset()
        try:
            sent = {each: self._sent[each] for each in ids if each in self._sent}
            to_cancel = await self._threads.run(lambda: self._record(group, sent))
        except SomeHeld as some:
            held, to_cancel = some.attempt_ids, some.to_cancel
        failpoint("dial.judged")
        self._forget(ids - held)
        self._cancel_at_the_carrier(to_cancel)
        self._on_recorded()
        return held

    def _forget(self, attempt_ids: Collection[UUID]) -> None:
        for each in attempt_ids:
            self._sent.pop(each, None)
        self._failures.difference_update(attempt_ids)

    def _cancel_at_the_carrier(self, call_sids: Sequence[str]) -> None:
        """Cancel at once, because the calls leave the carrier's queue soon. Settle retries until they have ended."""
        for sid in call_sids:
            task = asyncio.ensure_future(self._cancel(sid))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)

    def _put_off(self, held: list[Answer]) -> None:
        """Write answers with locked rows later, and by themselves. They take no place of other groups meanwhile."""
        self._conflicts += 1
        _log.info("record_conflict: another transaction held rows", count=self._conflicts)
        self._waiting += len(held)
        asyncio.get_running_loop().call_later(_RETRY_AFTER, self._write_again, held)

    def _write_again(self, held: list[Answer]) -> None:
        self._waiting -= len(held)
        self._held += held
        self.wake()

    def _put_off_owners(self, group: list[Answer]) -> None:
        by_company: dict[UUID, list[Answer]] = {}
        for each in group:
            by_company.setdefault(each[0].company_id, []).append(each)
        if len(by_company) == 1:
            self._put_off(group)
        else:
            self._again += by_company.values()


# --- The database step: writes to attempts whose claim is still current


class Records:
    """Writes what became of claimed attempts: an answer, or that nothing was sent."""

    def __init__(self, context: Context, account_id: int) -> None:
        self._database = context.database
        self._effects = context.effects
        self._judge = CarrierJudge(context.database, context.hasher, account_id, context.now)
        self._policy = context.policy
        self._now = context.now

    def record(self, answers: Sequence[Answer], sent: Mapping[UUID, Sent] | None = None) -> list[str]:
        """Write the answers to the POSTs, at most 200 in a transaction, each only if its claim is still current.

        `sent`: the measured times of the POSTs, by attempt. Returns the calls to cancel in the carrier's queue. Raises
        DatabaseAway and LockTaken: the transaction of up to 200 answers was rolled back. Raises SomeHeld.
        """
        to_cancel: list[str] = []
        held: set[UUID] = set()
        at_once = len(answers) or 1
        at_once = min(at_once, AT_MOST_A_TRANSACTION)  # guard: record_size
        for start in range(0, len(answers), at_once):
            held |= self._record(answers[start : start + at_once], sent or {}, to_cancel)
        if held:
            raise SomeHeld(frozenset(held), to_cancel)
        return to_cancel

    def _record(
        self,
        answers: Sequence[Answer],
        sent: Mapping[UUID, Sent],
        to_cancel: list[str],
    ) -> frozenset[UUID]:
        """Record answers in one transaction. Return the attempts that other transactions have locked."""
        alarms: list[InvariantViolated] = []
        with self._database.transaction(corrected=True, lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            batch, held = Batch.free(stores, {attempt.id: attempt.interview_id for attempt, _ in answers})
            # An attempt that this release cannot read is settled by a worker that can.
            answers = [each for each in answers if batch.has(each[0].id)]
            for attempt, answer in answers:
                events = decisions.on_answer(attempt, answer, _callee(batch, attempt, answer), now, self._policy)
                if attempt.id in sent:
                    events = _with_look(events, sent[attempt.id].look)
                written, new_alarms = self._write(batch, attempt, events, now)
                alarms.extend(new_alarms)
                ends = written is not None and written.hang_up is not None
                if isinstance(answer, Accepted) and (ends or _wants_hang_up(events)):
                    to_cancel.append(answer.call_sid)
                if attempt.id in sent:
                    stores.tallies.add(of_post(answer, sent[attempt.id]))
            failpoint("dial.recording")
        failpoint("dial.recorded")
        for alarmed in alarms:
            self._effects.pause_for_alarm(alarmed)
        for attempt, answer in answers:
            self._report_refused_order(attempt, answer)
        self._judge.hear(answers)
        return held

    def _report_refused_order(self, attempt: Attempt, answer: CarrierAnswer) -> None:
        """Raise an alarm for a refusal of one order that a retry does not fix: a URL, a trial account."""
        if (
            isinstance(answer, NeverTaken)
            and answer.cause not in breaker.PERMISSIONS | {"NOT_SENT"}
            and breaker.shows_that_it_works(answer)
        ):
            _log.error(
                "order_refused: the carrier refused a call that retrying does not fix",
                alarm=answer.cause,
                attempt_id=str(attempt.id),
                company_id=str(attempt.company_id),
            )

    def _write(
        self, batch: Batch, attempt: Attempt, events: Sequence[Event], now: datetime
    ) -> tuple[Attempt | None, list[InvariantViolated]]:
        """Apply the events. Return the attempt, or None for a late record together with the alarms that it raises."""
        # Locked, and so read after the commit of a claim in doubt, which holds this lock until then.
        present = batch.attempt(attempt.id)
        is_late = (
            present.epoch != attempt.epoch,  # guard: record_epoch
            # After a confirmed commit the epoch would do. After a claim in doubt another worker may have that epoch.
            present.token != attempt.token,  # guard: token
        )
        if any(is_late):
            # The lease was settled, or the carrier called back first.
            _log.info(
                "late_record_dropped: the attempt was settled or moved on before this answer could be recorded",
                attempt_id=str(attempt.id),
                epoch=attempt.epoch,
            )
            alarms = self._alarms_of_late_record(batch.stores, attempt, present, events, now)
            if not alarms:
                # The dialler cancels it. Without this, its end would look like a cancellation by someone else.
                wanted = [each for each in events if isinstance(each, HangUpWanted) and _is_call_of(present, events)]
                if wanted:
                    self._effects.apply_events(batch, present, wanted, ACTOR, now)
                else:
                    self._keep_look(batch, attempt, events, now)
            return None, alarms
        return self._effects.apply_events(batch, present, events, ACTOR, now), []

    def _keep_look(self, batch: Batch, attempt: Attempt, events: Sequence[Event], now: datetime) -> None:
        """Keep the record of the last look of a call whose news came before its answer was recorded."""
        present = batch.attempt(attempt.id)
        looks = [each.look for each in events if isinstance(each, OfPost) and each.look is not None]
        if looks and present.token == attempt.token and present.state is AttemptState.IN_PROGRESS:
            batch.save(present, Progressed(rank=present.heard_rank, look=looks[0]), ACTOR, now)

    def _alarms_of_late_record(
        self, stores: Stores, attempt: Attempt, present: Attempt, events: Sequence[Event], now: datetime
    ) -> list[InvariantViolated]:
        """Find an alarm if a late record names a call that cannot be the attempt's. Nothing is written."""
        assert attempt.token is not None
        for event in events:
            if isinstance(event, Placed):
                news = CallNews(call_sid=event.call_sid, status=CallStatus.QUEUED, token=attempt.token)
                heard = decisions.on_news(present, news, None, now, self._policy)
                if not isinstance(heard, Alarm):
                    continue
                # Read only now: most late records name the attempt's own call.
                claim = stores.carrier_events.claim_of(attempt.token)
                if claim is None or not decisions.is_old_news(claim.closed_sid, news):
                    return [InvariantViolated(heard, present)]
        return []

    def give_back(self, attempt: Attempt, cause: str) -> None:
        """Give an attempt back to PENDING for which nothing was sent, due in 5 s. Raises DatabaseAway."""
        self.put_back(attempt, lambda now: (Deferred(due_at=now + DEFERRED_DELAY, cause=cause),))

    def put_back(self, attempt: Attempt, events_at: Callable[[datetime], Sequence[Event]]) -> None:
        """Write the events of an attempt for which nothing was sent. Raises DatabaseAway.

        Also on a wrong clock, in the database's time: no other process knows that nothing was sent.
        """
        with self._database.transaction(corrected=True) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            batch = Batch.locked(stores, {attempt.id: attempt.interview_id})
            self._write(batch, attempt, events_at(now), now)
            failpoint("dial.deferring")
        failpoint("dial.deferred")


def _is_call_of(present: Attempt, events: Sequence[Event]) -> bool:
    """Return True if a late record names the call that the attempt has been found to have, and it has not ended."""
    sids = {each.call_sid for each in events if isinstance(each, Placed)}
    return present.phase is Phase.PLACED and present.hang_up is None and present.call_sid in sids


def _with_look(events: tuple[Event, ...], look: Mapping[str, Any] | None) -> tuple[Event, ...]:
    """Add the record of the last look to the first event."""
    first, *others = events
    return (replace(first, look=look), *others) if isinstance(first, OfPost) else events


def _wants_hang_up(events: Sequence[Event]) -> bool:
    return any(isinstance(event, HangUpWanted) for event in events)


def _callee(batch: Batch, attempt: Attempt, answer: CarrierAnswer) -> Callee | None:
    """Load the callee of a call in the carrier's queue, to decide whether it would ring too late."""
    if not isinstance(answer, Accepted) or not answer.queue_time:
        return None
    return callee_from(batch.callee_of(attempt.interview_id))
