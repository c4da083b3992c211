"""Certificates of erasures: what was deleted of a company, and when."""

from collections.abc import Sequence
from uuid import UUID

from scheduler.domain.refusals import NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.erasures import Certificate, CertificatePlace

MAX_LISTED = 100


class Certificates:
    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(
        self, limit: int = MAX_LISTED, after: CertificatePlace | None = None, *, is_finished: bool | None = None
    ) -> Sequence[Certificate]:
        """Return the last erasures, newest first. `is_finished`: only those, or only the others. Raises DatabaseAway.

        `after`: only those that follow this place.
        """
        with self._database.reading() as stores:
            return stores.erasures.newest(limit, after, is_finished=is_finished)

    def of_company(self, company_id: UUID) -> Certificate:
        """Return the certificate of a deleted company. Raises NotFound, DatabaseAway."""
        with self._database.reading() as stores:
            found = stores.erasures.find(company_id)
        if found is None:
            raise NotFound(
                "No erasure of such a company was requested. The page Erasures and `duecall erasures list` have the"
                " newest.",
                resourceType="erasure",
                resourceId=str(company_id),
            )
        return found
