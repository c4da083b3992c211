"""Settle: what nobody has spoken of is asked for, until it is proven or given up. Nothing here ever dials."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from scheduler.carriers.interface import CarrierAway, CarrierDesk, CarrierUnavailable
from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt, Expired, HangUpCause, Phase, ProofMissing
from scheduler.domain.call import CallNews, ListedCall
from scheduler.failpoints import failpoint
from scheduler.lifecycle import breaker, decisions
from scheduler.lifecycle.decisions import Alarm
from scheduler.lifecycle.policy import ASK_EVERY, Policy
from scheduler.logs import log
from scheduler.persistence.database import Database, DatabaseAway
from scheduler.persistence.stray_calls import StrayCall
from scheduler.use_cases.consequences import Alarmed, Consequences

_log = log(__name__)
_A_ROUND = 100
_A_HANDFUL = 10
"""So many are taken up at once: what a round has no time for is held from the others for no longer than a look."""
_LONGEST_ROUND = timedelta(seconds=10)
"""No question is begun later. One that hangs may take its whole deadline longer, and is then the last."""
_ACTOR = "settle"


@dataclass
class _Round:
    """What one round may still ask."""

    ends: float
    """On the monotonic clock."""
    carrier_is_away: bool = False
    """Somebody was told so in this round; nobody else waits for the same."""

    @property
    def is_over(self) -> bool:
        return monotonic() >= self.ends


class Settle:
    def __init__(
        self,
        database: Database,
        desk: CarrierDesk,
        account_id: int,
        consequences: Consequences,
        policy: Policy,
        now: Now,
        *,
        longest_round: timedelta = _LONGEST_ROUND,
    ) -> None:
        self._database = database
        self._desk = desk
        self._account_id = account_id
        self._longest_round = longest_round
        self._consequences = consequences
        self._policy = policy
        self._now = now

    def round(self) -> None:
        """Expire, notice lapsed leases, ask the carrier. Any number may run at once. Raises DatabaseAway.

        What needs no carrier comes first, and the first question that shows it to be away is the round's last.
        """
        self._expire()
        self._notice_silence()
        this = _Round(ends=monotonic() + self._longest_round.total_seconds())
        self._probe(this)
        self._end_strays(this)
        self._look_around(this)

    def _try(self, verb: Callable[[Attempt], None], attempt: Attempt) -> None:
        """One that cannot be settled keeps no other waiting; the next round tries again. Raises DatabaseAway."""
        try:
            verb(attempt)
        except DatabaseAway:
            raise
        except Exception:  # noqa: BLE001 - the others get their turn
            _log.exception("an attempt could not be settled", attempt_id=str(attempt.id))

    def _expire(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            expired = stores.attempts.to_expire(now, _A_ROUND)
        for attempt in expired:
            self._try(self._end_expired, attempt)

    def _end_expired(self, attempt: Attempt) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            interview = stores.interviews.lock(attempt.interview_id)
            locked = stores.attempts.lock_as_of(attempt.id, attempt.epoch)
            if locked is None or not stores.attempts.is_to_expire(locked.id, now):
                return
            self._consequences.take_in(stores, interview, locked, [Expired()], _ACTOR, now)
            failpoint("settle.expiring")
        failpoint("settle.expired")

    def _notice_silence(self) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            silent = stores.attempts.silent(now, _A_ROUND)
        for attempt in silent:
            self._try(self._lose_the_answer, attempt)

    def _lose_the_answer(self, attempt: Attempt) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            interview = stores.interviews.lock(attempt.interview_id)
            locked = stores.attempts.lock_as_of(attempt.id, attempt.epoch)
            event = decisions.on_silence(locked, now) if locked is not None else None
            if locked is None or event is None:
                return
            self._consequences.take_in(stores, interview, locked, [event], _ACTOR, now)
            _log.warning("a lease is over without a record", attempt_id=str(attempt.id))
            failpoint("settle.lapsing")
        failpoint("settle.lapsed")

    # ---- a carrier that is down

    def _probe(self, this: _Round) -> None:
        """Ask whether it is back by what rings nobody and spends nothing; on a good answer one call may be tried."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            # Not locked for nothing: every claim waits for that row.
            if not stores.carrier_accounts.get(self._account_id).breaker.is_to_be_asked(now):
                return
            before = stores.carrier_accounts.lock(self._account_id).breaker
            if not before.is_to_be_asked(now):
                return
            asked = breaker.while_asked(before, now)
            stores.carrier_accounts.set_breaker(self._account_id, asked, now)
        failpoint("settle.probe_begun")
        try:
            self._desk.probe()
            failpoint("settle.probe_answered")
        except CarrierUnavailable as error:
            this.carrier_is_away = isinstance(error, CarrierAway)
            _log.error(
                "the carrier does not answer; calls wait",
                alarm=f"CARRIER_{asked.cause}",
                until=asked.down_until and asked.down_until.isoformat(),
            )
            return
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            if stores.carrier_accounts.lock(self._account_id).breaker != asked:
                return  # somebody else asked after us
            stores.carrier_accounts.set_breaker(self._account_id, breaker.after_answer(before, now), now)
            stores.notify_due()
        failpoint("settle.on_trial")
        _log.info("the carrier answers again; one call is tried")

    # ---- calls that must not be

    def _end_strays(self, this: _Round) -> None:
        while not (this.carrier_is_away or this.is_over):
            strays = self._take_strays()
            if not strays:
                return
            for stray in strays:
                if not (this.carrier_is_away or this.is_over):
                    self._end_stray(stray, this)

    def _take_strays(self) -> list[StrayCall]:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            return stores.stray_calls.take(now, now + ASK_EVERY, _A_HANDFUL)

    def _end_stray(self, stray: StrayCall, this: _Round) -> None:
        """Cancelled and never hung up: were it answered by now, a person would be cut off."""
        news = None
        try:
            self._desk.cancel(stray.call_sid)
            news = self._desk.fetch(stray.call_sid)
        except CarrierUnavailable as error:
            this.carrier_is_away = isinstance(error, CarrierAway)
            _log.warning("nobody can tell whether a stray call is over", attempt_id=str(stray.attempt_id))
        self._consequences.look_after(stray, news)

    # ---- calls that somebody owes us news of

    def _look_around(self, this: _Round) -> None:
        while not this.is_over:
            looks = self._take_looks()
            if not looks:
                return
            failpoint("settle.taken")
            for attempt in looks:
                if not this.is_over:
                    self._try(lambda attempt: self._look(attempt, this), attempt)

    def _take_looks(self) -> list[Attempt]:
        """Those that were asked about least come first: one whose answer hangs is not first again."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            taken = stores.attempts.take_looks(now, now + ASK_EVERY, _A_HANDFUL)
        return sorted(taken, key=lambda attempt: attempt.looks)

    def _look(self, attempt: Attempt, this: _Round) -> None:
        """Ask the carrier, outside any transaction, and take in what it says if nothing else has happened since."""
        if this.carrier_is_away:
            missing = decisions.on_no_answer(attempt, self._now(), self._policy)
            if missing is not None:
                self._take_in(attempt.id, attempt.epoch, missing)
            return
        try:
            self._end_at_the_carrier(attempt)
            heard = self._ask(attempt)
            failpoint("settle.asked")
        except CarrierUnavailable as error:
            this.carrier_is_away = isinstance(error, CarrierAway)
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
        failpoint("cancel.hung_up")

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
        return [
            call
            for call in listed
            if call.news.call_sid not in bound  # guard: bound
        ]

    def _take_in(self, attempt_id: UUID, epoch: int, heard: CallNews | ProofMissing | Alarm | None) -> None:
        """Raises Alarmed, and then nothing is written."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
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
                    failpoint("settle.failing")
                    _log.error(
                        "nothing proves whether it rang; a person decides",
                        alarm="OUTCOME_UNKNOWN",
                        attempt_id=str(attempt_id),
                    )
                case CallNews() if decisions.names_no_cause(heard) and stores.carrier_events.is_one_unheard(
                    attempt.token or ""
                ):
                    pass  # the callback that waits to be heard may say why it failed; else it is asked about again
                case CallNews():
                    attempt = stores.attempts.lock(attempt_id)
                    self._consequences.hear(stores, interview, attempt, heard, _ACTOR, now)
                    failpoint("settle.proving")
        failpoint("settle.settled")

    def _sound(self, alarmed: Alarmed) -> None:
        """In this order of locks: the company before its attempts."""
        attempt = alarmed.attempt
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            self._consequences.sound_in(stores, alarmed, now)
            stores.attempts.look_again(attempt.id, attempt.epoch, decisions.next_look(attempt, now))
