"""State of the carrier: its breaker and back-offs, after answers to calls and to probes, which decide what waits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from scheduler import process
from scheduler.carriers.interface import CarrierAway, CarrierQueries, CarrierUnavailable, QueryNotSent
from scheduler.clock import Now
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CarrierAnswer, NeverTaken
from scheduler.domain.refusals import PhoneNumberInvalid
from scheduler.failpoints import failpoint
from scheduler.hashing import Hasher
from scheduler.lifecycle import backoffs, breaker, voice_server
from scheduler.lifecycle.backoffs import NO_COUNTRY, Backoff, Backoffs, Verdict, Where
from scheduler.lifecycle.breaker import Breaker
from scheduler.logs import log
from scheduler.persistence.backoffs import Ends
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.timing import callee_zones
from scheduler.use_cases.shared.context import Context

_log = log(__name__)
_MAX_ROWS = 2000


# --- Judge of the answers to calls. Never dials and never polls


class CarrierJudge:
    def __init__(self, database: Database, hasher: Hasher, account_id: int, now: Now) -> None:
        self._database = database
        self._hasher = hasher
        self._account_id = account_id
        self._now = now

    def hear(self, answers: Sequence[tuple[Attempt, CarrierAnswer]]) -> None:
        """Update breaker and back-offs from the answers. Raises DatabaseAway.

        Not in the transaction of the record, because the account is locked before any attempt. Also on a wrong clock,
        in the database's time, because no other process has these answers.
        """
        causes = {cause for _, answer in answers if (cause := breaker.cause_of(answer)) is not None}
        refused = any(
            isinstance(each, NeverTaken) and each.cause in breaker.PERMISSIONS | {breaker.NUMBER_BLOCKED}
            for _, each in answers
        )
        took = any(breaker.shows_that_it_works(answer) for _, answer in answers)
        if not causes and not took:
            return
        if not causes and not refused and not self._is_in_trouble():
            return  # all is well: do not lock the account, which every claim needs
        with self._database.transaction(corrected=True) as stores:
            now = stores.instant(self._now)
            account = stores.carrier_accounts.lock(self._account_id)
            verdict = self._verdict(stores, account, answers, now)
            if verdict.account != account.breaker:
                stores.carrier_accounts.set_breaker(account.id, verdict.account, now)
            if verdict.backoffs != account.backoffs:
                stores.backoffs.save(account.id, verdict.backoffs, now)
                stores.notify_due()
        _report(account, verdict, answers)
        if any(each.scope.country is not None for each in verdict.opened):
            self._store_waiting_countries(now)

    def _is_in_trouble(self) -> bool:
        """Return True if breaker or back-offs have anything to forget. One round trip, after nearly every record."""
        with self._database.statement() as stores:
            return stores.carrier_accounts.is_in_trouble(self._account_id)

    def _verdict(
        self,
        stores: Stores,
        account: CarrierAccount,
        answers: Sequence[tuple[Attempt, CarrierAnswer]],
        now: datetime,
    ) -> Verdict:
        ends = {each.attempt_id: each for each in stores.backoffs.ends_of([attempt.id for attempt, _ in answers])}
        placed = [(self._where(ends[attempt.id]), answer) for attempt, answer in answers if attempt.id in ends]
        if any(breaker.is_number_blocked(answer) for _, answer in placed):
            since = now - breaker.COUNTRY_BLOCKED_WITHIN
            blocked = stores.lines.refused_countries(since, now, breaker.COUNTRY_BLOCKED_AFTER)
            placed = backoffs.with_refused_countries(placed, blocked)
        return backoffs.judge(account.breaker, account.backoffs, placed, stores.companies.count_up_to(2), now)

    def may_not_be_claimed(self, stores: Stores, account: CarrierAccount, claimable: Iterable[UUID]) -> frozenset[UUID]:
        """Hold back the attempts whose orders the carrier refuses or fails, except one trial call of each scope.

        They are released again when it is time. The caller has locked the account and the attempts.
        """
        ids = list(claimable)
        if not account.backoffs or not ids:
            return frozenset()
        ends = {each.attempt_id: each for each in stores.backoffs.ends_of(ids)}
        if any(scope.country is not None for scope in account.backoffs):
            self._store_countries(stores, ends.values())
        being_placed: list[Ends] = []
        if any(each.breaker.is_on_trial for each in account.backoffs.values()):
            being_placed = stores.backoffs.ends_being_placed(account.id)
        held = backoffs.held_back(
            account.backoffs,
            ((each, self._where(ends[each])) for each in ids if each in ends),
            (self._where(each) for each in being_placed),
        )
        if held:
            stores.backoffs.hold(held)
        return held

    def _store_waiting_countries(self, now: datetime) -> None:
        """Store the country of waiting attempts, so that the release skips those to a backed-off country."""
        with self._database.transaction(corrected=True) as stores:
            self._store_countries(stores, stores.backoffs.due_without_a_country(now, _MAX_ROWS))

    def _store_countries(self, stores: Stores, ends: Iterable[Ends]) -> None:
        known = {
            each.number_hash: self._where(each).country
            for each in ends
            if each.country is None and each.number_hash is not None and self._is_of_line(each)
        }
        if known:
            stores.backoffs.know_countries(sorted(known.items()))

    def _is_of_line(self, ends: Ends) -> bool:
        """Return True if the candidate still has the number of the line."""
        number = None if ends.called is None else _read(ends.called)
        return number is not None and self._hasher.number(number) == ends.number_hash

    def _where(self, ends: Ends) -> Where:
        country = ends.country or (None if ends.called is None else _country(ends.called))
        return Where(company_id=ends.company_id, caller=ends.caller, country=country or NO_COUNTRY)


def _read(text: str) -> str | None:
    try:
        return callee_zones.read_number(text).e164
    except PhoneNumberInvalid:
        return None


def _country(text: str) -> str | None:
    try:
        return callee_zones.read_number(text).region
    except PhoneNumberInvalid:
        return None


def _report(account: CarrierAccount, verdict: Verdict, answers: Sequence[tuple[Attempt, CarrierAnswer]]) -> None:
    for each in verdict.opened:
        _report_backoff(each, answers)
    judged = verdict.account
    causes = [cause for _, answer in answers if (cause := breaker.cause_of(answer)) is not None]
    is_changed, is_tried = judged != account.breaker, voice_server.awaits_verdict(judged)
    if voice_server.is_down(judged) and causes:
        judged = replace(judged, cause=causes[-1])  # the alarm names what the carrier did
    if is_tried and is_changed:
        _log.info("voice_server_tried: the trial call was placed, and shows whether the voice server instructs it")
    elif judged.is_down and is_changed:
        _log.error(
            "carrier_down: the carrier failed or refused calls, so all calls wait",
            alarm=f"CARRIER_{judged.cause}",
            until=judged.down_until and judged.down_until.isoformat(),
        )
    elif account.breaker.failures and not judged.failures:
        _log.info("carrier_up: the carrier accepted a call again")


def _report_backoff(opened: Backoff, answers: Sequence[tuple[Attempt, CarrierAnswer]]) -> None:
    until = opened.breaker.down_until and opened.breaker.down_until.isoformat()
    if opened.scope.country is not None:
        refused = [
            attempt for attempt, answer in answers if isinstance(answer, NeverTaken) and answer.cause == opened.cause
        ]
        _log.error(
            "country_backed_off: the carrier account may not call this country, so calls to it wait",
            alarm="CARRIER_REFUSES_COUNTRY",
            country=opened.scope.country,
            attempt_id=str(refused[0].id) if refused else None,
            until=until,
        )
    elif opened.is_permission:
        _log.error(
            "caller_backed_off: the carrier account may not call from this company's number, so its calls wait",
            alarm="CARRIER_REFUSES_CALLER",
            company_id=str(opened.scope.company_id),
            until=until,
        )
    else:
        _log.error(
            "caller_backed_off: the carrier failed calls of one company, so its calls wait",
            alarm="CARRIER_FAILS_CALLER",
            company_id=str(opened.scope.company_id),
            cause=opened.cause,
            until=until,
        )


# --- Probe: a carrier whose breaker or back-offs are open is probed in each round of settle


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """The account and its back-offs before a probe, and the states stored while the probe is running."""

    before: CarrierAccount
    account: Breaker
    backoffs: Backoffs


class CarrierProbe:
    def __init__(self, context: Context, queries: CarrierQueries, account_id: int) -> None:
        self._database = context.database
        self._queries = queries
        self._account_id = account_id
        self._now = context.now

    def run(self) -> bool:
        """Probe a carrier that is down, with a free request that places no call. A good answer permits one trial call.

        Also probe at once when calls of one company have failed. Only a failed probe then stops the other companies.
        Return True if the carrier is unavailable. Raises DatabaseAway.
        """
        if process.are_out():  # before the probe is marked as running: another process can send it
            process.report_shortage()
            return True
        probe = self._begin()
        if probe is None:
            return False
        failpoint("settle.probe_begun")
        try:
            self._queries.probe()
            failpoint("settle.probe_answered")
        except QueryNotSent:  # guard: local_probe
            return True
        except CarrierUnavailable as error:
            self._fail(probe)
            return isinstance(error, CarrierAway)
        if self._answer(probe):
            failpoint("settle.on_trial")
            _log.info("carrier_half_open: the carrier answered a probe, so one call is tried")
        return False

    def _begin(self) -> _Probe | None:
        """Mark the probe as running. None: no probe is due, or another worker is running it."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            # Check before locking, because every claim waits for this row.
            found = stores.carrier_accounts.get(self._account_id)
            if voice_server.is_down(found.breaker) or not found.is_to_be_asked(now):
                return None
            before = stores.carrier_accounts.lock(self._account_id)
            if voice_server.is_down(before.breaker) or not before.is_to_be_asked(now):
                return None
            account = before.breaker
            if account.is_to_be_asked(now):
                account = breaker.while_asked(account, now)
                stores.carrier_accounts.set_breaker(self._account_id, account, now)
            held = {
                scope: backoffs.while_asked(each, now) if each.is_to_be_asked(now) else each
                for scope, each in before.backoffs.items()
            }
            if held != before.backoffs:
                stores.backoffs.save(self._account_id, held, now)
        return _Probe(before=before, account=account, backoffs=held)

    def _fail(self, probe: _Probe) -> None:
        """Open the account's breaker: the carrier does not answer, so the failures concern every company."""
        judged = probe.account
        cause = judged.cause
        of_the_carrier = [
            each for each in probe.backoffs.values() if each.breaker.is_down and each.speaks_of_the_carrier
        ]
        if not judged.is_down:
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                account = stores.carrier_accounts.lock(self._account_id)
                cause = of_the_carrier[0].cause if of_the_carrier else "NO_ANSWER_IN_TIME"
                judged = breaker.after_question_in_vain(account.breaker, cause, now)
                if voice_server.is_down(account.breaker):
                    judged = voice_server.after_carrier_failure(account.breaker, judged)
                stores.carrier_accounts.set_breaker(self._account_id, judged, now)
                judged = replace(judged, cause=cause if voice_server.is_down(judged) else judged.cause)
                stores.backoffs.save(self._account_id, backoffs.without_the_carriers(account.backoffs), now)
        _log.error(
            "carrier_down: the carrier did not answer a probe, so all calls wait",
            alarm=f"CARRIER_{judged.cause}",
            until=judged.down_until and judged.down_until.isoformat(),
        )

    def _answer(self, probe: _Probe) -> bool:
        """Store a good answer to the probe. Return True if a trial call is permitted now."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            account = stores.carrier_accounts.lock(self._account_id)
            # A state that has changed since comes from a newer probe or from a call.
            is_tried = probe.account != probe.before.breaker and account.breaker == probe.account
            if is_tried:
                answered = breaker.after_answer(probe.before.breaker, now)
                stores.carrier_accounts.set_breaker(self._account_id, answered, now)
            held = dict(account.backoffs)
            for scope, each in probe.backoffs.items():
                if held.get(scope) == each and each.breaker != probe.before.backoffs[scope].breaker:
                    held[scope] = backoffs.after_answer(probe.before.backoffs[scope], now)
                    is_tried = True
            if held != account.backoffs:
                stores.backoffs.save(self._account_id, held, now)
            stores.notify_due()
        return is_tried
