"""Waits for the outcome of answered calls, and their end when no conversation has reported one."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from scheduler.domain.attempt import NotReported
from scheduler.failpoints import failpoint
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, latest_outcome
from scheduler.lifecycle.state_machine import is_awaited
from scheduler.logs import log
from scheduler.persistence.database import BATCH_LOCK_S
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.conflicts import blaming, together
from scheduler.use_cases.shared.context import Context

_log = log(__name__)
_ACTOR = "settle"


class OutcomeWaits:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._effects = context.effects
        self._policy = context.policy
        self._now = context.now

    def end(self) -> None:
        """End the waits that are over: these conversations count as finished. Raises DatabaseAway.

        Any number may run at once. Attempts whose rows are locked wait for the next round.
        """
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            latest = latest_outcome(now, self._policy)
            overdue = stores.conversations.overdue(now, latest, AT_MOST_A_TRANSACTION)
        for attempt_id in together(list(overdue), lambda some: self._end(some, overdue)):
            try:
                self._end([attempt_id], overdue)
            except Exception:  # noqa: BLE001 - the others get their turn
                _log.exception("outcome_wait_failed: a wait could not be ended", attempt_id=str(attempt_id))

    def _end(self, attempt_ids: Sequence[UUID], interviews: Mapping[UUID, UUID]) -> Collection[UUID]:
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            batch, _ = Batch.free(stores, {each: interviews[each] for each in attempt_ids})
            for attempt_id in attempt_ids:
                # A report may have come in since the list was read.
                if batch.has(attempt_id) and is_awaited(batch.attempt(attempt_id)):
                    with blaming([attempt_id], of=len(attempt_ids)):
                        self._effects.apply_events(batch, batch.attempt(attempt_id), [NotReported()], _ACTOR, now)
            failpoint("settle.finishing")
        failpoint("settle.finished")
        return ()
