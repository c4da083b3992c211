"""Operators' decisions about unknown outcomes: which are allowed, and which event follows."""

from collections.abc import Sequence

from scheduler.domain.attempt import Attempt, AttemptState, Decided, Decision, Reason
from scheduler.domain.command import DecideOutcome
from scheduler.domain.refusals import CallAttemptInProgress, NewerCallAttempt, OutcomeDecided, OutcomeNotUnknown
from scheduler.lifecycle.state_machine import has_live_leg


def on_decision(attempt: Attempt, newer: Sequence[Attempt], request: DecideOutcome) -> Decided | None:
    """Choose the event of a decision. None: the same decision was made before.

    `newer` are the later attempts of the interview. Raises OutcomeNotUnknown, OutcomeDecided; CallAttemptInProgress if
    the carrier shows a live call, whose end will decide; NewerCallAttempt for a call again after a newer attempt.
    """
    if attempt.decision is request.decision:
        return None
    must_be_undecided(attempt)
    if request.decision is Decision.DID_NOT_RING:
        # An invoke would replace a pending attempt, or call a person who was called in the meantime.
        for each in newer:
            if may_replace(each):
                raise NewerCallAttempt(attemptId=str(each.id))
    return Decided(decision=request.decision, reason=request.reason)


def must_be_undecided(attempt: Attempt) -> None:
    """Raise OutcomeNotUnknown, OutcomeDecided or CallAttemptInProgress unless an operator may decide about it."""
    if attempt.reason is not Reason.OUTCOME_UNKNOWN:
        raise OutcomeNotUnknown(status=attempt.state.value, reasonCode=attempt.reason and attempt.reason.value)
    if attempt.decision is not None:
        raise OutcomeDecided(decision=attempt.decision.value)
    if has_live_leg(attempt):
        raise CallAttemptInProgress(attemptId=str(attempt.id))


def newer_than(attempt: Attempt, of_interview: Sequence[Attempt]) -> Sequence[Attempt]:
    """List the later attempts of the interview."""
    return [each for each in of_interview if each.id != attempt.id and each.created_at >= attempt.created_at]


def may_replace(newer: Attempt) -> bool:
    """Return True if a newer attempt rules out another call. A cancelled attempt called no person."""
    return newer.state is not AttemptState.CANCELLED
