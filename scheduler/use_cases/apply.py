"""Apply: execute a command and store its answer, in one transaction."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid4

from scheduler.domain.agent import Agent, AgentType
from scheduler.domain.attempt import (
    Attempt,
    AttemptState,
    Cancelled,
    CreatedAsTest,
    Deleted,
    ExpiryMoved,
    Reason,
    Rescheduled,
)
from scheduler.domain.candidate import MAX_JOBS, Candidate
from scheduler.domain.command import (
    Answer,
    Command,
    CreateInterview,
    DeleteAttempt,
    DeleteInterview,
    InvokeAttempt,
    Request,
    RescheduleAttempt,
    TimeName,
    UpdateInterview,
    refusal_of,
)
from scheduler.domain.company import Company
from scheduler.domain.interview import Interview, InterviewStatus, InterviewStory
from scheduler.domain.refusals import (
    AccessDenied,
    CallAttemptInProgress,
    CallAttemptNotPending,
    CallAttemptsNotSupported,
    InterviewFinished,
    PhoneNumberRequired,
    Refused,
    StatusNotSettable,
    TooManyJobs,
)
from scheduler.domain.schedule import CalleeClock, Schedule, ScheduleWarning
from scheduler.failpoints import failpoint
from scheduler.lifecycle import interviews, scheduling
from scheduler.lifecycle.scheduling import Callee
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.json_columns import STORY, request_from_json
from scheduler.persistence.stores import Stores
from scheduler.rules import etags, job_choice
from scheduler.rules.metadata import merged
from scheduler.timing import callee_zones
from scheduler.use_cases.resources.agents import add_agent
from scheduler.use_cases.resources.candidates import new_candidate
from scheduler.use_cases.resources.jobs import add_job
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.batch import add_attempt
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.shared.situations import callee_from, callee_of
from scheduler.use_cases.submit import lock_busy, lock_interview, not_found, require
from scheduler.wire import named_fields
from scheduler.wire.named_fields import named

_log = log(__name__)


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """One command while it is being applied."""

    stores: Stores
    command: Command
    now: datetime

    @property
    def company_id(self) -> UUID:
        """The company, which every command that a worker applies has."""
        assert self.command.company_id is not None
        return self.command.company_id

    @property
    def actor(self) -> str:
        return f"key:{self.command.key_id or self.command.principal_id}"

    @property
    def requested_at(self) -> datetime:
        """The time of receipt. Requested times are judged as of this instant."""
        return self.command.received_at


class Apply:
    def __init__(self, context: Context, hints: Hints) -> None:
        self._database = context.database
        self._hints = hints
        self._hasher = context.hasher
        self._policy = context.policy
        self._now = context.now

    def command(self, command_id: UUID) -> None:
        """Apply the command if it is the oldest of its interview that is not applied yet. Raises DatabaseAway."""
        following = None
        try:
            with self._database.transaction() as stores:
                command = stores.inbox.lock_next(command_id)
                if command is None:
                    return
                failpoint("apply.locking")
                self._apply(_Turn(stores=stores, command=command, now=stores.instant(self._now)))
                if command.interview_id is not None:
                    following = stores.inbox.next_of(command.interview_id)
        except DatabaseAway:
            raise
        except Exception:
            self._count_failure(command_id)
            raise
        failpoint("apply.applied")
        self._hints.answered(command_id)
        if following is not None:
            self._hints.send(tasks.APPLY, [following])  # its own hint may have come before its turn

    def _apply(self, turn: _Turn) -> None:
        """Execute the command and store its answer. The writes of a refused command are rolled back."""
        interview_id = turn.command.interview_id
        try:
            with turn.stores.connection.begin_nested():
                interview_id, answer = self._do(turn)
                failpoint("apply.doing")
        except Refused as refused:
            answer = Answer(refusal=refusal_of(refused))
        turn.stores.inbox.answer(turn.command.id, answer, interview_id, turn.now)
        failpoint("apply.answering")
        if interview_id is not None and turn.stores.attempt_release.release_again(interview_id):
            # While the command waited, a dialler could not claim the attempt and dropped its hint.
            turn.stores.notify_due()

    def _do(self, turn: _Turn) -> tuple[UUID, Answer]:
        if not turn.stores.companies.is_there(turn.company_id):
            raise AccessDenied  # deleted after the command was accepted
        request = request_from_json(turn.command.kind, turn.command.body)
        with named(named_fields.of_command(request)):
            return self._dispatch(turn, request)

    def _dispatch(self, turn: _Turn, request: Request) -> tuple[UUID, Answer]:
        match request:
            case CreateInterview():
                story = self._create_interview(turn, request)
                return story.interview.id, Answer(snapshot=_snapshot(story))
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
                return request.interview_id, Answer(attempt_id=attempt.id, etag=etags.etag_of(attempt))
            case DeleteAttempt():
                self._delete_attempt(turn, request)
                return request.interview_id, Answer(attempt_id=request.attempt_id)

    def _count_failure(self, command_id: UUID) -> None:
        with self._database.transaction() as stores:
            if stores.inbox.count_failure(command_id, stores.instant(self._now)):
                _log.error(
                    "command_quarantined: a command failed five times and was put in quarantine",
                    alarm="QUARANTINE",
                    command_id=str(command_id),
                )

    # ---- POST /interviews

    def _create_interview(self, turn: _Turn, request: CreateInterview) -> InterviewStory:
        stores, now = turn.stores, turn.now
        company = stores.companies.get(turn.company_id)
        if company is None:
            raise AccessDenied  # deleted since the check above
        agent = _agent(stores, company, request, now)
        is_rung = agent.type is AgentType.PHONE
        candidate, is_new = _candidate(stores, company, request, now, is_rung=is_rung)
        job_id = _job_id(stores, agent, candidate, request, now)
        callee = callee_of(candidate, company, is_rung=is_rung)
        schedule: Schedule | None = None
        warnings: tuple[ScheduleWarning, ...] = ()
        if is_rung:
            schedule, warnings = self._schedule(request.scheduled_at, callee, turn.requested_at, request.time_name)
            if not is_new and stores.interviews.open_of_candidate(candidate.id):
                warnings = (*warnings, ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW)
        online_at = None if schedule else self._online_time(turn, request, callee)
        first_at = schedule.due_at if schedule else (online_at or turn.requested_at)
        over = request.is_test
        interview = Interview(
            id=uuid4(),
            company_id=company.id,
            candidate_id=candidate.id,
            agent_id=agent.id,
            job_id=job_id,
            type=agent.type,
            focus=agent.focus,
            duration=agent.duration,
            caller_number=agent.caller_number,
            status=InterviewStatus.COMPLETED if over else InterviewStatus.SCHEDULED,
            is_test=request.is_test,
            expires_at=self._expiry(request.expires_at, schedule, callee, first_at),
            expires_by_default=request.expires_at is None,
            scheduled_at=online_at,
            created_at=now,
            updated_at=now,
            finished_at=now if over else None,
            metadata=request.metadata,
        )
        stores.interviews.add(interview)
        attempts: tuple[Attempt, ...] = ()
        if schedule is not None:
            attempts = (self._first_attempt(turn, interview, callee, schedule, warnings, manual=False),)
        return InterviewStory(interview=interview, attempts=attempts)

    def _schedule(
        self, text: str | None, callee: Callee, received_at: datetime, field: TimeName
    ) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
        """Resolve the requested time. Raises the refusal if the candidate may not be called then, or at all."""
        if callee.number is None:
            raise PhoneNumberRequired
        callee_zones.check_allowed(callee.number, callee.settings.allowed_countries)
        return scheduling.on_request(text, callee, received_at, self._policy, field=field)

    def _online_time(self, turn: _Turn, request: CreateInterview | UpdateInterview, callee: Callee) -> datetime | None:
        return scheduling.online_time(request.scheduled_at, callee, turn.requested_at, field=request.time_name)

    def _expiry(self, text: str | None, schedule: Schedule | None, callee: Callee, first_at: datetime) -> datetime:
        if text is None:
            return scheduling.default_expiry(first_at)
        clock = schedule.clock if schedule else scheduling.clock_or_none(callee)
        expires_at = _explicit_expiry(text, clock)
        scheduling.must_open_before(expires_at, first_at, self._policy)
        return expires_at

    def _first_attempt(
        self,
        turn: _Turn,
        interview: Interview,
        callee: Callee,
        schedule: Schedule,
        warnings: tuple[ScheduleWarning, ...],
        *,
        manual: bool,
    ) -> Attempt:
        """Create the first attempt of a chain. For a test interview it is already completed and takes no line.

        `manual` means that a client invoked this call: it goes first among its company's calls.
        """
        assert callee.number is not None
        attempt_id = uuid4()
        attempt = Attempt(
            id=attempt_id,
            interview_id=interview.id,
            company_id=interview.company_id,
            chain_id=attempt_id,
            retry_number=0,
            manual=manual,
            state=AttemptState.PENDING,
            schedule=schedule,
            due_at=schedule.due_at,
            expires_at=interview.expires_at,
            number_hash=self._hasher.number(callee.number.e164),
            warnings=warnings,
            created_at=turn.now,
            updated_at=turn.now,
        )
        if interview.is_test:
            attempt = replace(
                attempt, state=AttemptState.COMPLETED, reason=Reason.TEST, ended_at=turn.now, number_hash=None
            )
            turn.stores.attempts.add(attempt, CreatedAsTest(), turn.actor)
        else:
            add_attempt(turn.stores, attempt, turn.actor)
        return attempt

    # ---- PATCH and DELETE /interviews

    def _update_interview(self, turn: _Turn, request: UpdateInterview) -> None:
        stores = turn.stores
        interview = lock_interview(stores, turn.company_id, request.interview_id)
        if request.metadata is not None:
            interview = replace(interview, metadata=merged(interview.metadata, request.metadata))
        if interview.type is AgentType.ONLINE:
            interview = self._update_online(turn, interview, request)
        else:
            interview = self._update_phone(turn, interview, request)
        stores.interviews.save(interview, turn.now)

    def _update_online(self, turn: _Turn, interview: Interview, request: UpdateInterview) -> Interview:
        callee = callee_from(turn.stores.attempts.callee_of(interview.id))
        timed = request.scheduled_at is not None or request.status is not None
        if timed and interview.status is not InterviewStatus.SCHEDULED:
            raise InterviewFinished(status=interview.status.value)
        if request.scheduled_at is not None:
            online_at = self._online_time(turn, request, callee)
            interview = replace(interview, scheduled_at=online_at)
            if online_at is not None and interview.expires_by_default:
                interview = replace(interview, expires_at=scheduling.default_expiry(online_at))
        if request.expires_at is not None:
            expires_at = _explicit_expiry(request.expires_at, scheduling.clock_or_none(callee))
            interview = replace(interview, expires_at=expires_at, expires_by_default=False)
        moved = request.scheduled_at is not None or request.expires_at is not None
        if interview.scheduled_at is not None and moved:
            scheduling.must_open_before(interview.expires_at, interview.scheduled_at, self._policy)
        if request.status is not None:
            interview = replace(interview, status=request.status, finished_at=turn.now)
        return interview

    def _update_phone(self, turn: _Turn, interview: Interview, request: UpdateInterview) -> Interview:
        if request.status is not None:
            raise StatusNotSettable
        timed = request.scheduled_at is not None or request.expires_at is not None
        pending = self._pending(turn, interview.id) if timed else None
        if request.expires_at is not None:
            clock = pending.schedule.clock if pending else self._last_clock(turn, interview)
            expires_at = _explicit_expiry(request.expires_at, clock)
            interview = replace(interview, expires_at=expires_at, expires_by_default=False)
        if request.scheduled_at is not None:
            if pending is None:
                raise CallAttemptNotPending("The interview has no pending call attempt; invoke a new one instead.")
            interview, _ = self._move(turn, interview, pending, request.scheduled_at, request.time_name)
        elif request.expires_at is not None and pending is not None:
            scheduling.must_open_before(interview.expires_at, pending.due_at, self._policy)
            turn.stores.attempts.save(pending, ExpiryMoved(expires_at=interview.expires_at), turn.actor, turn.now)
        return interview

    def _last_clock(self, turn: _Turn, interview: Interview) -> CalleeClock | None:
        attempts = turn.stores.attempts.of_interview(interview.company_id, interview.id)
        if attempts:
            return attempts[-1].schedule.clock
        return scheduling.clock_or_none(callee_from(turn.stores.attempts.callee_of(interview.id)))

    def _pending(self, turn: _Turn, interview_id: UUID) -> Attempt | None:
        """Lock the interview's pending attempt. Raises CallAttemptInProgress while its phone may be ringing."""
        attempt = turn.stores.attempts.lock_open(interview_id)
        if attempt is not None and attempt.state is AttemptState.IN_PROGRESS:
            raise CallAttemptInProgress(attemptId=str(attempt.id))
        return attempt

    def _delete_interview(self, turn: _Turn, request: DeleteInterview) -> None:
        stores = turn.stores
        interview = lock_interview(stores, turn.company_id, request.interview_id)
        attempt = stores.attempts.lock_open(interview.id)
        if attempt is not None and attempt.state is AttemptState.PENDING:
            stores.attempts.save(attempt, Cancelled(reason=Reason.INTERVIEW_DELETED), turn.actor, turn.now)
        if interview.status is InterviewStatus.SCHEDULED:
            interview = interviews.with_status(interview, InterviewStatus.CANCELLED, turn.now)
        stores.interviews.save(replace(interview, deleted_at=turn.now), turn.now)

    # ---- POST, PATCH and DELETE …/call-attempts

    def _invoke(self, turn: _Turn, request: InvokeAttempt) -> Attempt:
        stores = turn.stores
        interview = lock_interview(stores, turn.company_id, request.interview_id)
        if interview.type is AgentType.ONLINE:
            raise CallAttemptsNotSupported
        if interview.status in {InterviewStatus.COMPLETED, InterviewStatus.CANCELLED}:
            raise InterviewFinished(status=interview.status.value)
        busy = lock_busy(stores, interview.id)
        if busy is not None:
            raise CallAttemptInProgress(attemptId=str(busy.id))
        callee = callee_from(stores.attempts.callee_of(interview.id))
        schedule, warnings = self._schedule(request.scheduled_at, callee, turn.requested_at, request.time_name)
        if interview.expires_by_default:
            interview = replace(interview, expires_at=scheduling.default_expiry(schedule.due_at))
        scheduling.must_open_before(interview.expires_at, schedule.due_at, self._policy)
        replaced = stores.attempts.lock_open(interview.id)
        if replaced is not None:
            stores.attempts.save(replaced, Cancelled(reason=Reason.REPLACED), turn.actor, turn.now)
        interview = interviews.with_status(interview, InterviewStatus.SCHEDULED, turn.now)
        interview = stores.interviews.save(interview, turn.now)
        return self._first_attempt(turn, interview, callee, schedule, warnings, manual=True)

    def _reschedule(self, turn: _Turn, request: RescheduleAttempt) -> Attempt:
        interview = lock_interview(turn.stores, turn.company_id, request.interview_id)
        attempt = self._lock_attempt(turn, request)
        if attempt.state is not AttemptState.PENDING:
            raise CallAttemptNotPending(status=attempt.state.value)
        interview, attempt = self._move(turn, interview, attempt, request.scheduled_at, "scheduledAt")
        turn.stores.interviews.save(interview, turn.now)
        return attempt

    def _lock_attempt(self, turn: _Turn, request: RescheduleAttempt | DeleteAttempt) -> Attempt:
        """Lock the attempt to move or delete. Raises NotFound, CallAttemptInProgress, EtagDiffers."""
        attempt = turn.stores.attempts.lock_of_interview(request.interview_id, request.attempt_id)
        if attempt is None:
            raise not_found("callAttempt", request.attempt_id)
        if attempt.state is AttemptState.IN_PROGRESS:
            raise CallAttemptInProgress(attemptId=str(attempt.id))
        etags.must_match(request.if_match, attempt)
        return attempt

    def _move(
        self, turn: _Turn, interview: Interview, attempt: Attempt, text: str, field: TimeName
    ) -> tuple[Interview, Attempt]:
        """Move a pending attempt. A default expiry of the interview moves with the first attempt of a chain."""
        callee = callee_from(turn.stores.attempts.callee_of(interview.id))
        schedule, warnings = self._schedule(text, callee, turn.requested_at, field)
        if interview.expires_by_default and attempt.retry_number == 0:
            interview = replace(interview, expires_at=scheduling.default_expiry(schedule.due_at))
        scheduling.must_open_before(interview.expires_at, schedule.due_at, self._policy)
        lasting = tuple(each for each in attempt.warnings if each is ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW)
        event = Rescheduled(schedule=schedule, expires_at=interview.expires_at, warnings=(*warnings, *lasting))
        moved = turn.stores.attempts.save(attempt, event, turn.actor, turn.now)
        if schedule.due_at <= turn.now:
            turn.stores.notify_due()
        return interview, moved

    def _delete_attempt(self, turn: _Turn, request: DeleteAttempt) -> None:
        lock_interview(turn.stores, turn.company_id, request.interview_id)
        attempt = self._lock_attempt(turn, request)
        if attempt.state is AttemptState.PENDING:
            cancelled = Cancelled(reason=Reason.CANCELLED_BY_USER)
            attempt = turn.stores.attempts.save(attempt, cancelled, turn.actor, turn.now)
            failpoint("cancel.cancelling")
        turn.stores.attempts.save(attempt, Deleted(), turn.actor, turn.now)


def _explicit_expiry(text: str, clock: CalleeClock | None) -> datetime:
    with named(named_fields.OF_EXPIRY):
        return scheduling.explicit_expiry(text, clock)


def _agent(stores: Stores, company: Company, request: CreateInterview, now: datetime) -> Agent:
    """Return the requested agent, or create the request's inline agent."""
    if request.agent is not None:
        with named(named_fields.OF_AN_INLINE_AGENT):
            return add_agent(stores, company.id, request.agent, now)
    assert request.agent_id is not None
    return require(stores.agents.get(company.id, request.agent_id), "agent", request.agent_id)


def _candidate(
    stores: Stores, company: Company, request: CreateInterview, now: datetime, *, is_rung: bool
) -> tuple[Candidate, bool]:
    """Return the candidate, and True if it was created now."""
    if request.candidate_id is not None:
        # Exclusive if a job is added: the number of the candidate's jobs is limited.
        candidate = stores.candidates.lock(company.id, request.candidate_id, shared=request.job is None)
        return require(candidate, "candidate", request.candidate_id), False
    assert request.candidate is not None
    return new_candidate(stores, company, request.candidate, now, is_rung=is_rung), True


def _job_id(stores: Stores, agent: Agent, candidate: Candidate, request: CreateInterview, now: datetime) -> UUID | None:
    """Return the job of the interview.

    A new job, or a job named for a new candidate, is assigned to the candidate, who is locked. The job itself may be
    closed or deleted concurrently, as if that had happened a moment later.
    """
    named = request.job_id
    if request.job is not None:
        if len(candidate.job_ids) >= MAX_JOBS:
            raise TooManyJobs(limit=MAX_JOBS)
        named = add_job(stores, candidate.company_id, request.job, now).id
    elif named is not None and not stores.jobs.lock_shared(candidate.company_id, [named]):
        raise not_found("job", named)
    if named is not None and (request.job is not None or request.candidate is not None):
        stores.candidates.assign(candidate, [named], now)
    return job_choice.job_of(agent.focus, named, stores.jobs.of_candidate(candidate.company_id, candidate.id))


def _story(turn: _Turn, interview_id: UUID) -> InterviewStory:
    interview = turn.stores.interviews.lock(interview_id)
    attempts = turn.stores.attempts.of_interview(interview.company_id, interview_id)
    return InterviewStory(interview=interview, attempts=attempts)


def _snapshot(story: InterviewStory) -> dict[str, object]:
    snapshot: dict[str, object] = STORY.dump_python(
        story,
        mode="json",
        exclude_defaults=True,  # a third of the largest column of the database
        exclude={
            "interview": {"metadata", "caller_number"},
            "attempts": {"__all__": {"number_hash", "token", "called_number"}},
        },
    )
    return snapshot
