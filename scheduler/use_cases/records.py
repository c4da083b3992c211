"""Records: what pending calls become when hours, zones or numbers have changed under them."""

from datetime import timedelta

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.refusals import Refused
from scheduler.hashing import Hasher
from scheduler.lifecycle import blocks, scheduling
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.state_machine import NoSuchArrow
from scheduler.logs import log
from scheduler.persistence.database import Database, Stores
from scheduler.use_cases.consequences import Consequences
from scheduler.use_cases.seen import callee_from

_log = log(__name__)
_AT_ONCE = 100
_CANNOT_BE_LOOKED_AT = (Refused, NoSuchArrow, ValueError, TypeError, LookupError, ArithmeticError, AssertionError)
"""What a row brings about that another release wrote, or nobody should have; not what the database does."""
_LONGEST_TRANSACTION = timedelta(seconds=6)
"""A statement ends after 5 s: what was being made while settings changed is there by then."""


class Records:
    def __init__(
        self, database: Database, hasher: Hasher, consequences: Consequences, policy: Policy, now: Now
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._consequences = consequences
        self._policy = policy
        self._now = now

    def reresolve(self) -> None:
        """Look at pending attempts anew whose hours, zones or numbers changed, in batches. Raises DatabaseAway."""
        while self._reresolve_some():
            pass

    def _reresolve_some(self) -> bool:
        """One batch of the oldest change. False: nothing is left that nobody else is at."""
        with self._database.transaction() as stores:
            change = stores.reresolutions.lock_next(stores.instant(self._now))
            if change is None:
                return False
            pending = stores.attempts.pending_of(change.company_id, change.candidate_id, change.after_id, _AT_ONCE)
            # In the order in which whoever else holds several interviews takes them.
            for attempt in sorted(pending, key=lambda each: each.interview_id):
                self._try_to_resolve(stores, attempt)
            if len(pending) == _AT_ONCE:
                stores.reresolutions.came_to(change.id, pending[-1].id)
            elif change.is_last_pass:
                stores.reresolutions.done(change.id)
            else:
                stores.reresolutions.once_more(change.id, change.asked_at + _LONGEST_TRANSACTION)
            return True

    def _try_to_resolve(self, stores: Stores, attempt: Attempt) -> None:
        """One that cannot be looked at stays as it is, held by the last look, and keeps nobody else waiting."""
        try:
            with stores.connection.begin_nested():
                self._resolve_anew(stores, attempt)
        except _CANNOT_BE_LOOKED_AT:
            _log.exception("an attempt cannot be resolved anew", alarm="UNRESOLVED", attempt_id=str(attempt.id))

    def _resolve_anew(self, stores: Stores, seen: Attempt) -> None:
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
        schedule = scheduling.resolved_anew(attempt, callee, now, self._policy)
        if schedule is None and self._hasher.number(number) == attempt.number_hash:
            return
        self._consequences.move(stores, attempt, schedule, number, now)
