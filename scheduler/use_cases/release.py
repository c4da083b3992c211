"""Release: what is due is rung for, and rung for again until somebody has looked.

Any number of clocks may do this at once: each row is released by one of them, and a ring too many costs a look.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.failpoints import failpoint
from scheduler.lifecycle.policy import RELEASE_SPAN, Policy
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.persistence.database import Database, Stores
from scheduler.timing import callee_zones
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints

_IDS_A_RING = 50
_AT_MOST = 500
_UNANSWERED_FOR = timedelta(seconds=2)
"""How long a command or a callback is left to the ring of whoever took it in."""
_RECOMPUTED_FOR = timedelta(seconds=5)
"""How long a changed setting is left to the last hint: longer than a turn of recomputation, which ends with a hint."""


class Release:
    def __init__(self, database: Database, hints: Hints, account_id: int, policy: Policy, now: Now) -> None:
        self._database = database
        self._hints = hints
        self._account_id = account_id
        self._policy = policy
        self.now = now

    def due(self) -> int:
        """Ring for what is due, as much as the account can start while a release stands. Returns how many.

        Raises DatabaseAway, ClockWrong.
        """
        with self._database.transaction() as stores:
            now = stores.instant(self.now)
            account = stores.carrier_accounts.get(self._account_id)
            ids = self._release(stores, account, now)
            failpoint("release.releasing")
        if account.is_to_be_asked(now):
            self.silent()  # who settles asks the carrier, too
        self._ring(tasks.DIAL, ids)
        return len(ids)

    def _release(self, stores: Stores, account: CarrierAccount, now: datetime) -> list[UUID]:
        if account.paused or account.breaker.is_down:
            return []
        # While the carrier is on trial one call is tried, and the others wait where they cost nothing.
        on_trial = account.breaker.is_on_trial
        startable = 1 if on_trial else int(account.calls_per_second * RELEASE_SPAN.total_seconds()) or 1
        room = min(_AT_MOST, startable - stores.attempts.released(now))
        if on_trial:
            room -= stores.carrier_accounts.calls_being_placed(account.id)
        if room <= 0:
            return []
        until = now + RELEASE_SPAN
        tried: list[UUID] = []
        if not on_trial and any(each.breaker.is_on_trial for each in account.backoffs.values()):
            tried = stores.backoffs.release_trials(account.id, now, until)
        return [*tried, *stores.attempts.release(now, until, room, account.id, on_trial=on_trial)]

    def next_due(self) -> datetime | None:
        """When the next pending attempt becomes due; the clock need not look for due ones before."""
        with self._database.reading() as stores:
            return stores.attempts.next_due(self.now())

    def unanswered(self) -> None:
        """Ring again for commands, callbacks, changes, erasures that are still open since their last hint.

        Raises DatabaseAway, ClockWrong.
        """
        with self._database.transaction() as stores:
            now = stores.instant(self.now)
            commands = stores.inbox.ring_waiting(now - _UNANSWERED_FOR, now, _AT_MOST)
            events = stores.carrier_events.ring_unheard(now - _UNANSWERED_FOR, now, _AT_MOST)
            reresolve = stores.reresolutions.ring_waiting(now - _RECOMPUTED_FOR, now)
            erasures = stores.erasures.ring_waiting(now - _UNANSWERED_FOR, now, _AT_MOST)
            failpoint("release.reminding")
        self._ring(tasks.APPLY, commands)
        self._ring(tasks.HEAR, events)
        if reresolve:
            self._hints.send(tasks.RERESOLVE)
        self._ring(tasks.ERASE, erasures)

    def silent(self) -> None:
        """Ring for calls without a callback, which are to be settled, for mail that is due and for newer zone data.

        Raises DatabaseAway.
        """
        self._hints.send(tasks.SETTLE)
        with self._database.reading() as stores:
            due = stores.invitations.is_one_due(self.now())
            is_older = stores.attempts.has_older_zone_data(callee_zones.TZDATA_VERSION)
        if due:
            self._hints.send(tasks.INVITE)
        if is_older:
            self._hints.send(tasks.RERESOLVE)

    def old(self) -> None:
        """Ring for whoever forgets what was kept long enough."""
        self._hints.send(tasks.PURGE)

    def _ring(self, task: str, ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), _IDS_A_RING):
            failpoint("release.released")
            self._hints.send(task, ids[start : start + _IDS_A_RING])
            failpoint("release.rung")
