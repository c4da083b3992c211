"""Commands of operators: an operator cancels pending attempts, as a client does, by commands of the inbox."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from scheduler.clock import Now
from scheduler.deadline import remaining_s
from scheduler.domain.actor import SYSTEM
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.command import CancelAttempt, Command, CommandKind, DecideOutcome
from scheduler.domain.principal import OPERATORS
from scheduler.domain.refusals import CancelledInPart
from scheduler.ids import new_id
from scheduler.persistence.attempt_cancellations import AttemptKey
from scheduler.persistence.database import Database
from scheduler.persistence.errors import ClockWrong, DatabaseAway
from scheduler.persistence.json_columns import request_as_json
from scheduler.persistence.stores import Stores
from scheduler.rules import pause_reasons
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints

BATCH_SIZE = 200
"""Attempts that one transaction locks."""
_A_BATCH_TAKES_S = 1.5
"""More than a batch takes on a busy machine. After the deadline, the operator would not learn what was cancelled."""


class OperatorCommands:
    """Accepts commands. A worker applies each in its interview's turn, and until then no attempt of it is claimed."""

    def __init__(
        self,
        database: Database,
        now: Now,
        actor: str = SYSTEM,
        hints: Hints | None = None,
        *,
        batch_takes_s: float = _A_BATCH_TAKES_S,
    ) -> None:
        """Without `hints`, the clock's sweep sends those of the commands, seconds later."""
        self._database = database
        self._now = now
        self._actor = actor
        self._hints = hints
        self._batch_takes_s = batch_takes_s

    def cancel(self, attempt_ids: Sequence[UUID], reason: str, only: Mapping[str, str] | None = None) -> int:
        """Accept the cancellation of those attempts that are pending, and return their number.

        An attempt that was claimed, has ended or is being cancelled already is left out, so a repetition continues.
        `only` is the filter that found them, for the audit. Each batch is a transaction with its entries of the audit.
        Raises InvalidPauseReason; CancelledInPart if the request's deadline, the clock or the database stops a later
        batch; and ClockWrong or DatabaseAway if nothing was cancelled.
        """
        reason = pause_reasons.checked(reason)
        count = 0
        for first in range(0, len(attempt_ids), BATCH_SIZE):
            left = remaining_s()
            if first and left is not None and left < self._batch_takes_s:
                raise _in_part(count, len(attempt_ids))
            try:
                count += self._cancel_batch(
                    attempt_ids[first : first + BATCH_SIZE], reason, only or {}, is_one=len(attempt_ids) == 1
                )
            except (ClockWrong, DatabaseAway) as error:
                if not count:
                    raise
                raise _in_part(count, len(attempt_ids)) from error
        return count

    def _cancel_batch(self, attempt_ids: Sequence[UUID], reason: str, only: Mapping[str, str], *, is_one: bool) -> int:
        commands: list[Command] = []
        with self._database.transaction() as stores, stores.connection.gathering():
            pending = lock_pending(stores, attempt_ids)
            if pending:
                now = stores.instant(self._now)
                commands = [self._command(each, reason, now) for each in pending]
                stores.inbox.add_all(commands)
                stores.audit.add(self._actor, _acts(pending, reason, only, is_one=is_one), now)
        if self._hints is not None:
            for each in commands:
                self._hints.send(tasks.APPLY, [each.id])
        return len(commands)

    def _command(self, attempt: AttemptKey, reason: str, now: datetime) -> Command:
        request = CancelAttempt(
            interview_id=attempt.interview_id, attempt_id=attempt.id, reason=reason, operator=self._actor
        )
        return command_of(CommandKind.CANCEL_ATTEMPT, request, attempt.company_id, now)


def command_of(
    kind: CommandKind, request: CancelAttempt | DecideOutcome, company_id: UUID, received_at: datetime
) -> Command:
    """Return the command of an operator's request. It has no idempotency key: `Inbox.add_all` stores it."""
    return Command(
        id=new_id(received_at),
        kind=kind,
        principal_id=OPERATORS,
        company_id=company_id,
        idempotency_key=None,
        request_hash=b"",
        received_at=received_at,
        body=request_as_json(kind, request),
        interview_id=request.interview_id,
        may_be_packed=True,
    )


def lock_pending(stores: Stores, attempt_ids: Sequence[UUID]) -> Sequence[AttemptKey]:
    """Lock these attempts as for a client's command. An earlier claim is seen here, a later one sees the command."""
    found = stores.attempt_cancellations.keys(attempt_ids)
    held = set(stores.companies.hold_all({each.company_id for each in found}))
    of_held = [each.interview_id for each in found if each.company_id in held]
    stores.interviews.lock_rows(of_held)
    return stores.attempt_cancellations.lock_to_cancel(of_held, [each.id for each in found])


def _in_part(count: int, wanted: int) -> CancelledInPart:
    return CancelledInPart(
        f"{count:,} of {wanted:,} calls are cancelled. The time of this request is over, or a clock or the database"
        " failed. Send the form again for the others: those that are cancelled are left out."
    )


def _acts(pending: Sequence[AttemptKey], reason: str, only: Mapping[str, str], *, is_one: bool) -> list[Act]:
    return [
        Act(
            verb=Verb.CANCEL_ATTEMPTS,
            target_kind=TargetKind.ATTEMPT if is_one else TargetKind.COMPANY,
            target_id=pending[0].id if is_one else company_id,
            company_id=company_id,
            reason=reason,
            after={"count": count, "filter": only} if only else {"count": count},
        )
        for company_id, count in Counter(each.company_id for each in pending).items()
    ]
