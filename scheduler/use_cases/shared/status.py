"""Status: counts of a company's attempts, the state of the carrier, and what one attempt waits for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.domain.attempt import Attempt, AttemptState, Phase
from scheduler.domain.explanation import PACE, Rule
from scheduler.lifecycle.capacity import kept_places, leaves_kept_places
from scheduler.lifecycle.state_machine import has_live_leg
from scheduler.persistence.stores import Stores


@dataclass(frozen=True, kw_only=True)
class Held:
    """Due attempts that a rule holds."""

    count: int = 0
    oldest: timedelta = timedelta()
    """Time since the first of them was due."""


HOLDING = (
    *(Rule.ACCOUNT_PAUSED, Rule.CARRIER_DOWN),
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


def waits_for(attempt: Attempt, now: datetime) -> str:
    """Describe in a few words the next event that the attempt needs, from its state alone. Empty if it needs none.

    The explanation of a pending attempt also names other blocks, such as a pause.
    """
    if attempt.state is AttemptState.PENDING:
        return "its time" if attempt.due_at > now else "its turn"
    if attempt.phase is Phase.DIALLING:
        return "the carrier's answer"
    if attempt.phase is Phase.PLACED:
        return "the call's end"
    if attempt.phase is Phase.UNKNOWN:
        return "proof of what became of it"
    return "the call's end" if has_live_leg(attempt) else ""
