"""Changes: the effect of each command, in the transaction that stores its answer."""

from dataclasses import replace
from uuid import UUID

from scheduler.domain import attempt as events
from scheduler.domain import refusals
from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome, Reason
from scheduler.domain.call import CalleeClock, Schedule, ScheduleWarning
from scheduler.domain.command import (
    Answer,
    CancelAttempt,
    CreateInterview,
    DecideOutcome,
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    ReportOutcome,
    Request,
    RescheduleAttempt,
    TimeName,
    UpdateInterview,
)
from scheduler.domain.interview import AgentType, Interview, InterviewStatus, InterviewStory
from scheduler.domain.resource import ExternalId, ExternalKind
from scheduler.failpoints import failpoint
from scheduler.lifecycle import conversations, retries, scheduling
from scheduler.lifecycle.policy import CALL_BACK_GAP
from scheduler.lifecycle.scheduling import Callee
from scheduler.persistence.json_columns import STORY, private_fields
from scheduler.rules import resources
from scheduler.use_cases.applying import NewInterviews, explicit_expiry
from scheduler.use_cases.operations.unknown_outcomes import lock_to_decide
from scheduler.use_cases.shared import access, report_order
from scheduler.use_cases.shared.batch import Batch, callee_from
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.turn import Turn


class Changes:
    def __init__(self, context: Context) -> None:
        self._new = NewInterviews(context.hasher, context.policy)
        self._effects = context.effects
        self._policy = context.policy

    def of(self, turn: Turn, request: Request) -> tuple[UUID, Answer]:
        """Make the change, and return the interview and the answer. Raises Refused, with a part of it made."""
        match request:
            case CreateInterview():
                story, existed = self._new.of_request(turn, request)
                return story.interview.id, Answer(snapshot=_snapshot(story), existed=True if existed else None)
            case UpdateInterview():
                self._update_interview(turn, request)
                return request.interview_id, Answer(snapshot=_snapshot(_story(turn, request.interview_id)))
            case DeleteInterview():
                self._delete_interview(turn, request)
                return request.interview_id, Answer()
            case InvokeAttempt():
                attempt = self._invoke(turn, request)
                snapshot = _snapshot(_story(turn, request.interview_id))
                return request.interview_id, Answer(snapshot=snapshot, attempt_id=attempt.id)
            case RescheduleAttempt():
                attempt = self._reschedule(turn, request)
                return request.interview_id, Answer(attempt_id=attempt.id, etag=resources.etag_of(attempt))
            case DeleteAttempt():
                self._delete_attempt(turn, request)
                return request.interview_id, Answer(attempt_id=request.attempt_id)
            case ReportOutcome():
                return request.interview_id, self._report(turn, request)
            case DecideOutcome():
                attempt = self._decide(replace(turn, operator=request.operator), request)
                return request.interview_id, Answer(attempt_id=attempt.id)
            case CancelAttempt():
                self._cancel(replace(turn, operator=request.operator), request)
                return request.interview_id, Answer(attempt_id=request.attempt_id)

    # ---- PATCH and DELETE /interviews

    def _update_interview(self, turn: Turn, request: UpdateInterview) -> None:
        stores = turn.stores
        before = interview = access.lock_interview(stores, turn.company_id, request.interview_id)
        if request.external_id is not None:
            external_id = ExternalId(kind=ExternalKind.INTERVIEW, company_id=turn.company_id, text=request.external_id)
            access.must_be_free(stores, external_id, interview.id)
            interview = replace(interview, external_id=request.external_id)
        if request.metadata is not None:
            interview = replace(interview, metadata=resources.merged(interview.metadata, request.metadata))
        if interview.type is AgentType.ONLINE:
            interview = self._update_online(turn, interview, request)
        else:
            interview = self._update_phone(turn, interview, request)
        stores.interviews.save(interview, turn.now, before=before)

    def _update_online(self, turn: Turn, interview: Interview, request: UpdateInterview) -> Interview:
        callee = callee_from(turn.stores.attempts.callee_of(interview.id))
        timed = request.scheduled_at is not None or request.status is not None
        if timed and interview.status is not InterviewStatus.SCHEDULED:
            raise refusals.InterviewFinished(status=interview.status.value)
        if request.scheduled_at is not None:
            online_at = self._new.online_time(turn, request, callee)
            interview = replace(interview, scheduled_at=online_at)
            if online_at is not None and interview.expires_by_default:
                interview = replace(interview, expires_at=scheduling.default_expiry(online_at))
        if request.expires_at is not None:
            expires_at = explicit_expiry(request.expires_at, scheduling.clock_or_none(callee))
            interview = replace(interview, expires_at=expires_at, expires_by_default=False)
        moved = request.scheduled_at is not None or request.expires_at is not None
        if interview.scheduled_at is not None and moved:
            scheduling.must_open_before(interview.expires_at, interview.scheduled_at, self._policy)
        if request.status is not None:
            interview = replace(interview, status=request.status, finished_at=turn.now)
        return interview

    def _update_phone(self, turn: Turn, interview: Interview, request: UpdateInterview) -> Interview:
        if request.status is not None:
            raise refusals.StatusNotSettable
        timed = request.scheduled_at is not None or request.expires_at is not None
        pending = self._pending(turn, interview.id) if timed else None
        if request.expires_at is not None:
            clock = pending.schedule.clock if pending else self._last_clock(turn, interview)
            expires_at = explicit_expiry(request.expires_at, clock)
            interview = replace(interview, expires_at=expires_at, expires_by_default=False)
        if request.scheduled_at is not None:
            if pending is None:
                raise refusals.CallAttemptNotPending(_why_not_moved(interview.status))
            interview, _ = self._move(turn, interview, pending, request.scheduled_at, request.time_name)
        elif request.expires_at is not None and pending is not None:
            scheduling.must_open_before(interview.expires_at, pending.due_at, self._policy)
            turn.stores.attempts.save(
                pending, events.ExpiryMoved(expires_at=interview.expires_at), turn.actor, turn.now
            )
        return interview

    def _last_clock(self, turn: Turn, interview: Interview) -> CalleeClock | None:
        attempts = turn.stores.attempts.story(interview).attempts
        if attempts:
            return attempts[-1].schedule.clock
        return scheduling.clock_or_none(callee_from(turn.stores.attempts.callee_of(interview.id)))

    def _pending(self, turn: Turn, interview_id: UUID) -> Attempt | None:
        """Lock the interview's pending attempt. Raises CallAttemptInProgress while its phone may be ringing."""
        attempt = turn.stores.attempts.lock_open(interview_id)
        if attempt is not None and attempt.state is AttemptState.IN_PROGRESS:
            raise refusals.CallAttemptInProgress(attemptId=str(attempt.id))
        return attempt

    def _delete_interview(self, turn: Turn, request: DeleteInterview) -> None:
        stores = turn.stores
        before = interview = access.lock_interview(stores, turn.company_id, request.interview_id)
        attempt = stores.attempts.lock_open(interview.id)
        if attempt is not None and attempt.state is AttemptState.PENDING:
            stores.attempts.save(attempt, events.Cancelled(reason=Reason.INTERVIEW_DELETED), turn.actor, turn.now)
        if interview.status is InterviewStatus.SCHEDULED:
            interview = retries.with_status(interview, InterviewStatus.CANCELLED, turn.now)
        stores.interviews.save(replace(interview, deleted_at=turn.now), turn.now, before=before)

    # ---- POST, PATCH and DELETE …/call-attempts

    def _invoke(self, turn: Turn, request: InvokeAttempt) -> Attempt:
        stores = turn.stores
        before = interview = access.lock_interview(stores, turn.company_id, request.interview_id)
        if interview.type is AgentType.ONLINE:
            raise refusals.CallAttemptsNotSupported
        if interview.status in {InterviewStatus.COMPLETED, InterviewStatus.CANCELLED}:
            raise refusals.InterviewFinished(status=interview.status.value)
        busy = access.lock_busy(stores, interview.id)
        if busy is not None:
            raise refusals.CallAttemptInProgress(attemptId=str(busy.id))
        made = stores.attempts.counts_of([interview.id], retries.MOST_ATTEMPTS)[interview.id]
        if not retries.takes_another_attempt(made):
            raise refusals.TooManyAttempts
        callee = callee_from(stores.attempts.callee_of(interview.id))
        schedule, warnings = self._new.schedule(request.scheduled_at, callee, turn.requested_at, request.time_name)
        if interview.expires_by_default:
            interview = replace(interview, expires_at=scheduling.default_expiry(schedule.due_at))
        scheduling.must_open_before(interview.expires_at, schedule.due_at, self._policy)
        replaced = stores.attempts.lock_open(interview.id)
        if replaced is not None:
            stores.attempts.save(replaced, events.Cancelled(reason=Reason.REPLACED), turn.actor, turn.now)
        interview = retries.with_status(interview, InterviewStatus.SCHEDULED, turn.now)
        interview = stores.interviews.save(interview, turn.now, before=before)
        return self._new.first_attempt(turn, interview, callee, schedule, warnings)

    def _reschedule(self, turn: Turn, request: RescheduleAttempt) -> Attempt:
        before = access.lock_interview(turn.stores, turn.company_id, request.interview_id)
        attempt = self._lock_attempt(turn, request)
        if attempt.state is not AttemptState.PENDING:
            raise refusals.CallAttemptNotPending(status=attempt.state.value)
        interview, attempt = self._move(turn, before, attempt, request.scheduled_at, "scheduledAt")
        turn.stores.interviews.save(interview, turn.now, before=before)
        return attempt

    def _lock_attempt(self, turn: Turn, request: RescheduleAttempt | DeleteAttempt) -> Attempt:
        """Lock the attempt to move or delete. Raises NotFound, CallAttemptInProgress, EtagDiffers."""
        attempt = turn.stores.attempts.lock_of_interview(request.interview_id, request.attempt_id)
        if attempt is None:
            raise access.not_found("callAttempt", request.attempt_id)
        if attempt.state is AttemptState.IN_PROGRESS:
            raise refusals.CallAttemptInProgress(attemptId=str(attempt.id))
        resources.must_match(request.if_match, attempt)
        return attempt

    def _move(
        self, turn: Turn, interview: Interview, attempt: Attempt, text: str, field: TimeName
    ) -> tuple[Interview, Attempt]:
        """Move a pending attempt. A default expiry of the interview moves with the first attempt of a chain."""
        callee = callee_from(turn.stores.attempts.callee_of(interview.id))
        is_call_back = scheduling.is_call_back(attempt)
        schedule, warnings = self._new.schedule(text, callee, turn.requested_at, field, is_call_back=is_call_back)
        if interview.expires_by_default and attempt.retry_number == 0:
            interview = replace(interview, expires_at=scheduling.default_expiry(schedule.due_at))
        scheduling.must_open_before(interview.expires_at, schedule.due_at, self._policy)
        lasting = tuple(each for each in attempt.warnings if each is ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW)
        event = events.Rescheduled(schedule=schedule, expires_at=interview.expires_at, warnings=(*warnings, *lasting))
        moved = turn.stores.attempts.save(attempt, event, turn.actor, turn.now)
        turn.stores.notify_if_due_soon(schedule.due_at, turn.now)
        return interview, moved

    def _delete_attempt(self, turn: Turn, request: DeleteAttempt) -> None:
        access.lock_interview(turn.stores, turn.company_id, request.interview_id)
        attempt = self._lock_attempt(turn, request)
        if attempt.state is AttemptState.PENDING:
            attempt = self._cancelled(turn, attempt)
        turn.stores.attempts.save(attempt, events.Deleted(), turn.actor, turn.now)

    def _cancelled(self, turn: Turn, pending: Attempt, note: str | None = None) -> Attempt:
        event = events.Cancelled(reason=Reason.CANCELLED_BY_USER, note=note)
        cancelled = turn.stores.attempts.save(pending, event, turn.actor, turn.now)
        failpoint("cancel.cancelling")
        return cancelled

    # ---- voice servers

    def _report(self, turn: Turn, request: ReportOutcome) -> Answer:
        """Store the outcome of an answered call. After the end of the call it decides at once, otherwise at the end.

        A repeated report changes nothing and gets the answer of the first one. A note about an erased person is not
        stored. A refusal of the number is also noted for a deleted interview or attempt, without its note.
        """
        stores, with_deleted = turn.stores, conversations.refuses_number(request)
        interview = access.lock_interview(stores, turn.company_id, request.interview_id, with_deleted=with_deleted)
        # Before the attempt is locked: an erasure locks the person first.
        note = None if request.note is None or not stores.candidates.lock_kept(interview.candidate_id) else request.note
        attempt = stores.attempts.lock_of_interview(interview.id, request.attempt_id, with_deleted=with_deleted)
        if attempt is None:
            raise access.not_found("callAttempt", request.attempt_id)
        if interview.deleted_at is not None or attempt.deleted_at is not None:
            note = attempt.outcome_note  # guard: note_of_the_deleted
        call_back_at = conversations.on_clock_of_chain(attempt, request.call_back_at)
        request = replace(request, call_back_at=call_back_at)  # guard: chain_zone
        if self._is_new_report(turn, attempt, request, note):
            interview, call_back = self._call_back(turn, interview, request)
            event = events.Reported(outcome=request.outcome, outcome_note=note, call_back=call_back)
            attempt = self._save_report(turn, interview, attempt, event)
        return Answer(attempt_id=attempt.id, snapshot=_reported(attempt))

    def _is_new_report(self, turn: Turn, attempt: Attempt, request: ReportOutcome, note: str | None) -> bool:
        """Return False if the same was reported before. Raises NewsFirst instead of a refusal that may be wrong."""
        try:
            return conversations.is_new_report(attempt, request.outcome, request.call_back_at, note)
        except refusals.CallNotAnswered:
            if report_order.is_accepted_unheard(turn, attempt, request.outcome):
                return True
            raise

    def _save_report(self, turn: Turn, interview: Interview, attempt: Attempt, event: events.Reported) -> Attempt:
        """Save a report with its effects. That of a deleted interview only blocks the number.

        The end of a call that was found late is proven now, if it was known and has waited for the report.
        """
        if interview.deleted_at is not None:  # guard: deleted_interview
            return turn.stores.attempts.save(attempt, event, turn.actor, turn.now)
        batch = Batch(turn.stores, [interview], [attempt])
        attempt = self._effects.apply_events(batch, attempt, [event], turn.actor, turn.now)
        end = conversations.known_end(attempt)
        if end is None:
            return attempt
        proven = self._effects.hear(batch, attempt, end, turn.actor, turn.now)
        if isinstance(proven, Attempt):
            return proven
        # The notifications of a short call are read first.
        turn.stores.attempt_polls.reschedule_poll(attempt.id, attempt.epoch, turn.now)
        return attempt

    def _call_back(self, turn: Turn, interview: Interview, request: ReportOutcome) -> tuple[Interview, Schedule | None]:
        """Resolve the time that the person named, by every rule of a requested time. Raises its refusal.

        A default expiry moves with it, as it does with an invoke.
        """
        if request.call_back_at is None:
            return interview, None
        callee = callee_from(turn.stores.attempts.callee_of(interview.id))
        try:
            return self._called_back(turn, interview, callee, request.call_back_at)
        except refusals.ScheduleInPast as refusal:
            raise self._in_past(turn, request.call_back_at, callee) from refusal
        except _TOO_LATE as refusal:
            expires_at = None if interview.expires_by_default else interview.expires_at
            possible = conversations.last_possible(
                request.call_back_at, callee, expires_at, turn.requested_at, self._policy
            )
            refusal.details.update(possible)
            raise

    def _called_back(
        self, turn: Turn, interview: Interview, callee: Callee, call_back_at: str
    ) -> tuple[Interview, Schedule]:
        schedule, _ = self._new.schedule(call_back_at, callee, turn.requested_at, "callBackAt", is_call_back=True)
        # A time that has just passed would ring at once, when the person has hung up.
        if schedule.earliest_at <= turn.requested_at:
            raise refusals.ScheduleInPast
        made = turn.stores.attempts.counts_of([interview.id], retries.MOST_ATTEMPTS)[interview.id]
        if not retries.takes_another_attempt(made):
            raise refusals.TooManyAttempts
        before = interview
        if interview.expires_by_default:
            expires_at = max(interview.expires_at, scheduling.default_expiry(schedule.due_at))
            interview = replace(interview, expires_at=expires_at)
        scheduling.must_open_before(interview.expires_at, schedule.due_at, self._policy)
        if interview != before:
            interview = turn.stores.interviews.save(interview, turn.now, before=before)
        return interview, schedule

    def _in_past(self, turn: Turn, call_back_at: str, callee: Callee) -> refusals.ScheduleInPast:
        return refusals.ScheduleInPast(
            "callBackAt is in the past. Send the time that the person named, or the next one that is possible:"
            " details.nextAllowedScheduledAt.",
            **scheduling.next_for_call_back(call_back_at, callee, turn.requested_at + CALL_BACK_GAP, self._policy),
        )

    # ---- operators

    def _decide(self, turn: Turn, request: DecideOutcome) -> Attempt:
        """Save the decision, and call again if the phone did not ring. Return the new attempt, or the decided one.

        A repeated decision changes nothing, so that it never leads to a second call.
        """
        attempt, newer = lock_to_decide(turn.stores, request.interview_id, request.attempt_id)
        event = retries.on_decision(attempt, newer, request)
        if event is None:
            return attempt
        attempt = turn.stores.attempts.save(attempt, event, turn.actor, turn.now)
        if event.decision is not events.Decision.DID_NOT_RING:
            return attempt
        return self._invoke(turn, InvokeAttempt(interview_id=request.interview_id))

    def _cancel(self, turn: Turn, request: CancelAttempt) -> None:
        """Cancel the attempt, unless it has ended. Raises NotFound, CallAttemptInProgress."""
        access.lock_interview(turn.stores, turn.company_id, request.interview_id)
        attempt = turn.stores.attempts.lock_of_interview(request.interview_id, request.attempt_id)
        if attempt is None:
            raise access.not_found("callAttempt", request.attempt_id)
        if attempt.state is AttemptState.IN_PROGRESS:
            raise refusals.CallAttemptInProgress(attemptId=str(attempt.id))
        if attempt.state is AttemptState.PENDING:
            self._cancelled(turn, attempt, request.reason)


_TOO_LATE = (refusals.ScheduleTooFar, refusals.ConsentExpired, refusals.NoOpeningBeforeExpiry)
"""Refusals of a time that is only possible earlier."""


def _reported(attempt: Attempt) -> dict[str, object]:
    """Build the answer of a report, the same for each repetition. A wait that has ended counts as a report."""
    outcome = attempt.outcome or ConversationOutcome.FINISHED
    reported_at = attempt.outcome_at or attempt.ended_at
    assert reported_at is not None
    return {
        "call_attempt_id": str(attempt.id),
        "interview_id": str(attempt.interview_id),
        "outcome": outcome.value,
        "reported_at": reported_at.isoformat(),
        "call_back_at": attempt.call_back and attempt.call_back.due_at.isoformat(),
    }


def _why_not_moved(status: InterviewStatus) -> str:
    """Build the message for a new time of an interview without a pending attempt."""
    if status in {InterviewStatus.COMPLETED, InterviewStatus.CANCELLED}:
        return f"The interview is {status.lower()}. Create a new one."
    return "The interview has no pending call attempt; invoke a new one instead."


def _story(turn: Turn, interview_id: UUID) -> InterviewStory:
    interview = turn.stores.interviews.lock(interview_id)
    return turn.stores.attempts.story(interview)


def _snapshot(story: InterviewStory) -> dict[str, object]:
    snapshot: dict[str, object] = STORY.dump_python(
        story,
        mode="json",
        exclude_defaults=True,  # a third of the largest column of the database
        exclude={
            "interview": set(private_fields(Interview)),
            "attempts": {
                "__all__": {
                    **dict.fromkeys(("number_hash", "token", "called_number", "history_seal", "outcome_note"), True),
                    "schedule": {"number": True},
                    "call_back": {"number": True},
                }
            },
        },
    )
    return snapshot
