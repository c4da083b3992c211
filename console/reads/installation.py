"""Reads for the pages about companies, API keys and the whole installation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

from console.stores.resources import (
    CompanyHeading,
    NumberHeading,
    OperatedCompany,
    OperatedResources,
    UnappliedCommand,
)
from scheduler.clock import Now
from scheduler.domain.alarm import KeptAlarm
from scheduler.domain.principal import Key, KeyKind, KeyState
from scheduler.persistence.database import Database
from scheduler.persistence.keys import ListedKey
from scheduler.persistence.unknown_outcomes import UnknownOutcome
from scheduler.rules.reputation import day_of
from scheduler.use_cases.operations.counts import HOLDING, Commands, Counts, Status, Waiting
from scheduler.use_cases.shared.access import not_found
from scheduler.use_cases.shared.context import Context

# --- Reads for the pages of the operators' console: the state of the whole installation


@dataclass(frozen=True, kw_only=True)
class Overview(Status):
    """The status of the installation, with the sums over all companies."""

    def sum(self, name: str) -> int:
        """Add up a count of all companies, or the number of those of which it is true."""
        return sum(getattr(each, name) for each in self.companies)

    @property
    def late(self) -> timedelta | None:
        """Longest delay of a call that is ours to place. None without such a call."""
        return max((each.late for each in self.companies if each.late is not None), default=None)

    @property
    def companies_late(self) -> int:
        return sum(each.late is not None for each in self.companies)

    @property
    def held(self) -> Mapping[str, int]:
        """Due attempts by the first rule that holds them, in the order of the checks."""
        found = Counter[str]()
        for each in self.companies:
            found.update({rule: held.count for rule, held in each.held.items()})
        return {rule: found[rule] for rule in HOLDING if rule in found}

    @property
    def oldest_held(self) -> timedelta:
        """Time since the first of the held attempts was due."""
        return max((held.oldest for each in self.companies for held in each.held.values()), default=timedelta())

    @property
    def pause_reason(self) -> str | None:
        """The reason of the pause of all calls, or None."""
        return next((each.pause_reason for each in self.carriers if each.pause_reason is not None), None)


class OperatorPages:
    def __init__(self, context: Context) -> None:
        self._counts = Counts(context)

    def overview(self) -> Overview:
        """Read the counts over all companies. Raises DatabaseAway."""
        return Overview(**vars(self._counts.status()))


# --- Reads for the console's pages about companies
# all of them, the most troubled first, and one with its parts.


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
        self._counts = Counts(context)

    def all(self, show: Show, name: str) -> CompanyList:
        """List the companies whose name contains `name`, in any case. Raises DatabaseAway."""
        every = self._all()
        wanted = name.casefold()
        found = [each for each in every if each.is_shown(show) and wanted in each.heading.name.casefold()]
        return CompanyList(rows=sorted(found, key=_trouble)[:MOST_LISTED], found=len(found), total=len(every))

    def one(self, company_id: UUID) -> CompanyParts:
        """Read a company with its parts, also if it is deleted and not yet erased. Raises NotFound, DatabaseAway."""
        more, now = MOST_PARTS + 1, self._now()
        with self._database.reading() as stores:
            resources = OperatedResources(stores.connection)
            company = resources.company(company_id)
            if company is None:
                raise not_found("company", company_id)
            commands = resources.commands_of_company(company_id, more)
            unknown = stores.unknown_outcomes.page(company_id, more)
            alarms = stores.alarms.open(more, company_id=company_id)
            numbers = resources.numbers(company_id, day_of(now), more)
            keys = stores.keys.all(company_id)
            webhooks = stores.webhook_overview.count_of_company(company_id)
            batches = resources.count_batches(company_id)
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
        """Read a company's counts, and the reason of the pause of all calls. Raises NotFound, DatabaseAway."""
        found = next((each for each in self._all() if each.heading.id == company_id), None)
        if found is None:
            raise not_found("company", company_id)
        return found, self._all_paused_for()

    def _all(self) -> list[CompanyCounts]:
        attempts = self._counts.attempts()
        commands = self._counts.commands()
        with self._database.reading() as stores:
            headings = {each.id: each for each in OperatedResources(stores.connection).companies()}
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
        return next((each.pause_reason for each in self._counts.carriers() if each.pause_reason is not None), None)


def _trouble(row: CompanyCounts) -> tuple[object, ...]:
    """Build the sort key that lists the company with the worst trouble first."""
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


# --- Reads for the console's pages about API keys: all of them, and one with what depends on it


@dataclass(frozen=True, kw_only=True)
class KeyParts:
    """A key with what depends on it."""

    listed: ListedKey
    state: KeyState
    rotations: Sequence[Key]
    """Other keys of its principal, oldest first."""
    active_rotations: int
    companies: int
    """Companies that the principal of an ATS key has created, or 1."""

    @property
    def key(self) -> Key:
        return self.listed.key


class KeyPages:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def one(self, key_id: UUID) -> KeyParts:
        """Raises NotFound, DatabaseAway."""
        now = self._now()
        with self._database.reading() as stores:
            listed = stores.keys.listed(key_id)
            if listed is None:
                raise not_found("key", key_id)
            principal = listed.key.principal
            rotations = [
                each for each in stores.keys.of_principal(principal.id) if each.principal.key_id != principal.key_id
            ]
            is_ats = principal.kind is KeyKind.ATS
            companies = OperatedResources(stores.connection).count_of_ats(principal.id) if is_ats else 1
        return KeyParts(
            listed=listed,
            state=listed.key.state(now),
            rotations=rotations,
            active_rotations=sum(each.state(now) is KeyState.ACTIVE for each in rotations),
            companies=companies,
        )
