"""Records: what pending calls become when hours, zones or numbers have changed under them."""

import threading
from datetime import timedelta

from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.refusals import Refused
from scheduler.hashing import Hasher
from scheduler.lifecycle import blocks, scheduling
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.state_machine import NoSuchArrow
from scheduler.logs import log
from scheduler.persistence.database import Database, DatabaseAway, Stores
from scheduler.timing import callee_zones
from scheduler.use_cases.shared.effects import Effects
from scheduler.use_cases.shared.hints import RERESOLVE, Hints
from scheduler.use_cases.shared.situations import callee_from

_log = log(__name__)
_AT_ONCE = 25
"""Attempts in one transaction, which then takes some tenths of a second."""
_TURN = timedelta(seconds=2)
"""How long one task works before it queues up again behind the others of its queue."""
_PUT_OFF = timedelta(seconds=5)
"""Delay until a change is tried again whose rows another transaction held."""
_CANNOT_BE_LOOKED_AT = (Refused, NoSuchArrow, ValueError, TypeError, LookupError, ArithmeticError, AssertionError)
"""What a row brings about that another release wrote, or nobody should have; not what the database does."""
_LONGEST_TRANSACTION = timedelta(seconds=6)
"""A statement ends after 5 s: what was being made while settings changed is there by then."""


class ScheduleRecomputer:
    def __init__(
        self,
        database: Database,
        hints: Hints,
        hasher: Hasher,
        effects: Effects,
        policy: Policy,
        now: Now,
        *,
        turn: timedelta = _TURN,
    ) -> None:
        self._database = database
        self._hints = hints
        self._hasher = hasher
        self._effects = effects
        self._policy = policy
        self._now = now
        self._turn = turn.total_seconds()
        self._has_turn = threading.Lock()

    def reresolve(self) -> bool:
        """Resolve pending attempts again whose hours, zones, number or zone data changed, for at most one turn.

        Companies take turns batch by batch, and so do changed settings and newer zone data: a company that changes its
        settings again and again keeps nobody's zone data old.
        Returns whether work is left; then a hint for the next turn was sent. In each process one thread takes turns:
        a second one would keep mail and erasures waiting, and each turn ends with a hint of its own.
        Raises DatabaseAway.
        """
        if not self._has_turn.acquire(blocking=False):
            return False
        try:
            return self._take_turn()
        finally:
            self._has_turn.release()

    def _take_turn(self) -> bool:
        ends_at = monotonic() + self._turn
        # Both each time: `or` would not reach the second one while the first has work.
        while self._reresolve_some() | self._reresolve_old_zone_data():
            if monotonic() >= ends_at:
                with self._database.transaction() as stores:
                    # The clock sends a hint only if this one is lost. Otherwise hints would pile up turn by turn.
                    now = stores.instant(self._now)
                    stores.reresolutions.ring_waiting(now, now)
                self._hints.send(RERESOLVE)
                return True
        return False

    def _reresolve_some(self) -> bool:
        """One batch of the change that has waited longest. False: none is left that no other worker is at."""
        taken: list[int] = []
        try:
            with self._database.transaction() as stores:
                return self._batch(stores, taken)
        except DatabaseAway:
            # Perhaps another transaction holds a row. The changes of other companies must not wait behind it.
            for change_id in taken:
                with self._database.transaction() as stores:
                    stores.reresolutions.put_off(change_id, stores.instant(self._now) + _PUT_OFF)
            raise

    def _batch(self, stores: Stores, taken: list[int]) -> bool:
        now = stores.instant(self._now)
        change = stores.reresolutions.lock_next(now)
        if change is None:
            return False
        taken.append(change.id)
        pending = stores.attempts.pending_of(change.company_id, change.candidate_id, change.after_id, _AT_ONCE)
        # In the order in which whoever else holds several interviews takes them.
        for attempt in sorted(pending, key=lambda each: each.interview_id):
            self._try_to_resolve(stores, attempt)
        if len(pending) == _AT_ONCE:
            stores.reresolutions.came_to(change.id, pending[-1].id, now)
        elif change.is_last_pass:
            stores.reresolutions.done(change.id)
        else:
            stores.reresolutions.once_more(change.id, change.asked_at + _LONGEST_TRANSACTION)
        return True

    def _reresolve_old_zone_data(self) -> bool:
        """One batch of pending attempts that were resolved with older zone data. False: no more are left.

        Newer data never give way to older ones, so that processes of two releases do not undo each other's work.
        """
        with self._database.transaction() as stores:
            pending = stores.attempts.lock_older_zone_data(callee_zones.TZDATA_VERSION, _AT_ONCE)
            for attempt in sorted(pending, key=lambda each: each.interview_id):
                cause = f"tzdata {attempt.schedule.tzdata_version} to {callee_zones.TZDATA_VERSION}"
                self._try_to_resolve(stores, attempt, cause)
            stores.attempts.note_zone_data([each.id for each in pending], callee_zones.TZDATA_VERSION)
        return len(pending) == _AT_ONCE

    def _try_to_resolve(self, stores: Stores, attempt: Attempt, cause: str | None = None) -> None:
        """One that cannot be looked at stays as it is, held by the last look, and keeps nobody else waiting."""
        try:
            with stores.connection.begin_nested():
                self._resolve_anew(stores, attempt, cause)
        except _CANNOT_BE_LOOKED_AT:
            _log.exception("an attempt cannot be resolved anew", alarm="UNRESOLVED", attempt_id=str(attempt.id))

    def _resolve_anew(self, stores: Stores, seen: Attempt, cause: str | None) -> None:
        now = stores.instant(self._now)
        interview = stores.interviews.lock(seen.interview_id)
        attempt = stores.attempts.lock(seen.id)
        if attempt.state is not AttemptState.PENDING:
            return
        callee = callee_from(stores.attempts.callee_of(interview.id))
        if blocks.of_number(callee) is not None:
            return  # held by the last look, until there is a number that may be called or it expires
        assert callee.number is not None
        number = callee.number.e164
        schedule = scheduling.recomputed_schedule(attempt, callee, now, self._policy)
        if schedule is None and self._hasher.number(number) == attempt.number_hash:
            return
        self._effects.move(stores, attempt, schedule, number, now, cause)
