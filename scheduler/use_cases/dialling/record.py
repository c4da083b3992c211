"""Records of carrier answers: written in groups until all are, and judged for which calls wait."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CarrierAnswer, NeverTaken
from scheduler.domain.refusals import PhoneNumberInvalid
from scheduler.hashing import Hasher
from scheduler.lifecycle import backoffs, breaker
from scheduler.lifecycle.backoffs import NO_COUNTRY, Backoff, Verdict, Where
from scheduler.lifecycle.capacity import RecordSize
from scheduler.logs import log
from scheduler.persistence.backoffs import Ends
from scheduler.persistence.carrier_accounts import CarrierAccount
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway, LockTaken
from scheduler.persistence.stores import Stores
from scheduler.timing import callee_zones
from scheduler.use_cases.dialling.hand import SomeHeld

# --- Recorder of a dial worker: writes carrier answers in groups until all are written


_log = log(__name__)
_FLUSH_EVERY = 0.02
_RETRY_AFTER = 0.5
_MAX_TRANSACTIONS = 4
"""Concurrent transactions. With a slow network they wait for round trips, not for each other."""

Answer = tuple[Attempt, CarrierAnswer]
Write = Callable[[Sequence[Answer]], Awaitable[None]]
Forget = Callable[[Answer], None]


class Recorder:
    """Collects answers for 20 ms and passes groups of them to `write`. `forget` receives each answer it gives up."""

    def __init__(self, write: Write, forget: Forget) -> None:
        self._write = write
        self._forget = forget
        self._answers: list[Answer] = []
        self._again: list[list[Answer]] = []
        """Groups that are written by themselves, because they failed in a larger one."""
        self._held: list[Answer] = []
        """Answers that are tried again, whose rows were locked."""
        self._waiting = 0
        """The number of answers with locked rows that are not tried again yet."""
        self._writing: dict[asyncio.Task[None], int] = {}
        self._size = RecordSize()
        self._wake = asyncio.Event()
        self._conflicts = 0

    def __len__(self) -> int:
        """Count the answers that are not written yet."""
        return self.unwritten + len(self._held) + self._waiting

    @property
    def unwritten(self) -> int:
        """Count the answers that are not written yet and whose rows are not locked.

        A claim has room for fewer calls while answers wait. Locked rows of one company must not take it from others.
        """
        return len(self._answers) + sum(map(len, self._again)) + sum(self._writing.values())

    def add(self, *answers: Answer) -> None:
        self._answers.extend(answers)
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Write answers until `is_over` returns True and none is left. After `is_over` changes, call `wake`."""
        while not (is_over() and not len(self)):
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_FLUSH_EVERY)
            while len(self._writing) < _MAX_TRANSACTIONS and (group := self._next_group()):
                task = asyncio.create_task(self._write_group(group))
                self._writing[task] = len(group)
                task.add_done_callback(self._written)

    def _next_group(self) -> list[Answer]:
        size = self._size.size
        group, self._answers = self._answers[:size], self._answers[size:]
        if not group and self._again:
            return self._again.pop(0)
        if not group:
            group, self._held = self._held[:size], self._held[size:]
        return group

    def _written(self, task: asyncio.Task[None]) -> None:
        del self._writing[task]
        self.wake()

    async def _write_group(self, group: list[Answer]) -> None:
        """Write a group in one call. Answers with locked rows are tried again later, and the others are written."""
        begun = monotonic()
        try:
            await self._write(group)
        except SomeHeld as held:
            self._put_off([each for each in group if each[0].id in held.attempt_ids])
        except LockTaken:
            # A row that is not skipped, such as a line. Its company's answers must not keep those of others waiting.
            self._put_off_owners(group)
        except DatabaseAway:
            _log.warning("record_delayed: the database is unavailable, so the answers are retried", count=len(group))
            await asyncio.sleep(_RETRY_AFTER)
            self._again.append(group)
        except Exception:  # noqa: BLE001 - the loop goes on for the other answers
            if len(group) > 1:
                self._again += [[each] for each in group]
                return
            _log.exception(
                "record_failed: an unexpected error stopped a record, and the attempt will be settled",
                attempt_id=str(group[0][0].id),
            )
            self._forget(group[0])
        else:
            self._size.took(len(group), monotonic() - begun)

    def _put_off(self, held: list[Answer]) -> None:
        """Write answers with locked rows later, and by themselves. They take no place of other groups meanwhile."""
        self._conflicts += 1
        _log.info("record_conflict: another transaction held rows", count=self._conflicts)
        self._waiting += len(held)
        asyncio.get_running_loop().call_later(_RETRY_AFTER, self._write_again, held)

    def _write_again(self, held: list[Answer]) -> None:
        self._waiting -= len(held)
        self._held += held
        self.wake()

    def _put_off_owners(self, group: list[Answer]) -> None:
        by_company: dict[UUID, list[Answer]] = {}
        for each in group:
            by_company.setdefault(each[0].company_id, []).append(each)
        if len(by_company) == 1:
            self._put_off(group)
        else:
            self._again += by_company.values()


# --- Carrier judge: decide from the carrier's answers which calls wait. Never dials and never polls


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
