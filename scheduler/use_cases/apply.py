"""Apply: a worker does what a command asks, and its answer is written with it, in one transaction."""

from datetime import datetime
from uuid import UUID, uuid4

from scheduler.clock import Now
from scheduler.domain.agent import Agent, AgentFocus, AgentType
from scheduler.domain.attempt import Attempt, AttemptState, Created, CreatedAsTest, Reason
from scheduler.domain.candidate import Candidate, NewCandidate
from scheduler.domain.command import Answer, Command, CreateInterview, Refusal
from scheduler.domain.company import Company
from scheduler.domain.interview import Interview, InterviewStatus, InterviewStory
from scheduler.domain.refusals import (
    CallAttemptsNotSupported,
    JobRequired,
    NoOpeningBeforeExpiry,
    NotFound,
    PhoneNumberRequired,
    Refused,
)
from scheduler.domain.schedule import Schedule, ScheduleWarning
from scheduler.hashing import Hasher
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import Callee
from scheduler.lifecycle.policy import DEFAULT_LIFE, Policy
from scheduler.logs import log
from scheduler.persistence.database import Database, DatabaseAway, Stores
from scheduler.persistence.json_forms import CREATE_INTERVIEW, STORY
from scheduler.timing import call_windows, callee_zones, requested_time
from scheduler.use_cases.bell import Bell

_log = log(__name__)


class Apply:
    def __init__(self, database: Database, bell: Bell, hasher: Hasher, policy: Policy, now: Now) -> None:
        self._database = database
        self._bell = bell
        self._hasher = hasher
        self._policy = policy
        self._now = now

    def command(self, command_id: UUID) -> None:
        """Apply the command, if it still waits and its turn has come. Raises DatabaseAway."""
        try:
            with self._database.transaction() as stores:
                command = stores.inbox.lock_next(command_id)
                if command is None:
                    return
                self._apply(stores, command)
        except DatabaseAway:
            raise
        except Exception:
            self._count_failure(command_id)
            raise
        self._bell.answered(command_id)

    def _apply(self, stores: Stores, command: Command) -> None:
        """Do it and write the answer; what a refused command had written is taken back, its answer is not."""
        now = self._now()
        interview_id = command.interview_id
        try:
            with stores.connection.begin_nested():
                story = self._create_interview(stores, command, now)
            answer = Answer(snapshot=_snapshot(story))
            interview_id = story.interview.id
        except Refused as refused:
            answer = Answer(refusal=refusal_of(refused))
        stores.inbox.answer(command.id, answer, interview_id, now)

    def _count_failure(self, command_id: UUID) -> None:
        with self._database.transaction() as stores:
            if stores.inbox.count_failure(command_id, self._now()):
                _log.error("a command is in quarantine", alarm="QUARANTINE", command_id=str(command_id))

    # ---- POST /interviews

    def _create_interview(self, stores: Stores, command: Command, now: datetime) -> InterviewStory:
        request = CREATE_INTERVIEW.validate_python(command.body)
        company = stores.companies.get(command.company_id)
        if company is None:
            raise NotFound(resourceType="company", resourceId=str(command.company_id))
        agent = _agent(stores, company, request.agent_id)
        candidate, is_new = self._candidate(stores, company, request, now)
        schedule, warnings = self._schedule(company, candidate, request, command.received_at)
        if not is_new and stores.interviews.open_of_candidate(candidate.id):
            warnings = (*warnings, ScheduleWarning.CANDIDATE_HAS_OPEN_INTERVIEW)
        expires_at = self._expiry(request, schedule)
        interview = Interview(
            id=uuid4(),
            company_id=company.id,
            candidate_id=candidate.id,
            agent_id=agent.id,
            type=agent.type,
            focus=agent.focus,
            duration=agent.duration,
            caller_number=agent.caller_number,
            status=InterviewStatus.COMPLETED if request.is_test else InterviewStatus.SCHEDULED,
            is_test=request.is_test,
            expires_at=expires_at,
            created_at=now,
            updated_at=now,
            finished_at=now if request.is_test else None,
            metadata=request.metadata,
        )
        stores.interviews.add(interview)
        attempt = self._first_attempt(stores, interview, candidate, schedule, warnings, now)
        return InterviewStory(interview=interview, attempts=(attempt,))

    def _candidate(
        self, stores: Stores, company: Company, request: CreateInterview, now: datetime
    ) -> tuple[Candidate, bool]:
        if request.candidate_id is not None:
            found = stores.candidates.get(company.id, request.candidate_id)
            if found is None:
                raise NotFound(
                    "There is no such candidate.",
                    resourceType="candidate",
                    resourceId=str(request.candidate_id),
                )
            return found, False
        assert request.candidate is not None
        candidate = _new_candidate(request.candidate, company, now)
        stores.candidates.add(candidate)
        return candidate, True

    def _schedule(
        self, company: Company, candidate: Candidate, request: CreateInterview, received_at: datetime
    ) -> tuple[Schedule, tuple[ScheduleWarning, ...]]:
        callee = callee_of(candidate, company)
        if callee.number is None:
            raise PhoneNumberRequired
        callee_zones.check_allowed(callee.number, company.settings.allowed_countries)
        return decisions.on_request(request.scheduled_at, callee, received_at, self._policy)

    def _expiry(self, request: CreateInterview, schedule: Schedule) -> datetime:
        if request.expires_at is None:
            return schedule.due_at + DEFAULT_LIFE
        asked = requested_time.read(request.expires_at, field="expiresAt")
        expires_at = call_windows.resolve(asked, schedule.clock)
        if expires_at <= schedule.due_at + self._policy.room:
            raise NoOpeningBeforeExpiry(
                "The interview would expire before its first call could ring. Send a later expiresAt.",
                dueAt=schedule.due_at.isoformat(),
                expiresAt=expires_at.isoformat(),
            )
        return expires_at

    def _first_attempt(
        self,
        stores: Stores,
        interview: Interview,
        candidate: Candidate,
        schedule: Schedule,
        warnings: tuple[ScheduleWarning, ...],
        now: datetime,
    ) -> Attempt:
        attempt_id = uuid4()
        assert candidate.phone_number is not None
        number_hash = None if interview.is_test else self._hasher.number(candidate.phone_number)
        attempt = Attempt(
            id=attempt_id,
            interview_id=interview.id,
            company_id=interview.company_id,
            chain_id=attempt_id,
            retry_number=0,
            manual=True,
            state=AttemptState.COMPLETED if interview.is_test else AttemptState.PENDING,
            reason=Reason.TEST if interview.is_test else None,
            ended_at=now if interview.is_test else None,
            schedule=schedule,
            due_at=schedule.due_at,
            expires_at=interview.expires_at,
            number_hash=number_hash,
            warnings=warnings,
            created_at=now,
            updated_at=now,
        )
        if number_hash is not None:
            stores.lines.ensure(number_hash, now)
        stores.attempts.add(attempt, CreatedAsTest() if interview.is_test else Created(), "apply")
        if attempt.due_at <= now:
            stores.notify_due()
        return attempt


def callee_of(candidate: Candidate, company: Company) -> Callee:
    """All that decides when this candidate may be called. Raises PhoneNumberInvalid."""
    number = candidate.phone_number
    return Callee(
        number=None if number is None else callee_zones.read_number(number),
        timezone=candidate.timezone,
        consent_until=candidate.gdpr_expiry_date,
        settings=company.settings,
    )


def _agent(stores: Stores, company: Company, agent_id: UUID) -> Agent:
    agent = stores.agents.get(company.id, agent_id)
    if agent is None:
        raise NotFound("There is no such agent.", resourceType="agent", resourceId=str(agent_id))
    if agent.type is not AgentType.PHONE:
        raise CallAttemptsNotSupported
    if agent.focus is not AgentFocus.GENERIC:
        raise JobRequired
    if agent.caller_number is None:
        raise PhoneNumberRequired("The agent has no phone number to call from.")
    return agent


def _new_candidate(new: NewCandidate, company: Company, now: datetime) -> Candidate:
    # Read once here, so that what is stored is the number's one spelling.
    number = None if new.phone_number is None else callee_zones.read_number(new.phone_number).e164
    return Candidate(
        id=uuid4(),
        company_id=company.id,
        first_name=new.first_name,
        last_name=new.last_name,
        email=new.email,
        phone_number=number,
        timezone=None if new.timezone is None else callee_zones.check_zone(new.timezone),
        gdpr_expiry_date=new.gdpr_expiry_date,
        created_at=now,
        updated_at=now,
    )


def _snapshot(story: InterviewStory) -> dict[str, object]:
    snapshot: dict[str, object] = STORY.dump_python(
        story,
        mode="json",
        exclude={
            "interview": {"metadata", "caller_number"},
            "attempts": {"__all__": {"number_hash", "token"}},
        },
    )
    return snapshot


def refusal_of(refused: Refused) -> Refusal:
    """The refusal in a form that can be stored: its family decides the status when it is told."""
    family = next(parent.__name__ for parent in type(refused).__mro__ if Refused in parent.__bases__)
    return Refusal(family=family, code=refused.code, message=refused.message, details=refused.details)
