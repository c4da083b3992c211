"""Work of operators on single calls: unknown outcomes, and the cancellation of pending attempts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from scheduler.clock import Now, remaining_s
from scheduler.domain.attempt import Attempt, ConversationOutcome, Decision
from scheduler.domain.command import CancelAttempt, Command, CommandKind, DecideOutcome
from scheduler.domain.principal import OPERATORS, SYSTEM, Act, TargetKind, Verb
from scheduler.domain.refusals import CancelledInPart, DecisionWaiting
from scheduler.ids import new_id
from scheduler.lifecycle.retries import may_replace, must_be_undecided, newer_than, on_decision
from scheduler.persistence.database import Database
from scheduler.persistence.errors import ClockWrong, DatabaseAway
from scheduler.persistence.json_columns import request_as_json
from scheduler.persistence.stores import Stores
from scheduler.persistence.unknown_outcomes import AttemptKey, DecisionAnswer, UnknownOutcome, UnknownPlace
from scheduler.rules import operators
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.access import OperatorUseCase, not_found
from scheduler.use_cases.shared.hints import Hints

# --- Commands of operators: an operator cancels pending attempts, as a client does, by commands of the inbox


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
        reason = operators.checked(reason)
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
    """Build the command of an operator's request. It has no idempotency key: `Inbox.add_all` stores it."""
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


# --- Unknown outcomes: a work list of attempts about which the carrier proved nothing
# An operator decides each.


MAX_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class Undecided:
    """An attempt of unknown outcome, before an operator decides about it."""

    outcome: UnknownOutcome
    replaced_by: UUID | None
    """A newer attempt of the interview, after which this one is not repeated."""
    reported: ConversationOutcome | None
    """The outcome that its conversation has reported, after which it is not repeated either."""


class UnknownOutcomes(OperatorUseCase):
    """Lists unknown outcomes and accepts decisions about them.

    A decision is a command of the inbox. A worker applies it in the interview's turn, like a client's invoke.
    """

    def page(
        self, company_id: UUID | None, after: UnknownPlace | None = None, limit: int = MAX_LISTED
    ) -> Sequence[UnknownOutcome]:
        """List attempts that are to be decided, oldest first. `after`: only attempts after this place.

        Raises DatabaseAway.
        """
        with self._database.reading() as stores:
            return stores.unknown_outcomes.page(company_id, limit, after)

    def undecided(self, attempt_id: UUID) -> Undecided:
        """Find an attempt about which a decision would be accepted now.

        Raises NotFound, OutcomeNotUnknown, OutcomeDecided, CallAttemptInProgress, DecisionWaiting, DatabaseAway.
        """
        with self._database.reading() as stores:
            attempt, found = stores.attempts.find(attempt_id), stores.unknown_outcomes.find(attempt_id)
            if attempt is None:
                raise not_found("callAttempt", attempt_id)
            must_be_undecided(attempt)
            if found is None:  # its company was deleted
                raise not_found("callAttempt", attempt_id)
            if found.is_decided:
                raise DecisionWaiting
            newer = newer_than(attempt, stores.attempts.find_of_interview(attempt.interview_id))
            replaced_by = next((each.id for each in newer if may_replace(each)), None)
            return Undecided(outcome=found, replaced_by=replaced_by, reported=attempt.outcome)

    def decide(self, attempt_id: UUID, decision: Decision, reason: str) -> UUID | None:
        """Accept a decision and return the id of its command. None: the same decision was made before.

        Raises InvalidPauseReason, NotFound, OutcomeNotUnknown, OutcomeDecided, OutcomeReported, NewerCallAttempt,
        CallAttemptInProgress, DatabaseAway. The same refusals may be the answer of the command: see `command`.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            found = stores.attempts.find(attempt_id)
            # As for a client's command: first the company, whose deletion waits until we commit.
            if found is None or not stores.companies.hold(found.company_id):
                raise not_found("callAttempt", attempt_id)
            request = DecideOutcome(
                interview_id=found.interview_id,
                attempt_id=attempt_id,
                decision=decision,
                reason=reason,
                operator=self._actor,
            )
            attempt, newer = lock_to_decide(stores, found.interview_id, attempt_id)
            if on_decision(attempt, newer, request) is None:
                return None
            now = stores.instant(self._now)
            act = Act(
                verb=Verb.DECIDE_OUTCOME,
                target_kind=TargetKind.ATTEMPT,
                target_id=attempt_id,
                company_id=attempt.company_id,
                reason=reason,
                after={"decision": decision},
            )
            stores.audit.add(self._actor, [act], now)
            command = command_of(CommandKind.DECIDE_OUTCOME, request, attempt.company_id, now)
            stores.inbox.add_all([command])
            return command.id

    def command(self, command_id: UUID) -> Command:
        """Find the command of a decision, with its answer once a worker has applied it. Raises DatabaseAway."""
        with self._database.reading() as stores:
            found = stores.inbox.find(OPERATORS, command_id)
        assert found is not None, "answers are kept for a month"
        return found.command

    def answer(self, command_id: UUID) -> DecisionAnswer | None:
        """Read the answer of a decision. None: there is no such decision, or no longer. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.unknown_outcomes.answer(command_id)


def lock_to_decide(stores: Stores, interview_id: UUID, attempt_id: UUID) -> tuple[Attempt, Sequence[Attempt]]:
    """Lock the interview, then the attempt, deleted or not. Return it and the later attempts of the interview.

    Raises NotFound.
    """
    stores.interviews.lock_rows([interview_id])
    attempt = stores.attempts.lock_without_number(interview_id, attempt_id)
    if attempt is None:
        raise not_found("callAttempt", attempt_id)
    return attempt, newer_than(attempt, stores.attempts.find_of_interview(interview_id))
