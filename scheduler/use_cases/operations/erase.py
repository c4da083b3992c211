"""Erase: delete all data of a deleted company in batches, after its last call has ended.

Each batch is one transaction, and the remaining rows are the progress: a worker can crash anywhere, or two can run.
"""

from datetime import datetime
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, AttemptState, Cancelled, Event, HangUpCause, HangUpWanted, Reason
from scheduler.failpoints import failpoint
from scheduler.lifecycle.state_machine import is_busy
from scheduler.persistence.stores import Stores
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints

_MAX_TURN_S = 2.0
"""Longer work queues up again, so that other tasks of the queue get a turn."""
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
        until = monotonic() + _MAX_TURN_S
        while self._erase_batch(company_id):
            failpoint("erase.batch")
            if monotonic() >= until:
                self._hints.send(tasks.ERASE, [company_id])
                return

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
