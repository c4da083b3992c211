"""Tallies: counters and histograms of all processes, added to their totals by the clock."""

from collections.abc import Mapping

from scheduler.persistence.database import Database
from scheduler.rules.tallies import Amount, Key

_BATCH_SIZE = 1000


class Tallies:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, amounts: Mapping[Key, Amount]) -> None:
        """Add what this process has counted. Raises DatabaseAway."""
        if amounts:
            # They contain no time, so a wrong clock does not matter.
            with self._database.transaction(corrected=True) as stores, stores.connection.gathering():
                stores.tallies.add(amounts)

    def fold(self) -> None:
        """Add appended amounts to the totals. Any number of clocks may do so at once. Raises DatabaseAway."""
        more = True
        while more:
            with self._database.transaction(corrected=True) as stores:
                more = stores.tallies.fold(_BATCH_SIZE) == _BATCH_SIZE

    def totals(self) -> dict[Key, Amount]:
        """Return the totals over all processes since the installation. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return stores.tallies.totals()
