"""Stale times: due times after changed settings or zone data, and impossible times that a wrong clock wrote."""

import threading
from datetime import timedelta

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState, MovedBySettings
from scheduler.domain.refusals import Refused
from scheduler.lifecycle import blocks, scheduling
from scheduler.lifecycle.policy import POLLS, SLACK, Policy, call_bounds, call_corrected, due_corrected, latest_written
from scheduler.lifecycle.state_machine import NoSuchArrow
from scheduler.logs import log
from scheduler.persistence.database import BATCH_LOCK_S, Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.stores import Stores
from scheduler.timing import zone_names
from scheduler.use_cases.shared.batch import callee_from
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import RECOMPUTE, Hints, take_turn

_log = log(__name__)
_BATCH_SIZE = 25
"""Attempts in one transaction, which takes some tenths of a second."""
_PUT_OFF = timedelta(seconds=5)
"""Delay before a change is retried whose rows another transaction held."""
_BAD_ROW_ERRORS = (Refused, NoSuchArrow, ValueError, TypeError, LookupError, ArithmeticError, AssertionError)
"""Errors caused by a row that another release wrote or that is invalid, as opposed to database errors."""
_LONGEST_TRANSACTION = timedelta(seconds=6)
"""Statements end after 5 s, so attempts that were being created while settings changed are visible by then."""


# --- Schedules of pending attempts, recomputed after hours, time zones, numbers or zone data have changed


class ScheduleRecomputer:
    def __init__(self, context: Context, hints: Hints) -> None:
        self._database = context.database
        self._hints = hints
        self._hasher = context.hasher
        self._effects = context.effects
        self._policy = context.policy
        self._now = context.now
        self._alone = threading.Lock()

    def recompute(self) -> bool:
        """Recompute pending attempts whose hours, zones, number or zone data changed, for at most one turn.

        Batches alternate between companies, and between changed settings and newer zone data, so a company that changes
        its settings constantly cannot delay the zone data of others. In each process only one thread works, because a
        second one would delay e-mail and erasures.

        Returns True if work is left and a hint for the next turn was sent. Raises DatabaseAway.
        """
        # `|` runs both each time. `or` would skip the second while the first has work.
        if not take_turn(lambda: self._recompute_changed() | self._recompute_old_zone_data(), alone=self._alone):
            return False
        with self._database.transaction() as stores:
            # Note the hint, so that the clock sends another only if this one is lost.
            now = stores.instant(self._now)
            stores.schedule_recomputations.ring_waiting(now, now)
        self._hints.send(RECOMPUTE)
        return True

    def _recompute_changed(self) -> bool:
        """Process one batch of the change that has waited longest. False: no change is left for this worker."""
        taken: list[int] = []
        try:
            with self._database.transaction(lock_s=BATCH_LOCK_S) as stores:
                return self._batch(stores, taken)
        except DatabaseAway:
            # Another transaction may hold a row. Changes of other companies must not wait behind it.
            for change_id in taken:
                with self._database.transaction() as stores:
                    stores.schedule_recomputations.put_off(change_id, stores.instant(self._now) + _PUT_OFF)
            raise

    def _batch(self, stores: Stores, taken: list[int]) -> bool:
        now = stores.instant(self._now)
        change = stores.schedule_recomputations.lock_next(now)
        if change is None:
            return False
        taken.append(change.id)
        opened = stores.attempts.open_of_company(change.company_id, change.candidate_id, change.after, _BATCH_SIZE)
        # In the order of interviews, in which every transaction locks them.
        for attempt in opened.attempts:
            if attempt.state is AttemptState.PENDING:
                self._try_to_recompute(stores, attempt)
        if opened.until is not None:
            stores.schedule_recomputations.came_to(change, opened.until, now)
        elif change.is_last_pass:
            stores.schedule_recomputations.done(change.id)
        else:
            stores.schedule_recomputations.once_more(change.id, change.asked_at + _LONGEST_TRANSACTION)
        return True

    def _recompute_old_zone_data(self) -> bool:
        """Process one batch of pending attempts with older zone data. False: none is left.

        Newer data is never replaced by older, so that processes of two releases do not undo each other's work.
        """
        with self._database.transaction() as stores:
            pending = stores.schedule_recomputations.lock_older_zone_data(zone_names.TZDATA_VERSION, _BATCH_SIZE)
            for attempt in sorted(pending, key=lambda each: each.interview_id):
                cause = f"tzdata {attempt.schedule.tzdata_version} to {zone_names.TZDATA_VERSION}"
                self._try_to_recompute(stores, attempt, cause)
            stores.schedule_recomputations.note_zone_data([each.id for each in pending], zone_names.TZDATA_VERSION)
        return len(pending) == _BATCH_SIZE

    def _try_to_recompute(self, stores: Stores, attempt: Attempt, cause: str | None = None) -> None:
        """Recompute one attempt. After an error it stays unchanged, and the batch goes on."""
        try:
            with stores.connection.begin_nested():
                self._recompute(stores, attempt, cause)
        except _BAD_ROW_ERRORS:
            _log.exception(
                "attempt_not_rescheduled: the schedule could not be recomputed, so the attempt keeps its time",
                alarm="UNRESOLVED",
                attempt_id=str(attempt.id),
            )

    def _recompute(self, stores: Stores, unlocked: Attempt, cause: str | None) -> None:
        now = stores.instant(self._now)
        interview = stores.interviews.lock(unlocked.interview_id)
        attempt = stores.attempts.lock(unlocked.id)
        if attempt.state is not AttemptState.PENDING:
            return
        callee = callee_from(stores.attempts.callee_of(interview.id))
        if blocks.of_number(callee) is not None:
            self._effects.note_number(stores, attempt, callee)
            return  # the last look blocks it until its number is valid and allowed, or until it expires
        assert callee.number is not None
        schedule = scheduling.recomputed_schedule(attempt, callee, now, self._policy)
        if schedule is None and self._hasher.number(callee.number.e164) == attempt.number_hash:
            self._effects.note_number(stores, attempt, callee)
            return
        self._effects.move(stores, attempt, schedule, callee, now, cause)


# --- Correct: find impossible times that a wrong clock wrote before it was noticed, and bound them, within a sweep


_log = log(__name__)
_MOST_ROWS = 100
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
            calls = stores.corrections.lock_impossible_calls(call_bounds(now, self._policy), _MOST_ROWS)
            if calls:
                stores.corrections.save_calls([call_corrected(each, now, self._policy) for each in calls])
        _report(len(calls), "leases and polls of attempts")

    def _pending(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            pending = stores.corrections.lock_impossible_pending(latest_written(now), _MOST_ROWS)
            if pending:
                for each in pending:
                    due_at = due_corrected(each, now)
                    if due_at != each.due_at:
                        event = MovedBySettings(schedule=each.schedule, due_at=due_at)
                        stores.attempts.save(each, event, _ACTOR, now)  # guard: impossible_due
                stores.corrections.written_now([each.id for each in pending], now)
                stores.notify_due()
        _report(len(pending), "due times of attempts")

    def _lines(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            # A line rests for one gap, and for all interviews one gap after the next poll about its call.
            rests = now + self._policy.line_gap + SLACK
            count = stores.corrections.shorten_rests(rests, rests + POLLS[-1], _MOST_ROWS)
        _report(count, "lines")

    def _waits(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            counts: dict[str, int] = {}
            counts["holds of attempts"] = stores.corrections.end_impossible_holds(now, _MOST_ROWS)  # guard: long_hold
            counts["batches"] = stores.corrections.hasten_batches(now, _MOST_ROWS)  # guard: impossible_batch
            counts["holds of deliveries"] = stores.corrections.end_hook_holds(now, _MOST_ROWS)  # guard: long_hook_hold
            counts["deliveries"] = stores.corrections.hasten_deliveries(now, _MOST_ROWS)  # guard: impossible_send
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
