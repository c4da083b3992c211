"""Settle: what nobody has spoken of is asked for, until it is proven or given up. Nothing here ever dials."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.carriers.interface import CarrierAway, CarrierQueries, CarrierUnavailable
from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt, Expired, HangUpCause, Phase, ProofMissing
from scheduler.domain.call import CallNews, ListedCall
from scheduler.failpoints import failpoint
from scheduler.lifecycle import backoffs, breaker, decisions
from scheduler.lifecycle.backoffs import Backoffs
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.decisions import Alarm
from scheduler.lifecycle.policy import ASK_EVERY, POLLS, Policy
from scheduler.logs import log
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.persistence.database import Database, DatabaseAway, LockTaken, Stores
from scheduler.persistence.stray_calls import StrayCall
from scheduler.use_cases.operations.correct import Correct
from scheduler.use_cases.shared.conflicts import again_at_once
from scheduler.use_cases.shared.effects import Effects, InvariantViolated

_log = log(__name__)
_A_ROUND = 100
_A_HANDFUL = 10
"""So many are taken up at once: what a round has no time for is held from the others for no longer than a look."""
_LONGEST_ROUND = timedelta(seconds=10)
"""No question is begun later. One that hangs may take its whole deadline longer, and is then the last."""
_ALARM_EVERY = POLLS[-1]
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


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """A list of calls that was read in full."""

    asked_at: datetime
    calls: Sequence[ListedCall]


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """What the carrier answered about one attempt."""

    what: CallNews | ProofMissing | Alarm | None
    listed_at: datetime | None = None
    """When it was asked for a list, if that was read in full."""


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """How the account and the back-offs stood before a question, and stand while it is out."""

    before: CarrierAccount
    account: Breaker
    backoffs: Backoffs


class Settle:
    def __init__(
        self,
        database: Database,
        desk: CarrierQueries,
        account_id: int,
        effects: Effects,
        policy: Policy,
        now: Now,
        *,
        longest_round: timedelta = _LONGEST_ROUND,
    ) -> None:
        self._database = database
        self._desk = desk
        self._account_id = account_id
        self._longest_round = longest_round
        self._correct = Correct(database, policy, now)
        self._effects = effects
        self._policy = policy
        self._now = now
        self._alarmed_at: datetime | None = None

    def round(self) -> None:
        """Expire, notice lapsed leases, ask the carrier. Any number may run at once. Raises DatabaseAway.

        What needs no carrier comes first, and the first question that shows it to be away is the round's last.
        """
        self._correct.round()
        self._expire()
        self._notice_silence()
        this = _Round(ends=monotonic() + self._longest_round.total_seconds())
        self._probe(this)
        self._end_strays(this)
        self._look_around(this)
        self._search_around(this)
        self._report_undecided()

    def _try(self, verb: Callable[[Attempt], None], attempt: Attempt) -> None:
        """One that cannot be settled keeps no other waiting; the next round tries again. Raises DatabaseAway."""
        try:
            again_at_once(lambda: verb(attempt))
        except LockTaken:
            _log.warning("settle_conflict", attempt_id=str(attempt.id))
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
            self._effects.apply_events(stores, interview, locked, [Expired()], _ACTOR, now)
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
            self._effects.apply_events(stores, interview, locked, [event], _ACTOR, now)
            _log.warning("a lease is over without a record", attempt_id=str(attempt.id))
            failpoint("settle.lapsing")
        failpoint("settle.lapsed")

    # ---- a carrier that is down

    def _probe(self, this: _Round) -> None:
        """Ask whether it is back with a request that calls no person and costs nothing; a good answer permits one call.

        Asked too when one company's calls have failed, at once: whether it is the carrier. Only a question in vain
        then closes the account to the others.
        """
        asked = self._begin_to_ask()
        if asked is None:
            return
        failpoint("settle.probe_begun")
        try:
            self._desk.probe()
            failpoint("settle.probe_answered")
        except CarrierUnavailable as error:
            this.carrier_is_away = isinstance(error, CarrierAway)
            self._ask_in_vain(asked)
            return
        if self._take_the_answer(asked):
            failpoint("settle.on_trial")
            _log.info("the carrier answers again; one call is tried")

    def _begin_to_ask(self) -> _Asked | None:
        """None: nothing is to be asked now, or another worker asks."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            # Not locked for nothing: every claim waits for that row.
            if not stores.carrier_accounts.get(self._account_id).is_to_be_asked(now):
                return None
            before = stores.carrier_accounts.lock(self._account_id)
            if not before.is_to_be_asked(now):
                return None
            asked = before.breaker
            if asked.is_to_be_asked(now):
                asked = breaker.while_asked(asked, now)
                stores.carrier_accounts.set_breaker(self._account_id, asked, now)
            held = {
                scope: backoffs.while_asked(each, now) if each.is_to_be_asked(now) else each
                for scope, each in before.backoffs.items()
            }
            if held != before.backoffs:
                stores.backoffs.save(self._account_id, held, now)
        return _Asked(before=before, account=asked, backoffs=held)

    def _ask_in_vain(self, asked: _Asked) -> None:
        """The carrier does not answer, so it is not one company's trouble: the account is closed."""
        judged = asked.account
        spoke = [each for each in asked.backoffs.values() if each.breaker.is_down and each.speaks_of_the_carrier]
        if not judged.is_down:
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                account = stores.carrier_accounts.lock(self._account_id)
                cause = spoke[0].cause if spoke else "NO_ANSWER_IN_TIME"
                judged = breaker.after_question_in_vain(account.breaker, cause, now)
                stores.carrier_accounts.set_breaker(self._account_id, judged, now)
                stores.backoffs.save(self._account_id, backoffs.without_the_carriers(account.backoffs), now)
        _log.error(
            "the carrier does not answer; calls wait",
            alarm=f"CARRIER_{judged.cause}",
            until=judged.down_until and judged.down_until.isoformat(),
        )

    def _take_the_answer(self, asked: _Asked) -> bool:
        """Whether calls are tried from now on."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            account = stores.carrier_accounts.lock(self._account_id)
            # What has changed since was asked after us, or was told by a call.
            is_tried = asked.account != asked.before.breaker and account.breaker == asked.account
            if is_tried:
                answered = breaker.after_answer(asked.before.breaker, now)
                stores.carrier_accounts.set_breaker(self._account_id, answered, now)
            held = dict(account.backoffs)
            for scope, each in asked.backoffs.items():
                if held.get(scope) == each and each.breaker != asked.before.backoffs[scope].breaker:
                    held[scope] = backoffs.after_answer(asked.before.backoffs[scope], now)
                    is_tried = True
            if held != account.backoffs:
                stores.backoffs.save(self._account_id, held, now)
            stores.notify_due()
        return is_tried

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
        self._effects.track_stray(stray, news)

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
                self._take_in(attempt.id, attempt.epoch, _Heard(what=missing))
            return
        try:
            self._end_at_the_carrier(attempt)
            heard = self._ask(attempt)
            failpoint("settle.asked")
        except CarrierUnavailable as error:
            this.carrier_is_away = isinstance(error, CarrierAway)
            _log.warning("the carrier could not be asked", attempt_id=str(attempt.id))
            heard = _Heard(what=decisions.on_no_answer(attempt, self._now(), self._policy))
        try:
            self._take_in(attempt.id, attempt.epoch, heard)
        except InvariantViolated as alarmed:
            self._sound(alarmed, heard.listed_at)

    def _end_at_the_carrier(self, attempt: Attempt) -> None:
        """Asked for again until it is over; what became of it the carrier then says."""
        if attempt.hang_up is None or attempt.call_sid is None:
            return
        if attempt.hang_up is HangUpCause.COMPANY_DELETED:
            self._desk.hang_up(attempt.call_sid)
        else:
            self._desk.cancel(attempt.call_sid)
        failpoint("cancel.hung_up")

    def _ask(self, attempt: Attempt) -> _Heard:
        """Raises CarrierUnavailable."""
        if attempt.phase is not Phase.UNKNOWN:
            assert attempt.call_sid is not None
            return _Heard(what=self._desk.fetch(attempt.call_sid))
        listed = self._unbound(attempt)
        what = decisions.on_listing(attempt, listed.calls, listed.asked_at, self._policy)
        if isinstance(what, CallNews) and decisions.names_no_cause(what):
            what = self._desk.fetch(what.call_sid)
        return _Heard(what=what, listed_at=listed.asked_at)

    def _unbound(self, attempt: Attempt) -> _Listed:
        """Return the carrier's calls that may be this attempt's: its two numbers, around its claim, no other's.

        Raises CarrierUnavailable, also for a list that broke off, and when the number is no longer known.
        """
        with self._database.transaction() as stores:
            asked_at = stores.instant(self._now)
            to, caller = stores.attempts.numbers_of(attempt.id)
        if to is None or caller is None:
            raise CarrierUnavailable
        created_from, created_until = decisions.listing_span(attempt, self._policy)
        listed = self._desk.listed(to=to, caller=caller, created_from=created_from, created_until=created_until)
        with self._database.reading() as stores:
            bound = stores.attempts.bound_sids(call.news.call_sid for call in listed)
        unbound = [
            call
            for call in listed
            if call.news.call_sid not in bound  # guard: bound
        ]
        return _Listed(asked_at=asked_at, calls=unbound)

    def _take_in(self, attempt_id: UUID, epoch: int, heard: _Heard) -> None:
        """Raises Alarmed, and then nothing is written."""
        what = heard.what
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            interview_id = stores.attempts.interview_of(attempt_id)
            if interview_id is None:
                return  # it was erased since we asked
            interview = stores.interviews.lock(interview_id)
            attempt = stores.attempts.lock_as_of(attempt_id, epoch)
            if attempt is None:
                return  # somebody heard something since we asked
            if isinstance(what, Alarm):
                raise InvariantViolated(what, attempt)
            # Before the news: what they bring may set a time of its own.
            stores.attempts.look_again(attempt_id, epoch, decisions.next_look(attempt, now), heard.listed_at)
            match what:
                case ProofMissing():
                    attempt = replace(attempt, listed_at=heard.listed_at or attempt.listed_at)
                    verdict = decisions.on_no_answer(attempt, now, self._policy)
                    if verdict is None:
                        return  # the clock was set since the carrier was asked
                    self._effects.apply_events(stores, interview, attempt, [verdict], _ACTOR, now)
                    failpoint("settle.failing")
                    _log.error(
                        "nothing proves whether it rang; a person decides",
                        alarm="OUTCOME_UNKNOWN",
                        attempt_id=str(attempt_id),
                    )
                case CallNews() if _may_be_told_why(stores, attempt, what):
                    pass  # it is asked about again
                case CallNews():
                    attempt = stores.attempts.lock(attempt_id)
                    self._effects.hear(stores, interview, attempt, what, _ACTOR, now)
                    failpoint("settle.proving")
        failpoint("settle.settled")

    def _sound(self, alarmed: InvariantViolated, listed_at: datetime | None) -> None:
        """In this order of locks: the company before its attempts."""
        attempt = alarmed.attempt
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            self._effects.sound_in(stores, alarmed, now)
            stores.attempts.look_again(attempt.id, attempt.epoch, decisions.next_look(attempt, now), listed_at)

    # ---- calls of attempts that were given up

    def _search_around(self, this: _Round) -> None:
        while not this.is_over:
            searches = self._take_searches()
            if not searches:
                return
            for attempt in searches:
                if not this.is_over:
                    self._try(lambda attempt: self._search(attempt, this), attempt)

    def _take_searches(self) -> list[Attempt]:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            taken = stores.attempts.take_searches(now, now + ASK_EVERY, _A_HANDFUL)
        return sorted(taken, key=lambda attempt: attempt.looks)

    def _search(self, attempt: Attempt, this: _Round) -> None:
        """Search the carrier's list for the call, outside any transaction, and take in what it proves."""
        listed: _Listed | None = None
        if not this.carrier_is_away:
            try:
                listed = self._unbound(attempt)
            except CarrierUnavailable as error:
                this.carrier_is_away = isinstance(error, CarrierAway)
                _log.warning("the carrier could not be asked", attempt_id=str(attempt.id))
        try:
            self._take_in_search(attempt, listed)
        except InvariantViolated as alarmed:
            with self._database.transaction() as stores:
                self._effects.sound_in(stores, alarmed, stores.instant(self._now))
                self._search_again(stores, attempt, listed)

    def _take_in_search(self, searched: Attempt, listed: _Listed | None) -> None:
        """Raises Alarmed, and then nothing is written."""
        found = None if listed is None else decisions.on_search(listed.calls)
        with self._database.transaction() as stores:
            interview_id = stores.attempts.interview_of(searched.id)
            if interview_id is None:
                return  # it was erased since we asked
            interview = stores.interviews.lock(interview_id)
            attempt = stores.attempts.lock_as_of(searched.id, searched.epoch)
            if attempt is None:
                return  # something was heard since we asked
            if isinstance(found, Alarm):
                raise InvariantViolated(found, attempt)
            self._search_again(stores, attempt, listed)
            if found is not None and not _may_be_told_why(stores, attempt, found):
                attempt = stores.attempts.lock(attempt.id)
                self._effects.hear(stores, interview, attempt, found, _ACTOR, stores.instant(self._now))

    def _search_again(self, stores: Stores, attempt: Attempt, listed: _Listed | None) -> None:
        """Set the time of the next search. While no list was read, the line rests until after it."""
        now, listed_at = stores.instant(self._now), None if listed is None else listed.asked_at
        search_at = decisions.next_search(attempt, None if listed is None else listed.calls, now, self._policy)
        stores.attempts.search_again(attempt.id, attempt.epoch, search_at, listed_at)
        attempt = replace(attempt, search_at=search_at, listed_at=listed_at or attempt.listed_at)
        if (
            search_at is not None
            and attempt.number_hash is not None
            and not decisions.was_listed(attempt, self._policy)
        ):
            stores.lines.keep_free(attempt.number_hash, decisions.line_free_at(attempt, now, self._policy))

    def _report_undecided(self) -> None:
        """Raise an alarm while verdicts are overdue because no list can be read; at most one line in ten minutes."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            if self._alarmed_at is not None and self._alarmed_at <= now < self._alarmed_at + _ALARM_EVERY:
                return
            count, oldest_at = stores.attempts.undecided(decisions.undecided_before(now, self._policy))
        if not count or oldest_at is None:
            return
        self._alarmed_at = now
        _log.error(
            "the carrier's list of calls could not be read; outcomes stay undecided and their numbers are not called",
            alarm="OUTCOME_UNDECIDED",
            count=count,
            seconds=int((now - oldest_at).total_seconds()),
        )


def _may_be_told_why(stores: Stores, attempt: Attempt, news: CallNews) -> bool:
    """Return whether a callback that waits to be heard may say why the call failed; asked, the carrier does not."""
    return decisions.names_no_cause(news) and stores.carrier_events.is_one_unheard(attempt.token or "")
