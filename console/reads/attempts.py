"""Reads of attempts: lists, one attempt with what explains it, and the pending attempts that an act cancels."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from console.attempt_list import AttemptFilter, ListedAttempt, ListOrder, Place
from console.stores.attempt_lists import AttemptListStore, Bounds, PartCounts
from console.stores.resources import InterviewFacts, OperatedResources, UnappliedCommand
from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.call import CalleeClock
from scheduler.domain.company import CompanySettings
from scheduler.domain.explanation import Explanation
from scheduler.domain.refusals import InvalidFields, TimezoneUnknown
from scheduler.lifecycle.scheduling import Callee, deciding_clocks
from scheduler.persistence.database import Database
from scheduler.persistence.last_looks import LastLookRow
from scheduler.persistence.stores import Stores
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.shared.access import require
from scheduler.use_cases.shared.batch import callee_from
from scheduler.use_cases.shared.context import Context

# --- Lists of attempts for operators, and the pending attempts that one act cancels


PAGE_SIZE = 50
SCANNED = 5_000
"""Attempts or events that a page looks at, if its filter has no index."""
INTERVIEWS_SCANNED = 2_000
"""Interviews of one company whose attempts a page looks at."""
_FEW_SCANNED = 200
_MOST_SCANNED = 20_000
"""Rows that an act looks at. Its form counts them twice."""
SOON = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class AttemptPage:
    attempts: Sequence[ListedAttempt]
    next: Place | None
    """None: the list ends here."""
    is_cut: bool
    """True if the page ended before it was full, because it had looked at enough rows. The list may go on."""


class AttemptLists:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def page(self, only: AttemptFilter, after: Place | None) -> AttemptPage:
        """Read a page of the list. Raises InvalidFields for an unknown company, and DatabaseAway."""
        bounds = Bounds(limit=PAGE_SIZE, scanned=_scanned(only))
        with self._database.reading() as stores:
            if only.company_id is not None and not stores.companies.is_there(only.company_id):
                raise InvalidFields("There is no company with this id. The page Companies lists all.")
            found = AttemptListStore(stores.connection).part(only, after, bounds, self._now())
            rows = AttemptListStore(stores.connection).rows(found.attempts)
        return AttemptPage(attempts=rows, next=found.next, is_cut=found.is_cut)

    def matching(self, only: AttemptFilter, most: int) -> Sequence[UUID]:
        """Find the pending attempts that meet the filter. Raises as `matching_counts`."""
        with self._database.reading() as stores:
            found = AttemptListStore(stores.connection).part(only, None, _bounds(only, most), self._now())
        _check_size(most, is_cut=found.is_cut, goes_on=found.next is not None)
        return [each.id for each in found.attempts]

    def matching_counts(self, only: AttemptFilter, most: int) -> PartCounts:
        """Count the pending attempts that meet the filter. Raises InvalidFields for more than `most`, DatabaseAway.

        Attempts that will be due within `SOON` count as `soon`. Raises InvalidFields too if a time zone would be
        searched among too many attempts.
        """
        now = self._now()
        with self._database.reading() as stores:
            counted = AttemptListStore(stores.connection).counts(only, _bounds(only, most), now, now + SOON)
        _check_size(most, is_cut=counted.is_cut, goes_on=counted.attempts > most)
        return counted


def _bounds(only: AttemptFilter, most: int) -> Bounds:
    is_searched = only.zone is not None or only.has_history
    return Bounds(limit=most, scanned=_MOST_SCANNED if is_searched else most + 1)


def _check_size(most: int, *, is_cut: bool, goes_on: bool) -> None:
    if is_cut:
        raise InvalidFields(
            f"Over {_MOST_SCANNED:,} pending calls would be searched for this filter. Name a company or a shorter"
            " range of due times."
        )
    if goes_on:
        raise InvalidFields(f"More than {most:,} pending calls match. Name a company or a shorter range of due times.")


def _scanned(only: AttemptFilter) -> int:
    """The most rows that a page of this list looks at."""
    if only.order is ListOrder.INTERVIEW:
        return INTERVIEWS_SCANNED
    return SCANNED if only.zone is not None or only.is_ended or only.has_history else _FEW_SCANNED


# --- Reads for the console's page of one attempt: its explanation, its hours, and the rows around it


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
        """Read the attempt, deleted or not, with everything around it. Raises NotFound, DatabaseAway."""
        account_calls = self._explain.account_calls()
        with self._database.reading() as stores:
            now = self._now()
            resources = OperatedResources(stores.connection)
            attempt = require(stores.attempts.find(attempt_id), "callAttempt", attempt_id)
            row = self._explain.look(stores, attempt_id)
            return AttemptDetails(
                explanation=self._explain.explained(stores, attempt, account_calls, None, row),
                interview=require(resources.interview(attempt.interview_id), "interview", attempt.interview_id),
                attempts=_around(attempt, stores.attempts.find_of_interview(attempt.interview_id)),
                commands=resources.commands_of_interview(attempt.interview_id, MAX_COMMANDS),
                line_holder=row.line_holder,
                last_on_line=_last_on_line(stores, row, now),
                clocks=_clocks(attempt, callee_from(row), now),
                settings=row.settings,
                consent_until=row.gdpr_expiry_date,
                now=now,
            )


def _around(attempt: Attempt, newest: Sequence[Attempt]) -> Sequence[Attempt]:
    """List the newest attempts of the interview, and this one if it is older than these."""
    return newest if any(each.id == attempt.id for each in newest) else (attempt, *newest)


def _last_on_line(stores: Stores, row: LastLookRow, now: datetime) -> UUID | None:
    if row.line_holder is not None or row.line_interview is None or row.line_free_at is None or row.line_free_at <= now:
        return None
    called = [each for each in stores.attempts.find_of_interview(row.line_interview) if each.claimed_at is not None]
    return called[-1].id if called else None


def _clocks(attempt: Attempt, callee: Callee, now: datetime) -> tuple[CalleeClock, ...]:
    """List the clocks that decide now, or that decided when the attempt was claimed or ended."""
    at = now if attempt.state is AttemptState.PENDING else attempt.claimed_at or attempt.ended_at or now
    try:
        return deciding_clocks(attempt, callee, at)
    except TimezoneUnknown:
        return ()
