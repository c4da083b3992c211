"""Reads for the console's page about batches."""

from scheduler.domain.batch import BatchFilter, OperatedBatch
from scheduler.domain.pagination import NEWEST_FIRST, Cursor, KeysetPage, KeysetSlice
from scheduler.persistence.database import Database


class BatchPages:
    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, wanted: BatchFilter, after: Cursor | None, limit: int) -> KeysetPage[OperatedBatch]:
        """Return batches of all companies, newest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.batches.of_all_companies(wanted, KeysetSlice(limit=limit, sort=NEWEST_FIRST, after=after))
