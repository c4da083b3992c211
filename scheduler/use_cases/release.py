"""Release: send hints for due attempts, and send them again until a worker has looked at them.

Any number of clocks may run this at once. Each row is released by one of them, and a superfluous hint costs one query.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.failpoints import failpoint
from scheduler.lifecycle.policy import RELEASE_SPAN, SEND_SPAN
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.persistence.stores import Stores
from scheduler.timing import callee_zones
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints

_IDS_PER_HINT = 50
_MAX_RELEASED = 500
_UNANSWERED_FOR = timedelta(seconds=2)
"""Delay until the clock sends a hint for a command or callback. The API has sent one when it was stored."""
_RECOMPUTED_FOR = timedelta(seconds=5)
"""Delay until the clock sends a hint again for a changed setting. Longer than one turn, which ends with a hint."""


class Release:
    def __init__(self, context: Context, hints: Hints, account_id: int) -> None:
        self._database = context.database
        self._hints = hints
        self._account_id = account_id
        self.now = context.now

    def due(self) -> int:
        """Send hints for as many due attempts as the account can start during one release. Return their number.

        Raises DatabaseAway, ClockWrong.
        """
        with self._database.transaction() as stores:
            now = stores.instant(self.now)
            account = stores.carrier_accounts.get(self._account_id)
            ids = self._release(stores, account, now)
            failpoint("release.releasing")
        if account.is_to_be_asked(now):
            self.hint_sweep()  # settle probes the carrier too
        self._send(tasks.DIAL, ids)
        return len(ids)

    def _release(self, stores: Stores, account: CarrierAccount, now: datetime) -> list[UUID]:
        if account.paused or account.breaker.is_down:
            return []
        # While the breaker is half-open one call is tried, and the others stay unreleased.
        on_trial = account.breaker.is_on_trial
        startable = 1 if on_trial else int(account.calls_per_second * RELEASE_SPAN.total_seconds()) or 1
        room = startable - stores.attempt_release.released(now)
        if on_trial:
            room -= stores.carrier_accounts.calls_being_placed(account.id)
        if room <= 0:
            return []
        until = now + RELEASE_SPAN
        if on_trial:
            tried = stores.attempt_release.release(now, until, 1, account.id, on_trial=True)
            # Every due call may wait for a scope that is half-open too.
            return tried or stores.backoffs.release_trials(account.id, now, until, 1)
        tried = []
        if any(each.breaker.is_on_trial for each in account.backoffs.values()):
            tried = stores.backoffs.release_trials(account.id, now, until, room)
        room -= len(tried)
        # One second of calls is kept for companies without a released attempt. Otherwise, a company whose first call
        # becomes due during another's backlog waits for a tick.
        first = min(room, int(account.calls_per_second * SEND_SPAN.total_seconds()), _MAX_RELEASED)
        limit = min(room - first, _MAX_RELEASED)
        return [*tried, *stores.attempt_release.release(now, until, limit, account.id, first=first)]

    def next_due(self, after: datetime) -> datetime | None:
        """Return when the next pending attempt becomes due after this instant. No query is needed before."""
        with self._database.reading() as stores:
            return stores.attempt_release.next_due(after)

    def resend_hints(self) -> None:
        """Send hints again for commands, callbacks, changed settings and erasures that are still open.

        Raises DatabaseAway, ClockWrong.
        """
        with self._database.transaction() as stores:
            now = stores.instant(self.now)
            commands = stores.inbox.due_hints(now - _UNANSWERED_FOR, now, _MAX_RELEASED)
            events = stores.carrier_events.due_hints(now - _UNANSWERED_FOR, now, _MAX_RELEASED)
            reresolve = stores.reresolutions.ring_waiting(now - _RECOMPUTED_FOR, now)
            erasures = stores.erasures.due_hints(now - _UNANSWERED_FOR, now, _MAX_RELEASED)
            failpoint("release.reminding")
        self._send(tasks.APPLY, commands)
        self._send(tasks.HEAR, events)
        if reresolve:
            self._hints.send(tasks.RERESOLVE)
        self._send(tasks.ERASE, erasures)

    def hint_sweep(self) -> None:
        """Send hints to settle calls without a callback, to send due mail, and to apply newer zone data.

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

    def hint_purge(self) -> None:
        """Send the hint to purge rows whose retention has ended."""
        self._hints.send(tasks.PURGE)

    def _send(self, task: str, ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), _IDS_PER_HINT):
            failpoint("release.released")
            self._hints.send(task, ids[start : start + _IDS_PER_HINT])
            failpoint("release.rung")
