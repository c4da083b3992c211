"""Judge of the carrier's answers: decides which calls wait. Never dials and never polls."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CarrierAnswer, NeverTaken
from scheduler.domain.refusals import PhoneNumberInvalid
from scheduler.hashing import Hasher
from scheduler.lifecycle import backoffs, breaker
from scheduler.lifecycle.backoffs import NO_COUNTRY, Backoff, Verdict, Where
from scheduler.logs import log
from scheduler.persistence.backoffs import Ends
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.timing import callee_zones

_log = log(__name__)
_MAX_ROWS = 2000


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
        refused = any(isinstance(each, NeverTaken) and each.cause in breaker.PERMISSIONS for _, each in answers)
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
    if judged.is_down and judged != account.breaker:
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
