"""Database sessions: an operator looks for the transaction that keeps a row locked, and ends its session."""

from collections.abc import Sequence

from scheduler.domain.refusals import NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.open_transactions import OpenTransaction
from scheduler.rules import pause_reasons


class DatabaseSessions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def open_transactions(self) -> Sequence[OpenTransaction]:
        """Return the open transactions of all programs, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.open_transactions.all()

    def end(self, pid: int, *, actor: str, reason: str) -> None:
        """End the session of an open transaction, which is rolled back.

        Raises InvalidPauseReason, NotFound, WrongRole, DatabaseAway.
        """
        pause_reasons.checked(reason)
        with self._database.transaction() as stores:
            del actor  # the audit entry of this act belongs here
            if not stores.open_transactions.end(pid):
                raise NotFound("No session with this id has an open transaction; `duecall locks list` has the ids.")
