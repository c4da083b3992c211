"""Correct: find impossible times that a wrong clock wrote before it was noticed, and bound them, within a sweep."""

from scheduler.clock import Now
from scheduler.domain.attempt import MovedBySettings
from scheduler.lifecycle import bounds
from scheduler.lifecycle.policy import Policy
from scheduler.logs import log
from scheduler.persistence.database import Database

_log = log(__name__)
_BATCH_SIZE = 100
_ACTOR = "clock"


class Correct:
    """Each step is one transaction, so it runs only on a clock that was compared in it."""

    def __init__(self, database: Database, policy: Policy, now: Now) -> None:
        self._database = database
        self._policy = policy
        self._now = now

    def round(self) -> None:
        """Correct up to a hundred rows of each kind. The next sweep continues. Several processes may run it at once.

        Raises DatabaseAway, ClockWrong.
        """
        self._calls()
        self._pending()
        self._lines()  # guard: impossible_rest
        self._waits()

    def _calls(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            calls = stores.corrections.lock_impossible_calls(bounds.of_calls(now, self._policy), _BATCH_SIZE)
            if calls:
                stores.corrections.save_calls([bounds.call_corrected(each, now, self._policy) for each in calls])
        _report(len(calls), "leases and polls of attempts")

    def _pending(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            pending = stores.corrections.lock_impossible_pending(bounds.latest_written(now), _BATCH_SIZE)
            if pending:
                for each in pending:
                    due_at = bounds.due_corrected(each, now)
                    if due_at != each.due_at:
                        event = MovedBySettings(schedule=each.schedule, due_at=due_at)
                        stores.attempts.save(each, event, _ACTOR, now)  # guard: impossible_due
                stores.corrections.written_now([each.id for each in pending], now)
                stores.notify_due()
        _report(len(pending), "due times of attempts")

    def _lines(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            rests = bounds.latest_line_rest(now, self._policy)
            count = stores.corrections.shorten_rests(rests, bounds.latest_line_kept(now, self._policy), _BATCH_SIZE)
        _report(count, "lines")

    def _waits(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            counts: dict[str, int] = {}
            counts["holds of attempts"] = stores.corrections.end_impossible_holds(now, _BATCH_SIZE)  # guard: long_hold
            counts["batches"] = stores.corrections.hasten_batches(now, _BATCH_SIZE)  # guard: impossible_batch
            counts["holds of deliveries"] = stores.corrections.end_hook_holds(now, _BATCH_SIZE)  # guard: long_hook_hold
            counts["deliveries"] = stores.corrections.hasten_deliveries(now, _BATCH_SIZE)  # guard: impossible_send
        for kind, count in counts.items():
            _report(count, kind)


def _report(count: int, kind: str) -> None:
    if count:
        _log.error(
            "impossible_times_corrected: a wrong clock had written times that no rule can produce",
            alarm="CLOCK_WAS_WRONG",
            kind=kind,
            count=count,
        )
