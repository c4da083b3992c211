"""Counts: all numbers of `/metrics` and of the status of an installation, tallies, and the counts of caller ids."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID

from scheduler.domain.batch import WaitingBatches
from scheduler.domain.explanation import PACE, Rule
from scheduler.domain.webhook import WaitingDeliveries
from scheduler.lifecycle import settling
from scheduler.lifecycle.backoffs import Backoff
from scheduler.lifecycle.capacity import kept_places, leaves_kept_places
from scheduler.logs import log
from scheduler.persistence.caller_days import CallerNumber
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import reputation
from scheduler.rules.reputation import BlockedNumber, CallerDay
from scheduler.rules.tallies import Amount, Key
from scheduler.use_cases.shared.access import require
from scheduler.use_cases.shared.alarms import raise_each_in
from scheduler.use_cases.shared.context import Context

_log = log(__name__)

# --- Tallies: counters and histograms of all processes, added to their totals by the clock


_BATCH_SIZE = 1000


class Tallies:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, amounts: Mapping[Key, Amount]) -> None:
        """Add what this process has counted. Raises DatabaseAway."""
        if amounts:
            # They contain no time, so a wrong clock does not matter.
            with self._database.transaction(corrected=True) as stores, stores.connection.gathering():
                stores.tallies.add(amounts)

    def fold(self) -> None:
        """Add appended amounts to the totals. Any number of clocks may do so at once. Raises DatabaseAway."""
        more = True
        while more:
            with self._database.transaction(corrected=True) as stores:
                more = stores.tallies.fold(_BATCH_SIZE) == _BATCH_SIZE

    def totals(self) -> dict[Key, Amount]:
        """Read the totals over all processes since the installation. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return stores.tallies.totals()


class CallerReputation:
    """The counts of caller ids by day, and the alarms about them."""

    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._now = context.now

    def fold(self) -> None:
        """Add appended results to their days, and raise the alarms that follow. Raises DatabaseAway.

        Any number of clocks may do so at once. An alarm is stored in the transaction that finds its cause.
        """
        more = True
        while more:
            with self._database.transaction(corrected=True) as stores:
                taken, changed = stores.caller_days.fold(_BATCH_SIZE)
                self._report(stores, changed)
                more = taken == _BATCH_SIZE

    def _report(self, stores: Stores, changed: Sequence[CallerDay]) -> None:
        """Raise the alarms that follow from changed days. The number of statements does not depend on them."""
        unreported = [day for day in changed if day.blocked and not day.is_blocked_reported]
        numbers = [
            each
            for each in stores.caller_days.blocked_numbers(unreported)
            if each.is_reported or reputation.is_blocked_too_often(each)
        ]
        blocked = _changed_day_of_each([each for each in numbers if not each.is_reported], unreported)
        rare = _rarely_answered(stores, changed)
        if blocked:  # guard: caller_reputation
            text = "caller_id_blocked: networks blocked several calls from a caller id on one day"
            self._raise(stores, {day: day.blocked for day in blocked}, text, alarm="CALLER_REPUTATION")
        if rare:
            text = "caller_id_rarely_answered: a caller id is answered less than half as often as usual"
            self._raise(stores, {day: day.calls for day in rare}, text, alarm="CALLER_RARELY_ANSWERED")
            stores.caller_days.note_rates(rare)
        if numbers:
            # Also for the other companies: the alarm is not raised again when the company that it names is deleted.
            stores.caller_days.note_blocked(numbers)  # guard: reported_caller

    def _raise(self, stores: Stores, counts: Mapping[CallerDay, int], text: str, *, alarm: str) -> None:
        """Store the alarm for the caller id of each day, and log it with the count of the day."""
        subjects = [{"company_id": day.company_id, "phone_number_id": day.phone_number_id} for day in counts]
        raise_each_in(stores, alarm, stores.instant(self._now), subjects)
        for day, count in counts.items():
            _log.error(
                text,
                alarm=alarm,
                is_stored=True,
                company_id=str(day.company_id),
                phone_number_id=str(day.phone_number_id),
                count=count,
            )

    def numbers_of(self, company_id: UUID, day: date | None = None) -> Sequence[CallerNumber]:
        """List a company's numbers with their counts of a day of UTC. None: today. Raises NotFound, DatabaseAway."""
        with self._database.reading() as stores:
            require(stores.companies.get(company_id), "company", company_id)
            return stores.caller_days.numbers_of(company_id, day or reputation.day_of(self._now()))


def _changed_day_of_each(numbers: Iterable[BlockedNumber], changed: Iterable[CallerDay]) -> Sequence[CallerDay]:
    """Find a changed day of each number. The alarm names its company."""
    days = {(each.phone_number_id, each.day): each for each in changed}
    return [
        next(days[each_id, number.day] for each_id in number.phone_number_ids if (each_id, number.day) in days)
        for number in numbers
    ]


def _rarely_answered(stores: Stores, changed: Iterable[CallerDay]) -> Sequence[CallerDay]:
    compared = [each for each in changed if each.is_compared and not each.is_rate_reported]
    usual = {
        day: reputation.usual_answer_rate(stores.caller_days.of_day(day)) for day in {each.day for each in compared}
    }
    return [each for each in compared if reputation.is_rarely_answered(each, usual[each.day])]


# --- Counts: the numbers of `/metrics`, in one transaction, and those of the status of an installation


@dataclass(frozen=True, kw_only=True)
class Held:
    """Due attempts that a rule holds."""

    count: int = 0
    oldest: timedelta = timedelta()
    """Time since the first of them was due."""


HOLDING = (
    *(Rule.ACCOUNT_PAUSED, Rule.CARRIER_DOWN, Rule.VOICE_SERVER_DOWN),
    *(Rule.CARRIER_REFUSES_COUNTRY, Rule.CARRIER_REFUSES_CALLER, Rule.CARRIER_FAILS_CALLER),
    *(Rule.COMPANY_PAUSED, Rule.COMMAND_WAITING, Rule.EXPIRED, Rule.NUMBER_BUSY),
    *(Rule.COMPANY_LIMIT, Rule.ACCOUNT_LIMIT, PACE),
)
"""The rules that hold due attempts, in the order of the checks. All others are decided by the last look."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Counts of one company's attempts by state."""

    company_id: UUID
    pause_reason: str | None
    waiting: int
    """Attempts that are not due yet, counted up to `COUNTED_UP_TO` and one more."""
    waiting_is_estimate: bool = False
    """True if more attempts than `COUNTED_UP_TO` are not due yet."""
    next_due_at: datetime | None
    due: int
    """Due attempts, counted up to `COUNTED_UP_TO` and one more. The first due ones are counted."""
    late: timedelta | None
    """Longest time that a callable attempt has waited without being called. None without such an attempt.

    Counted from when it became callable. It is not callable while its line is blocked, a command waits, calling is
    paused, the breaker is open, or the pace or a limit is reached.
    """
    for_commands: int
    """Due attempts with an accepted command that is not applied yet."""
    for_numbers: int
    """Due attempts whose number has another call in progress, or had one a short while ago."""
    for_places: int
    """Due attempts that wait for a place under the limits, or for the end of a pause."""
    held: Mapping[str, Held] = field(default_factory=dict)
    """Due attempts by the first rule that holds them, if any. An attempt that no rule holds could be called now."""
    in_progress: int
    concurrent_calls: int
    """Maximum number of calls in progress."""
    asked_for: int
    """Attempts whose answer was lost and about which the carrier is polled."""
    undecided: int
    """Attempts of `asked_for` whose outcome is overdue because the carrier's list of calls could not be read."""
    unknown: int
    """Attempts that ended with an unknown outcome about which no operator has decided yet."""
    cause_lost: int
    """Attempts that failed without a known cause. They are not retried, and a person decides."""

    @property
    def paused(self) -> bool:
        return self.pause_reason is not None


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """State of the carrier account."""

    pause_reason: str | None
    down_until: datetime | None
    """The time of the next probe of the carrier. None while it accepts calls."""
    down_cause: str | None
    on_trial: bool
    """The breaker is half-open: one call at a time is tried."""
    in_progress: int
    max_calls: int

    @property
    def is_full(self) -> bool:
        return self.in_progress >= self.max_calls

    def is_full_for(self, calls: int) -> bool:
        """Return True if a company with so many calls gets no place: the last ones are kept for other companies."""
        free = self.max_calls - self.in_progress
        return free <= 0 or not leaves_kept_places(calls, free, kept_places(self.max_calls))

    @property
    def is_down(self) -> bool:
        return self.down_until is not None and not self.on_trial


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Unapplied commands of one company."""

    waiting: int = 0
    """Accepted and not applied yet."""
    oldest: timedelta | None = None
    """Age of the oldest waiting command."""
    quarantined: int = 0
    """Commands that failed five times with an unexpected error and block their interview. An engineer decides."""


@dataclass(frozen=True, kw_only=True)
class OpenErasures:
    """Deleted companies whose data is not fully erased yet."""

    count: int = 0
    oldest: timedelta | None = None
    """Time since the first of them was deleted."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of an installation at one time, over all companies."""

    companies: Sequence[Waiting] = ()
    carriers: Sequence[Carrier] = ()
    backoffs: Sequence[Backoff] = ()
    commands: Mapping[UUID, Commands] = field(default_factory=dict)
    """By company, including deleted ones."""
    callbacks_quarantined: int = 0
    """Callbacks of the carrier that failed five times with an unexpected error."""
    erasures: OpenErasures = field(default_factory=OpenErasures)
    alarms: Mapping[str, int] = field(default_factory=dict)
    """Open alarms by kind."""

    @property
    def all_commands(self) -> Commands:
        return Commands(
            waiting=sum(each.waiting for each in self.commands.values()),
            oldest=max((each.oldest for each in self.commands.values() if each.oldest is not None), default=None),
            quarantined=sum(each.quarantined for each in self.commands.values()),
        )


@dataclass(frozen=True, kw_only=True)
class Counted(Status):
    """All numbers of `/metrics`."""

    webhooks: WaitingDeliveries
    webhooks_late: timedelta | None
    """Time since the oldest of them was due."""
    batches: WaitingBatches
    batches_oldest: timedelta | None
    """Time since the oldest of them was stored."""
    batches_still: timedelta | None
    """Longest time since the batches of a company made progress."""
    callers: Sequence[CallerDay]
    """Today's counts of the caller ids that have calls. A day is a day of UTC."""
    totals: Mapping[Key, Amount]
    """Tallies since the installation."""


class Counts:
    def __init__(self, context: Context) -> None:
        self._database = context.database
        self._policy = context.policy
        self._now = context.now

    def count(self) -> Counted:
        """Count everything. Raises DatabaseAway.

        One transaction, because each further one costs three round trips, and perhaps another backend that has not
        read the catalogue of these tables yet.
        """
        with self._database.counting() as stores:
            now = self._now()
            webhooks = stores.webhook_deliveries.waiting(now)
            batches = stores.batches.waiting()
            return Counted(
                **vars(self._status_in(stores, now)),
                webhooks=webhooks,
                webhooks_late=None if webhooks.oldest_at is None else now - webhooks.oldest_at,
                batches=batches,
                batches_oldest=None if batches.oldest_at is None else now - batches.oldest_at,
                batches_still=None if batches.still_since is None else now - batches.still_since,
                callers=stores.caller_days.of_day(reputation.day_of(now)),
                totals=stores.tallies.totals(),
            )

    def status(self) -> Status:
        """Count what an operator sees of all companies, in one transaction. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return self._status_in(stores, self._now())

    def _status_in(self, stores: Stores, now: datetime) -> Status:
        return Status(
            companies=self._attempts_in(stores, now),
            carriers=carriers_in(stores),
            backoffs=stores.backoffs.waiting(),
            commands=_commands_in(stores, now),
            callbacks_quarantined=stores.carrier_events.count_quarantined(),
            erasures=_erasures_in(stores, now),
            alarms=stores.alarms.count_open(),
        )

    def attempts(self) -> Sequence[Waiting]:
        """Count every company's attempts by state. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return self._attempts_in(stores, self._now())

    def _attempts_in(self, stores: Stores, now: datetime) -> Sequence[Waiting]:
        rows = stores.attempt_counts.counts(now, settling.undecided_before(now, self._policy))
        return [Waiting(**{**row._asdict(), "held": held_by_rule(row.held)}) for row in rows]

    def carriers(self) -> Sequence[Carrier]:
        """Read the state of each carrier account. There is usually one. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return carriers_in(stores)

    def commands(self) -> Mapping[UUID, Commands]:
        """Count unapplied commands by company. Companies without any are omitted. Raises DatabaseAway."""
        with self._database.counting() as stores:
            return _commands_in(stores, self._now())


def held_by_rule(by_rule: Mapping[str, tuple[int, float]]) -> dict[str, Held]:
    """Collect the due attempts of each rule that holds some, in the order of the checks."""
    found = {rule: Held(count=count, oldest=timedelta(seconds=s)) for rule, (count, s) in by_rule.items()}
    return {rule: found[rule] for rule in HOLDING if rule in found}


def carriers_in(stores: Stores) -> Sequence[Carrier]:
    """Read the state of each carrier account in a transaction that counts."""
    calls = stores.carrier_accounts.calls_at_once()
    return [
        Carrier(
            pause_reason=account.pause_reason,
            down_until=account.breaker.down_until,
            down_cause=account.breaker.cause if account.breaker.down_until is not None else None,
            on_trial=account.breaker.is_on_trial,
            in_progress=calls.get(account.id, 0),
            max_calls=account.max_calls,
        )
        for account in stores.carrier_accounts.all()
    ]


def _commands_in(stores: Stores, now: datetime) -> Mapping[UUID, Commands]:
    """Count unapplied commands by company in a transaction that counts."""
    return {
        row.company_id: Commands(waiting=row.waiting, oldest=_age(row.oldest_at, now), quarantined=row.quarantined)
        for row in stores.inbox.count_unapplied()
    }


def _erasures_in(stores: Stores, now: datetime) -> OpenErasures:
    """Count open erasures in a transaction that counts."""
    count, oldest_at = stores.erasures.count_open()
    return OpenErasures(count=count, oldest=_age(oldest_at, now))


def _age(since: datetime | None, now: datetime) -> timedelta | None:
    return None if since is None else max(now - since, timedelta())
