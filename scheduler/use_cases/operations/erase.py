"""Erase: delete a company, cancel the calls of erased people, and certify both."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState, Cancelled, Event, HangUpCause, HangUpWanted, Reason
from scheduler.domain.refusals import NotFound
from scheduler.failpoints import failpoint
from scheduler.lifecycle.state_machine import is_busy
from scheduler.logs import log, place_of
from scheduler.persistence.database import BATCH_LOCK_S, Database
from scheduler.persistence.erasures import Certificate, CertificatePlace
from scheduler.persistence.errors import DatabaseAway, LockTaken, StatementFailed
from scheduler.persistence.stores import Stores
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.erased_people import BATCH, cancel_interviews, note_rest
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.shared.worker_turns import take_turn

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
# can run.


_log = log(__name__)
_PUT_OFF = timedelta(seconds=5)
"""Delay before interviews are tried again that other transactions held."""


class ErasePeople:
    """`batch` is the number of interviews in one transaction."""

    def __init__(self, context: Context, hints: Hints, *, batch: int = BATCH) -> None:
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
