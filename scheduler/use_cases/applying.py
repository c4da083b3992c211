"""New interviews, and the first attempts of their chains of calls."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState, CreatedAsTest, Reason
from scheduler.domain.call import CalleeClock, Schedule, ScheduleWarning
from scheduler.domain.command import CreateInterview, TimeName, UpdateInterview
from scheduler.domain.company import Company
from scheduler.domain.interview import (
    MAX_JOBS,
    Agent,
    AgentFocus,
    AgentType,
    Candidate,
    Interview,
    InterviewStatus,
    InterviewStory,
    Job,
)
from scheduler.domain.refusals import PhoneNumberRequired, TooManyJobs
from scheduler.domain.resource import ExternalId, ExternalKind, Identified
from scheduler.hashing import Hasher
from scheduler.ids import new_id
from scheduler.lifecycle import scheduling
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.scheduling import Callee
from scheduler.persistence.stores import Stores
from scheduler.rules import resources
from scheduler.timing import callee_zones
from scheduler.use_cases.resources.agents import add_agent, add_job
from scheduler.use_cases.resources.candidates import new_candidate
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared.access import not_found, require
from scheduler.use_cases.shared.batch import add_attempt, callee_of
from scheduler.use_cases.shared.turn import Turn
from scheduler.wire import named_fields
from scheduler.wire.named_fields import named


class NewInterviews:
    def __init__(self, hasher: Hasher, policy: Policy) -> None:
        self._hasher = hasher
        self._policy = policy

    def of_request(self, turn: Turn, request: CreateInterview) -> tuple[InterviewStory, bool]:
        """Create the interview of a request. True: it exists, with this external id and the same content.

        The caller has checked that the company was not deleted, and names the field that a refusal is about.
        """
        present = self.existing(turn, request)
        return (self.create(turn, request), False) if present is None else (present, True)

    def existing(self, turn: Turn, request: CreateInterview) -> InterviewStory | None:
        """Find the interview that an earlier command with this external id and the same content created.

        It is not locked: the answer shows it as a GET does. Raises ExternalIdReused.
        """
        interview_id = self.existing_id(turn, request)
        if interview_id is None:
            return None
        # Its own writes have been sent, if a command of this transaction has created it.
        with turn.stores.connection.beside():
            interview = turn.stores.interviews.get(turn.company_id, interview_id)
            if interview is None:
                return None  # deleted since it was looked up, so its external id is free
            return turn.stores.attempts.story(interview)

    def existing_id(self, turn: Turn, request: CreateInterview) -> UUID | None:
        """Find the id of the interview with this external id and the same content. Raises ExternalIdReused."""
        found = _identified(turn, ExternalKind.INTERVIEW, request.external_id)
        return None if found is None else access.same(ExternalKind.INTERVIEW, found, request)

    def create(self, turn: Turn, request: CreateInterview) -> InterviewStory:
        """Create an interview and, for a phone agent, its first attempt. Its writes may be gathered.

        Gathered writes are sent before its queries only if an earlier command has named the same candidate. Otherwise,
        only an external id can name what an earlier command of the transaction has created, and `_with_known` sends
        the writes of that command. Raises ExternalIdReused.
        """
        known = _with_known(turn, request)
        named_before = known.candidate_id is not None and not turn.reads.is_first_of(known.candidate_id)
        with nullcontext() if named_before else turn.stores.connection.beside():
            story = self._decide(turn, known, request)
            turn.stores.interviews.add(story.interview, access.content_hash(request))
            return replace(story, attempts=tuple(_add(turn, attempt) for attempt in story.attempts))

    def decide(self, turn: Turn, request: CreateInterview) -> InterviewStory:
        """Decide what `create` would add. Inline candidates, agents and jobs are added to the stores of the turn."""
        return self._decide(turn, _with_known(turn, request), request)

    def _decide(self, turn: Turn, request: CreateInterview, sent: CreateInterview) -> InterviewStory:
        """Decide about a request as it was `sent`. In `request`, known resources are named by their ids."""
        stores, now = turn.stores, turn.now
        company = turn.company()
        agent = _agent(turn, company, request)
        is_rung = agent.type is AgentType.PHONE
        assigns = sent.job is not None or (sent.candidate is not None and sent.job_id is not None)
        candidate, is_new = _candidate(turn, company, request, sent, is_rung=is_rung, assigns=assigns)
        job_id = _job_id(turn, agent, candidate, request, sent, assigns=assigns, is_new=is_new)
        callee = callee_of(candidate, company, is_rung=is_rung)
        schedule: Schedule | None = None
        warnings: tuple[ScheduleWarning, ...] = ()
        if is_rung:
            schedule, warnings = self.schedule(request.scheduled_at, callee, turn.requested_at, request.time_name)
            if not is_new and stores.interviews.open_of_candidate(candidate.id):
                warnings = (*warnings, ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW)
        online_at = None if schedule else self.online_time(turn, request, callee)
        first_at = schedule.due_at if schedule else (online_at or turn.requested_at)
        over = request.is_test
        interview = Interview(
            id=new_id(now),
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
            external_id=request.external_id,
        )
        attempts: tuple[Attempt, ...] = ()
        if schedule is not None:
            attempts = (self._first(turn, interview, callee, schedule, warnings, manual=False),)
        return InterviewStory(interview=interview, attempts=attempts)

    def schedule(
        self,
        text: str | None,
        callee: Callee,
        received_at: datetime,
        field: TimeName,
        *,
        is_call_back: bool = False,
    ) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
        """Resolve the requested time. Raises the refusal if the candidate may not be called then, or at all."""
        if callee.number is None:
            raise PhoneNumberRequired
        callee_zones.check_allowed(callee.number, callee.settings.allowed_countries)
        return scheduling.on_request(text, callee, received_at, self._policy, field=field, is_call_back=is_call_back)

    def online_time(self, turn: Turn, request: CreateInterview | UpdateInterview, callee: Callee) -> datetime | None:
        return scheduling.online_time(request.scheduled_at, callee, turn.requested_at, field=request.time_name)

    def _expiry(self, text: str | None, schedule: Schedule | None, callee: Callee, first_at: datetime) -> datetime:
        if text is None:
            return scheduling.default_expiry(first_at)
        clock = schedule.clock if schedule else scheduling.clock_or_none(callee)
        expires_at = explicit_expiry(text, clock)
        scheduling.must_open_before(expires_at, first_at, self._policy)
        return expires_at

    def first_attempt(
        self,
        turn: Turn,
        interview: Interview,
        callee: Callee,
        schedule: Schedule,
        warnings: tuple[ScheduleWarning, ...],
    ) -> Attempt:
        """Create the first attempt of a chain that a client invoked. It is first among its company's calls.

        For a test interview it is already completed and takes no line.
        """
        attempt = self._first(turn, interview, callee, schedule, warnings, manual=True)
        return _add(turn, attempt)

    def _first(
        self,
        turn: Turn,
        interview: Interview,
        callee: Callee,
        schedule: Schedule,
        warnings: tuple[ScheduleWarning, ...],
        *,
        manual: bool,
    ) -> Attempt:
        assert callee.number is not None
        attempt_id = new_id(turn.now)
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
            return replace(
                attempt, state=AttemptState.COMPLETED, reason=Reason.TEST, ended_at=turn.now, number_hash=None
            )
        return attempt


def _add(turn: Turn, attempt: Attempt) -> Attempt:
    if attempt.state is AttemptState.COMPLETED:
        return turn.stores.attempts.add(attempt, CreatedAsTest(), turn.actor)
    return add_attempt(turn.stores, attempt, turn.actor)


def explicit_expiry(text: str, clock: CalleeClock | None) -> datetime:
    with named(named_fields.OF_EXPIRY):
        return scheduling.explicit_expiry(text, clock)


def _agent(turn: Turn, company: Company, request: CreateInterview) -> Agent:
    """Find the requested agent, or create the request's inline agent."""
    if request.agent is not None:
        with named(named_fields.OF_AN_INLINE_AGENT):
            return add_agent(turn.stores, company.id, request.agent, turn.now)
    assert request.agent_id is not None
    return require(turn.reads.agent(company.id, request.agent_id), "agent", request.agent_id)


def _with_known(turn: Turn, request: CreateInterview) -> CreateInterview:
    """Complete the request by the ids of an inline candidate and job that exist with the same content.

    Raises ExternalIdReused.
    """
    candidate, job = request.candidate, request.job
    if candidate is not None:
        found = _identified(turn, ExternalKind.CANDIDATE, candidate.external_id)
        if found is not None:
            known = access.same(ExternalKind.CANDIDATE, found, candidate, "candidate.externalId")
            request = replace(request, candidate=None, candidate_id=known)
    if job is not None:
        found = _identified(turn, ExternalKind.JOB, job.external_id)
        if found is not None:
            known = access.same(ExternalKind.JOB, found, job, "job.externalId")
            request = replace(request, job=None, job_id=known)
    return request


def _identified(turn: Turn, kind: ExternalKind, text: str | None) -> Identified | None:
    if text is None:
        return None
    return turn.reads.identified(ExternalId(kind=kind, company_id=turn.company_id, text=text))


def _candidate(
    turn: Turn, company: Company, request: CreateInterview, sent: CreateInterview, *, is_rung: bool, assigns: bool
) -> tuple[Candidate, bool]:
    """Find or create the candidate. True if it was created now."""
    if request.candidate_id is not None:
        # Exclusive if a job is added: the number of the candidate's jobs is limited.
        candidate = turn.stores.candidates.lock(company.id, request.candidate_id, shared=not assigns)
        if candidate is not None:
            return candidate, False
        if sent.candidate is None:
            raise not_found("candidate", request.candidate_id)
        # Erased since it was looked up by its external id, which is free now.
    assert sent.candidate is not None
    return new_candidate(turn.stores, company, sent.candidate, turn.now, is_rung=is_rung), True


def _job_id(
    turn: Turn,
    agent: Agent,
    candidate: Candidate,
    request: CreateInterview,
    sent: CreateInterview,
    *,
    assigns: bool,
    is_new: bool,
) -> UUID | None:
    """Find the job of the interview.

    `assigns`: an inline job, or a job named for an inline candidate, is assigned to the candidate, who is locked. The
    job itself may be closed or deleted concurrently, as if that had happened a moment later. `is_new`: the candidate
    was created now.
    """
    stores, named = turn.stores, request.job_id
    if assigns and named not in candidate.job_ids and len(candidate.job_ids) >= MAX_JOBS:
        raise TooManyJobs(limit=MAX_JOBS)
    if named is not None and not stores.jobs.lock_shared(candidate.company_id, [named]):
        if sent.job is None:
            raise not_found("job", named)
        named = None  # deleted since it was looked up by its external id, which is free now
    if named is None and sent.job is not None:
        named = add_job(stores, candidate.company_id, sent.job, turn.now).id
    if named is not None and assigns:
        stores.candidates.assign(candidate, [named], turn.now)
        return named
    considered = _considered_for(stores, agent, candidate, request, is_new=is_new)
    return resources.job_of(agent.focus, named, considered)


def _considered_for(
    stores: Stores, agent: Agent, candidate: Candidate, request: CreateInterview, *, is_new: bool
) -> Sequence[Job]:
    """Read the candidate's jobs, if they matter."""
    if not candidate.job_ids or (request.job_id is None and agent.focus is AgentFocus.GENERIC):
        return ()
    if is_new:  # its assignments may not be stored yet
        return stores.jobs.lock_shared(candidate.company_id, candidate.job_ids)
    return stores.jobs.of_candidate(candidate.company_id, candidate.id)
