"""Apply: execute a command and store its answer, in one transaction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from scheduler.domain.command import Answer, Command, CommandKind, refusal_of
from scheduler.domain.principal import OPERATORS
from scheduler.domain.refusals import AccessDenied, Refused
from scheduler.failpoints import failpoint
from scheduler.lifecycle import partner_events
from scheduler.logs import log, place_of
from scheduler.persistence.database import BATCH_LOCK_S, LOCK_S
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.json_columns import request_from_json
from scheduler.persistence.stores import Stores
from scheduler.rules.tallies import COMMAND, key_of, seconds_of
from scheduler.use_cases.changes import Changes
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.alarms import raise_in
from scheduler.use_cases.shared.conflicts import blaming, put_off, together
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.shared.report_order import NewsFirst
from scheduler.use_cases.shared.turn import SharedReads, Turn, named_candidates
from scheduler.wire import named_fields
from scheduler.wire.named_fields import named

_log = log(__name__)


class Apply:
    def __init__(self, context: Context, hints: Hints) -> None:
        self._database = context.database
        self._hints = hints
        self._changes = Changes(context)
        self._now = context.now

    def batch(self, command_ids: Sequence[UUID]) -> list[UUID]:
        """Create the interviews of new commands in one transaction. Return the ids to be applied alone, by `command`.

        These are all commands for existing retries, so that those lock the rows of one interview only, and the new
        ones that failed. Raises DatabaseAway.
        """
        return together(command_ids, self._apply_new, self._companies_of)

    def _companies_of(self, command_ids: Sequence[UUID]) -> Mapping[UUID, UUID]:
        with self._database.reading() as stores:
            return stores.inbox.companies_of(command_ids)

    def command(self, command_id: UUID, *, lock_s: float = LOCK_S) -> None:
        """Apply the command if it is the oldest of its interview that is not applied yet. Raises DatabaseAway.

        While another transaction has locked its rows, it waits for another hint. So does a report that news of its call
        may still confirm. If no news is stored, the carrier is polled.
        """
        following = None
        try:
            with self._database.transaction(lock_s=lock_s) as stores, stores.connection.gathering():
                found = stores.inbox.lock_next(command_id)
                if found is None:
                    return
                if found.is_held:  # guard: held_command
                    received = {command_id: found.command.received_at}
                    put_off(self._hints, tasks.APPLY, received, stores.instant(self._now))
                    return
                following = self._apply_next(stores, found.command)
        except NewsFirst as first:
            put_off(self._hints, tasks.APPLY, {command_id: first.received_at}, first.now)
            if first.to_poll is not None:
                with self._database.transaction(lock_s=lock_s) as stores:
                    stores.attempt_polls.hasten_poll(first.to_poll, first.now)  # guard: hastened_poll
            return
        except DatabaseAway:
            raise
        except Exception as error:
            self._count_failure(command_id, place_of(error))
            raise
        self._notify([command_id])
        if following is not None:
            self._hints.send(tasks.APPLY, [following])  # its own hint may have come before its turn

    def _apply_next(self, stores: Stores, command: Command) -> UUID | None:
        """Apply a locked command. Return the next one of its interview."""
        reads = SharedReads(stores)
        reads.lock_external_ids([command])
        self._apply_all(stores, reads, [command])
        if command.interview_id is None:
            return None
        if stores.attempt_release.release_again(command.interview_id):
            # While the command waited, a dialler could not claim the attempt and dropped its hint.
            stores.notify_due()
        return stores.inbox.next_of(command.interview_id)

    def _apply_new(self, command_ids: Sequence[UUID]) -> Collection[UUID]:
        """Apply the commands that create an interview and that no other worker has locked. Return the rest.

        Commands whose rows another transaction has locked wait for another hint.
        """
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            commands = stores.inbox.lock_new(command_ids)
            if not commands:
                return command_ids
            reads = SharedReads(stores)
            held = reads.held(commands, named_candidates)
            free = [each for place, each in enumerate(commands) if place not in held]
            self._apply_all(stores, reads, free)
            now = stores.instant(self._now)
        self._notify([each.id for each in free])
        put_off(self._hints, tasks.APPLY, {commands[each].id: commands[each].received_at for each in held}, now)
        return set(command_ids) - {each.id for each in commands}

    def _notify(self, applied: Sequence[UUID]) -> None:
        """Notify the requests that wait for these commands. Called after the commit."""
        failpoint("apply.applied")
        for command_id in applied:
            self._hints.answered(command_id)

    def _apply_all(self, stores: Stores, reads: SharedReads, commands: Sequence[Command]) -> None:
        failpoint("apply.locking")
        now = stores.instant(self._now)
        for command in commands:
            with blaming([command.id], of=len(commands)):
                self._apply(Turn(stores=stores, reads=reads, command=command, now=now))
        stores.connection.send()
        failpoint("apply.answering")

    def _apply(self, turn: Turn) -> None:
        """Execute the command and store its answer. The writes of a refused command are undone."""
        interview_id = turn.command.interview_id
        try:
            with turn.stores.connection.undoable():
                interview_id, answer = self._do(turn)
                failpoint("apply.doing")
        except Refused as refused:
            answer = Answer(refusal=refusal_of(refused))
        turn.stores.inbox.answer(turn.command, answer, interview_id, turn.now)
        self._report(turn, interview_id, answer)
        turn.stores.tallies.add({key_of(COMMAND): seconds_of(COMMAND, turn.now - turn.command.received_at)})

    def _report(self, turn: Turn, interview_id: UUID | None, answer: Answer) -> None:
        """Report the command to partners, unless its refusal may be the response of a request that waits."""
        if replace(turn.command, applied_at=turn.now, answer=answer).is_refused_while_awaited:
            return
        if turn.command.company_id is not None and turn.command.principal_id != OPERATORS:
            turn.stores.events.note_of(
                turn.command.company_id,
                lambda: [partner_events.of_command(turn.command, interview_id, answer.refusal, turn.now)],
            )

    def _do(self, turn: Turn) -> tuple[UUID, Answer]:
        _must_have_company(turn)
        request = request_from_json(turn.command.kind, turn.command.body)
        with named(named_fields.of_command(request)):
            return self._changes.of(turn, request)

    def _count_failure(self, command_id: UUID, failed_with: str) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            if stores.inbox.count_failure(command_id, failed_with, now):
                raise_in(stores, "QUARANTINE", now, command_id=command_id)
                _log.error(
                    "command_quarantined: a command failed five times and was put in quarantine",
                    alarm="QUARANTINE",
                    is_stored=True,
                    command_id=str(command_id),
                )


def _must_have_company(turn: Turn) -> None:
    """Raise AccessDenied if the company was deleted after the command was accepted."""
    if turn.command.kind is CommandKind.CREATE_INTERVIEW:
        turn.company()  # its settings are needed anyway
    elif not turn.stores.companies.is_there(turn.company_id):
        raise AccessDenied
