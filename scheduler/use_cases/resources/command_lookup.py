"""Lookout: outcomes of commands and commits for requests that got no answer from the database, or not yet."""

from collections.abc import Sequence
from uuid import UUID

from scheduler.domain.command import Command
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import NotFound
from scheduler.persistence.commits import Outcome
from scheduler.persistence.database import Database
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.submit import Submit


class CommandLookup:
    """Uses its own connections, so that it never waits for the ones that hang. Raises DatabaseAway."""

    def __init__(self, database: Database, submit: Submit, hints: Hints) -> None:
        self._database = database
        self._submit = submit
        self._hints = hints

    def which_answered(self, command_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Return the ids of the commands that have been answered."""
        with self._database.reading() as stores:
            return frozenset(stores.inbox.which_answered(command_ids))

    def outcome_of(self, transaction_id: str) -> Outcome:
        """Return the outcome of a transaction whose commit was not confirmed."""
        return self._database.outcome_of(transaction_id)

    def accepted(self, principal: Principal, command_id: UUID, idempotency_key: str | None) -> Command:
        """Return the command that a commit in doubt has stored, and send the hint that the request could not send.

        With an idempotency key it may be an earlier command. Raises NotFound, AccessDenied.
        """
        try:
            command = self._submit.find(principal, str(command_id))
        except NotFound:
            if idempotency_key is None:
                raise
            command = self._submit.find(principal, idempotency_key)
        if command.applied_at is None:
            self._hints.send(tasks.APPLY, [command.id])
        return command
