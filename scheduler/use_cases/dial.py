"""The steps of one dial against the database: claim, last look, record. `dialler` sends the POST between them.

    take ─► claim ─► last look ─► POST ─► record
            commit    ≤ 200 ms    once    fenced by the epoch

After any failure nothing is sent again. Before the POST the attempt is given back; after it the lease lapses and
`settle` asks the carrier.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from secrets import token_urlsafe
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt, Claimed, Deferred, Event, HangUpWanted, Placed
from scheduler.domain.call import Accepted, CallNews, CallOrder, CallStatus, CarrierAnswer, NeverTaken
from scheduler.domain.company import ALARM
from scheduler.failpoints import failpoint
from scheduler.hashing import Hasher
from scheduler.lifecycle import breaker, decisions
from scheduler.lifecycle.capacity import Allotment, Pace, allot
from scheduler.lifecycle.decisions import Alarm, GoAhead, NotMine
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, DEFERRED_DELAY, SEND_SPAN, Policy
from scheduler.lifecycle.scheduling import Callee
from scheduler.logs import log
from scheduler.persistence.attempts import Claimable, LookRow
from scheduler.persistence.carrier_accounts import CarrierAccount, DatabaseName
from scheduler.persistence.database import ClockWrong, Database, DatabaseAway, Stores
from scheduler.rules import clock_comparison
from scheduler.rules.clock_comparison import Comparison
from scheduler.use_cases.dialling.carrier_judge import CarrierJudge
from scheduler.use_cases.shared.effects import Effects, InvariantViolated
from scheduler.use_cases.shared.situations import callee_from, situation_from

_log = log(__name__)
_ACTOR = "dial"
_ROOM_AGAIN = timedelta(seconds=0.25)
_TALK_MARGIN = timedelta(minutes=2)


@dataclass(frozen=True, kw_only=True)
class ToSend:
    """A claimed attempt. Only who made the claim has its epoch, and only that epoch may send and record."""

    attempt: Attempt
    send_at: datetime
    lease_ends: float
    """On the monotonic clock, counted from before the claim: never later than the row's `lease_until`."""
    send_by: float
    """On the same clock. A call that is not sent by then is given back while the lease lasts."""


@dataclass(frozen=True, kw_only=True)
class Hinted:
    """A pending attempt that a hint is about, with what decides its turn."""

    id: UUID
    company_id: UUID
    manual: bool
    due_at: datetime


@dataclass(frozen=True, kw_only=True)
class PermittedOrder(CallOrder):
    """An order that a last look permits, and for how long."""

    looked_at: datetime = field(compare=False)
    """When the look was asked, on our clock."""
    looked: float = field(compare=False)
    """The same instant on the monotonic clock."""
    leave_by: datetime = field(compare=False)
    """The last instant at which it may leave, however fresh the look is."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    claimed: tuple[ToSend, ...] = ()
    waiting: frozenset[UUID] = frozenset()
    """Without a place yet, or locked by another transaction; they wait in the worker's hand, never in a claim."""
    unplaced: frozenset[UUID] = frozenset()
    """Those of `waiting` that lack nothing but a place."""
    try_again_at: datetime | None = None
    full: frozenset[UUID] = frozenset()
    """Companies that lack a place of their own until then: none of their attempts can be claimed earlier."""
    locked: frozenset[UUID] = frozenset()
    """Companies whose row another transaction has locked."""
    unlocked: frozenset[UUID] = frozenset()
    """Companies whose row this claim has locked itself."""
    account_free_at: datetime | None = None
    """No attempt at all can be claimed earlier."""
    is_stopped: bool = False
    """The account is paused, the carrier down, or the database another one: no hint is worth keeping."""


class ClaimInDoubt(DatabaseAway):
    """The answer to the commit of a claim was lost: nobody knows whether these are claimed, and none may be sent."""

    def __init__(self, claimed: Sequence[ToSend]) -> None:
        super().__init__("the answer to a commit")
        self.claimed = tuple(claimed)


class ClaimTooSlow(Exception):
    """The claim took so long that its calls could not be sent while their leases last. It was rolled back."""


class Dial:
    """The steps of one dial against the database; each is one short transaction."""

    def __init__(
        self,
        database: Database,
        hasher: Hasher,
        account_id: int,
        effects: Effects,
        policy: Policy,
        now: Now,
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._account_id = account_id
        self._effects = effects
        self._judge = CarrierJudge(database, hasher, account_id, now)
        self._policy = policy
        self._now = now
        self.look_took: timedelta | None = None
        """The time that the statement of the last look took when it was made last; None before the first."""

    def claim(self, ids: Sequence[UUID]) -> Claims:
        """Claim those of the first 100 `ids` that are due, free and have a place within the next second.

        Raises DatabaseAway: then, whatever was committed, no worker dials. ClaimInDoubt says what may have been. Raises
        LockTaken and ClaimTooSlow: nothing was claimed.
        """
        later = frozenset(ids[AT_MOST_A_TRANSACTION:])
        ids = ids[:AT_MOST_A_TRANSACTION]  # guard: claim_size
        claimed: list[ToSend] = []
        try:
            claims = self._claimed_from(ids, claimed)
            return replace(claims, waiting=claims.waiting | later)
        except ClockWrong:
            return Claims(waiting=frozenset(ids) | later)  # nothing was committed; kept until their release has lapsed
        except DatabaseAway as away:
            if claimed:  # guard: claim_in_doubt
                raise ClaimInDoubt(claimed) from away
            raise

    def _claimed_from(self, ids: Sequence[UUID], claimed: list[ToSend]) -> Claims:
        """`claimed` holds them as soon as they are written: whether they are committed is known when this returns."""
        started = monotonic()
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            account = stores.carrier_accounts.lock(self._account_id)
            stops = (
                account.paused,  # guard: account_paused
                account.breaker.is_down,  # guard: breaker
            )
            if any(stops):
                return Claims(is_stopped=True)
            asked = stores.attempts.companies_of(ids)
            companies = stores.companies.lock_for_claim(asked)
            locked = stores.companies.locked_away(set(asked) - set(companies))
            if not companies and not locked:
                return Claims()
            if not self._is_the_database_that_it_was(stores, account, now):  # guard: database
                return Claims(is_stopped=True)
            found = stores.attempts.lock_claimable(ids, now)
            passed_over = stores.attempts.passed_over(ids, [each.attempt.id for each in found], now)
            claimable = self._without_waiting_commands(stores, found)
            held = {each.attempt.id for each in claimable if each.attempt.company_id in locked}
            claimable = [each for each in claimable if each.attempt.company_id in companies]
            waits = self._judge.may_not_be_claimed(stores, account, [each.attempt.id for each in claimable])
            claimable = [each for each in claimable if each.attempt.id not in waits]
            room = _room(stores, account)
            calls = {each.attempt.company_id: each.calls_in_progress for each in claimable}
            allotment = allot(
                [(each.attempt.id, each.attempt.company_id) for each in claimable],
                Pace(
                    next_slot_at=account.next_slot_at,
                    per_second=account.calls_per_second,
                    room=room,
                ),
                {
                    company_id: Pace(
                        next_slot_at=next_slot_at,
                        per_second=company.settings.limits.calls_per_second,
                        room=company.settings.limits.concurrent_calls - calls.get(company_id, 0),
                    )
                    for company_id, (company, next_slot_at) in companies.items()
                },
                now,
                SEND_SPAN,
            )
            claimed += self._claim(stores, claimable, allotment, now, started)
            if monotonic() - started > self._policy.send_within.total_seconds():
                claimed.clear()
                raise ClaimTooSlow
        mine = {each.attempt.id for each in claimed}
        waiting = [each.attempt for each in claimable if each.attempt.id not in mine]
        return Claims(
            claimed=tuple(claimed),
            waiting=passed_over | held | {each.id for each in waiting},
            unplaced=frozenset(each.id for each in waiting),
            # No event tells when a row is unlocked: it is looked at again soon.
            try_again_at=None if passed_over or held else allotment.try_again_at,
            full=frozenset(each.company_id for each in waiting if _is_full(allotment.companies[each.company_id], now)),
            locked=locked,
            unlocked=frozenset(companies),
            account_free_at=_account_free_at(allotment, room, now),
        )

    def _is_the_database_that_it_was(self, stores: Stores, account: CarrierAccount, now: datetime) -> bool:
        """Return False, and pause everything, if a backup or a standby may have forgotten calls that were placed."""
        present = stores.carrier_accounts.database_now()
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
        _log.error(
            "This database is not the one that calls were last claimed in; everything was paused.",
            alarm="DATABASE_CHANGED",
        )
        return False

    def _without_waiting_commands(self, stores: Stores, claimable: list[Claimable]) -> list[Claimable]:
        # A second statement, after the locks: whoever accepts a command for one of these interviews either committed
        # before, and is seen here, or waits for our locks and is accepted after the claim.
        waiting = stores.inbox.interviews_with_waiting([each.attempt.interview_id for each in claimable])
        return [
            each
            for each in claimable
            if each.attempt.interview_id not in waiting  # guard: command_waiting
        ]

    def _claim(
        self, stores: Stores, claimable: list[Claimable], allotment: Allotment, now: datetime, started: float
    ) -> list[ToSend]:
        by_id = {each.attempt.id: each.attempt for each in claimable}
        events: list[tuple[Attempt, Claimed]] = []
        taken: dict[bytes, UUID] = {}
        moved: list[Attempt] = []
        for place in allotment.places:
            attempt = by_id[place.attempt_id]
            assert attempt.number_hash is not None
            events.append((attempt, Claimed(token=token_urlsafe(24), lease_until=now + self._policy.lease)))
            taken[attempt.number_hash] = attempt.id
        if events:
            stores.lines.take_all(taken)
            moved = stores.attempts.claim_all(events, self._account_id, _ACTOR, now)
            stores.carrier_accounts.take_slots(self._account_id, allotment.account.next_slot_at)
            stores.companies.take_slots(
                {company_id: pace.next_slot_at for company_id, pace in allotment.companies.items()}
            )
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
        """Those of `ids` that are pending. Raises DatabaseAway."""
        with self._database.statement() as stores:
            return [
                Hinted(id=row.id, company_id=row.company_id, manual=row.manual, due_at=row.due_at)
                for row in stores.attempts.hinted(ids)
            ]

    def lock_holder(self, company_id: UUID) -> int | None:
        """The process id of the database session that has locked the company's row, if one has. Raises DatabaseAway."""
        with self._database.statement() as stores:
            return stores.companies.lock_holder(company_id)

    def try_look(self, attempt_id: UUID) -> timedelta:
        """Time the statement of a last look, for an attempt that need not be claimed. Raises DatabaseAway."""
        with self._database.statement() as stores:
            looked = monotonic()
            stores.attempts.look(attempt_id)
            return self._note_look(monotonic() - looked)

    def _note_look(self, seconds: float) -> timedelta:
        self.look_took = timedelta(seconds=seconds)
        return self.look_took

    def last_look(self, attempt: Attempt) -> PermittedOrder | None:
        """The order to send now; None when it may not ring, and then it has been given back.

        Raises DatabaseAway: then nothing is sent.
        """
        # One statement and one round trip: with a slow network a transaction of four would be too old when it ends.
        with self._database.statement() as stores:
            looked, looked_at = monotonic(), self._now()
            row = stores.attempts.look(attempt.id)
            answered_at = monotonic()
            self._note_look(answered_at - looked)
        if row is None:
            return None
        now = self._now()
        comparison = Comparison(database_clock=row.database_clock, asked_at=looked, answered_at=answered_at)
        ahead = self._database.ahead(comparison)
        if clock_comparison.is_wrong(ahead):
            now -= ahead  # it does not ring, but is put back, due at a time that the database's clock gives
        situation = situation_from(row, self._hasher, -ahead)
        verdict = decisions.on_last_look(situation, attempt.epoch, now, self._policy)
        if isinstance(verdict, NotMine):
            return None
        if isinstance(verdict, GoAhead):
            return self._order(row, looked_at, looked, verdict.leave_by)
        self._give_back(attempt, lambda _: verdict)
        return None

    def _order(self, row: LookRow, looked_at: datetime, looked: float, leave_by: datetime) -> PermittedOrder:
        assert row.phone_number is not None
        assert row.attempt.token is not None
        return PermittedOrder(
            to=row.phone_number,
            caller=row.caller_number,
            token=row.attempt.token,
            ring_timeout=self._policy.ring_timeout,
            time_limit=min(row.interview_duration + _TALK_MARGIN, self._policy.max_call),
            machine_detection=row.settings.machine_detection,
            looked_at=looked_at,
            looked=looked,
            leave_by=leave_by,
        )

    def give_back(self, attempt: Attempt, cause: str) -> None:
        """Nothing was sent for it: it is pending again, in 5 s. Raises DatabaseAway."""
        self._give_back(attempt, lambda now: (Deferred(due_at=now + DEFERRED_DELAY, cause=cause),))

    def _give_back(self, attempt: Attempt, events_at: Callable[[datetime], Sequence[Event]]) -> None:
        """No other process knows that nothing was sent. So it is written on a wrong clock too, by the database's."""
        with self._database.transaction(corrected=True) as stores:
            now = stores.instant(self._now)
            self._write(stores, attempt, events_at(now), now)
            failpoint("dial.deferring")
        failpoint("dial.deferred")

    def record(self, answers: Sequence[tuple[Attempt, CarrierAnswer]]) -> list[str]:
        """Write what the POSTs brought, each where its claim still stands, at most 100 in a transaction.

        Returns the calls that are to be taken out of the carrier's queue again. Raises DatabaseAway and LockTaken: of
        up to 100 answers nothing is written then.
        """
        to_cancel = []
        at_once = len(answers) or 1
        at_once = min(at_once, AT_MOST_A_TRANSACTION)  # guard: record_size
        for start in range(0, len(answers), at_once):
            to_cancel += self._record(answers[start : start + at_once])
        return to_cancel

    def _record(self, answers: Sequence[tuple[Attempt, CarrierAnswer]]) -> list[str]:
        to_cancel = []
        alarms: list[InvariantViolated] = []
        with self._database.transaction(corrected=True) as stores:
            now = stores.instant(self._now)
            for attempt, answer in sorted(answers, key=lambda pair: (pair[0].interview_id, pair[0].id)):
                events = decisions.on_answer(attempt, answer, _callee(stores, attempt, answer), now, self._policy)
                written, found = self._write(stores, attempt, events, now)
                alarms.extend(found)
                ends = written is not None and written.hang_up is not None
                if isinstance(answer, Accepted) and (ends or _wants_its_end(events)):
                    to_cancel.append(answer.call_sid)
            failpoint("dial.recording")
        failpoint("dial.recorded")
        for alarmed in alarms:
            self._effects.sound(alarmed)
        for attempt, answer in answers:
            self._tell_a_person(attempt, answer)
        self._judge.hear(answers)
        return to_cancel

    def _tell_a_person(self, attempt: Attempt, answer: CarrierAnswer) -> None:
        """What trying again does not mend, and concerns this order alone: a URL, a trial account."""
        if (
            isinstance(answer, NeverTaken)
            and answer.cause not in breaker.PERMISSIONS | {"NOT_SENT"}
            and breaker.shows_that_it_works(answer)
        ):
            _log.error(
                "the carrier refuses an order; it waits until somebody has mended it",
                alarm=answer.cause,
                attempt_id=str(attempt.id),
                company_id=str(attempt.company_id),
            )

    def _write(
        self, stores: Stores, attempt: Attempt, events: Sequence[Event], now: datetime
    ) -> tuple[Attempt | None, list[InvariantViolated]]:
        """The attempt as it is then; None when the record came too late, with what it found out."""
        interview = stores.interviews.lock(attempt.interview_id)
        mine = stores.attempts.lock_as_of(attempt.id, attempt.epoch)
        if mine is None:
            # The COMMIT of a claim in doubt may still be under way: it holds the row, and is seen once it is done.
            stores.attempts.lock(attempt.id)
            mine = stores.attempts.lock_as_of(attempt.id, attempt.epoch)
        if (
            mine is None
            # The epoch alone would do where the commit was confirmed: a claim in doubt may be somebody else's by now.
            or mine.token != attempt.token  # guard: token
        ):
            # The lease was settled, or the carrier called back first: that story goes on without us.
            _log.info("a record came too late", attempt_id=str(attempt.id), epoch=attempt.epoch)
            return None, self._compare(stores, attempt, events, now)
        return self._effects.apply_events(stores, interview, mine, events, _ACTOR, now), []

    def _compare(
        self, stores: Stores, attempt: Attempt, events: Sequence[Event], now: datetime
    ) -> list[InvariantViolated]:
        """A late record writes nothing; but a call that it names must be the one that the attempt has, or may have."""
        present = stores.attempts.lock(attempt.id)
        assert attempt.token is not None
        claim = stores.carrier_events.claim_of(attempt.token)
        for event in events:
            if isinstance(event, Placed):
                news = CallNews(call_sid=event.call_sid, status=CallStatus.QUEUED, token=attempt.token)
                if claim is not None and decisions.is_old_news(claim.closed_sid, news):
                    continue
                heard = decisions.on_news(present, news, None, now, self._policy)
                if isinstance(heard, Alarm):
                    return [InvariantViolated(heard, present)]
        return []


def _wants_its_end(events: Sequence[Event]) -> bool:
    return any(isinstance(event, HangUpWanted) for event in events)


def _callee(stores: Stores, attempt: Attempt, answer: CarrierAnswer) -> Callee | None:
    """Asked only for a call that waits in the carrier's queue: whether it would ring too late."""
    if not isinstance(answer, Accepted) or not answer.queue_time:
        return None
    return callee_from(stores.attempts.callee_of(attempt.interview_id))


def _is_upgraded(stores: Stores, account: CarrierAccount, present: DatabaseName) -> bool:
    """Return True if the release before claimed in this very copy of the database, which it did not name.

    A dump of that release names no copy either, so the newest claims must show that they were made here.
    """
    return (
        account.claimed_copy is None
        and account.claimed_on == present.server
        and stores.carrier_accounts.has_claimed_here()  # guard: database_upgrade
    )


def _is_full(company: Pace, now: datetime) -> bool:
    """Whether a company has no place of its own within the next second, whatever the account has."""
    return company.room <= 0 or company.next_slot_at >= now + SEND_SPAN


def _account_free_at(allotment: Allotment, room: int, now: datetime) -> datetime | None:
    """When the account's next call has a place within the next second; None: now."""
    if room <= 0:
        return now + _ROOM_AGAIN  # no event tells when a call ends
    free_at = allotment.account.next_slot_at - SEND_SPAN
    return free_at if free_at > now else None


def _room(stores: Stores, account: CarrierAccount) -> int:
    """How many more calls the account may have; while the carrier is on trial, one at a time."""
    room = account.max_calls - stores.carrier_accounts.calls_at_once(account.id)
    if account.breaker.is_on_trial:
        return min(room, 1 - stores.carrier_accounts.calls_being_placed(account.id))
    return room
