"""The claim: one short transaction that takes hinted attempts for this worker, by the rows and never by the hints."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from secrets import token_urlsafe
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt, Claimed
from scheduler.domain.company import ALARM, Company
from scheduler.failpoints import failpoint
from scheduler.lifecycle import voice_server
from scheduler.lifecycle.capacity import Allotment, LateSlots, Pace, allot, kept_places
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, SEND_SPAN, UNREADABLE_FOR
from scheduler.logs import log
from scheduler.persistence.attempt_claims import CalleeNow, Claimable, ClaimFacts, Left, NextSlots
from scheduler.persistence.carrier_accounts import CarrierAccount, DatabaseName
from scheduler.persistence.errors import ClockWrong, DatabaseAway
from scheduler.persistence.stores import Stores
from scheduler.use_cases.dialling import ACTOR
from scheduler.use_cases.dialling.hand import Hinted
from scheduler.use_cases.shared.alarms import raise_in
from scheduler.use_cases.shared.carrier_state import CarrierJudge
from scheduler.use_cases.shared.context import Context

_log = log(__name__)
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
class Claims:
    """The result of a claim: calls to send, and why the other hinted attempts were not claimed."""

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
    companies: Mapping[UUID, tuple[Company, datetime]],
    facts: ClaimFacts,
    now: datetime,
    late: LateSlots,
) -> Allotment:
    """Divide the account's pace and its free places among the companies, within the pace and places of each."""
    room = room_of(account, facts)
    of_account = Pace(next_slot_at=account.next_slot_at, per_second=account.calls_per_second, room=room)
    of_companies = {
        company_id: Pace(
            next_slot_at=next_slot_at,
            per_second=company.settings.limits.calls_per_second,
            room=company.settings.limits.concurrent_calls - facts.calls_by_company.get(company_id, 0),
            calls=facts.calls_by_company.get(company_id, 0),
        )
        for company_id, (company, next_slot_at) in companies.items()
    }
    return allot(
        [(each.id, each.company_id) for each in claimable],
        late.behind(None, of_account, now),
        {company_id: late.behind(company_id, pace, now) for company_id, pace in of_companies.items()},
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


# --- The transaction


@dataclass(frozen=True, kw_only=True)
class _Locked:
    """The rows that a claim has locked, and what it has read about them after all locks."""

    account: CarrierAccount
    companies: Mapping[UUID, tuple[Company, datetime]]
    """Companies that may place calls, with their next slots."""
    found: Claimable
    facts: ClaimFacts
    now: datetime
    ahead: timedelta
    """How far the clock of `now` is ahead of the database's."""

    @property
    def other_companies(self) -> frozenset[UUID]:
        """Companies that may place calls and whose rows another transaction has locked."""
        return self.facts.companies - self.companies.keys()

    def left(self, stores: Stores, ids: Sequence[UUID]) -> Left:
        """Find the hinted attempts that were not locked and can be claimed later."""
        locked = [*self.found.unreadable, *(each.id for each in self.found.attempts)]
        return stores.attempt_claims.left(ids, locked, self.now, self.ahead)


class Claiming:
    """Claims attempts for this worker. Everything that was decided is committed before the first call is sent."""

    def __init__(self, context: Context, account_id: int) -> None:
        self._database = context.database
        self._account_id = account_id
        self._judge = CarrierJudge(context.database, context.hasher, account_id, context.now)
        self._policy = context.policy
        self._now = context.now
        self._late = LateSlots()

    def claim(self, ids: Sequence[UUID]) -> Claims:
        """Claim the attempts among the first 200 `ids` that are due, free and have a place within the next second.

        Raises ClaimInDoubt, which names the attempts that may be claimed. Raises DatabaseAway, LockTaken, ClaimTooSlow:
        nothing was claimed.
        """
        later = frozenset(ids[AT_MOST_A_TRANSACTION:])
        ids = ids[:AT_MOST_A_TRANSACTION]  # guard: claim_size
        claimed: list[ToSend] = []
        try:
            claims = self._claimed_from(ids, claimed)
            if claims.account is not None:
                self._late.note([each.send_at for each in claimed], claims.account, claims.companies, self._now())
            return replace(claims, waiting=claims.waiting | later)
        except ClockWrong:
            return Claims(waiting=frozenset(ids) | later)  # rolled back, so the hints stay until their release ends
        except DatabaseAway as away:
            if claimed:  # guard: claim_in_doubt
                raise ClaimInDoubt(claimed) from away
            raise

    def _claimed_from(self, ids: Sequence[UUID], claimed: list[ToSend]) -> Claims:
        """Claim in one transaction. `claimed` is filled before the commit, so that the caller knows it in any case."""
        started = monotonic()
        with self._database.transaction() as stores:
            account = stores.carrier_accounts.lock_without_backoffs(self._account_id)
            stops = (
                account.paused,  # guard: account_paused
                account.breaker.is_down,  # guard: breaker
            )
            if any(stops):
                return Claims(is_stopped=True)
            locked = _lock(stores, account, ids, self._now)
            if not locked.companies and not locked.other_companies:
                return Claims()
            if not self._database_is_unchanged(stores, account, locked.facts.database, locked.now):  # guard: database
                return Claims(is_stopped=True)
            stores.attempt_claims.put_off_unreadable(locked.found.unreadable, locked.now + UNREADABLE_FOR)
            left = locked.left(stores, ids)
            allowed = _allowed_by(locked.facts.callees, locked.found.attempts)
            claimable = self._not_held_back(stores, locked, allowed)
            allotment = allotment_of(claimable, account, locked.companies, locked.facts, locked.now, self._late)
            claimed += self._save(stores, claimable, locked, allotment, started)
            if monotonic() - started > self._policy.send_within.total_seconds():
                claimed.clear()
                raise ClaimTooSlow
        held = {each.id for each in allowed if each.company_id in locked.other_companies}
        return _claims_of(claimed, claimable, left, held, locked, allotment)

    def _not_held_back(self, stores: Stores, locked: _Locked, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Leave out attempts of companies that are not locked, and those that wait for a back-off."""
        of_locked = [each for each in attempts if each.company_id in locked.companies]
        if not locked.facts.has_backoffs:
            return of_locked
        account = stores.carrier_accounts.with_backoffs(locked.account)
        waits = self._judge.may_not_be_claimed(stores, account, [each.id for each in of_locked])
        return [each for each in of_locked if each.id not in waits]

    def _database_is_unchanged(
        self, stores: Stores, account: CarrierAccount, present: DatabaseName, now: datetime
    ) -> bool:
        """Return False, and pause all calling, if a restored backup or a standby may lack calls that were placed."""
        if (
            account.claimed_on is not None
            and account.claimed_on == present.server  # guard: database_server
            and account.claimed_copy == present.copy  # guard: database_copy
        ):
            return True
        if account.claimed_on is None or _is_upgraded(stores, account, present):
            stores.carrier_accounts.claims_on(account.id, present)
            return True
        stores.carrier_accounts.pause(f"{ALARM}DATABASE_CHANGED", now)
        raise_in(stores, "DATABASE_CHANGED", now)
        _log.error(
            "database_changed: calls were last claimed in another database, so all calling is paused",
            alarm="DATABASE_CHANGED",
            is_stored=True,
        )
        return False

    def _save(
        self, stores: Stores, claimable: Sequence[Attempt], locked: _Locked, allotment: Allotment, started: float
    ) -> list[ToSend]:
        """Save the attempts that have a place as claimed, each with a new token."""
        now, callees = locked.now, locked.facts.callees
        by_id = {each.id: each for each in claimable}
        events: list[tuple[Attempt, Claimed, str | None]] = []
        for place in allotment.places:
            attempt = by_id[place.attempt_id]
            company, _ = locked.companies[attempt.company_id]
            event = Claimed(
                token=token_urlsafe(24),
                lease_until=now + self._policy.lease,
                machine_detection=company.settings.machine_detection,
            )
            events.append((attempt, event, callees[attempt.interview_id].phone_number))
        moved: list[Attempt] = []
        if events:
            called = {attempt.company_id for attempt, _, _ in events}
            slots = NextSlots(
                account=allotment.account.next_slot_at,
                companies={each: allotment.companies[each].next_slot_at for each in called},
            )
            at = voice_server.claimed_at(locked.account.breaker, now)
            moved = stores.attempt_claims.claim_all(events, self._account_id, ACTOR, at, slots)
            failpoint("dial.claiming")
        return [
            ToSend(
                attempt=attempt,
                send_at=place.send_at,
                lease_ends=started + self._policy.lease.total_seconds(),
                send_by=started + self._policy.send_within.total_seconds(),
            )
            for attempt, place in zip(moved, allotment.places, strict=True)
        ]

    def hinted(self, ids: Sequence[UUID]) -> Sequence[Hinted]:
        """Find the pending attempts among `ids`. Raises DatabaseAway."""
        with self._database.statement() as stores:
            return [
                Hinted(id=row.id, company_id=row.company_id, manual=row.manual, due_at=row.due_at)
                for row in stores.attempt_claims.hinted(ids)
            ]

    def lock_holder(self, company_id: UUID) -> int | None:
        """Find the process id of the database session that has locked the company's row. Raises DatabaseAway."""
        with self._database.statement() as stores:
            return stores.companies.lock_holder(company_id)


def _lock(stores: Stores, account: CarrierAccount, ids: Sequence[UUID], clock: Now) -> _Locked:
    """Lock companies, lines and attempts, whose account the caller has locked."""
    companies = stores.companies.lock_for_claim(ids)
    # After the wait for the locks: slots that pass meanwhile would all be used at once.
    now = stores.instant(clock)
    ahead = stores.noticed_ahead()
    found = stores.attempt_claims.lock_claimable(ids, now, ahead)
    # After all locks: see `facts`.
    interviews = [each.interview_id for each in found.attempts]
    since = voice_server.tried_since(account.breaker)
    facts = stores.attempt_claims.facts(account.id, ids, companies.keys(), interviews, since)
    return _Locked(account=account, companies=companies, found=found, facts=facts, now=now, ahead=ahead)


def _claims_of(
    claimed: Sequence[ToSend],
    claimable: Sequence[Attempt],
    left: Left,
    held: Collection[UUID],
    locked: _Locked,
    allotment: Allotment,
) -> Claims:
    claimed_ids = {each.attempt.id for each in claimed}
    unplaced = frozenset(each.id for each in claimable if each.id not in claimed_ids)
    now = locked.now
    return Claims(
        claimed=tuple(claimed),
        waiting=left.locked_elsewhere.union(held, unplaced),
        early=left.early,
        unplaced=unplaced,
        # There is no event for an unlocked row, so the claim is tried again soon.
        try_again_at=None if left.locked_elsewhere or held else allotment.try_again_at,
        full=frozenset(company_id for company_id, pace in allotment.companies.items() if is_full(pace, now)),
        locked=locked.other_companies,
        unlocked=frozenset(locked.companies),
        account_free_at=account_free_at(allotment, room_of(locked.account, locked.facts), now),
        account=allotment.account,
        companies=allotment.companies,
    )


def _is_upgraded(stores: Stores, account: CarrierAccount, present: DatabaseName) -> bool:
    """Return True if the previous release, which stored no copy name, claimed in this copy of the database.

    A dump of that release has no copy name either, so the newest claims must prove that they were made here.
    """
    return (
        account.claimed_copy is None
        and account.claimed_on == present.server
        and stores.carrier_accounts.has_claimed_here()  # guard: database_upgrade
    )


def _allowed_by(callees: Mapping[UUID, CalleeNow], claimable: Sequence[Attempt]) -> list[Attempt]:
    """Leave out attempts for which a command waits, and attempts of erased people."""
    stopped: set[UUID] = set()
    stopped.update(key for key, callee in callees.items() if callee.command_waiting)  # guard: command_waiting
    stopped.update(key for key, callee in callees.items() if callee.is_erased)  # guard: erased_person
    return [each for each in claimable if each.interview_id not in stopped]
