"""Apply: execute a command and store its answer, in one transaction."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    Cancelled,
    Decision,
    Deleted,
    ExpiryMoved,
    Reason,
    Rescheduled,
)
from scheduler.domain.command import (
    Answer,
    CancelAttempt,
    Command,
    CommandKind,
    CreateInterview,
    DecideOutcome,
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    Request,
    RescheduleAttempt,
    TimeName,
    UpdateInterview,
    refusal_of,
)
from scheduler.domain.interview import AgentType, Interview, InterviewStatus, InterviewStory
from scheduler.domain.principal import OPERATORS
from scheduler.domain.refusals import (
    AccessDenied,
    CallAttemptInProgress,
    CallAttemptNotPending,
    CallAttemptsNotSupported,
    InterviewFinished,
    Refused,
    StatusNotSettable,
    TooManyAttempts,
)
from scheduler.domain.resource import ExternalId, ExternalKind
from scheduler.domain.schedule import CalleeClock, ScheduleWarning
from scheduler.failpoints import failpoint
from scheduler.lifecycle import partner_events, retries, scheduling
from scheduler.lifecycle.retries import on_decision
from scheduler.logs import log, place_of
from scheduler.persistence.database import BATCH_LOCK_S, LOCK_S
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.json_columns import STORY, private_fields, request_from_json
from scheduler.persistence.stores import Stores
from scheduler.rules import resources
from scheduler.rules.resources import merged
from scheduler.rules.tallies import COMMAND, key_of, seconds_of
from scheduler.use_cases.applying import NewInterviews, SharedReads, Turn, explicit_expiry, named_candidates
from scheduler.use_cases.operations.unknown_outcomes import lock_to_decide
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.access import lock_busy, lock_interview, not_found
from scheduler.use_cases.shared.alarms import raise_in
from scheduler.use_cases.shared.conflicts import blaming, put_off, together
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.shared.situations import callee_from
from scheduler.wire import named_fields
from scheduler.wire.named_fields import named

_log = log(__name__)


class Apply:
    def __init__(self, context: Context, hints: Hints) -> None:
        self._database = context.database
        self._hints = hints
        self._new = NewInterviews(context.hasher, context.policy)
        self._policy = context.policy
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

        While another transaction has locked its rows, it waits for another hint.
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
            return self._dispatch(turn, request)

    def _dispatch(self, turn: Turn, request: Request) -> tuple[UUID, Answer]:
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
            case DecideOutcome():
                attempt = self._decide(replace(turn, operator=request.operator), request)
                return request.interview_id, Answer(attempt_id=attempt.id)
            case CancelAttempt():
                self._cancel(replace(turn, operator=request.operator), request)
                return request.interview_id, Answer(attempt_id=request.attempt_id)

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

    # ---- PATCH and DELETE /interviews

    def _update_interview(self, turn: Turn, request: UpdateInterview) -> None:
        stores = turn.stores
        before = interview = lock_interview(stores, turn.company_id, request.interview_id)
        if request.external_id is not None:
            external_id = ExternalId(kind=ExternalKind.INTERVIEW, company_id=turn.company_id, text=request.external_id)
            access.must_be_free(stores, external_id, interview.id)
            interview = replace(interview, external_id=request.external_id)
        if request.metadata is not None:
            interview = replace(interview, metadata=merged(interview.metadata, request.metadata))
        if interview.type is AgentType.ONLINE:
            interview = self._update_online(turn, interview, request)
        else:
            interview = self._update_phone(turn, interview, request)
        stores.interviews.save(interview, turn.now, before=before)

    def _update_online(self, turn: Turn, interview: Interview, request: UpdateInterview) -> Interview:
        callee = callee_from(turn.stores.attempts.callee_of(interview.id))
        timed = request.scheduled_at is not None or request.status is not None
        if timed and interview.status is not InterviewStatus.SCHEDULED:
            raise InterviewFinished(status=interview.status.value)
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
            raise StatusNotSettable
        timed = request.scheduled_at is not None or request.expires_at is not None
        pending = self._pending(turn, interview.id) if timed else None
        if request.expires_at is not None:
            clock = pending.schedule.clock if pending else self._last_clock(turn, interview)
            expires_at = explicit_expiry(request.expires_at, clock)
            interview = replace(interview, expires_at=expires_at, expires_by_default=False)
        if request.scheduled_at is not None:
            if pending is None:
                raise CallAttemptNotPending(_why_not_moved(interview.status))
            interview, _ = self._move(turn, interview, pending, request.scheduled_at, request.time_name)
        elif request.expires_at is not None and pending is not None:
            scheduling.must_open_before(interview.expires_at, pending.due_at, self._policy)
            turn.stores.attempts.save(pending, ExpiryMoved(expires_at=interview.expires_at), turn.actor, turn.now)
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
            raise CallAttemptInProgress(attemptId=str(attempt.id))
        return attempt

    def _delete_interview(self, turn: Turn, request: DeleteInterview) -> None:
        stores = turn.stores
        before = interview = lock_interview(stores, turn.company_id, request.interview_id)
        attempt = stores.attempts.lock_open(interview.id)
        if attempt is not None and attempt.state is AttemptState.PENDING:
            stores.attempts.save(attempt, Cancelled(reason=Reason.INTERVIEW_DELETED), turn.actor, turn.now)
        if interview.status is InterviewStatus.SCHEDULED:
            interview = retries.with_status(interview, InterviewStatus.CANCELLED, turn.now)
        stores.interviews.save(replace(interview, deleted_at=turn.now), turn.now, before=before)

    # ---- POST, PATCH and DELETE …/call-attempts

    def _invoke(self, turn: Turn, request: InvokeAttempt) -> Attempt:
        stores = turn.stores
        before = interview = lock_interview(stores, turn.company_id, request.interview_id)
        if interview.type is AgentType.ONLINE:
            raise CallAttemptsNotSupported
        if interview.status in {InterviewStatus.COMPLETED, InterviewStatus.CANCELLED}:
            raise InterviewFinished(status=interview.status.value)
        busy = lock_busy(stores, interview.id)
        if busy is not None:
            raise CallAttemptInProgress(attemptId=str(busy.id))
        made = stores.attempts.counts_of([interview.id], retries.MOST_ATTEMPTS)[interview.id]
        if not retries.takes_another_attempt(made):
            raise TooManyAttempts
        callee = callee_from(stores.attempts.callee_of(interview.id))
        schedule, warnings = self._new.schedule(request.scheduled_at, callee, turn.requested_at, request.time_name)
        if interview.expires_by_default:
            interview = replace(interview, expires_at=scheduling.default_expiry(schedule.due_at))
        scheduling.must_open_before(interview.expires_at, schedule.due_at, self._policy)
        replaced = stores.attempts.lock_open(interview.id)
        if replaced is not None:
            stores.attempts.save(replaced, Cancelled(reason=Reason.REPLACED), turn.actor, turn.now)
        interview = retries.with_status(interview, InterviewStatus.SCHEDULED, turn.now)
        interview = stores.interviews.save(interview, turn.now, before=before)
        return self._new.first_attempt(turn, interview, callee, schedule, warnings)

    def _reschedule(self, turn: Turn, request: RescheduleAttempt) -> Attempt:
        before = lock_interview(turn.stores, turn.company_id, request.interview_id)
        attempt = self._lock_attempt(turn, request)
        if attempt.state is not AttemptState.PENDING:
            raise CallAttemptNotPending(status=attempt.state.value)
        interview, attempt = self._move(turn, before, attempt, request.scheduled_at, "scheduledAt")
        turn.stores.interviews.save(interview, turn.now, before=before)
        return attempt

    def _lock_attempt(self, turn: Turn, request: RescheduleAttempt | DeleteAttempt) -> Attempt:
        """Lock the attempt to move or delete. Raises NotFound, CallAttemptInProgress, EtagDiffers."""
        attempt = turn.stores.attempts.lock_of_interview(request.interview_id, request.attempt_id)
        if attempt is None:
            raise not_found("callAttempt", request.attempt_id)
        if attempt.state is AttemptState.IN_PROGRESS:
            raise CallAttemptInProgress(attemptId=str(attempt.id))
        resources.must_match(request.if_match, attempt)
        return attempt

    def _move(
        self, turn: Turn, interview: Interview, attempt: Attempt, text: str, field: TimeName
    ) -> tuple[Interview, Attempt]:
        """Move a pending attempt. A default expiry of the interview moves with the first attempt of a chain."""
        callee = callee_from(turn.stores.attempts.callee_of(interview.id))
        schedule, warnings = self._new.schedule(text, callee, turn.requested_at, field)
        if interview.expires_by_default and attempt.retry_number == 0:
            interview = replace(interview, expires_at=scheduling.default_expiry(schedule.due_at))
        scheduling.must_open_before(interview.expires_at, schedule.due_at, self._policy)
        lasting = tuple(each for each in attempt.warnings if each is ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW)
        event = Rescheduled(schedule=schedule, expires_at=interview.expires_at, warnings=(*warnings, *lasting))
        moved = turn.stores.attempts.save(attempt, event, turn.actor, turn.now)
        turn.stores.notify_if_due_soon(schedule.due_at, turn.now)
        return interview, moved

    def _delete_attempt(self, turn: Turn, request: DeleteAttempt) -> None:
        lock_interview(turn.stores, turn.company_id, request.interview_id)
        attempt = self._lock_attempt(turn, request)
        if attempt.state is AttemptState.PENDING:
            attempt = self._cancelled(turn, attempt)
        turn.stores.attempts.save(attempt, Deleted(), turn.actor, turn.now)

    def _cancelled(self, turn: Turn, pending: Attempt, note: str | None = None) -> Attempt:
        event = Cancelled(reason=Reason.CANCELLED_BY_USER, note=note)
        cancelled = turn.stores.attempts.save(pending, event, turn.actor, turn.now)
        failpoint("cancel.cancelling")
        return cancelled

    # ---- operators

    def _decide(self, turn: Turn, request: DecideOutcome) -> Attempt:
        """Save the decision, and call again if the phone did not ring. Return the new attempt, or the decided one.

        A repeated decision changes nothing, so that it never leads to a second call.
        """
        attempt, newer = lock_to_decide(turn.stores, request.interview_id, request.attempt_id)
        event = on_decision(attempt, newer, request)
        if event is None:
            return attempt
        attempt = turn.stores.attempts.save(attempt, event, turn.actor, turn.now)
        if event.decision is not Decision.DID_NOT_RING:
            return attempt
        return self._invoke(turn, InvokeAttempt(interview_id=request.interview_id))

    def _cancel(self, turn: Turn, request: CancelAttempt) -> None:
        """Cancel the attempt, unless it has ended. Raises NotFound, CallAttemptInProgress."""
        lock_interview(turn.stores, turn.company_id, request.interview_id)
        attempt = turn.stores.attempts.lock_of_interview(request.interview_id, request.attempt_id)
        if attempt is None:
            raise not_found("callAttempt", request.attempt_id)
        if attempt.state is AttemptState.IN_PROGRESS:
            raise CallAttemptInProgress(attemptId=str(attempt.id))
        if attempt.state is AttemptState.PENDING:
            self._cancelled(turn, attempt, request.reason)


def _why_not_moved(status: InterviewStatus) -> str:
    """Build the message for a new time of an interview without a pending attempt."""
    if status in {InterviewStatus.COMPLETED, InterviewStatus.CANCELLED}:
        return f"The interview is {status.lower()}. Create a new one."
    return "The interview has no pending call attempt; invoke a new one instead."


def _must_have_company(turn: Turn) -> None:
    """Raise AccessDenied if the company was deleted after the command was accepted."""
    if turn.command.kind is CommandKind.CREATE_INTERVIEW:
        turn.company()  # its settings are needed anyway
    elif not turn.stores.companies.is_there(turn.company_id):
        raise AccessDenied


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
                "__all__": {"number_hash": True, "token": True, "called_number": True, "schedule": {"number": True}}
            },
        },
    )
    return snapshot
