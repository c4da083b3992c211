"""Quarantine: commands that failed five times with an unexpected error. An operator retries or drops them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.command import Answer, Command, refusal_of
from scheduler.domain.refusals import CommandDropped, NotFound
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores


class Quarantine:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def all(self) -> Sequence[Command]:
        """Return the quarantined commands, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.inbox.quarantined()

    def again(self, command_id: UUID) -> None:
        """Retry a command, judged as of its receipt. The clock sends its hint within a sweep.

        Raises NotFound, DatabaseAway.
        """
        with self._database.transaction() as stores:
            _locked(stores, command_id)
            stores.inbox.requeue(command_id)

    def drop(self, command_id: UUID) -> None:
        """Drop a command unapplied, with the answer COMMAND_DROPPED. Later commands of its interview are applied.

        Raises NotFound, DatabaseAway.
        """
        with self._database.transaction() as stores:
            dropped(stores, _locked(stores, command_id), stores.instant(self._now))


def dropped(stores: Stores, command: Command, now: datetime) -> None:
    """Store the answer of a dropped command and delete its body, which may contain personal data."""
    stores.inbox.answer(command, Answer(refusal=refusal_of(CommandDropped())), command.interview_id, now)


def _locked(stores: Stores, command_id: UUID) -> Command:
    command = stores.inbox.lock_quarantined(command_id)
    if command is None:
        raise NotFound(
            "There is no such command in quarantine; `duecall commands list` has their ids.",
            resourceType="command",
            resourceId=str(command_id),
        )
    return command
