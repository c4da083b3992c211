"""Pauses: an operator stops the dialling, of everything or of one company, and lets it go on."""

from collections.abc import Mapping
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.refusals import NotFound
from scheduler.persistence.database import Database, Stores
from scheduler.rules import pause_reasons
from scheduler.use_cases.submit import not_found


class Pauses:
    """From a pause's commit on nothing is claimed; a call that is claimed and not yet sent is put back."""

    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def pause(self, company_id: UUID | None, reason: str) -> str | None:
        """Stop one company, or everything. A pause that stands keeps its first reason, and that is returned.

        Raises InvalidPauseReason; NotFound, also where there is no carrier account yet that everything could be
        stopped by; DatabaseAway.
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
        """Go on, and look at once at what is due. Returns why it was paused; None when it was not.

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

    def standing(self) -> tuple[str | None, Mapping[UUID, str]]:
        """Why everything is paused, and why each company that is paused by itself is so. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return _reason_for_all(stores), stores.companies.paused()


def _reason(stores: Stores, company_id: UUID | None) -> str | None:
    """Why it is paused now; a company is locked by asking. Raises NotFound."""
    if company_id is None:
        if not stores.carrier_accounts.all():
            raise NotFound("No worker has started on this database yet; there is nothing that could be paused.")
        return _reason_for_all(stores)
    if stores.companies.lock(company_id) is None:
        raise not_found("company", company_id)
    return stores.companies.paused().get(company_id)


def _reason_for_all(stores: Stores) -> str | None:
    return next((each.pause_reason for each in stores.carrier_accounts.all() if each.paused), None)
