"""Explain: what an attempt waits for, and what has happened to it so far; from the rules that dial."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState, Phase
from scheduler.domain.explanation import CallTimeAnswer, CallTimeQuestion, Explanation
from scheduler.domain.interview import InterviewStory
from scheduler.domain.principal import Principal
from scheduler.domain.refusals import NotFound
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.database import Database
from scheduler.use_cases.submit import reached_company


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What one company's attempts are doing."""

    company_id: UUID
    paused: bool
    waiting: int
    due: int
    late: timedelta | None
    """How long the longest due one has been due."""
    in_progress: int
    asked_for: int
    """Their answer was lost, and the carrier is being asked."""
    unknown: int
    """Ended with an unknown outcome; a person decides."""


class Explain:
    def __init__(self, database: Database, policy: Policy, now: Now) -> None:
        self._database = database
        self._policy = policy
        self._now = now

    def interview(self, principal: Principal, company_id: UUID | None, interview_id: UUID) -> InterviewStory:
        """The interview with its attempts. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        with self._database.transaction() as stores:
            company = reached_company(stores, principal, company_id)
            interview = stores.interviews.get(company, interview_id)
            if interview is None:
                raise NotFound("There is no such interview.", resourceType="interview", resourceId=str(interview_id))
            return InterviewStory(interview=interview, attempts=stores.attempts.of_interview(company, interview_id))

    def attempt(self, principal: Principal, company_id: UUID | None, interview_id: UUID, attempt_id: UUID) -> Attempt:
        """The attempt. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        raise NotImplementedError

    def explanation(
        self, principal: Principal, company_id: UUID | None, interview_id: UUID, attempt_id: UUID
    ) -> Explanation:
        """Why it stands as it does. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        raise NotImplementedError

    def preview(self, principal: Principal, company_id: UUID | None, question: CallTimeQuestion) -> CallTimeAnswer:
        """What an interview would be answered. Raises NotFound, AccessDenied, CompanyIdRequired, DatabaseAway."""
        raise NotImplementedError

    def waiting(self) -> Sequence[Waiting]:
        """Every company's attempts, counted. Raises DatabaseAway."""
        now = self._now()
        with self._database.transaction() as stores:
            return [
                Waiting(
                    company_id=row.company_id,
                    paused=row.paused,
                    waiting=row.waiting,
                    due=row.due,
                    late=row.late,
                    in_progress=row.in_progress,
                    asked_for=row.asked_for,
                    unknown=row.unknown,
                )
                for row in stores.attempts.counts(now)
            ]


def etag_of(attempt: Attempt) -> str:
    """The strong ETag of the attempt as it stands, in its quotes."""
    return f'"{attempt.epoch}"'


def waits_for(attempt: Attempt, now: datetime) -> str:
    """In a few words, what must happen next for this attempt; empty when nothing must."""
    if attempt.state is AttemptState.PENDING:
        return "its time" if attempt.due_at > now else "a place"
    if attempt.phase is Phase.DIALLING:
        return "the carrier's answer"
    if attempt.phase is Phase.PLACED:
        return "the call's end"
    if attempt.phase is Phase.UNKNOWN:
        return "proof of what became of it"
    return ""
