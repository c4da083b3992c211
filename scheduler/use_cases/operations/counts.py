"""Counts: all numbers of `/metrics`, in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from scheduler.domain.batch import WaitingBatches
from scheduler.domain.webhook_delivery import WaitingDeliveries
from scheduler.lifecycle.backoffs import Backoff
from scheduler.rules.tallies import Amount, Key
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.backlog import Commands, OpenErasures, commands_in, erasures_in
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.status import Carrier, Waiting, carriers_in


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The numbers at one time, over all companies."""

    attempts: Sequence[Waiting]
    carriers: Sequence[Carrier]
    backoffs: Sequence[Backoff]
    commands: Mapping[UUID, Commands]
    callbacks_quarantined: int
    erasures: OpenErasures
    webhooks: WaitingDeliveries
    webhooks_late: timedelta | None
    """Time since the oldest of them was due."""
    batches: WaitingBatches
    batches_oldest: timedelta | None
    """Time since the oldest of them was stored."""
    batches_still: timedelta | None
    """Longest time since the batches of a company made progress."""
    alarms: Mapping[str, int]
    """Open alarms by kind."""
    totals: Mapping[Key, Amount]
    """Tallies since the installation."""


class Counts:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._now = context.now
        self._explain = Explain(context)

    def count(self) -> Counted:
        """Count everything. Raises DatabaseAway.

        One transaction, because each further one costs three round trips, and perhaps another backend that has not
        read the catalogue of these tables yet.
        """
        with self._database.counting() as stores:
            now = self._now()
            webhooks = stores.webhook_deliveries.waiting(now)
            batches = stores.batches.waiting()
            return Counted(
                attempts=self._explain.waiting_in(stores),
                carriers=carriers_in(stores),
                backoffs=stores.backoffs.waiting(),
                commands=commands_in(stores, now),
                callbacks_quarantined=stores.carrier_events.count_quarantined(),
                erasures=erasures_in(stores, now),
                webhooks=webhooks,
                webhooks_late=None if webhooks.oldest_at is None else now - webhooks.oldest_at,
                batches=batches,
                batches_oldest=None if batches.oldest_at is None else now - batches.oldest_at,
                batches_still=None if batches.still_since is None else now - batches.still_since,
                alarms=stores.alarms.count_open(),
                totals=stores.tallies.totals(),
            )
