"""Erase: delete companies, cancel the calls of erased people, and delete rows whose retention has ended."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState, Cancelled, Event, HangUpCause, HangUpWanted, Reason
from scheduler.domain.batch import BatchState
from scheduler.domain.interview import InterviewStatus
from scheduler.domain.refusals import CommandDropped, NotFound
from scheduler.failpoints import failpoint
from scheduler.lifecycle import partner_events
from scheduler.lifecycle.state_machine import is_busy
from scheduler.logs import log, place_of
from scheduler.persistence.database import BATCH_LOCK_S, Database
from scheduler.persistence.erasures import Certificate, CertificatePlace
from scheduler.persistence.errors import DatabaseAway, LockTaken, StatementFailed
from scheduler.persistence.stores import Stores
from scheduler.rules import reputation, retention
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints, take_turn

# --- Certificates of erasures: what was deleted of a company, and when


MAX_LISTED = 100


class Certificates:
    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(
        self, limit: int = MAX_LISTED, after: CertificatePlace | None = None, *, is_finished: bool | None = None
    ) -> Sequence[Certificate]:
        """List the last erasures, newest first. `is_finished`: only those, or only the others. Raises DatabaseAway.

        `after`: only erasures after this place.
        """
        with self._database.reading() as stores:
            return stores.erasures.newest(limit, after, is_finished=is_finished)

    def of_company(self, company_id: UUID) -> Certificate:
        """Find the certificate of a deleted company. Raises NotFound, DatabaseAway."""
        with self._database.reading() as stores:
            found = stores.erasures.find(company_id)
        if found is None:
            raise NotFound(
                "No erasure of such a company was requested. The page Erasures and `duecall erasures list` have the"
                " newest.",
                resourceType="erasure",
                resourceId=str(company_id),
            )
        return found


# --- Erase: delete all data of a deleted company in batches, after its last call has ended
# Each batch is one transaction, and the remaining rows are the progress: a worker can crash anywhere, or two can run.


_ACTOR = "erase"


class Erase:
    """`batch` is the number of interviews, attempts or other rows deleted in one transaction."""

    def __init__(self, context: Context, hints: Hints, *, batch: int = 100) -> None:
        self._database = context.database
        self._hints = hints
        self._effects = context.effects
        self._now = context.now
        self._batch = batch

    def company(self, company_id: UUID) -> None:
        """Continue the erasure of a deleted company for one turn. Raises DatabaseAway.

        It stops while a call is live. The clock sends the hint again.
        """
        if take_turn(partial(self._erase_batch, company_id)):
            self._hints.send(tasks.ERASE, [company_id])

    def _erase_batch(self, company_id: UUID) -> bool:
        """Erase one batch. False: the erasure is complete, another worker has it, or a call must end first."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            erasure = stores.erasures.lock_open(company_id)
            if erasure is None:
                return False
            attempts = stores.attempts.to_stop(company_id, self._batch)
            for attempt in attempts:
                self._stop(stores, attempt, now)
            if not attempts and stores.attempts.is_calling(company_id):
                return False
            goes_on = bool(attempts) or stores.erasures.erase_some(erasure, self._batch, now)
        if any(is_busy(attempt) for attempt in attempts):
            self._hints.send(tasks.SETTLE)
        if goes_on:
            failpoint("erase.batch")
        return goes_on

    def _stop(self, stores: Stores, unlocked: Attempt, now: datetime) -> None:
        """Cancel a pending attempt, or request the end of a call in progress."""
        interview = stores.interviews.lock(unlocked.interview_id)
        attempt = stores.attempts.lock_as_of(unlocked.id, unlocked.epoch)
        if attempt is None:
            return  # changed since it was read; the next batch reads it again
        event: Event = HangUpWanted(cause=HangUpCause.COMPANY_DELETED)
        if attempt.state is AttemptState.PENDING:
            event = Cancelled(reason=Reason.COMPANY_DELETED)
        self._effects.apply_events(Batch(stores, [interview]), attempt, [event], _ACTOR, now)
        failpoint("erase.stopping")


# --- Erase people: cancel the interviews of erased candidates in batches, when they are too many for one request
# Each batch is one transaction, and the interviews that are left are the progress: a worker can crash anywhere, or two
# can run. A person is blocked from the first one on: no call of theirs is claimed.


_log = log(__name__)
INTERVIEWS_AT_ONCE = 100
"""Interviews that are cancelled in one transaction."""
_PUT_OFF = timedelta(seconds=5)
"""Delay before interviews are tried again that other transactions held."""


class ErasePeople:
    """`batch` is the number of interviews in one transaction."""

    def __init__(self, context: Context, hints: Hints, *, batch: int = INTERVIEWS_AT_ONCE) -> None:
        self._database = context.database
        self._hints = hints
        self._now = context.now
        self._batch = batch
        self._alone = threading.Lock()

    def turn(self) -> None:
        """Cancel interviews of erased people for one turn, in turns between people. Raises DatabaseAway.

        In each process only one thread works, because a second one would delay e-mail and changed settings.
        """
        if take_turn(self._cancel_batch, alone=self._alone):
            self._hints.send(tasks.ERASE_PEOPLE)

    def _cancel_batch(self) -> bool:
        """Cancel one batch of the person who has waited longest. False: no person waits for this worker.

        A person whose rows cannot be locked or written is put off, so that others are not kept waiting.
        """
        candidate_id = None
        try:
            with self._database.transaction(lock_s=BATCH_LOCK_S) as stores:
                now = stores.instant(self._now)
                candidate_id = stores.candidates.lock_leaving(now)
                if candidate_id is None:
                    return False
                is_done = cancel_interviews(stores, candidate_id, self._batch, _ACTOR, now)
                note_rest(stores, candidate_id, now if is_done else now + _PUT_OFF)
        except Exception as error:
            is_away = isinstance(error, DatabaseAway) and not isinstance(error, LockTaken | StatementFailed)
            if candidate_id is None or is_away:
                raise
            self._put_off(candidate_id, error)
        failpoint("leave.batch")
        return True

    def _put_off(self, candidate_id: UUID, error: Exception) -> None:
        write = _log.warning if isinstance(error, DatabaseAway) else _log.error
        write(
            "erased_person_put_off: interviews could not be cancelled now",
            table="candidates",
            row_id=str(candidate_id),
            cause=place_of(error),
        )
        with self._database.transaction() as stores:
            stores.candidates.note_leaving(candidate_id, stores.instant(self._now) + _PUT_OFF)


def cancel_interviews(stores: Stores, candidate_id: UUID, limit: int, actor: str, now: datetime) -> bool:
    """Cancel up to `limit` interviews of an erased person that is locked. False: none could be locked.

    The interviews that are left are the progress. Locked ones are also left. A call in progress runs to its end. The
    number of statements does not depend on the number of interviews.
    """
    interviews = stores.interviews.lock_left_of(candidate_id, limit)
    open_ids = stores.attempts.open_of([each.id for each in interviews])
    attempts = {each.interview_id: each for each in stores.attempts.lock_free(list(open_ids.values()))}
    done = [each for each in interviews if each.id not in open_ids or each.id in attempts]
    with stores.connection.together():
        for interview in done:
            attempt = attempts.get(interview.id)
            if attempt is not None and attempt.state is AttemptState.PENDING:
                stores.attempts.save(attempt, Cancelled(reason=Reason.CANDIDATE_DELETED), actor, now)
            if interview.status is InterviewStatus.SCHEDULED:
                stores.interviews.set_status(interview, InterviewStatus.CANCELLED, now)
    stores.interviews.forget_contents([each.id for each in done])
    failpoint("leave.cancelling")
    return bool(done)


def note_rest(stores: Stores, candidate_id: UUID, next_at: datetime) -> bool:
    """Note when the remaining interviews may be cancelled, or that all are. True: some remain, or notes of reports."""
    if stores.interviews.has_left_of(candidate_id) or not stores.conversations.forget_notes(candidate_id):
        stores.candidates.note_leaving(candidate_id, next_at)
        return True
    stores.attempts.forget_candidate(candidate_id)
    stores.carrier_events.forget_candidate(candidate_id)
    stores.candidates.note_leaving(candidate_id, None)
    return False


# --- Purge: delete rows whose retention has ended, in batches. Rows that are still needed are kept


_BATCH_SIZE = 1000
_MAX_BATCHES = 20
"""Longer work queues up again, so that other tasks of the queue get a turn."""

_Forget = Callable[[Stores, datetime, int], int]


def _drop_forgotten(stores: Stores, now: datetime, limit: int) -> int:
    """Drop commands that have been in quarantine for a month, because they contain personal data."""
    forgotten = stores.inbox.lock_forgotten(now - retention.ANSWERS, limit)
    stores.inbox.drop(list(forgotten), now)
    with stores.connection.gathering():
        stores.events.note(
            partner_events.of_result(command_id, company_id, None, CommandDropped.code, now)
            for command_id, company_id in forgotten.items()
            if company_id is not None
        )
    return len(forgotten)


def _cancel_forgotten(stores: Stores, now: datetime, limit: int) -> int:
    """Cancel batches that have been paused for a month, because their waiting items contain personal data.

    As by DELETE: a worker cancels the calls of their interviews, and reports the end.
    """
    forgotten = stores.batches.lock_forgotten(now - retention.BATCHES, limit)
    for batch in forgotten:
        cancelled = batch.cancelled + stores.batches.cancel_waiting(batch.id)
        ended = replace(batch, state=BatchState.CANCELLED, cancelled=cancelled, updated_at=now)
        stores.batches.save(ended, now)
    return len(forgotten)


_STEPS: tuple[_Forget, ...] = (
    lambda stores, now, limit: stores.inbox.forget(now - retention.ANSWERS, limit),
    _drop_forgotten,
    lambda stores, now, limit: stores.carrier_events.forget(now - retention.CARRIER_EVENTS, limit),
    lambda stores, now, limit: stores.attempts.forget_history(now - retention.HISTORY, limit),
    lambda stores, now, limit: stores.invitations.forget(now - retention.INVITATIONS, limit),
    lambda stores, now, limit: stores.events.forget(now - retention.EVENTS, limit),
    lambda stores, _, limit: stores.webhook_endpoints.forget_removed(limit),
    _cancel_forgotten,
    lambda stores, now, limit: stores.batches.forget(now - retention.BATCHES, limit),
    lambda stores, now, limit: stores.alarms.forget(now - retention.ALARMS, limit),
    lambda stores, now, limit: stores.audit.forget_sessions(now - retention.CONSOLE_SESSIONS, limit),
    lambda stores, now, limit: stores.backoffs.forget(now - retention.BACKOFFS, limit),
    lambda stores, now, limit: stores.caller_days.forget(reputation.day_of(now - retention.CALLER_DAYS), limit),
)


class Purge:
    def __init__(self, database: Database, hints: Hints, now: Now) -> None:
        self._database = database
        self._hints = hints
        self._now = now

    def round(self) -> None:
        """Purge one round, and send a hint for another if rows are left. Any number may run at once.

        Raises DatabaseAway.
        """
        self._forget_lines()
        unfinished = [self._is_left(step) for step in _STEPS]
        if any(unfinished):
            self._hints.send(tasks.PURGE)

    def _is_left(self, step: _Forget) -> bool:
        for _ in range(_MAX_BATCHES):
            with self._database.transaction() as stores:
                # Compare the clock in each transaction: a deletion is final.
                if step(stores, stores.instant(self._now), _BATCH_SIZE) < _BATCH_SIZE:
                    return False
        return True

    def _forget_lines(self) -> None:
        """Scan all lines once, in the order of their hashes, because most are kept."""
        after: bytes | None = b""
        while after is not None:
            with self._database.transaction() as stores:
                free_before = stores.instant(self._now) - retention.LINES
                after = stores.lines.forget_free_above(after, free_before, _BATCH_SIZE)
