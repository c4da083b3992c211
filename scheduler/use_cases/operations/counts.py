"""Counts: all numbers of `/metrics`, tallies, and sessions of the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.batch import WaitingBatches
from scheduler.domain.principal import SYSTEM, Act, TargetKind, Verb
from scheduler.domain.refusals import NotFound
from scheduler.domain.webhook import WaitingDeliveries
from scheduler.lifecycle.backoffs import Backoff
from scheduler.persistence.database import Database
from scheduler.persistence.unknown_outcomes import OpenTransaction
from scheduler.rules import operators
from scheduler.rules.tallies import Amount, Key
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.quarantine import Commands, OpenErasures, commands_in, erasures_in
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.status import Carrier, Waiting, carriers_in

# --- Tallies: counters and histograms of all processes, added to their totals by the clock


_BATCH_SIZE = 1000


class Tallies:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, amounts: Mapping[Key, Amount]) -> None:
        """Add what this process has counted. Raises DatabaseAway."""
        if amounts:
            # They contain no time, so a wrong clock does not matter.
            with self._database.transaction(corrected=True) as stores, stores.connection.gathering():
                stores.tallies.add(amounts)

    def fold(self) -> None:
        """Add appended amounts to the totals. Any number of clocks may do so at once. Raises DatabaseAway."""
        more = True
        while more:
            with self._database.transaction(corrected=True) as stores:
                more = stores.tallies.fold(_BATCH_SIZE) == _BATCH_SIZE

    def totals(self) -> dict[Key, Amount]:
        """Read the totals over all processes since the installation. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return stores.tallies.totals()


# --- Counts: all numbers of `/metrics`, in one transaction


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


# --- Database sessions: an operator looks for the transaction that keeps a row locked, and ends its session


class DatabaseSessions:
    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def open_transactions(self) -> Sequence[OpenTransaction]:
        """List the open transactions of all programs, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.open_transactions.all()

    def end(self, pid: int, reason: str) -> None:
        """End the session of an open transaction, which is rolled back.

        Raises InvalidPauseReason, NotFound, WrongRole, DatabaseAway.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            if not stores.open_transactions.end(pid):
                raise NotFound("No session with this id has an open transaction; `duecall locks list` has the ids.")
            act = Act(verb=Verb.END_DATABASE_SESSION, target_kind=TargetKind.ALL, reason=reason, before={"pid": pid})
            stores.audit.add(self._actor, [act], stores.instant(self._now))
