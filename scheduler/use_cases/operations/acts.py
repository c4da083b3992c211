"""Acts: the audit of operators and API keys, for reading."""

from collections.abc import Sequence

from scheduler.domain.audit import AuditEntry
from scheduler.persistence.audit import AuditFilter
from scheduler.persistence.database import Database


class Acts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, wanted: AuditFilter, before: int | None, limit: int) -> Sequence[AuditEntry]:
        """Return entries, newest first. `before`: only those older than this entry. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.audit.newest(wanted, before, limit)
