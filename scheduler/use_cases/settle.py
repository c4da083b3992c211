"""Settle: what nobody has spoken of is asked for, until it is proven or given up. Nothing here ever dials."""

from collections.abc import Callable
from uuid import UUID

from scheduler.carriers.interface import CarrierDesk, CarrierUnavailable
from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState, Expired, HangUpCause, Phase, ProofMissing
from scheduler.domain.call import CallNews, ListedCall
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import Alarm
from scheduler.lifecycle.policy import ASK_EVERY, Policy
from scheduler.logs import log
from scheduler.persistence.database import Database, DatabaseAway
from scheduler.persistence.stray_calls import StrayCall
from scheduler.use_cases.consequences import Alarmed, Consequences, sound

_log = log(__name__)
_A_ROUND = 100
_ACTOR = "settle"


class Settle:
    def __init__(
        self, database: Database, desk: CarrierDesk, consequences: Consequences, policy: Policy, now: Now
    ) -> None:
        self._database = database
        self._desk = desk
        self._consequences = consequences
        self._policy = policy
        self._now = now

    def round(self) -> None:
        """Expire, notice lapsed leases, ask the carrier. Any number may run at once. Raises DatabaseAway."""
        if not self._database.clock_is_right():
            return
        self._expire()
        self._notice_silence()
        for stray in self._take_strays():
            self._end_stray(stray)
        for attempt in self._take_looks():
            self._try(self._look, attempt)

    def _try(self, verb: Callable[[Attempt], None], attempt: Attempt) -> None:
        """One that cannot be settled keeps no other waiting; the next round tries again. Raises DatabaseAway."""
        try:
            verb(attempt)
        except DatabaseAway:
            raise
        except Exception:  # noqa: BLE001 - the others get their turn
            _log.exception("an attempt could not be settled", attempt_id=str(attempt.id))

    def _expire(self) -> None:
        now = self._now()
        with self._database.transaction() as stores:
            expired = stores.attempts.to_expire(now, _A_ROUND)
        for attempt in expired:
            self._try(self._end_expired, attempt)

    def _end_expired(self, attempt: Attempt) -> None:
        now = self._now()
        with self._database.transaction() as stores:
            interview = stores.interviews.lock(attempt.interview_id)
            locked = stores.attempts.lock_as_of(attempt.id, attempt.epoch)
            if locked is not None and locked.state is AttemptState.PENDING and locked.expires_at <= now:
                self._consequences.take_in(stores, interview, locked, [Expired()], _ACTOR, now)

    def _notice_silence(self) -> None:
        now = self._now()
        with self._database.transaction() as stores:
            silent = stores.attempts.silent(now, _A_ROUND)
        for attempt in silent:
            self._try(self._lose_the_answer, attempt)

    def _lose_the_answer(self, attempt: Attempt) -> None:
        now = self._now()
        with self._database.transaction() as stores:
            interview = stores.interviews.lock(attempt.interview_id)
            locked = stores.attempts.lock_as_of(attempt.id, attempt.epoch)
            event = decisions.on_silence(locked, now) if locked is not None else None
            if locked is not None and event is not None:
                self._consequences.take_in(stores, interview, locked, [event], _ACTOR, now)
                _log.warning("a lease is over without a record", attempt_id=str(attempt.id))

    # ---- calls that must not be

    def _take_strays(self) -> list[StrayCall]:
        now = self._now()
        with self._database.transaction() as stores:
            return stores.stray_calls.take(now, now + ASK_EVERY, _A_ROUND)

    def _end_stray(self, stray: StrayCall) -> None:
        """Cancelled and never hung up: were it answered by now, a person would be cut off."""
        try:
            self._desk.cancel(stray.call_sid)
        except CarrierUnavailable:
            _log.warning("a stray call could not be ended yet", attempt_id=str(stray.attempt_id))
            return
        with self._database.transaction() as stores:
            stores.stray_calls.ended(stray.call_sid)

    # ---- calls that somebody owes us news of

    def _take_looks(self) -> list[Attempt]:
        now = self._now()
        with self._database.transaction() as stores:
            return stores.attempts.take_looks(now, now + ASK_EVERY, _A_ROUND)

    def _look(self, attempt: Attempt) -> None:
        """Ask the carrier, outside any transaction, and take in what it says if nothing else has happened since."""
        try:
            self._end_at_the_carrier(attempt)
            heard = self._ask(attempt)
        except CarrierUnavailable:
            _log.warning("the carrier could not be asked", attempt_id=str(attempt.id))
            heard = decisions.on_no_answer(attempt, self._now(), self._policy)
        try:
            self._take_in(attempt.id, attempt.epoch, heard)
        except Alarmed as alarmed:
            self._sound(alarmed)

    def _end_at_the_carrier(self, attempt: Attempt) -> None:
        """Asked for again until it is over; what became of it the carrier then says."""
        if attempt.hang_up is None or attempt.call_sid is None:
            return
        if attempt.hang_up is HangUpCause.COMPANY_DELETED:
            self._desk.hang_up(attempt.call_sid)
        else:
            self._desk.cancel(attempt.call_sid)

    def _ask(self, attempt: Attempt) -> CallNews | ProofMissing | Alarm | None:
        if attempt.phase is not Phase.UNKNOWN:
            assert attempt.call_sid is not None
            return self._desk.fetch(attempt.call_sid)
        return decisions.on_listing(attempt, self._unbound(attempt), self._now(), self._policy)

    def _unbound(self, attempt: Attempt) -> list[ListedCall]:
        """The carrier's calls that may be this attempt's: between its two numbers, around its claim, nobody else's."""
        with self._database.transaction() as stores:
            to, caller = stores.attempts.numbers_of(attempt.id)
        if to is None or caller is None:
            return []
        created_from, created_until = decisions.listing_span(attempt, self._policy)
        listed = self._desk.listed(to=to, caller=caller, created_from=created_from, created_until=created_until)
        with self._database.transaction() as stores:
            bound = stores.attempts.bound_sids(call.news.call_sid for call in listed)
        return [call for call in listed if call.news.call_sid not in bound]

    def _take_in(self, attempt_id: UUID, epoch: int, heard: CallNews | ProofMissing | Alarm | None) -> None:
        """Raises Alarmed, and then nothing is written."""
        now = self._now()
        with self._database.transaction() as stores:
            interview_id = stores.attempts.interview_of(attempt_id)
            if interview_id is None:
                return  # it was erased since we asked
            interview = stores.interviews.lock(interview_id)
            attempt = stores.attempts.lock_as_of(attempt_id, epoch)
            if attempt is None:
                return  # somebody heard something since we asked
            if isinstance(heard, Alarm):
                raise Alarmed(heard, attempt)
            # Before the news: what they bring may set a time of its own.
            stores.attempts.look_again(attempt_id, epoch, decisions.next_look(attempt, now))
            match heard:
                case ProofMissing():
                    self._consequences.take_in(stores, interview, attempt, [heard], _ACTOR, now)
                    _log.error(
                        "nothing proves whether it rang; a person decides",
                        alarm="OUTCOME_UNKNOWN",
                        attempt_id=str(attempt_id),
                    )
                case CallNews():
                    attempt = stores.attempts.lock(attempt_id)
                    self._consequences.hear(stores, interview, attempt, heard, _ACTOR, now)

    def _sound(self, alarmed: Alarmed) -> None:
        """In this order of locks: the company before its attempts."""
        now, attempt = self._now(), alarmed.attempt
        with self._database.transaction() as stores:
            sound(stores, alarmed, now)
            stores.attempts.look_again(attempt.id, attempt.epoch, decisions.next_look(attempt, now))
