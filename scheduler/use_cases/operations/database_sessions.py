"""Database sessions: an operator looks for the transaction that keeps a row locked, and ends its session."""

from collections.abc import Sequence

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.refusals import NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.open_transactions import OpenTransaction
from scheduler.rules import pause_reasons


class DatabaseSessions:
    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def open_transactions(self) -> Sequence[OpenTransaction]:
        """Return the open transactions of all programs, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.open_transactions.all()

    def end(self, pid: int, reason: str) -> None:
        """End the session of an open transaction, which is rolled back.

        Raises InvalidPauseReason, NotFound, WrongRole, DatabaseAway.
        """
        reason = pause_reasons.checked(reason)
        with self._database.transaction() as stores:
            if not stores.open_transactions.end(pid):
                raise NotFound("No session with this id has an open transaction; `duecall locks list` has the ids.")
            act = Act(verb=Verb.END_DATABASE_SESSION, target_kind=TargetKind.ALL, reason=reason, before={"pid": pid})
            stores.audit.add(self._actor, [act], stores.instant(self._now))
