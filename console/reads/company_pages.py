"""Reads for the console's pages about companies: all of them, the most troubled first, and one with its parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from scheduler.domain.alarm import KeptAlarm
from scheduler.domain.key import KeyState
from scheduler.persistence.companies import CompanyHeading, OperatedCompany
from scheduler.persistence.inbox import UnappliedCommand
from scheduler.persistence.phone_numbers import NumberHeading
from scheduler.persistence.unknown_outcomes import UnknownOutcome
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.backlog import Backlog, Commands
from scheduler.use_cases.shared.access import not_found
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.status import Waiting

MOST_LISTED = 200
"""Companies on one page."""
MOST_PARTS = 20
"""Commands, outcomes, alarms and numbers on the page of one company."""


class Show(StrEnum):
    """The companies that a list shows."""

    ALL = "all"
    LATE = "late"
    """A call is delayed by Duecall itself."""
    PAUSED = "paused"
    COMMANDS = "commands"
    """Accepted commands wait."""


@dataclass(frozen=True, kw_only=True)
class CompanyCounts:
    """A company with its counts."""

    heading: CompanyHeading
    attempts: Waiting
    commands: Commands

    def is_shown(self, show: Show) -> bool:
        match show:
            case Show.ALL:
                return True
            case Show.LATE:
                return self.attempts.late is not None
            case Show.PAUSED:
                return self.attempts.paused
            case Show.COMMANDS:
                return self.commands.waiting > 0


@dataclass(frozen=True, kw_only=True)
class CompanyList:
    rows: Sequence[CompanyCounts]
    """The most troubled first, at most `MOST_LISTED`."""
    found: int
    """Companies that match, listed or not."""
    total: int


@dataclass(frozen=True, kw_only=True)
class CompanyParts:
    """One company with what waits and fails in it. Each list has one more than `MOST_PARTS` if there are more."""

    company: OperatedCompany
    counts: CompanyCounts | None
    """None for a deleted company."""
    all_paused_for: str | None
    """The reason of the pause of all calls, or None."""
    commands: Sequence[UnappliedCommand]
    unknown: Sequence[UnknownOutcome]
    alarms: Sequence[KeptAlarm]
    """Open ones."""
    numbers: Sequence[NumberHeading]
    keys: int
    active_keys: int
    webhooks: int
    """Those that receive its events."""
    batches: int
    """Counted up to `COUNTED_UP_TO`, and one more if there are others."""


class CompanyPages:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._now = context.now
        self._explain = Explain(context)
        self._backlog = Backlog(context.database, context.now)

    def all(self, show: Show, name: str) -> CompanyList:
        """Return the companies whose name contains `name`, in any case. Raises DatabaseAway."""
        every = self._all()
        wanted = name.casefold()
        found = [each for each in every if each.is_shown(show) and wanted in each.heading.name.casefold()]
        return CompanyList(rows=sorted(found, key=_trouble)[:MOST_LISTED], found=len(found), total=len(every))

    def one(self, company_id: UUID) -> CompanyParts:
        """Return a company with its parts, also if it is deleted and not yet erased. Raises NotFound, DatabaseAway."""
        more = MOST_PARTS + 1
        with self._database.reading() as stores:
            company = stores.companies.operated(company_id)
            if company is None:
                raise not_found("company", company_id)
            commands = stores.inbox.unapplied_of_company(company_id, more)
            unknown = stores.unknown_outcomes.page(company_id, more)
            alarms = stores.alarms.open(more, company_id=company_id)
            numbers = stores.phone_numbers.headings(company_id, more)
            keys = stores.keys.all(company_id)
            webhooks = stores.webhook_overview.count_of_company(company_id)
            batches = stores.batches.count_of_company(company_id)
        now = self._now()
        return CompanyParts(
            company=company,
            counts=next((each for each in self._all() if each.heading.id == company_id), None),
            all_paused_for=self._all_paused_for(),
            commands=commands,
            unknown=unknown,
            alarms=alarms,
            numbers=numbers,
            keys=len(keys),
            webhooks=webhooks,
            batches=batches,
            active_keys=sum(each.state(now) is KeyState.ACTIVE for each in keys),
        )

    def counts(self, company_id: UUID) -> tuple[CompanyCounts, str | None]:
        """Return a company's counts, and the reason of the pause of all calls. Raises NotFound, DatabaseAway."""
        found = next((each for each in self._all() if each.heading.id == company_id), None)
        if found is None:
            raise not_found("company", company_id)
        return found, self._all_paused_for()

    def _all(self) -> list[CompanyCounts]:
        attempts = self._explain.waiting()
        commands = self._backlog.commands()
        with self._database.reading() as stores:
            headings = {each.id: each for each in stores.companies.headings()}
        return [
            CompanyCounts(
                heading=headings[each.company_id],
                attempts=each,
                commands=commands.get(each.company_id, Commands()),
            )
            for each in attempts
            # It may have been deleted between the two reads.
            if each.company_id in headings
        ]

    def _all_paused_for(self) -> str | None:
        return next((each.pause_reason for each in self._explain.carriers() if each.pause_reason is not None), None)


def _trouble(row: CompanyCounts) -> tuple[object, ...]:
    """Return the sort key that lists the company with the worst trouble first."""
    attempts, commands = row.attempts, row.commands
    return (
        -(attempts.late or timedelta()),
        -commands.quarantined,
        -(attempts.unknown + attempts.undecided),
        not attempts.paused,
        -(commands.oldest or timedelta()),
        -attempts.cause_lost,
        -attempts.due,
        -attempts.in_progress,
        row.heading.name.casefold(),
        row.heading.id,
    )
