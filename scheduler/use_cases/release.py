"""Release: send hints for due attempts, and send them again until a worker has looked at them.

Any number of clocks may run this at once. Each row is released by one of them, and a superfluous hint costs one query.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias, TypeVar
from uuid import UUID

from scheduler.failpoints import failpoint
from scheduler.lifecycle import voice_server
from scheduler.lifecycle.breaker import PROBED_WITHIN, Breaker
from scheduler.lifecycle.capacity import kept_places
from scheduler.lifecycle.policy import RELEASE_SPAN, SEND_SPAN, latest_release
from scheduler.logs import log
from scheduler.persistence.attempt_holds import FIRST_LINE
from scheduler.persistence.attempt_release import MOST_RELEASED
from scheduler.persistence.backoffs import FIRST_LOOK
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.persistence.database import BATCH_LOCK_S, is_conflict
from scheduler.persistence.stores import Stores
from scheduler.timing import zone_names
from scheduler.use_cases.operations.counts import CallerReputation, Tallies
from scheduler.use_cases.operations.number_events import NumberEvents
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints

T = TypeVar("T")
_log = log(__name__)
_IDS_PER_HINT = 50
_UNANSWERED_FOR = timedelta(seconds=2)
"""Delay until the clock sends a hint for a command or callback. The API has sent one when it was stored."""
_RECOMPUTED_FOR = timedelta(seconds=5)
"""Delay until the clock sends a hint again for a changed setting. Longer than one turn, which ends with a hint."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """Result of one round of the clock."""

    released: int
    more: bool
    """True if the release ended at its limit, so that more attempts may be due."""
    next_due: datetime | None
    """The instant at which the next pending attempt that is not released becomes due."""


_Unfinished: TypeAlias = Mapping[str, Sequence[UUID] | bool]
"""Work whose hint is to be sent again, by task: its ids, or True for a task without ids."""

_SWEPT: tuple[tuple[str, Callable[[Stores, datetime], bool]], ...] = (
    (tasks.INVITE, lambda stores, now: stores.invitations.is_one_due(now)),
    (tasks.NOTIFY_OWNERS, lambda stores, now: stores.webhook_notices.is_one_due(now)),
    (tasks.POST_ALARMS, lambda stores, now: stores.alarms.is_one_to_post(now)),
    (tasks.BATCHES, lambda stores, now: stores.batches.is_one_due(now - _UNANSWERED_FOR)),
    (tasks.NUMBER_EVENTS, lambda stores, now: stores.inbox.is_one_owed(now)),
    (tasks.ERASE_PEOPLE, lambda stores, now: stores.candidates.is_one_leaving(now)),
    (
        tasks.RECOMPUTE,
        lambda stores, _: stores.schedule_recomputations.has_older_zone_data(zone_names.TZDATA_VERSION),
    ),
)
"""The tasks whose hints are sent in each sweep in which a row is due."""


class Release:
    def __init__(self, context: Context, hints: Hints, account_id: int) -> None:
        self._database = context.database
        self._tallies = Tallies(context.database)
        self._callers = CallerReputation(context)
        self._events = NumberEvents(context.database, hints, context.now)
        self._hints = hints
        self._account_id = account_id
        self._alarmed_at: datetime | None = None
        self._down_at: datetime | None = None
        """The last time at which the account's breaker was seen open."""
        self._line = FIRST_LINE
        """The last free line whose holds were ended. The next round continues after it."""
        self._trials_after = FIRST_LOOK
        """The last interview that was looked at for trial calls of back-offs."""
        self.now = context.now

    def round(self, *, resends: bool, ahead: timedelta = timedelta()) -> Round:
        """Send hints for as many due attempts as the account can start during one release, in one transaction.

        Attempts that become due within `ahead` get theirs early. A hint claims nothing. With `resends`, also send hints
        again for unfinished work. Raises DatabaseAway, ClockWrong.
        """
        unfinished: _Unfinished = {}
        # Short waits, because the rows of released attempts stay locked meanwhile.
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores:
            now = stores.instant(self.now)
            account = stores.carrier_accounts.get(self._account_id)
            released, more = self._release(stores, account, now, ahead)
            failpoint("release.releasing")
            if resends:
                unfinished = self._unfinished(stores, now)
            # Due after `now`: a call that becomes due from here on would otherwise wait for a whole tick.
            next_due = stores.attempt_release.next_due(now)
        self._report_overdue_probe(account, now)  # guard: overdue_probe
        if account.is_to_be_asked(now):
            self.hint_sweep()  # settle probes the carrier too
        self._send(tasks.DIAL, list(released), {each: at for each, at in released.items() if at > now})
        self._resend(unfinished)
        return Round(released=len(released), more=more, next_due=next_due)

    def _release(
        self, stores: Stores, account: CarrierAccount, now: datetime, ahead: timedelta
    ) -> tuple[Mapping[UUID, datetime], bool]:
        """Release attempts. Return their ids with their due times, and whether the limit was reached."""
        if account.paused or account.breaker.is_down:
            return {}, False
        # While the breaker is half-open one call is tried, and the others stay unreleased.
        on_trial = account.breaker.is_on_trial
        startable = 1 if on_trial else int(account.calls_per_second * RELEASE_SPAN.total_seconds()) or 1
        released = stores.attempt_release.released(now, account.id)
        free = account.max_calls - released.calls - released.all
        room = startable - released.all
        room = min(room, free)  # guard: release_places
        if on_trial:
            since = voice_server.tried_since(account.breaker)
            room -= stores.carrier_accounts.calls_being_placed(account.id, since)
        if room <= 0:
            return {}, False
        places = max(0, free - kept_places(account.max_calls))
        until = now + RELEASE_SPAN
        is_cut = self._hold(stores, now, now + ahead)
        if on_trial:
            tried = stores.attempt_release.release(
                now,
                until,
                1,
                account.id,
                places=places,
                on_trial=True,
                tried_since=account.breaker.answered_at,
                unanswered=voice_server.unanswered_trials(account.breaker),
            )
            # Every due call may wait for a scope that is half-open too.
            return tried or self._release_trials(stores, now, until, 1), False
        tried = {}
        if any(each.breaker.is_on_trial for each in account.backoffs.values()):
            tried = self._release_trials(stores, now, until, room)
        room -= len(tried)
        # One second of calls is kept for companies without a released attempt. Otherwise, a company whose first call
        # becomes due during another's backlog waits for a tick.
        first = min(room, int(account.calls_per_second * SEND_SPAN.total_seconds()), MOST_RELEASED)
        limit = min(room - first, MOST_RELEASED)
        # At most the calls of `ahead`. Otherwise early attempts would fill the room that a call due at once needs.
        early = max(0, int(account.calls_per_second * ahead.total_seconds()) - released.early)
        found = stores.attempt_release.release(
            now, until, limit, account.id, first=first, places=places, early=early, due_by=now + ahead
        )
        return tried | found, is_cut or (bool(found) and len(found) >= limit)

    def _release_trials(self, stores: Stores, now: datetime, until: datetime, limit: int) -> dict[UUID, datetime]:
        ids, self._trials_after = stores.backoffs.release_trials(
            self._account_id, now, until, limit, self._trials_after
        )
        return dict.fromkeys(ids, now)

    def _hold(self, stores: Stores, now: datetime, due_by: datetime) -> bool:
        """Hold due attempts that cannot be released, and end holds of others. True: there may be more.

        Before the release, so that it reads what has become free, and only little of what has not.
        """
        # In turns: lines of one company with many attempts each must not be the first ones again and again.
        self._line = stores.attempt_holds.end(now, self._line)
        latest = latest_release(now)
        is_more_held = stores.attempt_holds.hold(now, due_by, latest, self._account_id)
        return is_more_held or self._line != FIRST_LINE

    def _unfinished(self, stores: Stores, now: datetime) -> _Unfinished:
        """Collect open commands, callbacks, changed settings and erasures. Their hints are recorded as sent now."""
        before = now - _UNANSWERED_FOR
        takes: dict[str, Callable[[], Sequence[UUID] | bool]] = {
            tasks.APPLY: lambda: stores.inbox.due_hints(before, now, MOST_RELEASED),
            tasks.HEAR: lambda: stores.carrier_events.due_hints(before, now, MOST_RELEASED),
            tasks.RECOMPUTE: lambda: stores.schedule_recomputations.ring_waiting(now - _RECOMPUTED_FOR, now),
            tasks.ERASE: lambda: stores.erasures.due_hints(before, now, MOST_RELEASED),
        }
        found = _if_free(stores, lambda: {task: take() for task, take in takes.items()})
        if found is None:
            _log.warning("hints_delayed: another transaction held unfinished work, so its hints are sent later")
            # Only the hints of the kind that is held are delayed.
            each = {task: _if_free(stores, take) for task, take in takes.items()}
            found = {task: value for task, value in each.items() if value is not None}
        failpoint("release.reminding")
        return found

    def _resend(self, unfinished: _Unfinished) -> None:
        for task, ids in unfinished.items():
            if ids is True:
                self._hints.send(task)
            elif ids:
                self._send(task, ids)

    def hint_sweep(self) -> None:
        """Send hints to settle calls without a callback, to send due mail and alarms, and to apply newer zone data.

        Also send them for batches that no worker works on, interviews of erased people and refusals that no request has
        returned. Raises DatabaseAway.
        """
        self._hints.send(tasks.SETTLE)
        with self._database.reading() as stores:
            now = self.now()
            due = [task for task, is_one_due in _SWEPT if is_one_due(stores, now)]
        for task in due:
            self._hints.send(task)

    def fold_tallies(self) -> None:
        """Add the amounts that all processes have appended to the totals. Raises DatabaseAway."""
        self._tallies.fold()

    def fold_callers(self) -> None:
        """Add the ended calls of caller ids to their days, and raise alarms about them. Raises DatabaseAway."""
        self._callers.fold()

    def number_events(self) -> None:
        """Give new partner events their places in the order. Raises DatabaseAway."""
        self._events.batch()

    def hint_purge(self) -> None:
        """Send the hint to purge rows whose retention has ended."""
        self._hints.send(tasks.PURGE)

    def _report_overdue_probe(self, account: CarrierAccount, now: datetime) -> None:
        """Raise an alarm, at most once a minute, if no worker probes a carrier that is down or fails some orders."""
        if account.breaker.is_down:
            self._down_at = now
            overdue = [account.breaker] if account.breaker.is_probe_overdue(now) else []
        else:
            overdue = self._overdue_backoffs(account, now)
        if not overdue or (self._alarmed_at is not None and self._alarmed_at <= now < self._alarmed_at + PROBED_WITHIN):
            return
        self._alarmed_at = now
        _log.error(
            "probe_overdue: no worker has probed a carrier that is down, so all calls wait"
            if account.breaker.is_down
            else "probe_overdue: no worker has probed a carrier that fails or refuses some calls, so these wait",
            alarm="PROBE_OVERDUE",
            count=len(overdue),
            until=min(each.down_until for each in overdue if each.down_until is not None).isoformat(),
        )

    def _overdue_backoffs(self, account: CarrierAccount, now: datetime) -> list[Breaker]:
        """List the back-offs whose probe is overdue. None is probed while the account's breaker is open."""
        if self._down_at is not None and self._down_at <= now < self._down_at + PROBED_WITHIN:
            return []
        return [each.breaker for each in account.backoffs.values() if each.breaker.is_probe_overdue(now)]

    def _send(self, task: str, ids: Sequence[UUID], early: Mapping[UUID, datetime] | None = None) -> None:
        for start in range(0, len(ids), _IDS_PER_HINT):
            some = ids[start : start + _IDS_PER_HINT]
            due_at = {each: early[each] for each in some if each in early} if early else None
            failpoint("release.released")
            self._hints.send(task, some, due_at)
            failpoint("release.rung")


def _if_free(stores: Stores, take: Callable[[], T]) -> T | None:
    """Call `take`. None while another transaction holds its rows: calls are released all the same."""
    try:
        with stores.connection.begin_nested():
            return take()
    except Exception as error:
        if not is_conflict(error):
            raise
        return None
