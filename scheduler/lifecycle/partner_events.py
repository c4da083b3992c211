"""The partner events that follow from a change. No other module builds one.

Total: each arrow of the state machine is here, or is not reported, and each type follows from some change.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from scheduler.domain import attempt as events
from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Event, Phase
from scheduler.domain.batch import Batch
from scheduler.domain.call import AnsweredBy, CallProgress
from scheduler.domain.command import Command, Refusal
from scheduler.domain.explanation import Rule
from scheduler.domain.interview import Interview, InterviewStatus
from scheduler.domain.webhook import SHORT_DEFERRAL, DisabledCause, EventType, MovedBy, NewEvent, OwnersEvent

NOT_REPORTED: Mapping[type[Event], str] = {
    events.Claimed: "the call may still be put off; its start is reported once the carrier has it, or may have it",
    events.ExpiryMoved: "a client did it, and the call keeps its time",
    events.HangUpWanted: "the end of the call is reported",
    events.VerdictHeard: "the end of the call is reported, with the reason that follows from it",
    events.VerdictAwaited: "the end of the call is reported once it is known who answered",
    events.CauseAwaited: "the end of the call is reported once its cause was looked up",
    events.LegSeen: "the end of the call is reported as proof",
    events.Deleted: "a client removed an attempt that has ended",
    events.OutcomeAwaited: "the end of the call is reported, and its outcome will be",
    events.NotReported: "the end of the interview is reported",
}
"""Events of attempts that no partner event reports, with the reason."""

_PLAIN: Mapping[type[Event], EventType] = {
    events.Created: EventType.ATTEMPT_SCHEDULED,
    events.CreatedAsTest: EventType.ATTEMPT_ENDED,
    events.Ended: EventType.ATTEMPT_ENDED,
    events.Proven: EventType.ATTEMPT_PROVEN,
    events.Cancelled: EventType.ATTEMPT_CANCELLED,
    events.Expired: EventType.ATTEMPT_EXPIRED,
    events.ConsentEnded: EventType.ATTEMPT_EXPIRED,
    events.Decided: EventType.ATTEMPT_DECIDED,
    events.Reported: EventType.ATTEMPT_REPORTED,
}
"""Events of attempts that are always reported, by the same type."""

_OF_STATUS: Mapping[InterviewStatus, EventType] = {
    InterviewStatus.SCHEDULED: EventType.INTERVIEW_SCHEDULED,
    InterviewStatus.COMPLETED: EventType.INTERVIEW_COMPLETED,
    InterviewStatus.FAILED: EventType.INTERVIEW_FAILED,
    InterviewStatus.CANCELLED: EventType.INTERVIEW_CANCELLED,
}


def of_attempt(
    before: Attempt | None, after: Attempt, event: Event, *, retry_of: UUID | None = None
) -> tuple[NewEvent, ...]:
    """Build the partner events of an event of an attempt. `before` is None for a new attempt.

    `retry_of` is the attempt that a new one repeats: the event is about the attempt that has ended.
    """
    if before is None and retry_of is not None:
        return (_of(after, EventType.ATTEMPT_RETRY_SCHEDULED, about=retry_of, nextAttemptId=str(after.id)),)
    plain = _PLAIN.get(type(event))
    if plain is not None:
        return (_of(after, plain, decision=event.decision.value if isinstance(event, events.Decided) else None),)
    assert before is not None, "only a creation has no attempt before it"
    match event:
        case events.Placed() | events.AnswerLost():
            return _started(before, after)
        case events.Progressed():
            return _answered(before, after)
        case events.Rescheduled():
            return (_moved(after, MovedBy.REQUEST),)
        case events.MovedBySettings():
            return (_moved(after, MovedBy.SETTINGS),) if after.due_at != before.due_at else ()
        case events.Deferred() | events.NotPlaced() | events.NeverDialled():
            is_long = after.due_at != before.due_at and after.due_at - after.updated_at >= SHORT_DEFERRAL
            return (_moved(after, MovedBy.DEFERRAL),) if is_long else ()
        case events.ProofMissing():
            # A call that was found late and disappeared again leaves the outcome unknown, as it was reported.
            return (_of(after, EventType.ATTEMPT_UNKNOWN),) if before.state is not after.state else ()
    assert type(event) in NOT_REPORTED, f"no partner event is known for {event.name}"
    return ()


def of_new_interview(interview: Interview) -> tuple[NewEvent, ...]:
    """Build the partner events of a new interview. A test is completed at once."""
    return (_of_interview(interview, interview.created_at),)


def of_interview(
    before: Interview, after: Interview, now: datetime, cause: Attempt | None = None
) -> tuple[NewEvent, ...]:
    """Build the partner events of a changed interview. `cause` is the attempt whose end has changed it."""
    if before.status is not after.status or before.scheduled_at != after.scheduled_at:
        return (_of_interview(after, now, cause),)
    return ()


def of_command(command: Command, interview_id: UUID | None, refusal: Refusal | None, now: datetime) -> NewEvent:
    """Build the partner event of a command that was applied or refused. `refusal` is reported by its code only."""
    assert command.company_id is not None
    return of_result(command.id, command.company_id, interview_id, None if refusal is None else refusal.code, now)


def of_result(
    command_id: UUID, company_id: UUID, interview_id: UUID | None, refused_with: str | None, now: datetime
) -> NewEvent:
    """Build the partner event of a command that was applied, or refused with this code.

    Of one that was dropped from the quarantine, it is the code that its client gets.
    """
    data = {"commandId": str(command_id), "status": "APPLIED" if refused_with is None else "REFUSED"}
    return NewEvent(
        type=EventType.COMMAND_APPLIED,
        company_id=company_id,
        interview_id=interview_id,
        occurred_at=now,
        data=data if refused_with is None else {**data, "reasonCode": refused_with},
    )


def of_pause(company_id: UUID, cause: Rule, now: datetime) -> NewEvent:
    """Report a pause. `cause` is the rule that blocks the calls. The reason is an operator's text and is left out."""
    data = {"reasonCode": cause.value}
    return NewEvent(type=EventType.COMPANY_PAUSED, company_id=company_id, occurred_at=now, data=data)


def of_resumption(company_id: UUID, cause: Rule, now: datetime) -> NewEvent:
    """Report the end of a pause. `cause` is the rule that blocked the calls."""
    data = {"reasonCode": cause.value}
    return NewEvent(type=EventType.COMPANY_RESUMED, company_id=company_id, occurred_at=now, data=data)


def of_deletion(company_id: UUID, now: datetime) -> NewEvent:
    """Build the partner event of a deleted company."""
    return NewEvent(type=EventType.COMPANY_DELETED, company_id=company_id, occurred_at=now, data={})


def of_finished_batch(batch: Batch, now: datetime) -> NewEvent:
    """Build the partner event of a batch of which no item waits any longer."""
    data = {
        "batchId": str(batch.id),
        "status": batch.state.value,
        "applied": batch.applied,
        "refused": batch.refused,
        "cancelled": batch.cancelled,
    }
    return NewEvent(type=EventType.BATCH_COMPLETED, company_id=batch.company_id, occurred_at=now, data=data)


def of_test(webhook_id: UUID) -> OwnersEvent:
    """Report to a webhook that its owner tests it."""
    return OwnersEvent(type=EventType.PING, data={"webhookId": str(webhook_id)})


def of_disabled(webhook_id: UUID, company_id: UUID | None, cause: DisabledCause | None) -> OwnersEvent:
    """Report a disabled webhook, to the other webhooks and keys of its owner."""
    data = {"webhookId": str(webhook_id), "reasonCode": None if cause is None else cause.value}
    if company_id is not None:
        data["companyId"] = str(company_id)
    return OwnersEvent(type=EventType.ENDPOINT_DISABLED, data=data)


def _started(before: Attempt, after: Attempt) -> tuple[NewEvent, ...]:
    if before.phase is not Phase.DIALLING:
        return ()  # reported when the carrier's answer was lost
    started = NewEvent(
        type=EventType.INTERVIEW_STARTED,
        company_id=after.company_id,
        interview_id=after.interview_id,
        attempt_id=after.id,
        occurred_at=after.updated_at,
        data={"status": InterviewStatus.IN_PROGRESS.value},
    )
    return (_of(after, EventType.ATTEMPT_STARTED), started)


def _answered(before: Attempt, after: Attempt) -> tuple[NewEvent, ...]:
    is_new = before.heard_rank < CallProgress.ANSWERED <= after.heard_rank
    by_machine = after.answered_by in {AnsweredBy.MACHINE, AnsweredBy.FAX}
    return (_of(after, EventType.ATTEMPT_ANSWERED),) if is_new and not by_machine else ()


def _moved(attempt: Attempt, by: MovedBy) -> NewEvent:
    return _of(attempt, EventType.ATTEMPT_RESCHEDULED, by=by.value)


def _of(attempt: Attempt, type_: EventType, *, about: UUID | None = None, **more: str | None) -> NewEvent:
    data: dict[str, object] = {"status": attempt.state.value, "retryNumber": attempt.retry_number}
    if attempt.reason is not None:
        data["reasonCode"] = attempt.reason.value
    if attempt.outcome is not None:
        data["outcome"] = attempt.outcome.value
    if attempt.state is AttemptState.PENDING:
        data["dueAt"] = _text_of(attempt.due_at)
        if attempt.schedule.clock.zones:
            data["timezone"] = ", ".join(attempt.schedule.clock.zones)
    return NewEvent(
        type=type_,
        company_id=attempt.company_id,
        interview_id=attempt.interview_id,
        attempt_id=about or attempt.id,
        occurred_at=attempt.updated_at,
        data=data | {name: value for name, value in more.items() if value is not None},
    )


def _of_interview(interview: Interview, now: datetime, cause: Attempt | None = None) -> NewEvent:
    data: dict[str, object] = {"status": interview.status.value}
    if interview.scheduled_at is not None:
        data["dueAt"] = _text_of(interview.scheduled_at)
    if cause is not None and cause.reason is not None:
        data["reasonCode"] = cause.reason.value
    if cause is not None and cause.outcome not in {None, ConversationOutcome.FINISHED}:
        data["outcome"] = cause.outcome
    return NewEvent(
        type=_OF_STATUS[interview.status],
        company_id=interview.company_id,
        interview_id=interview.id,
        attempt_id=None if cause is None else cause.id,
        occurred_at=now,
        data=data,
    )


def _text_of(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
