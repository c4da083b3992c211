"""Operators' decisions about unknown outcomes: which are allowed, and which event follows."""

from collections.abc import Sequence

from scheduler.domain.attempt import Attempt, AttemptState, Decided, Decision, Reason
from scheduler.domain.command import DecideOutcome
from scheduler.domain.refusals import CallAttemptInProgress, NewerCallAttempt, OutcomeDecided, OutcomeNotUnknown
from scheduler.lifecycle.state_machine import has_live_leg


def on_decision(attempt: Attempt, newer: Sequence[Attempt], request: DecideOutcome) -> Decided | None:
    """Return the event of a decision. None: the same decision was made before.

    `newer` are the later attempts of the interview. Raises OutcomeNotUnknown, OutcomeDecided; CallAttemptInProgress if
    the carrier shows a live call, whose end will decide; NewerCallAttempt for a call again after a newer attempt.
    """
    if attempt.decision is request.decision:
        return None
    if attempt.reason is not Reason.OUTCOME_UNKNOWN:
        raise OutcomeNotUnknown(status=attempt.state.value, reasonCode=attempt.reason and attempt.reason.value)
    if attempt.decision is not None:
        raise OutcomeDecided(decision=attempt.decision.value)
    if has_live_leg(attempt):
        raise CallAttemptInProgress(attemptId=str(attempt.id))
    if request.decision is Decision.DID_NOT_RING:
        # An invoke would replace a pending attempt, or call a person who was called in the meantime.
        for each in newer:
            if each.state is not AttemptState.CANCELLED:
                raise NewerCallAttempt(attemptId=str(each.id))
    return Decided(decision=request.decision, reason=request.reason)
