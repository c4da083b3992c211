"""The state machine of attempts: every allowed arrow, and its changes. No other code sets a state."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from scheduler.domain import attempt as events
from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Decision, Event, Phase, Reason
from scheduler.domain.call import CallProgress, ScheduleWarning

_PENDING, _IN_PROGRESS = AttemptState.PENDING, AttemptState.IN_PROGRESS
_COMPLETED, _FAILED, _CANCELLED = AttemptState.COMPLETED, AttemptState.FAILED, AttemptState.CANCELLED

CALL_ENDS: dict[Reason, AttemptState] = {
    Reason.ANSWERED: _COMPLETED,
    Reason.BUSY: _FAILED,
    Reason.NO_ANSWER: _FAILED,
    Reason.VOICEMAIL: _FAILED,
    Reason.DECLINED: _FAILED,
    Reason.INVALID_NUMBER: _FAILED,
    Reason.CARRIER_ERROR: _FAILED,
    Reason.CANCELLED_AT_CARRIER: _FAILED,
    Reason.BLOCKED_BY_NETWORK: _FAILED,
    Reason.UNREACHABLE: _FAILED,
    Reason.INSTRUCTIONS_FAILED: _FAILED,
}
"""The proven outcomes of a call, with the resulting state."""


_CANCELLATIONS = (
    Reason.CANCELLED_BY_USER,
    Reason.REPLACED,
    Reason.INTERVIEW_DELETED,
    Reason.CANDIDATE_DELETED,
    Reason.COMPANY_DELETED,
)

ENDS: dict[Reason, AttemptState] = {
    **CALL_ENDS,
    Reason.TEST: _COMPLETED,
    Reason.OUTCOME_UNKNOWN: _FAILED,
    Reason.EXPIRED: _FAILED,
    Reason.CONSENT_EXPIRED: _FAILED,
    **dict.fromkeys(_CANCELLATIONS, _CANCELLED),
}
"""The end state of every reason."""


MAY_HAVE_BEEN_ANSWERED = (Reason.VOICEMAIL, Reason.INSTRUCTIONS_FAILED, Reason.OUTCOME_UNKNOWN)
"""Reasons of failed attempts whose calls may have reached a person."""
REFUSALS = frozenset({ConversationOutcome.OPTED_OUT, ConversationOutcome.WRONG_PERSON})
"""Outcomes after which the number is not called again. They are noted whatever is known of the call."""


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """One transition of an attempt. `source` is None for its creation. `reason` is the one after the transition."""

    event: str
    source: AttemptState | None
    target: AttemptState
    reason: Reason | None = None


def _arrow(
    event: type[Event], source: AttemptState | None, target: AttemptState, reason: Reason | None = None
) -> Arrow:
    return Arrow(event=event.name, source=source, target=target, reason=reason)


ARROWS: tuple[Arrow, ...] = (
    _arrow(events.Created, None, _PENDING),
    _arrow(events.CreatedAsTest, None, _COMPLETED, Reason.TEST),
    _arrow(events.Claimed, _PENDING, _IN_PROGRESS),
    _arrow(events.Deferred, _IN_PROGRESS, _PENDING),
    _arrow(events.NotPlaced, _IN_PROGRESS, _PENDING),
    _arrow(events.Placed, _IN_PROGRESS, _IN_PROGRESS),
    _arrow(events.AnswerLost, _IN_PROGRESS, _IN_PROGRESS),
    _arrow(events.Progressed, _IN_PROGRESS, _IN_PROGRESS),
    _arrow(events.VerdictHeard, _IN_PROGRESS, _IN_PROGRESS),
    _arrow(events.VerdictAwaited, _IN_PROGRESS, _IN_PROGRESS),
    _arrow(events.CauseAwaited, _IN_PROGRESS, _IN_PROGRESS),
    *(_arrow(events.Ended, _IN_PROGRESS, target, reason) for reason, target in CALL_ENDS.items()),
    _arrow(events.ProofMissing, _IN_PROGRESS, _FAILED, Reason.OUTCOME_UNKNOWN),
    *(_arrow(events.Proven, _FAILED, target, reason) for reason, target in CALL_ENDS.items()),
    _arrow(events.Expired, _PENDING, _FAILED, Reason.EXPIRED),
    _arrow(events.ConsentEnded, _PENDING, _FAILED, Reason.CONSENT_EXPIRED),
    *(_arrow(events.Cancelled, _PENDING, _CANCELLED, reason) for reason in _CANCELLATIONS),
    _arrow(events.Cancelled, _IN_PROGRESS, _CANCELLED, Reason.COMPANY_DELETED),
    _arrow(events.Rescheduled, _PENDING, _PENDING),
    _arrow(events.MovedBySettings, _PENDING, _PENDING),
    _arrow(events.ExpiryMoved, _PENDING, _PENDING),
    _arrow(events.HangUpWanted, _IN_PROGRESS, _IN_PROGRESS),
    _arrow(events.HangUpWanted, _FAILED, _FAILED, Reason.OUTCOME_UNKNOWN),
    _arrow(events.NeverDialled, _IN_PROGRESS, _PENDING),
    _arrow(events.LegSeen, _FAILED, _FAILED, Reason.OUTCOME_UNKNOWN),
    _arrow(events.VerdictHeard, _FAILED, _FAILED, Reason.OUTCOME_UNKNOWN),
    _arrow(events.VerdictAwaited, _FAILED, _FAILED, Reason.OUTCOME_UNKNOWN),
    _arrow(events.ProofMissing, _FAILED, _FAILED, Reason.OUTCOME_UNKNOWN),
    _arrow(events.Decided, _FAILED, _FAILED, Reason.OUTCOME_UNKNOWN),
    *(_arrow(events.Deleted, state, state, reason) for reason, state in ENDS.items()),
    _arrow(events.Reported, _IN_PROGRESS, _IN_PROGRESS),
    *(_arrow(events.Reported, _FAILED, _FAILED, reason) for reason in MAY_HAVE_BEEN_ANSWERED),
    *(
        _arrow(each, _COMPLETED, _COMPLETED, Reason.ANSWERED)
        for each in (events.Reported, events.OutcomeAwaited, events.NotReported)
    ),
)
"""Every arrow. The database has the same table, and each row of the history refers to it."""

_BY_CAUSE = {(arrow.event, arrow.source, arrow.reason): arrow for arrow in ARROWS}


class NoSuchArrow(Exception):
    """The event cannot happen to an attempt in that state."""

    def __init__(self, event: Event, state: AttemptState | None, reason: Reason | None) -> None:
        super().__init__(f"{event.name} cannot happen to an attempt that is {state} {reason or ''}".rstrip())


def arrow_of(attempt: Attempt | None, event: Event) -> Arrow:
    """Find the arrow of `event` from the attempt's state; `attempt` is None for its creation.

    Raises NoSuchArrow. The only arrow out of an end state is late proof, and only for an unknown outcome. If a call
    that was found late disappears again, the outcome is unknown as before. A refusal of the number is always noted.
    """
    state = attempt.state if attempt else None
    arrow = _BY_CAUSE.get((event.name, state, _reason_after(attempt, event)))
    if (
        arrow is None
        or (attempt is not None and is_over(attempt) and not _may_come_late(attempt, event))  # guard: late_proof
    ):
        raise NoSuchArrow(event, state, attempt.reason if attempt else None)
    return arrow


def _may_come_late(attempt: Attempt, event: Event) -> bool:
    match event:
        case (
            events.Proven() | events.LegSeen() | events.ProofMissing() | events.VerdictHeard() | events.VerdictAwaited()
        ):
            return attempt.reason is Reason.OUTCOME_UNKNOWN
        case events.Decided():
            # While a call is live, its end will decide.
            return is_to_decide(attempt) and not has_live_leg(attempt)
        case events.HangUpWanted():
            return has_live_leg(attempt)
        case events.Reported():
            return is_awaited(attempt) or has_live_leg(attempt) or event.outcome in REFUSALS
        case events.NotReported():
            return is_awaited(attempt)
        case events.OutcomeAwaited():
            return attempt.reason is Reason.ANSWERED and attempt.outcome is None
        case _:
            return True


def _reason_after(attempt: Attempt | None, event: Event) -> Reason | None:
    match event:
        case (
            events.Deleted()
            | events.HangUpWanted()
            | events.VerdictHeard()
            | events.VerdictAwaited()
            | events.Reported()
        ):
            return attempt.reason if attempt else None
        case events.OutcomeAwaited() | events.NotReported():
            return Reason.ANSWERED
        case events.Ended() | events.Proven() | events.Cancelled():
            return event.reason
        case events.CreatedAsTest():
            return Reason.TEST
        case events.ProofMissing() | events.LegSeen() | events.Decided():
            return Reason.OUTCOME_UNKNOWN
        case events.Expired():
            return Reason.EXPIRED
        case events.ConsentEnded():
            return Reason.CONSENT_EXPIRED
        case _:
            return None


def evolve(attempt: Attempt, event: Event, now: datetime) -> Attempt:
    """Compute the attempt after `event`. Raises NoSuchArrow if the event is impossible in its state."""
    return with_values(attempt, changes(attempt, event, now))


def with_values(attempt: Attempt, changed: Mapping[str, Any]) -> Attempt:
    """Copy an attempt with other values of these fields."""
    # The constructor of a frozen dataclass sets each field by a call of its own, for each event of each call.
    copied = object.__new__(Attempt)
    values = vars(copied)
    values.update(vars(attempt))
    values.update(changed)
    assert len(values) == len(vars(attempt)), "an attempt has no such field"
    return copied


def changes(attempt: Attempt, event: Event, now: datetime) -> dict[str, Any]:
    """List the new values of the fields that `event` sets. Raises NoSuchArrow if it is impossible in this state."""
    arrow = arrow_of(attempt, event)
    always = {"state": arrow.target, "reason": arrow.reason, "epoch": attempt.epoch + 1, "updated_at": now}
    return _changes(attempt, event, now) | always


_NOT_CALLED: dict[str, Any] = {
    "phase": None,
    "claimed_at": None,
    "lease_until": None,
    "unknown_at": None,
    "look_at": None,
    "listed_at": None,
    "search_at": None,
    "looks": 0,
    "released_until": None,
    "call_sid": None,
    "called_number": None,
    "heard_rank": CallProgress.NOTHING,
    "machine_detection": None,
    "answered_by": None,
    "instructions_failed": False,
    "hung_up_at": None,
    "sip_code": None,
    "hang_up": None,
}
"""Back to PENDING: everything of the try is removed except its old token, which still identifies the attempt."""


_NOT_ASKED_FOR: dict[str, Any] = {
    "phase": None,
    "lease_until": None,
    "look_at": None,
    "search_at": None,
    "released_until": None,
    "called_number": None,
    "hung_up_at": None,
    "sip_code": None,
    "hang_up": None,
}
"""Ended: no further news is due, and the called number is no longer needed."""


def _changes(attempt: Attempt, event: Event, now: datetime) -> dict[str, Any]:  # noqa: C901, PLR0912 - one case an event
    """List the changes of an event other than state and reason."""
    match event:
        case events.Claimed():
            return {
                "phase": Phase.DIALLING,
                "token": event.token,
                "claimed_at": now,
                "lease_until": event.lease_until,
                "machine_detection": event.machine_detection,
                "released_until": None,
                # A worker of the previous version may have left them.
                "listed_at": None,
                "search_at": None,
            }
        case events.Deferred() | events.NeverDialled():
            return {**_NOT_CALLED, "due_at": event.due_at}
        case events.NotPlaced():
            return {**_NOT_CALLED, "due_at": event.due_at, "not_placed": attempt.not_placed + 1}
        case events.Placed():
            return {
                "phase": Phase.PLACED,
                "call_sid": event.call_sid,
                "lease_until": None,
                "look_at": event.look_at,
                "looks": 0,
                "not_placed": 0,
            }
        case events.AnswerLost():
            return {
                "phase": Phase.UNKNOWN,
                "lease_until": None,
                "unknown_at": now,
                "look_at": event.look_at,
            }
        case events.Progressed():
            return {
                "heard_rank": event.rank,
                "answered_by": event.answered_by or attempt.answered_by,
                "instructions_failed": event.instructions_failed or attempt.instructions_failed,
            }
        case events.VerdictHeard():
            return {"answered_by": event.answered_by}
        case events.VerdictAwaited():
            return {
                "call_sid": event.call_sid,
                "heard_rank": CallProgress.OVER,
                "hung_up_at": now,
                "duration": event.duration,
                "look_at": event.look_at,
                "search_at": None,
                "called_number": None,  # it has ended: it is polled by its sid alone
            }
        case events.CauseAwaited():
            return {"sip_code": event.sip_code, "look_at": event.look_at}
        case events.LegSeen():
            return {
                "call_sid": event.call_sid,
                "heard_rank": event.rank,
                "answered_by": event.answered_by or attempt.answered_by,
                "instructions_failed": event.instructions_failed or attempt.instructions_failed,
                "look_at": event.look_at,
                "search_at": None,
                "called_number": None,  # the call now has a sid, by which it is polled
                "looks": 0,
                # The operator did not know of this call. If its end remains unknown, an operator decides again.
                **({} if _keeps_decision(attempt, event) else {"decision": None, "decided_at": None}),
            }
        case events.Proven():
            return {
                **_NOT_ASKED_FOR,
                "call_sid": event.call_sid,
                "heard_rank": CallProgress.OVER,
                "answered_by": event.answered_by,
                "instructions_failed": _has_failed_instructions(attempt, event),
                "duration": event.duration,
                "ended_at": event.ended_at,
            }
        case events.Ended():
            return {
                **_NOT_ASKED_FOR,
                "heard_rank": CallProgress.OVER,
                "ended_at": event.ended_at,
                "answered_by": event.answered_by or attempt.answered_by,
                "instructions_failed": _has_failed_instructions(attempt, event),
                "duration": event.duration,
                "cause_is_lost": not event.cause_is_known,
            }
        case events.ProofMissing(search_at=datetime()):
            found_by = {"search_at": event.search_at, "called_number": attempt.called_number}
            return {**_NOT_ASKED_FOR, **found_by, "looks": 0, "ended_at": now}
        case events.ProofMissing() | events.Expired() | events.ConsentEnded() | events.Cancelled():
            return {**_NOT_ASKED_FOR, "ended_at": now}
        case events.Rescheduled():
            return {
                "schedule": event.schedule,
                "due_at": event.schedule.due_at,
                "expires_at": event.expires_at,
                "warnings": event.warnings,
                "released_until": None,
                "not_placed": 0,
            }
        case events.MovedBySettings():
            # If only the number changed, the due time is kept, whatever the schedule stores about the number.
            is_moved = replace(event.schedule, number=attempt.schedule.number) != attempt.schedule
            moved = _with(attempt.warnings, ScheduleWarning.MOVED_BY_SETTINGS)
            return {
                "schedule": event.schedule,
                "due_at": event.due_at,
                "number_hash": event.number_hash or attempt.number_hash,
                "warnings": moved if is_moved else attempt.warnings,
                "released_until": None,
            }
        case events.ExpiryMoved():
            return {"expires_at": event.expires_at}
        case events.HangUpWanted():
            return {"hang_up": event.cause, "look_at": now}
        case events.Decided():
            # The searches of the carrier's list go on.
            return {"decision": event.decision, "decided_at": now}
        case events.Deleted():
            return {"deleted_at": now, "outcome_note": None}
        case events.Reported():
            return {
                "outcome": event.outcome,
                "outcome_at": now,
                "outcome_note": event.outcome_note,
                "outcome_until": None,
                "call_back": event.call_back,
            }
        case events.OutcomeAwaited():
            return {"outcome_until": event.until}
        case events.NotReported():
            return {"outcome": ConversationOutcome.FINISHED, "outcome_at": now, "outcome_until": None}
        case _:
            return {}


def _with(warnings: tuple[ScheduleWarning, ...], warning: ScheduleWarning) -> tuple[ScheduleWarning, ...]:
    return warnings if warning in warnings else (*warnings, warning)


def _keeps_decision(attempt: Attempt, seen: events.LegSeen) -> bool:
    """Return whether a decision that no call follows outlives news of the call.

    A call without instructions was no conversation, and is ended: its late fallback does not contradict the operator.
    """
    return bool(seen.instructions_failed) and attempt.decision is not Decision.DID_NOT_RING  # guard: late_fallback


def _has_failed_instructions(attempt: Attempt, end: events.Ended | events.Proven) -> bool:
    found = bool(end.instructions_failed) or end.reason is Reason.INSTRUCTIONS_FAILED
    return attempt.instructions_failed or found


def is_over(attempt: Attempt) -> bool:
    """Return whether the attempt has ended. Only late proof of an unknown outcome can change it then."""
    return attempt.state not in {_PENDING, _IN_PROGRESS}


def has_live_leg(attempt: Attempt) -> bool:
    """Return whether a call in progress was found after the outcome was given up as unknown."""
    return attempt.state is _FAILED and attempt.look_at is not None


def is_awaited(attempt: Attempt) -> bool:
    """Return whether the call was answered and has ended, and its conversation may still report an outcome."""
    return attempt.outcome_until is not None


def is_to_decide(attempt: Attempt) -> bool:
    """Return whether an operator has yet to decide about the attempt's unknown outcome."""
    return attempt.reason is Reason.OUTCOME_UNKNOWN and attempt.decision is None


def is_busy(attempt: Attempt) -> bool:
    """Return whether the attempt holds its line, because the phone may be ringing."""
    return attempt.state is _IN_PROGRESS or has_live_leg(attempt)
