"""Purge: what was kept long enough goes, in batches. What is still needed stays, however old it is."""

from collections.abc import Callable
from datetime import datetime

from scheduler.clock import Now
from scheduler.persistence.database import Database, Stores
from scheduler.rules import retention
from scheduler.use_cases.operations.quarantine import dropped
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints

_A_BATCH = 1000
_BATCHES_A_TURN = 20
"""Then others who wait in the same queue get theirs."""

_Forget = Callable[[Stores, datetime, int], int]


def _drop_forgotten(stores: Stores, now: datetime, limit: int) -> int:
    """Nobody has looked at these for a month: the people whom they would have made are not kept any longer."""
    forgotten = stores.inbox.lock_forgotten(now - retention.ANSWERS, limit)
    for each in forgotten:
        dropped(stores, each, now)
    return len(forgotten)


_STEPS: tuple[_Forget, ...] = (
    lambda stores, now, limit: stores.retention.forget_answers(now - retention.ANSWERS, limit),
    _drop_forgotten,
    lambda stores, now, limit: stores.retention.forget_carrier_events(now - retention.CARRIER_EVENTS, limit),
    lambda stores, now, limit: stores.retention.forget_history(now - retention.HISTORY, limit),
    lambda stores, now, limit: stores.retention.forget_invitations(now - retention.INVITATIONS, limit),
    lambda stores, now, limit: stores.backoffs.forget(now - retention.BACKOFFS, limit),
)


class Purge:
    def __init__(self, database: Database, hints: Hints, now: Now) -> None:
        self._database = database
        self._hints = hints
        self._now = now

    def round(self) -> None:
        """Forget what is old; rings for another round when there is more. Any number may run at once.

        Raises DatabaseAway.
        """
        self._forget_lines()
        left = [self._is_left(step) for step in _STEPS]
        if any(left):
            self._hints.send(tasks.PURGE)

    def _is_left(self, step: _Forget) -> bool:
        for _ in range(_BATCHES_A_TURN):
            with self._database.transaction() as stores:
                # Again in each transaction: what is deleted is deleted for good, so it takes a compared clock.
                if step(stores, stores.instant(self._now), _A_BATCH) < _A_BATCH:
                    return False
        return True

    def _forget_lines(self) -> None:
        """All of them in one go: they are looked at in the order of their hashes, and most stay."""
        after: bytes | None = b""
        while after is not None:
            with self._database.transaction() as stores:
                free_before = stores.instant(self._now) - retention.LINES
                after = stores.lines.forget_free_above(after, free_before, _A_BATCH)
