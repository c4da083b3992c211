"""Erase: what a deleted company was goes, in batches, once nobody is being called for it.

Each batch is one transaction, and what is left says where to go on: it may die anywhere, and run twice at once.
"""

from datetime import datetime
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt, AttemptState, Cancelled, Event, HangUpCause, HangUpWanted, Reason
from scheduler.failpoints import failpoint
from scheduler.lifecycle.state_machine import is_busy
from scheduler.persistence.database import Database, Stores
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.effects import Effects
from scheduler.use_cases.shared.hints import Hints

_A_TURN_S = 2.0
"""Then others who wait in the same queue get theirs."""
_ACTOR = "erase"


class Erase:
    """`batch` is how many interviews, attempts or other rows go at a time."""

    def __init__(self, database: Database, hints: Hints, effects: Effects, now: Now, *, batch: int = 100) -> None:
        self._database = database
        self._hints = hints
        self._effects = effects
        self._now = now
        self._batch = batch

    def company(self, company_id: UUID) -> None:
        """Go on with the erasure of a deleted company, as far as it goes now. Raises DatabaseAway.

        Where a call is live it waits, and the clock rings again.
        """
        until = monotonic() + _A_TURN_S
        while self._some(company_id):
            failpoint("erase.batch")
            if monotonic() >= until:
                self._hints.send(tasks.ERASE, [company_id])
                return

    def _some(self, company_id: UUID) -> bool:
        """One batch. False: it is done, somebody else is at it, or a call must end first."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            erasure = stores.erasures.lock_open(company_id)
            if erasure is None:
                return False
            open_ones = stores.attempts.to_stop(company_id, self._batch)
            for attempt in open_ones:
                self._stop(stores, attempt, now)
            if not open_ones and stores.attempts.is_calling(company_id):
                return False
            goes_on = bool(open_ones) or stores.erasures.erase_some(erasure, self._batch, now)
        if any(is_busy(attempt) for attempt in open_ones):
            self._hints.send(tasks.SETTLE)
        return goes_on

    def _stop(self, stores: Stores, seen: Attempt, now: datetime) -> None:
        """Cancel what waits; have the carrier end a call that it has named."""
        interview = stores.interviews.lock(seen.interview_id)
        attempt = stores.attempts.lock_as_of(seen.id, seen.epoch)
        if attempt is None:
            return  # it has moved since; the next batch sees where to
        event: Event = HangUpWanted(cause=HangUpCause.COMPANY_DELETED)
        if attempt.state is AttemptState.PENDING:
            event = Cancelled(reason=Reason.COMPANY_DELETED)
        self._effects.apply_events(stores, interview, attempt, [event], _ACTOR, now)
        failpoint("erase.stopping")
