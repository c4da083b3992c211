"""Pauses, ceilings and back-offs: what operators decide about calling."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from scheduler.domain.company import CallLimits, LimitCeiling
from scheduler.domain.explanation import Rule
from scheduler.domain.principal import Act, TargetKind, Verb
from scheduler.domain.refusals import NotFound
from scheduler.domain.webhook import NewEvent
from scheduler.lifecycle import partner_events
from scheduler.lifecycle.backoffs import Backoff
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.stores import Stores
from scheduler.persistence.unknown_outcomes import LiveStrayCall
from scheduler.rules import operators
from scheduler.use_cases.shared.access import OperatorUseCase, not_found

# --- Ceilings: an operator decides the highest limits that a company may set for itself


@dataclass(frozen=True, kw_only=True)
class Limited:
    ceiling: LimitCeiling
    limits: CallLimits
    """The limits of the company, which its calls keep from now on."""


class Ceilings(OperatorUseCase):
    def set(
        self, company_id: UUID, named: LimitCeiling, *, drops_others: bool = False, reason: str | None = None
    ) -> Limited:
        """Set the named parts of a company's ceiling. Higher limits of the company are lowered to it at once.

        With `drops_others` the parts without a value are removed, and the limits of the account apply instead.
        `reason` is for the audit. Raises InvalidPauseReason, NotFound, DatabaseAway.
        """
        reason = operators.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            # Locks the row, as each claim does: no claim uses the former limits once this is committed.
            if not stores.companies.lock_row(company_id):
                raise not_found("company", company_id)
            limits, ceiling = stores.companies.limits_of(company_id)
            kept = LimitCeiling() if drops_others else ceiling
            after = LimitCeiling(
                concurrent_calls=kept.concurrent_calls if named.concurrent_calls is None else named.concurrent_calls,
                calls_per_second=kept.calls_per_second if named.calls_per_second is None else named.calls_per_second,
            )
            lowered = after.applied_to(limits)
            if (after, lowered) != (ceiling, limits):
                stores.companies.limit(company_id, after, lowered, now)
                act = Act(
                    verb=Verb.CHANGE_CEILING,
                    target_kind=TargetKind.COMPANY,
                    target_id=company_id,
                    company_id=company_id,
                    reason=reason,
                    before=_fields(ceiling),
                    after=_fields(after),
                )
                stores.audit.add(self._actor, [act], now)
            return Limited(ceiling=after, limits=lowered)


def _fields(ceiling: LimitCeiling) -> dict[str, object]:
    return {"concurrentCalls": ceiling.concurrent_calls, "callsPerSecond": ceiling.calls_per_second}


# --- Carrier back-offs as an operator lists and ends them, and stray calls


class CarrierWaits(OperatorUseCase):
    def all(self) -> Sequence[Backoff]:
        """List the open and half-open back-offs, without the callers' numbers. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return stores.backoffs.waiting()

    def stray_calls(self) -> Sequence[LiveStrayCall]:
        """List the stray calls that have not provably ended, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.stray_calls.live()

    def end(self, reason: str | None = None) -> int:
        """End the wait of all back-offs: each gets a trial call after the next good probe. Return their number.

        `reason` is for the audit. Raises InvalidPauseReason, ClockWrong, DatabaseAway.
        """
        reason = operators.optional(reason)
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


# --- Pauses: an operator stops and resumes calling, for one company or for all


@dataclass(frozen=True, kw_only=True)
class Pause:
    reason: str
    paused_at: datetime
    actor: str | None
    """None: an alarm has paused it, or a version without an audit."""


class Pauses(OperatorUseCase):
    """A committed pause stops all claims. A call that is claimed and not yet sent returns to PENDING."""

    def pause(self, company_id: UUID | None, reason: str) -> Pause | None:
        """Pause one company, or all. An existing pause keeps its reason, and is returned.

        Raises InvalidPauseReason, DatabaseAway, and NotFound, also if no carrier account exists yet.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            _check(stores, company_id)
            if company_id is None:
                is_new = stores.carrier_accounts.pause(reason, now)
            else:
                is_new = stores.companies.pause(company_id, reason, now)
            if not is_new:
                return _pause_of(stores, company_id)
            stores.audit.add(self._actor, [_act(Verb.PAUSE, company_id, reason, now_paused_for=reason)], now)
            _report(stores, partner_events.of_pause, company_id, now)
            return None

    def current(self, company_id: UUID | None) -> Pause | None:
        """Read the pause of one company, or of all, or None without one. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return _pause_of(stores, company_id)

    def resume(self, company_id: UUID | None, reason: str | None = None) -> str | None:
        """Resume calling and release due attempts at once. Return the reason of the pause, or None without one.

        `reason` is for the audit. Raises InvalidPauseReason, NotFound, DatabaseAway.
        """
        reason = operators.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            _check(stores, company_id)
            before = _pause_of(stores, company_id)
            if company_id is None:
                stores.carrier_accounts.resume(now)
            else:
                stores.companies.resume(company_id, now)
            stores.notify_due()
            if before is None:
                return None
            stores.audit.add(self._actor, [_act(Verb.RESUME, company_id, reason, paused_for=before.reason)], now)
            _report(stores, partner_events.of_resumption, company_id, now)
            return before.reason

    def active(self) -> tuple[str | None, Mapping[UUID, str]]:
        """Read the reason of the general pause, and the reasons by paused company. Raises DatabaseAway."""
        with self._database.reading() as stores:
            of_all = stores.carrier_accounts.pause_of_all()
            return None if of_all is None else of_all[0], stores.companies.paused()


def _report(
    stores: Stores, event_of: Callable[[UUID, Rule, datetime], NewEvent], company_id: UUID | None, now: datetime
) -> None:
    """Report it to the readers of the company, or of all. The two pauses begin and end apart from each other."""
    cause = Rule.ACCOUNT_PAUSED if company_id is None else Rule.COMPANY_PAUSED
    paused = stores.companies.ids() if company_id is None else [company_id]
    with stores.connection.gathering():
        stores.events.note(event_of(each, cause, now) for each in paused)


def _act(
    verb: Verb,
    company_id: UUID | None,
    reason: str | None,
    *,
    paused_for: str | None = None,
    now_paused_for: str | None = None,
) -> Act:
    return Act(
        verb=verb,
        target_kind=TargetKind.ALL if company_id is None else TargetKind.COMPANY,
        target_id=company_id,
        company_id=company_id,
        reason=reason,
        before=_pause(paused_for),
        after=_pause(now_paused_for),
    )


def _pause(reason: str | None) -> Mapping[str, object]:
    return {"state": "RUNNING"} if reason is None else {"state": "PAUSED", "reason": reason}


def _check(stores: Stores, company_id: UUID | None) -> None:
    """Lock the company, or all accounts: a read of the pause stays true until the commit. Raises NotFound."""
    if company_id is None:
        if not stores.carrier_accounts.lock_all():
            raise NotFound("No worker has started on this database yet, so there is nothing to pause.")
    elif not stores.companies.lock_row(company_id):
        raise not_found("company", company_id)


def _pause_of(stores: Stores, company_id: UUID | None) -> Pause | None:
    if company_id is None:
        found, kind, target_id = stores.carrier_accounts.pause_of_all(), TargetKind.ALL, None
    else:
        found, kind, target_id = stores.companies.pause_of(company_id), TargetKind.COMPANY, str(company_id)
    if found is None:
        return None
    reason, paused_at = found
    # A pause and its entry have the same time. While it lasts, no other pause has an entry.
    wanted = AuditFilter(verb=Verb.PAUSE, target_kind=kind, target_id=target_id, since=paused_at)
    entry = next((each for each in stores.audit.newest(wanted, None, 1) if each.at == paused_at), None)
    return Pause(reason=reason, paused_at=paused_at, actor=None if entry is None else entry.actor)
