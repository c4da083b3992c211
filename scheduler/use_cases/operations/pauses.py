"""Pauses: an operator stops and resumes calling, for one company or for all."""

from collections.abc import Mapping
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.refusals import NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import pause_reasons
from scheduler.use_cases.submit import not_found


class Pauses:
    """A committed pause stops all claims. A call that is claimed and not yet sent returns to PENDING."""

    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

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
            return before

    def resume(self, company_id: UUID | None) -> str | None:
        """Resume calling and release due attempts at once. Return the reason of the pause, or None without one.

        Raises NotFound, DatabaseAway.
        """
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            before = _reason(stores, company_id)
            if company_id is None:
                stores.carrier_accounts.resume(now)
            else:
                stores.companies.resume(company_id, now)
            stores.notify_due()
            return before

    def active(self) -> tuple[str | None, Mapping[UUID, str]]:
        """Return the reason of the general pause, and the reasons by paused company. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return _reason_for_all(stores), stores.companies.paused()


def _reason(stores: Stores, company_id: UUID | None) -> str | None:
    """Return the reason of the current pause. Locks the company. Raises NotFound."""
    if company_id is None:
        if not stores.carrier_accounts.all():
            raise NotFound("No worker has started on this database yet, so there is nothing to pause.")
        return _reason_for_all(stores)
    if stores.companies.lock(company_id) is None:
        raise not_found("company", company_id)
    return stores.companies.paused().get(company_id)


def _reason_for_all(stores: Stores) -> str | None:
    return next((each.pause_reason for each in stores.carrier_accounts.all() if each.paused), None)
