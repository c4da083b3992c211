"""Carrier back-offs as an operator lists and ends them, and stray calls."""

from collections.abc import Sequence
from dataclasses import replace

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.lifecycle.backoffs import Backoff
from scheduler.persistence.database import Database
from scheduler.persistence.stray_calls import LiveStrayCall
from scheduler.rules import pause_reasons


class CarrierWaits:
    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def all(self) -> Sequence[Backoff]:
        """Return the open and half-open back-offs, without the callers' numbers. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return stores.backoffs.waiting()

    def stray_calls(self) -> Sequence[LiveStrayCall]:
        """Return the stray calls that have not provably ended, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.stray_calls.live()

    def end(self, reason: str | None = None) -> int:
        """End the wait of all back-offs: each gets a trial call after the next good probe. Return their number.

        `reason` is for the audit. Raises InvalidPauseReason, ClockWrong, DatabaseAway.
        """
        reason = pause_reasons.optional(reason)
        ended = 0
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            for account_id in [account.id for account in stores.carrier_accounts.all()]:
                held = dict(stores.carrier_accounts.lock(account_id).backoffs)
                waits = [scope for scope, each in held.items() if each.breaker.is_down]
                for scope in waits:
                    held[scope] = replace(held[scope], breaker=replace(held[scope].breaker, down_until=now))
                stores.backoffs.save(account_id, held, now)
                ended += len(waits)
            stores.notify_due()
            if ended:
                act = Act(verb=Verb.RETRY_CARRIER, target_kind=TargetKind.ALL, reason=reason, after={"count": ended})
                stores.audit.add(self._actor, [act], now)
        return ended
