"""Purge: delete rows whose retention has ended, in batches. Rows that are still needed are kept."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from scheduler.clock import Now
from scheduler.domain.batch import BatchState
from scheduler.lifecycle import partner_events
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import retention
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints

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
            partner_events.of_dropped_command(command_id, company_id, None, now)
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
