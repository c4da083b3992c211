"""The database steps of one dial: claim, last look, record. `dialler` sends the POST between them.

    take ─► claim ─► last look ─► POST ─► record
            commit    ≤ 200 ms    once    fenced by the epoch

After any failure nothing is sent again. Before the POST the attempt returns to PENDING. After it the lease lapses and
`settle` polls the carrier.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from secrets import token_urlsafe
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, Claimed, Deferred, Event, HangUpWanted, Phase, Placed
from scheduler.domain.call import Accepted, CallNews, CallStatus, CarrierAnswer, NeverTaken
from scheduler.domain.company import ALARM
from scheduler.failpoints import failpoint
from scheduler.lifecycle import breaker, decisions
from scheduler.lifecycle.capacity import Allotment
from scheduler.lifecycle.decisions import Alarm
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, DEFERRED_DELAY, UNREADABLE_FOR
from scheduler.lifecycle.scheduling import Callee
from scheduler.logs import log
from scheduler.persistence.attempt_claims import CalleeNow, NextSlots
from scheduler.persistence.carrier_accounts import CarrierAccount, DatabaseName
from scheduler.persistence.database import BATCH_LOCK_S
from scheduler.persistence.errors import ClockWrong, DatabaseAway
from scheduler.persistence.stores import Stores
from scheduler.rules.operators import Comparison
from scheduler.rules.tallies import Sent, of_post
from scheduler.use_cases.dialling import look
from scheduler.use_cases.dialling.hand import (
    ClaimInDoubt,
    Claims,
    ClaimTooSlow,
    Hinted,
    PermittedOrder,
    SomeHeld,
    ToSend,
    account_free_at,
    allotment_of,
    is_full,
    room_of,
)
from scheduler.use_cases.dialling.look import LookFacts, PutBack
from scheduler.use_cases.dialling.record import CarrierJudge
from scheduler.use_cases.shared.alarms import raise_in
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.effects import InvariantViolated
from scheduler.use_cases.shared.situations import callee_from

_log = log(__name__)
_ACTOR = "dial"


class Dial:
    """The database steps of one dial, each one short transaction."""

    def __init__(self, context: Context, account_id: int) -> None:
        self._database = context.database
        self._hasher = context.hasher
        self._account_id = account_id
        self._effects = context.effects
        self._judge = CarrierJudge(context.database, context.hasher, account_id, context.now)
        self._policy = context.policy
        self._now = context.now
        self.look_took: timedelta | None = None
        """Duration of the most recent last-look statement. None before the first."""

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
            companies = stores.companies.lock_for_claim(ids)
            # After the wait for the locks: slots that pass meanwhile would all be used at once.
            now = stores.instant(self._now)
            ahead = stores.noticed_ahead()
            found = stores.attempt_claims.lock_claimable(ids, now, ahead)
            claimable = found.attempts
            # After all locks: see `facts`.
            facts = stores.attempt_claims.facts(
                account.id, ids, companies.keys(), [each.interview_id for each in claimable]
            )
            locked = facts.companies - companies.keys()
            if not companies and not locked:
                return Claims()
            if not self._database_is_unchanged(stores, account, facts.database, now):  # guard: database
                return Claims(is_stopped=True)
            stores.attempt_claims.put_off_unreadable(found.unreadable, now + UNREADABLE_FOR)
            left = stores.attempt_claims.left(ids, [*found.unreadable, *(each.id for each in claimable)], now, ahead)
            claimable = _allowed_by(facts.callees, claimable)
            held = {each.id for each in claimable if each.company_id in locked}
            claimable = [each for each in claimable if each.company_id in companies]
            if facts.has_backoffs:
                account = stores.carrier_accounts.with_backoffs(account)
                waits = self._judge.may_not_be_claimed(stores, account, [each.id for each in claimable])
                claimable = [each for each in claimable if each.id not in waits]
            room = room_of(account, facts)
            allotment = allotment_of(claimable, account, room, companies, facts, now)
            claimed += self._claim(stores, claimable, facts.callees, allotment, now, started)
            if monotonic() - started > self._policy.send_within.total_seconds():
                claimed.clear()
                raise ClaimTooSlow
        claimed_ids = {each.attempt.id for each in claimed}
        waiting = [each for each in claimable if each.id not in claimed_ids]
        return Claims(
            claimed=tuple(claimed),
            waiting=left.locked_elsewhere | held | {each.id for each in waiting},
            early=left.early,
            unplaced=frozenset(each.id for each in waiting),
            # There is no event for an unlocked row, so the claim is tried again soon.
            try_again_at=None if left.locked_elsewhere or held else allotment.try_again_at,
            full=frozenset(company_id for company_id, pace in allotment.companies.items() if is_full(pace, now)),
            locked=locked,
            unlocked=frozenset(companies),
            account_free_at=account_free_at(allotment, room, now),
            account=allotment.account,
            companies=allotment.companies,
        )

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

    def _claim(
        self,
        stores: Stores,
        claimable: Sequence[Attempt],
        callees: Mapping[UUID, CalleeNow],
        allotment: Allotment,
        now: datetime,
        started: float,
    ) -> list[ToSend]:
        by_id = {each.id: each for each in claimable}
        events: list[tuple[Attempt, Claimed, str | None]] = []
        for place in allotment.places:
            attempt = by_id[place.attempt_id]
            event = Claimed(token=token_urlsafe(24), lease_until=now + self._policy.lease)
            events.append((attempt, event, callees[attempt.interview_id].phone_number))
        moved: list[Attempt] = []
        if events:
            called = {attempt.company_id for attempt, _, _ in events}
            slots = NextSlots(
                account=allotment.account.next_slot_at,
                companies={each: allotment.companies[each].next_slot_at for each in called},
            )
            moved = stores.attempt_claims.claim_all(events, self._account_id, _ACTOR, now, slots)
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

    def prove(self) -> None:
        """Raise DatabaseAway or WrongDatabase unless claims work now."""
        self._database.prove()

    def try_look(self, attempt_id: UUID) -> timedelta:
        """Measure the statement of a last look. The attempt need not be claimed. Raises DatabaseAway."""
        with self._database.statement() as stores:
            looked = monotonic()
            stores.attempt_claims.look(attempt_id)
            return self._note_look(monotonic() - looked)

    def _note_look(self, seconds: float) -> timedelta:
        self.look_took = timedelta(seconds=seconds)
        return self.look_took

    def look_all(self, attempts: Sequence[Attempt]) -> LookFacts:
        """Read the facts for the last looks of several calls that are sent next, in one query.

        Raises DatabaseAway: nothing may be sent.
        """
        # One round trip: with a slow network the result of a transaction of four would be too old.
        with self._database.statement() as stores:
            looked, looked_at = monotonic(), self._now()
            rows = stores.attempt_claims.look_all([each.id for each in attempts])
            answered_at = monotonic()
            self._note_look(answered_at - looked)
        if not rows:
            return LookFacts(rows=rows, looked_at=looked_at, looked=looked, ahead=timedelta())
        database_clock = next(iter(rows.values())).database_clock
        comparison = Comparison(database_clock=database_clock, asked_at=looked, answered_at=answered_at)
        ahead = self._database.ahead(comparison)
        return LookFacts(rows=rows, looked_at=looked_at, looked=looked, ahead=ahead)

    def verdict(self, attempt: Attempt, facts: LookFacts) -> PermittedOrder | PutBack | None:
        """Decide on the order to send now, or the events for `put_back`. None: it belongs to another worker."""
        return look.verdict(attempt, facts, self._hasher, self._now(), self._policy)

    def put_back(self, attempt: Attempt, put_back: PutBack) -> None:
        """Put back an attempt whose call may not be placed. Raises DatabaseAway."""
        self._give_back(attempt, lambda _: put_back.events)

    def last_look(self, attempt: Attempt) -> PermittedOrder | None:
        """Look a last time at an attempt. None: its call may not be placed, and the attempt was put back."""
        found = self.verdict(attempt, self.look_all([attempt]))
        if not isinstance(found, PutBack):
            return found
        self.put_back(attempt, found)
        return None

    def give_back(self, attempt: Attempt, cause: str) -> None:
        """Give an attempt back to PENDING for which nothing was sent, due in 5 s. Raises DatabaseAway."""
        self._give_back(attempt, lambda now: (Deferred(due_at=now + DEFERRED_DELAY, cause=cause),))

    def _give_back(self, attempt: Attempt, events_at: Callable[[datetime], Sequence[Event]]) -> None:
        """Write also on a wrong clock, in the database's time: no other process knows that nothing was sent."""
        with self._database.transaction(corrected=True) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            batch = Batch.locked(stores, {attempt.id: attempt.interview_id})
            self._write(batch, attempt, events_at(now), now)
            failpoint("dial.deferring")
        failpoint("dial.deferred")

    def record(
        self, answers: Sequence[tuple[Attempt, CarrierAnswer]], sent: Mapping[UUID, Sent] | None = None
    ) -> list[str]:
        """Write the answers to the POSTs, at most 200 in a transaction, each only if its claim is still current.

        `sent`: the measured times of the POSTs, by attempt. Returns the calls to cancel in the carrier's queue. Raises
        DatabaseAway and LockTaken: the transaction of up to 200 answers was rolled back. Raises SomeHeld.
        """
        to_cancel: list[str] = []
        held: set[UUID] = set()
        at_once = len(answers) or 1
        at_once = min(at_once, AT_MOST_A_TRANSACTION)  # guard: record_size
        for start in range(0, len(answers), at_once):
            held |= self._record(answers[start : start + at_once], sent or {}, to_cancel)
        if held:
            raise SomeHeld(frozenset(held), to_cancel)
        return to_cancel

    def _record(
        self,
        answers: Sequence[tuple[Attempt, CarrierAnswer]],
        sent: Mapping[UUID, Sent],
        to_cancel: list[str],
    ) -> frozenset[UUID]:
        """Record answers in one transaction. Return the attempts that other transactions have locked."""
        alarms: list[InvariantViolated] = []
        with self._database.transaction(corrected=True, lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            batch, held = Batch.free(stores, {attempt.id: attempt.interview_id for attempt, _ in answers})
            # An attempt that this release cannot read is settled by a worker that can.
            answers = [each for each in answers if batch.has(each[0].id)]
            for attempt, answer in answers:
                events = decisions.on_answer(attempt, answer, _callee(batch, attempt, answer), now, self._policy)
                written, new_alarms = self._write(batch, attempt, events, now)
                alarms.extend(new_alarms)
                ends = written is not None and written.hang_up is not None
                if isinstance(answer, Accepted) and (ends or _wants_hang_up(events)):
                    to_cancel.append(answer.call_sid)
                if attempt.id in sent:
                    stores.tallies.add(of_post(answer, sent[attempt.id]))
            failpoint("dial.recording")
        failpoint("dial.recorded")
        for alarmed in alarms:
            self._effects.pause_for_alarm(alarmed)
        for attempt, answer in answers:
            self._report_refused_order(attempt, answer)
        self._judge.hear(answers)
        return held

    def _report_refused_order(self, attempt: Attempt, answer: CarrierAnswer) -> None:
        """Raise an alarm for a refusal of one order that a retry does not fix: a URL, a trial account."""
        if (
            isinstance(answer, NeverTaken)
            and answer.cause not in breaker.PERMISSIONS | {"NOT_SENT"}
            and breaker.shows_that_it_works(answer)
        ):
            _log.error(
                "order_refused: the carrier refused a call that retrying does not fix",
                alarm=answer.cause,
                attempt_id=str(attempt.id),
                company_id=str(attempt.company_id),
            )

    def _write(
        self, batch: Batch, attempt: Attempt, events: Sequence[Event], now: datetime
    ) -> tuple[Attempt | None, list[InvariantViolated]]:
        """Apply the events. Return the attempt, or None for a late record together with the alarms that it raises."""
        # Locked, and so read after the commit of a claim in doubt, which holds this lock until then.
        present = batch.attempt(attempt.id)
        is_late = (
            present.epoch != attempt.epoch,  # guard: record_epoch
            # After a confirmed commit the epoch would do. After a claim in doubt another worker may have that epoch.
            present.token != attempt.token,  # guard: token
        )
        if any(is_late):
            # The lease was settled, or the carrier called back first.
            _log.info(
                "late_record_dropped: the attempt was settled or moved on before this answer could be recorded",
                attempt_id=str(attempt.id),
                epoch=attempt.epoch,
            )
            alarms = self._alarms_of_late_record(batch.stores, attempt, present, events, now)
            if not alarms:
                # The dialler cancels it. Without this, its end would look like a cancellation by someone else.
                wanted = [each for each in events if isinstance(each, HangUpWanted) and _is_call_of(present, events)]
                if wanted:
                    self._effects.apply_events(batch, present, wanted, _ACTOR, now)
            return None, alarms
        return self._effects.apply_events(batch, present, events, _ACTOR, now), []

    def _alarms_of_late_record(
        self, stores: Stores, attempt: Attempt, present: Attempt, events: Sequence[Event], now: datetime
    ) -> list[InvariantViolated]:
        """Find an alarm if a late record names a call that cannot be the attempt's. Nothing is written."""
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


def _is_call_of(present: Attempt, events: Sequence[Event]) -> bool:
    """Return True if a late record names the call that the attempt has been found to have, and it has not ended."""
    sids = {each.call_sid for each in events if isinstance(each, Placed)}
    return present.phase is Phase.PLACED and present.hang_up is None and present.call_sid in sids


def _wants_hang_up(events: Sequence[Event]) -> bool:
    return any(isinstance(event, HangUpWanted) for event in events)


def _callee(batch: Batch, attempt: Attempt, answer: CarrierAnswer) -> Callee | None:
    """Load the callee of a call in the carrier's queue, to decide whether it would ring too late."""
    if not isinstance(answer, Accepted) or not answer.queue_time:
        return None
    return callee_from(batch.callee_of(attempt.interview_id))


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
