"""Reads for the console's page of one attempt: its explanation, its hours, and the rows around it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.company import CompanySettings
from scheduler.domain.explanation import Explanation
from scheduler.domain.refusals import TimezoneUnknown
from scheduler.domain.schedule import CalleeClock
from scheduler.lifecycle.scheduling import Callee, deciding_clocks
from scheduler.persistence.inbox import UnappliedCommand
from scheduler.persistence.interviews import InterviewFacts
from scheduler.persistence.last_looks import LastLookRow
from scheduler.persistence.stores import Stores
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.shared.access import require
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.situations import callee_from

MAX_COMMANDS = 20


@dataclass(frozen=True, kw_only=True)
class AttemptDetails:
    """Everything that the page shows, read in one transaction."""

    explanation: Explanation
    interview: InterviewFacts
    attempts: Sequence[Attempt]
    """The newest attempts of the interview, oldest first, also deleted ones."""
    commands: Sequence[UnappliedCommand]
    """The interview's waiting and quarantined commands."""
    line_holder: UUID | None
    """The attempt that holds the line of this attempt's number."""
    last_on_line: UUID | None
    """The attempt after whose call that line rests. None if another one holds it, or if the last outcome is unknown."""
    clocks: tuple[CalleeClock, ...]
    """The clocks that must be open. Empty if the callee's time zone is unknown."""
    settings: CompanySettings
    consent_until: date
    now: datetime

    @property
    def attempt(self) -> Attempt:
        return self.explanation.attempt

    @property
    def is_exact(self) -> bool:
        """False: the schedule is of an earlier version, so rules about the number's country or zone may be missing."""
        return self.attempt.schedule.number is not None

    @property
    def retried(self) -> Attempt | None:
        """The first call of the chain that this retry belongs to. None if it is no retry."""
        return next(
            (each for each in self.attempts if self.attempt.retry_number and each.id == self.attempt.chain_id), None
        )

    @property
    def before(self) -> Attempt | None:
        """The attempt that the interview had before this one."""
        place = self._place
        return self.attempts[place - 1] if place else None

    @property
    def after(self) -> Attempt | None:
        """The attempt that followed this one, a retry or another call of the interview."""
        place = self._place + 1
        return self.attempts[place] if place < len(self.attempts) else None

    @property
    def _place(self) -> int:
        return [each.id for each in self.attempts].index(self.attempt.id)


class AttemptPages:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._explain = Explain(context)
        self._now = context.now

    def details(self, attempt_id: UUID) -> AttemptDetails:
        """Return the attempt, deleted or not, with everything around it. Raises NotFound, DatabaseAway."""
        account_calls = self._explain.account_calls()
        with self._database.reading() as stores:
            now = self._now()
            attempt = require(stores.attempts.find(attempt_id), "callAttempt", attempt_id)
            row = self._explain.look(stores, attempt_id)
            return AttemptDetails(
                explanation=self._explain.explained(stores, attempt, account_calls, None, row),
                interview=require(stores.interviews.facts(attempt.interview_id), "interview", attempt.interview_id),
                attempts=_around(attempt, stores.attempts.find_of_interview(attempt.interview_id)),
                commands=stores.inbox.unapplied_of_interview(attempt.interview_id, MAX_COMMANDS),
                line_holder=row.line_holder,
                last_on_line=_last_on_line(stores, row, now),
                clocks=_clocks(attempt, callee_from(row), now),
                settings=row.settings,
                consent_until=row.gdpr_expiry_date,
                now=now,
            )


def _around(attempt: Attempt, newest: Sequence[Attempt]) -> Sequence[Attempt]:
    """Return the newest attempts of the interview, and this one if it is older than these."""
    return newest if any(each.id == attempt.id for each in newest) else (attempt, *newest)


def _last_on_line(stores: Stores, row: LastLookRow, now: datetime) -> UUID | None:
    if row.line_holder is not None or row.line_interview is None or row.line_free_at is None or row.line_free_at <= now:
        return None
    called = [each for each in stores.attempts.find_of_interview(row.line_interview) if each.claimed_at is not None]
    return called[-1].id if called else None


def _clocks(attempt: Attempt, callee: Callee, now: datetime) -> tuple[CalleeClock, ...]:
    """Return the clocks that decide now, or that decided when the attempt was claimed or ended."""
    at = now if attempt.state is AttemptState.PENDING else attempt.claimed_at or attempt.ended_at or now
    try:
        return deciding_clocks(attempt, callee, at)
    except TimezoneUnknown:
        return ()
