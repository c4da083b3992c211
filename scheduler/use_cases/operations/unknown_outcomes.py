"""Unknown outcomes: a work list of attempts about which the carrier proved nothing. An operator decides each."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.attempt import Attempt, Decision
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.command import Command, CommandKind, DecideOutcome
from scheduler.domain.principal import OPERATORS
from scheduler.domain.refusals import DecisionWaiting
from scheduler.lifecycle.operator_decisions import may_replace, must_be_undecided, newer_than, on_decision
from scheduler.persistence.database import Database
from scheduler.persistence.inbox import DecisionAnswer
from scheduler.persistence.stores import Stores
from scheduler.persistence.unknown_outcomes import UnknownOutcome, UnknownPlace
from scheduler.rules import pause_reasons
from scheduler.use_cases.operations.operator_commands import command_of
from scheduler.use_cases.shared.access import not_found

MAX_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class Undecided:
    """An attempt of unknown outcome, before an operator decides about it."""

    outcome: UnknownOutcome
    replaced_by: UUID | None
    """A newer attempt of the interview, after which this one is not repeated."""


class UnknownOutcomes:
    """Lists unknown outcomes and accepts decisions about them.

    A decision is a command of the inbox. A worker applies it in the interview's turn, like a client's invoke.
    """

    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def all(self, company_id: UUID | None) -> Sequence[UnknownOutcome]:
        """Return the attempts that are to be decided, oldest first, at most `MAX_LISTED`. Raises DatabaseAway."""
        return self.page(company_id, None, MAX_LISTED)

    def page(self, company_id: UUID | None, after: UnknownPlace | None, limit: int) -> Sequence[UnknownOutcome]:
        """Return up to `limit` such attempts. `after`: only those that follow this place. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.unknown_outcomes.page(company_id, limit, after)

    def undecided(self, attempt_id: UUID) -> Undecided:
        """Return an attempt about which a decision would be accepted now.

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
            return Undecided(outcome=found, replaced_by=next((each.id for each in newer if may_replace(each)), None))

    def decide(self, attempt_id: UUID, decision: Decision, reason: str) -> UUID | None:
        """Accept a decision and return the id of its command. None: the same decision was made before.

        Raises InvalidPauseReason, NotFound, OutcomeNotUnknown, OutcomeDecided, NewerCallAttempt,
        CallAttemptInProgress, DatabaseAway. The same refusals may be the answer of the command: see `command`.
        """
        reason = pause_reasons.checked(reason)
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
        """Return the command of a decision, with its answer once a worker has applied it. Raises DatabaseAway."""
        with self._database.reading() as stores:
            found = stores.inbox.find(OPERATORS, command_id)
        assert found is not None, "answers are kept for a month"
        return found.command

    def answer(self, command_id: UUID) -> DecisionAnswer | None:
        """Return the answer of a decision. None: there is no such decision, or no longer. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.inbox.decision(command_id)


def lock_to_decide(stores: Stores, interview_id: UUID, attempt_id: UUID) -> tuple[Attempt, Sequence[Attempt]]:
    """Lock the interview, then the attempt, deleted or not. Return it and the later attempts of the interview.

    Raises NotFound.
    """
    stores.interviews.lock_rows([interview_id])
    attempt = stores.attempts.lock_without_number(interview_id, attempt_id)
    if attempt is None:
        raise not_found("callAttempt", attempt_id)
    return attempt, newer_than(attempt, stores.attempts.find_of_interview(interview_id))
