"""Certificates of erasures: what was deleted of a company, and when."""

from collections.abc import Sequence
from uuid import UUID

from scheduler.domain.refusals import NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.erasures import Certificate

MAX_LISTED = 100


class Certificates:
    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self) -> Sequence[Certificate]:
        """Return the last erasures, newest first, at most `MAX_LISTED`. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.erasures.newest(MAX_LISTED)

    def of_company(self, company_id: UUID) -> Certificate:
        """Return the certificate of a deleted company. Raises NotFound, DatabaseAway."""
        with self._database.reading() as stores:
            found = stores.erasures.find(company_id)
        if found is None:
            raise NotFound(
                "No erasure of such a company was requested; `duecall erasures list` has the newest.",
                resourceType="erasure",
                resourceId=str(company_id),
            )
        return found
