"""Waits for the outcome of answered calls, and their end when no conversation has reported one."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.domain.attempt import NotReported
from scheduler.failpoints import failpoint
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, latest_outcome
from scheduler.lifecycle.state_machine import is_awaited
from scheduler.logs import log
from scheduler.persistence.conversations import OverdueOutcome
from scheduler.persistence.database import BATCH_LOCK_S
from scheduler.persistence.errors import DatabaseAway, LockTaken, StatementFailed
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.conflicts import blaming, together
from scheduler.use_cases.shared.context import Context

_log = log(__name__)
_ACTOR = "settle"
_LONGEST_ROUND = timedelta(seconds=10)
_FAILED_FOR_S = 600.0
"""A wait that could not be ended is not tried again for this long, so that such waits do not stay the first ones."""


class OutcomeWaits:
    def __init__(self, context: Context, *, at_once: int = AT_MOST_A_TRANSACTION) -> None:
        """End up to `at_once` waits in one transaction."""
        self._database = context.database
        self._effects = context.effects
        self._policy = context.policy
        self._now = context.now
        self._at_once = at_once
        self._failed: dict[UUID, float] = {}
        """The attempts whose waits could not be ended, with the instants of the last tries."""

    def end(self) -> None:
        """End the waits that are over: these conversations count as finished. Raises DatabaseAway.

        Any number may run at once. Each wait is tried once. Attempts whose rows are locked wait for the next round, and
        if the waits cannot be listed, all do.
        """
        try:
            self._end_overdue(monotonic() + _LONGEST_ROUND.total_seconds())
        except DatabaseAway as error:
            if not isinstance(error, LockTaken | StatementFailed):
                raise
            _log.warning("outcome_waits_failed: a statement failed, so the other waits are for the next round")
        except Exception:  # noqa: BLE001 - the other steps of the round get their turn
            _log.exception("outcome_waits_failed: an unexpected error stopped the end of all waits")

    def _end_overdue(self, ends: float) -> None:
        self._failed = {each: at for each, at in self._failed.items() if monotonic() - at < _FAILED_FOR_S}
        tried = set(self._failed)
        while True:
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                latest = latest_outcome(now, self._policy)
                overdue = stores.conversations.overdue(now, latest, self._at_once, tried)
            self._end_some(overdue, ends)
            if len(overdue) < self._at_once or monotonic() >= ends:
                return
            tried.update(overdue)

    def _end_some(self, overdue: Mapping[UUID, OverdueOutcome], ends: float) -> None:
        alone = together(
            list(overdue),
            lambda some: self._end(some, overdue),
            lambda some: {each: overdue[each].company_id for each in some},
        )
        for attempt_id in alone:
            if monotonic() < ends:
                self._end_alone(attempt_id, overdue)

    def _end_alone(self, attempt_id: UUID, overdue: Mapping[UUID, OverdueOutcome]) -> None:
        try:
            self._end([attempt_id], overdue)
        except LockTaken:
            _log.info("outcome_wait_put_off: another transaction held a row", attempt_id=str(attempt_id))
        except Exception as error:
            if isinstance(error, DatabaseAway) and not isinstance(error, StatementFailed):
                raise
            self._failed[attempt_id] = monotonic()
            _log.exception(
                "outcome_wait_failed: a wait could not be ended, and is tried again in ten minutes",
                attempt_id=str(attempt_id),
            )

    def _end(self, attempt_ids: Sequence[UUID], overdue: Mapping[UUID, OverdueOutcome]) -> Collection[UUID]:
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            batch, _ = Batch.free(stores, {each: overdue[each].interview_id for each in attempt_ids})
            for attempt_id in attempt_ids:
                # A report may have come in since the list was read.
                if batch.has(attempt_id) and is_awaited(batch.attempt(attempt_id)):
                    with blaming([attempt_id], of=len(attempt_ids)):
                        self._effects.apply_events(batch, batch.attempt(attempt_id), [NotReported()], _ACTOR, now)
            failpoint("settle.finishing")
        failpoint("settle.finished")
        return ()
