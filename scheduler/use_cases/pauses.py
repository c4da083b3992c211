"""Pauses: an operator stops the dialling, of everything or of one company, and lets it go on."""

from uuid import UUID

from scheduler.clock import Now
from scheduler.persistence.database import Database
from scheduler.use_cases.submit import no_such


class Pauses:
    """From a pause's commit on nothing is claimed; a call that is claimed and not yet sent is put back."""

    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def pause(self, company_id: UUID | None, reason: str) -> None:
        """Stop one company, or everything. A pause that stands keeps its first reason.

        Raises NotFound, DatabaseAway.
        """
        now = self._now()
        with self._database.transaction() as stores:
            if company_id is None:
                stores.carrier_accounts.pause(reason, now)
                return
            if stores.companies.lock(company_id) is None:
                raise no_such("company", company_id)
            stores.companies.pause(company_id, reason, now)

    def resume(self, company_id: UUID | None) -> None:
        """Go on, and look at once at what is due. Raises NotFound, DatabaseAway."""
        now = self._now()
        with self._database.transaction() as stores:
            if company_id is None:
                stores.carrier_accounts.resume(now)
            elif stores.companies.lock(company_id) is None:
                raise no_such("company", company_id)
            else:
                stores.companies.resume(company_id, now)
            stores.notify_due()
