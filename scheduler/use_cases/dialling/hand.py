"""The hints that a dial worker holds in memory, and the places and paces of its next claim."""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CallOrder
from scheduler.domain.company import Company
from scheduler.lifecycle import policy
from scheduler.lifecycle.capacity import Allotment, Pace, allot, in_turns, kept_places
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, MAX_CLOCK_SKEW, RELEASE_AHEAD, RELEASE_SPAN, SEND_SPAN
from scheduler.persistence.attempt_claims import ClaimFacts
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.persistence.errors import DatabaseAway

# --- Known paces: hints of how many attempts the next claim can use, from the last claims of this process
# Without them each claim would lock a whole batch of attempts to place a few. The rows decide: another process may
# have taken places since, and calls that have ended free places.


MOST_COMPANIES = 10_000
"""Companies whose paces are kept. More than a process claims for within the time in which a pace gets old."""


class KnownPaces:
    def __init__(self) -> None:
        self._account: Pace | None = None
        self._companies: dict[UUID, Pace] = {}
        """In the order in which they were learned."""

    def learn(self, account: Pace | None, companies: Mapping[UUID, Pace]) -> None:
        """Keep the paces that a claim has left."""
        self._account = account or self._account
        for company_id, pace in companies.items():
            self._companies.pop(company_id, None)
            self._companies[company_id] = pace
        while len(self._companies) > MOST_COMPANIES:
            del self._companies[next(iter(self._companies))]

    def of_account(self, now: datetime) -> int:
        """Estimate how many calls the account may start within the next second. At least one, because paces get old."""
        return _places(self._account, now)

    def of_company(self, company_id: UUID, now: datetime) -> int:
        """Estimate the same for a company."""
        return _places(self._companies.get(company_id), now)

    def last_start_of(self, company_id: UUID) -> float:
        """Find the start of the company's last known call, in seconds since 1970. 0 if none is known."""
        pace = self._companies.get(company_id)
        return 0.0 if pace is None else pace.last_start_at.timestamp()


def _places(pace: Pace | None, now: datetime) -> int:
    return AT_MOST_A_TRANSACTION if pace is None else max(1, pace.places(now, SEND_SPAN))


# --- The results of a claim, and an order that may be sent


PLACES_COME_TOGETHER = SEND_SPAN / 2
"""The next claim waits for the places of half a second, because each claim costs a transaction.

Claims reach a second ahead, so no call starts later.
"""


@dataclass(frozen=True, kw_only=True)
class ToSend:
    """A claimed attempt. Only the claiming worker knows its epoch, and only that epoch may send and record."""

    attempt: Attempt
    send_at: datetime
    lease_ends: float
    """Monotonic, counted from before the claim, so never later than the row's `lease_until`."""
    send_by: float
    """Monotonic. A call that is not sent by then returns to PENDING while its lease lasts."""


@dataclass(frozen=True, kw_only=True)
class Hinted:
    """A pending attempt named by a hint, with the fields that decide its turn."""

    id: UUID
    company_id: UUID
    manual: bool
    due_at: datetime


@dataclass(frozen=True, kw_only=True)
class PermittedOrder(CallOrder):
    """An order that a last look permits, with its period of validity."""

    looked_at: datetime = field(compare=False)
    """The time at which the query of the look was sent, on this machine's clock."""
    looked: float = field(compare=False)
    """The same instant on the monotonic clock."""
    leave_by: datetime = field(compare=False)
    """Latest time for sending, for example the end of calling hours, however fresh the look is."""
    could_ring_at: datetime = field(compare=False)
    """The time from which the call was due and its number was free. Only measured, and decides nothing."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    claimed: tuple[ToSend, ...] = ()
    waiting: frozenset[UUID] = frozenset()
    """Attempts without a place yet, or locked by another transaction. They wait in the worker's memory, unclaimed."""
    early: Mapping[UUID, datetime] = field(default_factory=dict)
    """Attempts that become due during their release, with their due times. Their hints came early, by this clock."""
    unplaced: frozenset[UUID] = frozenset()
    """The part of `waiting` that lacks only a place."""
    try_again_at: datetime | None = None
    full: frozenset[UUID] = frozenset()
    """Companies at their own limit: none of their attempts can be claimed until `try_again_at` or the end of a call."""
    locked: frozenset[UUID] = frozenset()
    """Companies whose row another transaction has locked."""
    unlocked: frozenset[UUID] = frozenset()
    """Companies whose row this claim has locked."""
    account_free_at: datetime | None = None
    """The account is at its limit: nothing is to be claimed earlier, for any company."""
    account: Pace | None = None
    """The pace of the account after this claim. None if the claim has not come so far."""
    companies: Mapping[UUID, Pace] = field(default_factory=dict)
    """The paces of the locked companies after this claim."""
    is_stopped: bool = False
    """The account is paused, the carrier is down, or the database was replaced.

    All hints are dropped, except early ones.
    """


class SomeHeld(Exception):
    """Other transactions have locked the rows of some answers. These were not recorded, and all others were."""

    def __init__(self, attempt_ids: frozenset[UUID], to_cancel: Sequence[str]) -> None:
        super().__init__()
        self.attempt_ids = attempt_ids
        self.to_cancel = to_cancel
        """The calls to cancel in the carrier's queue, of the recorded answers."""


class ClaimInDoubt(DatabaseAway):
    """The commit of a claim was not confirmed. The attempts may or may not be claimed, and none may be sent."""

    def __init__(self, claimed: Sequence[ToSend]) -> None:
        super().__init__("the answer to a commit")
        self.claimed = tuple(claimed)


class ClaimTooSlow(Exception):
    """The claim was rolled back, because its calls could no longer be sent within their leases."""


# --- Places of a claim: which attempts may start within the next second, by the limits of account and companies


_ROOM_AGAIN = timedelta(seconds=0.25)


def is_full(company: Pace, now: datetime) -> bool:
    """Return True if the company's own limits leave no place within the next second."""
    return company.room <= 0 or company.next_slot_at >= now + SEND_SPAN


def account_free_at(allotment: Allotment, room: int, now: datetime) -> datetime | None:
    """Compute when to claim for the account again. None: now."""
    if room <= 0:
        return now + _ROOM_AGAIN  # there is no event for the end of a call
    free_at = allotment.account.next_slot_at - SEND_SPAN
    return free_at + PLACES_COME_TOGETHER if free_at >= now else None


def allotment_of(
    claimable: Sequence[Attempt],
    account: CarrierAccount,
    room: int,
    companies: Mapping[UUID, tuple[Company, datetime]],
    facts: ClaimFacts,
    now: datetime,
) -> Allotment:
    """Divide the account's pace and its free places among the companies, within the pace and places of each."""
    return allot(
        [(each.id, each.company_id) for each in claimable],
        Pace(next_slot_at=account.next_slot_at, per_second=account.calls_per_second, room=room),
        {
            company_id: Pace(
                next_slot_at=next_slot_at,
                per_second=company.settings.limits.calls_per_second,
                room=company.settings.limits.concurrent_calls - facts.calls_by_company.get(company_id, 0),
                calls=facts.calls_by_company.get(company_id, 0),
            )
            for company_id, (company, next_slot_at) in companies.items()
        },
        now,
        SEND_SPAN,
        _kept(account, facts, room),
    )


def _kept(account: CarrierAccount, facts: ClaimFacts, room: int) -> int:
    """Compute how many calls of `room` are kept for companies without one. A trial leaves the other places free."""
    free = account.max_calls - facts.calls
    return max(0, kept_places(account.max_calls) - (free - room))


def room_of(account: CarrierAccount, facts: ClaimFacts) -> int:
    """Compute how many more calls the account may have. While the breaker is half-open, one at a time."""
    room = account.max_calls - facts.calls
    if account.breaker.is_on_trial:
        return min(room, 1 - facts.calls_being_placed)
    return room


# --- The hints that a dial worker holds in memory, in the order in which their attempts are claimed
# A claim passes only as many ids to the database as it may claim, so the order is decided here: companies take turns
# (`capacity.in_turns`). Early hints wait here until their attempts are due, and for those that become due soon after
# (`policy.claim_at`). All instants are seconds on the monotonic clock: a wall clock that is set neither hastens
# nor delays them.


MOST_HINTS = int(2 * AT_MOST_A_TRANSACTION * RELEASE_SPAN.total_seconds())
"""As many as one process can claim during a release. The clock sends the hints that are not kept again."""
_LONGEST_EARLY_S = (RELEASE_AHEAD + MAX_CLOCK_SKEW).total_seconds()
"""A longer wait comes from a wrong clock. The claim that follows finds the time that is left."""


def on_monotonic(due_at: Mapping[UUID, datetime], now: Now) -> dict[UUID, float]:
    """Convert due times to the monotonic clock, which no change of the machine's time affects."""
    if not due_at:
        return {}
    wall, instant = now(), monotonic()  # in this order, so that no result is too early
    return {each: instant + min(_LONGEST_EARLY_S, (at - wall).total_seconds()) for each, at in due_at.items()}


class Hand:
    def __init__(self) -> None:
        self._hints: list[Hinted] = []
        self._until: dict[UUID, float] = {}
        self._not_before: dict[UUID, float] = {}
        """Keys are ids of attempts and of companies."""
        self._new: dict[UUID, float] = {}
        self._tried: dict[UUID, float] = {}
        """Given to a claim without a turn. Apart from `_new`, so that a hint that comes during the claim is kept."""
        self._early: dict[UUID, tuple[float, float]] = {}
        """Waiting: the instants at which the attempt is due and at which its release ends."""
        self._due_at: list[tuple[float, UUID]] = []
        """The early hints in the order of their due times. Sorted, because the loop asks after each call."""

    def __len__(self) -> int:
        return len(self._until) + len(self._new) + len(self._tried) + len(self._early)

    def take(self, ids: Iterable[UUID], instant: float, due_at: Mapping[UUID, float] | None = None) -> None:
        """Keep these ids while their release lasts, at most `MOST_HINTS`. Their turn is not known yet.

        `due_at`: the instants at which those attempts are due that are not due yet.
        """
        until = instant + RELEASE_SPAN.total_seconds()
        if len(self) >= MOST_HINTS:
            self._end_releases(instant)
        for each in ids:
            if not self._has_room_for(each):
                continue
            at = instant if due_at is None else due_at.get(each, instant)
            if at > instant:
                self._wait_until(each, at, until)
            else:
                self._wait_no_longer(each)
                self._new[each] = until

    def _has_room_for(self, attempt_id: UUID) -> bool:
        kept = (self._until, self._new, self._tried, self._early)
        return len(self) < MOST_HINTS or any(attempt_id in each for each in kept)

    def _end_releases(self, instant: float) -> None:
        """Drop hints whose release has ended. While nothing can be claimed, no other method drops them."""
        for kept in (self._until, self._new, self._tried):
            for each in [each for each, until in kept.items() if until <= instant]:
                del kept[each]

    def ids(self) -> list[UUID]:
        """List the ids of all hints."""
        return list({**self._until, **self._new, **self._tried, **self._early})

    def become_due(self, instant: float) -> None:
        """Treat early hints whose attempts are due by now as new ones, the earliest due first.

        They go on waiting for attempts that become due soon, unless a claim is made now in any case.
        """
        if not self._due_at or (self._claim_at() > instant and not self._is_ready(instant)):
            return
        count = bisect_right(self._due_at, instant, key=lambda each: each[0])
        due, self._due_at = self._due_at[:count], self._due_at[count:]
        self._new.update((each, self._early.pop(each)[1]) for _, each in due)

    def due_at(self) -> float | None:
        """Find the instant at which the next early hints are to be claimed. None without one."""
        return self._claim_at() if self._due_at else None

    def _claim_at(self) -> float:
        return policy.claim_at([at for at, _ in self._due_at[: policy.ENOUGH]])

    def _is_ready(self, instant: float) -> bool:
        """Return True if a hint may be tried now that is not an early one."""
        if self._new or self._tried:
            return True
        return any(self._ready_at(each) <= instant for each in self._hints if each.id in self._until)

    def _wait_until(self, attempt_id: UUID, at: float, until: float) -> None:
        self._wait_no_longer(attempt_id)
        self._early[attempt_id] = (at, until)
        insort(self._due_at, (at, attempt_id))

    def _wait_no_longer(self, attempt_id: UUID) -> None:
        former = self._early.pop(attempt_id, None)
        if former is not None:
            del self._due_at[bisect_left(self._due_at, (former[0], attempt_id))]

    def wait_until_due(self, due_at: Mapping[UUID, float]) -> None:
        """Keep ids that a claim has found not due yet. Otherwise they would be lost for the rest of their release."""
        for each, at in due_at.items():
            until = self._tried.pop(each, None) or self._until.pop(each, None)
            if until is not None and at < until:
                self._wait_until(each, at, until)

    def untried(self, limit: int) -> list[UUID]:
        """Take all ids once, without their turns, if there are no others and at most `limit`.

        They need no order, which would cost a statement. Those that a claim leaves get their turns.
        """
        if self._until or self._tried or len(self._new) > limit:
            return []
        self._tried, self._new = self._new, {}
        return list(self._tried)

    def without_a_turn(self) -> Sequence[UUID]:
        """List the ids that `give_turns` has not received yet."""
        return list(self._tried | self._new)

    def give_turns(
        self,
        ids: Collection[UUID],
        pending: Iterable[Hinted],
        last_start_of: Callable[[UUID], float] = lambda _: 0.0,
        instant: float = 0.0,
    ) -> None:
        """Sort the `pending` attempts into the order of turns. The other `ids` are not pending and are dropped.

        `last_start_of` returns when a company's last call started, as far as this worker knows. At a low pace a claim
        takes one attempt, and the company that is due earliest would take each of them. Hints whose release has ended
        by `instant` are dropped: they cannot be claimed, and would take the first turns of their company.
        """
        self._end_releases(instant)
        known = self._tried | self._new
        until = {each: known[each] for each in ids if each in known}
        for each in until:
            self._tried.pop(each, None)
            self._new.pop(each, None)
        fresh = {each.id: each for each in pending if each.id in until}
        self._until.update({each: until[each] for each in fresh})
        former = [each for each in self._hints if each.id in self._until and each.id not in fresh]
        self._hints = in_turns([*former, *fresh.values()], last_start_of)

    def next(self, instant: float, limit: int, limit_of: Callable[[UUID], int] | None = None) -> list[UUID]:
        """Choose up to `limit` ids that may be tried now, in turn. Drops hints whose release has ended.

        `limit_of` returns the limit of one company. Hints behind the last returned one are not read, because a worker
        may hold thousands.
        """
        self._new = {each: until for each, until in self._new.items() if until > instant}
        self._tried = {each: until for each, until in self._tried.items() if until > instant}
        self._not_before = {each: at for each, at in self._not_before.items() if at > instant}
        if len(self._hints) > 2 * len(self._until):
            self._hints = [each for each in self._hints if each.id in self._until]
        ids: list[UUID] = []
        of_companies: Counter[UUID] = Counter()
        for each in self._hints:
            if len(ids) >= limit:
                break
            if self._until.get(each.id, instant) <= instant:
                self._until.pop(each.id, None)
            elif self._ready_at(each) <= instant and (
                limit_of is None or of_companies[each.company_id] < limit_of(each.company_id)
            ):
                ids.append(each.id)
                of_companies[each.company_id] += 1
        return ids

    def drop(self, ids: Iterable[UUID]) -> None:
        for each in ids:
            self._until.pop(each, None)
            self._tried.pop(each, None)

    def clear(self) -> None:
        """Drop all hints except early ones, which no claim has tried yet."""
        self._hints, self._until, self._not_before, self._new, self._tried = [], {}, {}, {}, {}

    def hold(self, attempts_or_companies: Iterable[UUID], until: float) -> None:
        """Hold back these attempts, or all attempts of these companies, until then."""
        self._not_before.update(dict.fromkeys(attempts_or_companies, until))

    def ready_at(self) -> float | None:
        """Find the instant at which the next hint may be tried. None without hints."""
        return min((self._ready_at(each) for each in self._hints if each.id in self._until), default=None)

    def _ready_at(self, hinted: Hinted) -> float:
        return max(self._not_before.get(hinted.id, 0.0), self._not_before.get(hinted.company_id, 0.0))
