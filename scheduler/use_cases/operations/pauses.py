"""Pauses: an operator stops and resumes calling, for one company or for all."""

from collections.abc import Mapping
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.refusals import NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import pause_reasons
from scheduler.use_cases.submit import not_found


class Pauses:
    """A committed pause stops all claims. A call that is claimed and not yet sent returns to PENDING."""

    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def pause(self, company_id: UUID | None, reason: str) -> str | None:
        """Pause one company, or all. An existing pause keeps its reason, which is returned.

        Raises InvalidPauseReason, DatabaseAway, and NotFound, also if no carrier account exists yet.
        """
        reason = pause_reasons.checked(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            before = _reason(stores, company_id)
            if company_id is None:
                stores.carrier_accounts.pause(reason, now)
            else:
                stores.companies.pause(company_id, reason, now)
            if before is None:
                stores.audit.add(self._actor, [_act(Verb.PAUSE, company_id, reason, now_paused_for=reason)], now)
            return before

    def resume(self, company_id: UUID | None, reason: str | None = None) -> str | None:
        """Resume calling and release due attempts at once. Return the reason of the pause, or None without one.

        `reason` is for the audit. Raises InvalidPauseReason, NotFound, DatabaseAway.
        """
        reason = pause_reasons.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            before = _reason(stores, company_id)
            if company_id is None:
                stores.carrier_accounts.resume(now)
            else:
                stores.companies.resume(company_id, now)
            stores.notify_due()
            if before is not None:
                stores.audit.add(self._actor, [_act(Verb.RESUME, company_id, reason, paused_for=before)], now)
            return before

    def active(self) -> tuple[str | None, Mapping[UUID, str]]:
        """Return the reason of the general pause, and the reasons by paused company. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return _reason_for_all(stores), stores.companies.paused()


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


def _reason(stores: Stores, company_id: UUID | None) -> str | None:
    """Return the reason of the current pause. Locks the company. Raises NotFound."""
    if company_id is None:
        if not stores.carrier_accounts.all():
            raise NotFound("No worker has started on this database yet, so there is nothing to pause.")
        return _reason_for_all(stores)
    if not stores.companies.lock_row(company_id):
        raise not_found("company", company_id)
    return stores.companies.paused().get(company_id)


def _reason_for_all(stores: Stores) -> str | None:
    return next((each.pause_reason for each in stores.carrier_accounts.all() if each.paused), None)
