"""Settle: poll the carrier about calls without news, until their outcome is proven or given up. Never dials."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.carriers.interface import CarrierAway, CarrierQueries, CarrierUnavailable
from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, Expired, HangUpCause, Phase, ProofMissing
from scheduler.domain.call import CallNews, CallStatus, ListedCall
from scheduler.failpoints import failpoint
from scheduler.lifecycle import decisions, settling
from scheduler.lifecycle.call_reasons import may_lack_instructions, names_no_cause
from scheduler.lifecycle.decisions import Alarm
from scheduler.lifecycle.policy import ASK_EVERY, POLLS
from scheduler.logs import log
from scheduler.persistence.attempt_polls import AttemptPolls
from scheduler.persistence.database import BATCH_LOCK_S
from scheduler.persistence.errors import DatabaseAway, LockTaken
from scheduler.persistence.stores import Stores
from scheduler.persistence.unknown_outcomes import StrayCall
from scheduler.use_cases.operations.stale_times import Correct
from scheduler.use_cases.shared.batch import Batch, callee_from
from scheduler.use_cases.shared.carrier_state import CarrierProbe
from scheduler.use_cases.shared.conflicts import again_at_once
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.effects import InvariantViolated
from scheduler.use_cases.shared.outcome_waits import OutcomeWaits
from scheduler.use_cases.shared.report_order import ReportFirst, report_comes_first
from scheduler.use_cases.shared.voice_server import VoiceServerJudge

_log = log(__name__)
_MAX_PER_ROUND = 100
_BATCH_SIZE = 10
"""Small, so that attempts for which this round has no time are soon available to other workers."""
_LONGEST_ROUND = timedelta(seconds=10)
"""No request is begun later. The last one may take its whole deadline longer."""
_ALARM_EVERY = POLLS[-1]
_ACTOR = "settle"


@dataclass
class _Round:
    """The limits of one round."""

    ends: float
    """On the monotonic clock."""
    carrier_is_away: bool = False
    """A request in this round failed because the carrier is unavailable, so the remaining ones are skipped."""

    @property
    def is_over(self) -> bool:
        return monotonic() >= self.ends


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """A list of calls that was read in full."""

    asked_at: datetime
    calls: Sequence[ListedCall]


@dataclass(frozen=True, kw_only=True)
class _PollResult:
    """The carrier's answer about one attempt."""

    outcome: CallNews | ProofMissing | Alarm | None
    listed_at: datetime | None = None
    """The time at which the list of calls was requested, if it was read in full."""


class Settle:
    def __init__(
        self,
        context: Context,
        queries: CarrierQueries,
        account_id: int,
        *,
        voice: VoiceServerJudge | None = None,
        longest_round: timedelta = _LONGEST_ROUND,
    ) -> None:
        self._database = context.database
        self._queries = queries
        self._account_id = account_id
        self._longest_round = longest_round
        self._correct = Correct(context.database, context.policy, context.now)
        self._probe = CarrierProbe(context, queries, account_id)
        self._voice = voice
        self._outcome_waits = OutcomeWaits(context)
        self._effects = context.effects
        self._policy = context.policy
        self._now = context.now
        self._alarmed_at: datetime | None = None

    def round(self) -> None:
        """Expire attempts, notice lapsed leases, poll the carrier. Any number may run at once. Raises DatabaseAway.

        Steps without the carrier come first. The first request that finds it unavailable is the last of the round.
        """
        self._correct.round()
        self._step_each(AttemptPolls.to_expire, self._end_expired)
        self._step_each(AttemptPolls.lapsed_leases, self._lapse)
        self._outcome_waits.end()
        this_round = self._new_round()
        this_round.carrier_is_away = self._probe_carrier()
        self._end_strays(this_round)
        self._poll_due(this_round)
        self._search_due(this_round)
        self._report_undecided()

    def _new_round(self) -> _Round:
        return _Round(ends=monotonic() + self._longest_round.total_seconds())

    def _probe_carrier(self) -> bool:
        """Probe voice server and carrier. Return True if the carrier was probed and is unavailable."""
        try:
            if self._voice is not None:
                again_at_once(self._voice.run)
            return again_at_once(self._probe.run)
        except LockTaken:
            _log.error(
                "row_locked: another transaction keeps the carrier account's row locked, so no probe is sent",
                alarm="LOCK_HELD",
                cause="the carrier account",
            )
            return False

    def _try(self, verb: Callable[[Attempt], None], attempt: Attempt) -> None:
        """Run one step. After an error the other attempts go on, and the next round retries. Raises DatabaseAway."""
        try:
            verb(attempt)
        except LockTaken:
            _log.warning("settle_conflict: another transaction held the row", attempt_id=str(attempt.id))
        except DatabaseAway:
            raise
        except Exception:  # noqa: BLE001 - the others get their turn
            _log.exception(
                "settle_failed: an unexpected error stopped a step, and the next round retries it",
                attempt_id=str(attempt.id),
            )

    def _step_each(
        self, find: Callable[[AttemptPolls, datetime, int], Sequence[Attempt]], step: Callable[[Attempt], None]
    ) -> None:
        """Do a step without the carrier for the attempts that need it, in the time of a round."""
        this_round = self._new_round()
        with self._database.transaction() as stores:
            found = find(stores.attempt_polls, stores.instant(self._now), _MAX_PER_ROUND)
        for attempt in found:
            if not this_round.is_over:
                self._try(step, attempt)

    def _end_expired(self, attempt: Attempt) -> None:
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            interview = stores.interviews.lock(attempt.interview_id)
            locked = stores.attempts.lock_as_of(attempt.id, attempt.epoch)
            if locked is None or not stores.attempt_polls.is_to_expire(locked.id, now):
                return
            self._effects.apply_events(Batch(stores, [interview]), locked, [Expired()], _ACTOR, now)
            failpoint("settle.expiring")
        failpoint("settle.expired")

    def _lapse(self, attempt: Attempt) -> None:
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            interview = stores.interviews.lock(attempt.interview_id)
            locked = stores.attempts.lock_as_of(attempt.id, attempt.epoch)
            event = settling.on_lapsed_lease(locked, now) if locked is not None else None
            if locked is None or event is None:
                return
            self._effects.apply_events(Batch(stores, [interview]), locked, [event], _ACTOR, now)
            _log.warning(
                "lease_lapsed: the lease ended without a recorded answer, so the carrier is polled",
                attempt_id=str(attempt.id),
            )
            failpoint("settle.lapsing")
        failpoint("settle.lapsed")

    # ---- stray calls

    def _end_strays(self, this_round: _Round) -> None:
        while not (this_round.carrier_is_away or this_round.is_over):
            strays = self._take_strays()
            if not strays:
                return
            for stray in strays:
                if not (this_round.carrier_is_away or this_round.is_over):
                    self._end_stray(stray, this_round)

    def _take_strays(self) -> list[StrayCall]:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            return stores.stray_calls.due_polls(now, now + ASK_EVERY, _BATCH_SIZE)

    def _end_stray(self, stray: StrayCall, this_round: _Round) -> None:
        """Cancel a stray call. Never hang up, because a person may have answered in the meantime."""
        news = None
        try:
            self._queries.cancel(stray.call_sid)
            news = self._queries.fetch(stray.call_sid)
        except CarrierUnavailable as error:
            this_round.carrier_is_away = isinstance(error, CarrierAway)
            _log.warning(
                "stray_poll_failed: the carrier did not answer whether a stray call has ended",
                attempt_id=str(stray.attempt_id),
            )
        self._effects.track_stray(stray, news)

    # ---- polls of calls without news

    def _poll_due(self, this_round: _Round) -> None:
        while not this_round.is_over:
            attempts = self._take(AttemptPolls.due_polls)
            if not attempts:
                return
            failpoint("settle.taken")
            for attempt in attempts:
                if not this_round.is_over:
                    self._try(lambda attempt: self._poll(attempt, this_round), attempt)

    def _take(self, due: Callable[[AttemptPolls, datetime, datetime, int], Sequence[Attempt]]) -> list[Attempt]:
        """Take due attempts. The least polled come first, so that a hanging one is not the first again."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            taken = due(stores.attempt_polls, now, now + ASK_EVERY, _BATCH_SIZE)
        return sorted(taken, key=lambda attempt: attempt.looks)

    def _poll(self, attempt: Attempt, this_round: _Round) -> None:
        """Poll the carrier outside any transaction, and apply its answer if nothing else has happened since."""
        if this_round.carrier_is_away:
            missing = settling.on_no_answer(attempt, self._now(), self._policy)
            if missing is not None:
                self._apply(attempt.id, attempt.epoch, _PollResult(outcome=missing))
            return
        try:
            self._request_end(attempt)
            result = self._fetch(attempt)
            failpoint("settle.asked")
        except CarrierUnavailable as error:
            this_round.carrier_is_away = isinstance(error, CarrierAway)
            _log.warning("poll_failed: the carrier did not answer a poll", attempt_id=str(attempt.id))
            result = _PollResult(outcome=settling.on_no_answer(attempt, self._now(), self._policy))
        try:
            self._apply(attempt.id, attempt.epoch, result)
        except InvariantViolated as alarmed:
            self._raise_alarm(alarmed, result.listed_at)

    def _request_end(self, attempt: Attempt) -> None:
        """Request the end of the call at each poll until it has ended. The same poll then fetches its outcome."""
        if attempt.hang_up is None or attempt.call_sid is None:
            return
        if attempt.hang_up is HangUpCause.COMPANY_DELETED:
            self._queries.hang_up(attempt.call_sid)
        else:
            self._queries.cancel(attempt.call_sid)
        failpoint("cancel.hung_up")

    def _fetch(self, attempt: Attempt) -> _PollResult:
        """Fetch the call, or search the carrier's list for it. Raises CarrierUnavailable."""
        if attempt.phase is not Phase.UNKNOWN:
            assert attempt.call_sid is not None
            return _PollResult(outcome=self._queries.fetch(attempt.call_sid))
        listed = self._unbound(attempt)
        outcome = settling.on_listing(attempt, listed.calls, listed.asked_at, self._policy)
        if isinstance(outcome, CallNews) and (names_no_cause(outcome) or may_lack_instructions(outcome, self._policy)):
            outcome = self._queries.fetch(outcome.call_sid)
        return _PollResult(outcome=outcome, listed_at=listed.asked_at)

    def _unbound(self, attempt: Attempt) -> _Listed:
        """List the carrier's calls that may belong to this attempt: same two numbers, around its claim, not bound yet.

        Raises CarrierUnavailable, also for an incomplete list, and when the number is no longer stored.
        """
        with self._database.transaction() as stores:
            asked_at = stores.instant(self._now)
            to, caller = stores.attempt_polls.numbers_of(attempt.id)
        if to is None or caller is None:
            raise CarrierUnavailable
        created_from, created_until = settling.listing_span(attempt, self._policy)
        listed = self._queries.listed(to=to, caller=caller, created_from=created_from, created_until=created_until)
        with self._database.reading() as stores:
            bound = stores.attempt_polls.bound_sids(call.news.call_sid for call in listed)
        unbound = [
            call
            for call in listed
            if call.news.call_sid not in bound  # guard: bound
        ]
        return _Listed(asked_at=asked_at, calls=unbound)

    def _next_poll_at(
        self, stores: Stores, attempt: Attempt, outcome: CallNews | ProofMissing | Alarm | None, now: datetime
    ) -> datetime:
        at = settling.next_poll_at(attempt, now)
        if not isinstance(outcome, CallNews) or outcome.status is not CallStatus.QUEUED:
            return at
        callee = callee_from(stores.attempts.callee_of(attempt.interview_id))
        return decisions.poll_of_queued(attempt, callee, at, now, self._policy)

    def _apply(self, attempt_id: UUID, epoch: int, result: _PollResult) -> None:
        """Apply the carrier's answer. Raises Alarmed: nothing was written."""
        outcome = result.outcome
        failed: list[Attempt] = []
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            interview_id = stores.attempts.interview_of(attempt_id)
            if interview_id is None:
                return  # erased since the poll
            interview = stores.interviews.lock(interview_id)
            attempt = stores.attempts.lock_as_of(attempt_id, epoch)
            if attempt is None:
                return  # changed since the poll
            if isinstance(outcome, Alarm):
                raise InvariantViolated(outcome, attempt)
            # Before the news, which may set another time for the next poll.
            stores.attempt_polls.reschedule_poll(
                attempt_id, epoch, self._next_poll_at(stores, attempt, outcome, now), result.listed_at
            )
            match outcome:
                case ProofMissing():
                    # Locked already, and read again: the statement above has changed it.
                    attempt = stores.attempts.lock(attempt_id)
                    attempt = replace(attempt, listed_at=result.listed_at or attempt.listed_at)
                    verdict = settling.on_no_answer(attempt, now, self._policy)
                    if not isinstance(verdict, ProofMissing):
                        return  # the clock was set since the poll
                    batch = Batch(stores, [interview])
                    if report_comes_first(batch, attempt, [verdict], now):
                        return  # the next poll gives it up
                    self._effects.apply_events(batch, attempt, [verdict], _ACTOR, now)
                    failpoint("settle.failing")
                    _log.error(
                        "outcome_unknown: nothing proved whether the call was placed, so a person decides",
                        alarm="OUTCOME_UNKNOWN",
                        attempt_id=str(attempt_id),
                    )
                case CallNews() if _cause_may_follow(stores, attempt, outcome):
                    pass  # the next poll asks again
                case CallNews():
                    attempt = stores.attempts.lock(attempt_id)
                    batch = Batch(stores, [interview])
                    if isinstance(self._effects.hear(batch, attempt, outcome, _ACTOR, now), ReportFirst):
                        stores.attempt_polls.reschedule_poll(attempt_id, epoch, now + ASK_EVERY)
                    failed = batch.without_instructions
                    failpoint("settle.proving")
        failpoint("settle.settled")
        self._judge_voice_server(failed)

    def _judge_voice_server(self, failed: Sequence[Attempt]) -> None:
        if self._voice is not None:
            self._voice.hear(failed)

    def _raise_alarm(self, alarmed: InvariantViolated, listed_at: datetime | None) -> None:
        """Raise the alarm in a new transaction, because the company is locked before its attempts."""
        attempt = alarmed.attempt
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            self._effects.pause_for_alarm_in(stores, alarmed, now)
            stores.attempt_polls.reschedule_poll(
                attempt.id, attempt.epoch, settling.next_poll_at(attempt, now), listed_at
            )

    # ---- searches for calls of attempts with an unknown outcome

    def _search_due(self, this_round: _Round) -> None:
        while not this_round.is_over:
            attempts = self._take(AttemptPolls.due_searches)
            if not attempts:
                return
            for attempt in attempts:
                if not this_round.is_over:
                    self._try(lambda attempt: self._search(attempt, this_round), attempt)

    def _search(self, attempt: Attempt, this_round: _Round) -> None:
        """Search the carrier's list for the call, outside any transaction, and apply the result."""
        listed: _Listed | None = None
        found: CallNews | Alarm | None = None
        if not this_round.carrier_is_away:
            try:
                read = self._unbound(attempt)
                found = settling.on_search(read.calls)
                if isinstance(found, CallNews) and may_lack_instructions(found, self._policy):
                    found = self._queries.fetch(found.call_sid)
                listed = read
            except CarrierUnavailable as error:
                found = None
                this_round.carrier_is_away = isinstance(error, CarrierAway)
                _log.warning("search_failed: the carrier did not list its calls", attempt_id=str(attempt.id))
        try:
            self._apply_search(attempt, listed, found)
        except InvariantViolated as alarmed:
            with self._database.transaction() as stores:
                self._effects.pause_for_alarm_in(stores, alarmed, stores.instant(self._now))
                self._search_again(stores, attempt, listed)

    def _apply_search(self, searched: Attempt, listed: _Listed | None, found: CallNews | Alarm | None) -> None:
        """Apply the result of a search. Raises Alarmed: nothing was written."""
        failed: list[Attempt] = []
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            interview_id = stores.attempts.interview_of(searched.id)
            if interview_id is None:
                return  # erased since the search
            interview = stores.interviews.lock(interview_id)
            attempt = stores.attempts.lock_as_of(searched.id, searched.epoch)
            if attempt is None:
                return  # changed since the search
            if isinstance(found, Alarm):
                raise InvariantViolated(found, attempt)
            self._search_again(stores, attempt, listed)
            if found is not None and not _cause_may_follow(stores, attempt, found):
                attempt = stores.attempts.lock(attempt.id)
                batch = Batch(stores, [interview])
                self._effects.hear(batch, attempt, found, _ACTOR, stores.instant(self._now))
                failed = batch.without_instructions
        self._judge_voice_server(failed)

    def _search_again(self, stores: Stores, attempt: Attempt, listed: _Listed | None) -> None:
        """Set the time of the next search. Without a complete list the line stays blocked until after that search."""
        now, listed_at = stores.instant(self._now), None if listed is None else listed.asked_at
        search_at = settling.next_search(attempt, None if listed is None else listed.calls, now, self._policy)
        stores.attempt_polls.reschedule_search(attempt.id, attempt.epoch, search_at, listed_at)
        attempt = replace(attempt, search_at=search_at, listed_at=listed_at or attempt.listed_at)
        if search_at is not None and attempt.number_hash is not None and not settling.was_listed(attempt, self._policy):
            stores.lines.block_until(attempt.number_hash, settling.line_free_at(attempt, now, self._policy))

    def _report_undecided(self) -> None:
        """Raise an alarm while outcomes are overdue because no list can be read, at most once in ten minutes."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            if self._alarmed_at is not None and self._alarmed_at <= now < self._alarmed_at + _ALARM_EVERY:
                return
            count, oldest_at = stores.attempt_polls.undecided(settling.undecided_before(now, self._policy))
        if not count or oldest_at is None:
            return
        self._alarmed_at = now
        _log.error(
            "outcomes_undecided: the carrier's list of calls could not be read, so their numbers stay blocked",
            alarm="OUTCOME_UNDECIDED",
            count=count,
            seconds=int((now - oldest_at).total_seconds()),
        )


def _cause_may_follow(stores: Stores, attempt: Attempt, news: CallNews) -> bool:
    """Return True if a stored callback may contain the cause of the failure, which a poll does not return."""
    if attempt.sip_code is not None:
        return False  # it was heard
    return names_no_cause(news) and stores.carrier_events.is_one_unheard(attempt.token or "")
