"""Reconcile: find calls that a restored database has lost in the carrier's list, before dialling resumes. Never dials.

A restored backup, or a standby without the last commits, lacks calls that were placed since. Their attempts are still
PENDING and would be called a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import token_urlsafe
from uuid import UUID

from scheduler.carriers.interface import CarrierQueries
from scheduler.domain.attempt import Attempt, Claimed, Placed
from scheduler.domain.call import ListedCall
from scheduler.domain.principal import SYSTEM, Act, TargetKind, Verb
from scheduler.rules import operators
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.context import Context

_ACTOR = "reconcile"
_MARGIN = timedelta(minutes=1)
"""Tolerance for the difference between the carrier's clock and ours."""


class NotPaused(Exception):
    """Calling is not paused, so new calls may be missing from the carrier's list."""


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """Result of a run."""

    calls: int
    known: int
    """Calls that were stored with their attempts already."""
    bound: tuple[UUID, ...]
    """Attempts that have got their lost call back."""
    unmatched: tuple[str, ...]
    """Calls without a pending attempt: of other programs, or of deleted rows."""


class Reconcile:
    def __init__(self, context: Context, queries: CarrierQueries, account_id: int, actor: str = SYSTEM) -> None:
        self._actor = actor
        self._database = context.database
        self._queries = queries
        self._account_id = account_id
        self._hasher = context.hasher
        self._effects = context.effects
        self._policy = context.policy
        self._now = context.now

    def since(self, instant: datetime, reason: str | None = None) -> Reconciled:
        """Bind the carrier's calls since then to the pending attempts that they were placed for. May be repeated.

        `reason` is for the audit, which has an entry for the start and one for the result. Raises NotPaused,
        InvalidPauseReason, CarrierUnavailable, DatabaseAway. Calls bound before the error stay bound.
        """
        reason = operators.optional(reason)
        with self._database.reading() as stores:
            if not stores.carrier_accounts.get(self._account_id).paused:
                raise NotPaused
            callers = stores.attempt_polls.callers_of_pending()
        self._audit(reason, since=instant)
        calls = known = 0
        bound: list[UUID] = []
        unmatched: list[str] = []
        for caller in callers:
            listed = self._queries.listed(
                to=None, caller=caller, created_from=instant - _MARGIN, created_until=self._now() + _MARGIN
            )
            unbound = self._unbound(listed)
            calls += len(listed)
            known += len(listed) - len(unbound)
            for call in unbound:  # newest first: it shows the current state of the conversation
                attempt = self._bind(call, caller)
                if attempt is None:
                    unmatched.append(call.news.call_sid)
                else:
                    bound.append(attempt)
        self._audit(reason, since=instant, calls=calls, known=known, bound=len(bound), unmatched=len(unmatched))
        return Reconciled(calls=calls, known=known, bound=tuple(bound), unmatched=tuple(unmatched))

    def _audit(self, reason: str | None, **after: object) -> None:
        act = Act(verb=Verb.RECONCILE, target_kind=TargetKind.ALL, reason=reason, after=after)
        with self._database.transaction() as stores:
            stores.audit.add(self._actor, [act], stores.instant(self._now))

    def _unbound(self, listed: Sequence[ListedCall]) -> list[ListedCall]:
        with self._database.reading() as stores:
            bound = stores.attempt_polls.bound_sids(call.news.call_sid for call in listed)
        return [call for call in listed if call.news.call_sid not in bound]

    def _bind(self, call: ListedCall, caller: str) -> UUID | None:
        """Claim the attempt of this call retroactively, and apply the call's outcome. None: no attempt fits."""
        news = call.news
        if not news.to:
            return None
        number_hash = self._hasher.number(news.to)
        with self._database.reading() as stores:
            pending = stores.attempt_polls.pending_to(number_hash, caller)
        if pending is None:
            return None
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            stores.carrier_accounts.lock(self._account_id)
            stores.companies.lock(pending.company_id)
            interview = stores.interviews.lock(pending.interview_id)
            attempt = stores.attempts.lock_as_of(pending.id, pending.epoch)
            if attempt is None or not stores.lines.hold(number_hash, pending.id):
                return None
            event = Claimed(token=token_urlsafe(24), lease_until=now + self._policy.lease)
            claimed = stores.attempt_claims.claim(attempt, event, self._account_id, _ACTOR, now)
            batch = Batch(stores, [interview])
            placed = Placed(call_sid=news.call_sid, look_at=now)
            moved: Attempt = self._effects.apply_events(batch, claimed, [placed], _ACTOR, now)
            self._effects.hear(batch, moved, news, _ACTOR, now)
        return pending.id
