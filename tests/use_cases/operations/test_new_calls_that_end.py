"""The expected start of the last new call comes true where calls last, end by callbacks and are retried."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from random import Random
from uuid import UUID

import pytest

from scheduler.carriers.twilio import TwilioCallbacks, callback_path
from scheduler.domain.company import CallLimits, CallTimeInterval, RetryPolicy
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.dry_run import DryRuns
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.shared import hints as tasks
from tests import conftest
from tests.conftest import NOON, TestClock, seed
from tests.console.test_forecast_of_calendar import FAR_FUTURE, WITHIN, DialLoop, hours, set_apart
from tests.support import builders
from tests.support.builders import RecordingHints, Tenant, a_placed_attempt, a_tenant, of_company
from tests.support.servers import ACCOUNT_SID, SimulatedCarrier
from tests.use_cases.conftest import PUBLIC_URL
from tests.use_cases.operations.test_new_calls import database_ids
from tests.use_cases.test_apply import a_wish, answer_of, sent
from tests.use_cases.test_hear import a_form, signature
from tests.use_cases.test_intake_statements import apply_all
from tests.verification.world import bulk_attempts as bulk
from tests.verification.world.bulk_attempts import FIRST, RETRY, bulk_attempts

LONG = timedelta(hours=8)
RINGS = timedelta(seconds=20)
"""An unanswered call ends after this time."""
ENDED_BEFORE = 30
WARM_UP = timedelta(hours=2)


@dataclass
class Talk:
    """The durations of calls. Each one is as frequent as the others, in any order."""

    lasts: tuple[int | None, ...]
    """In seconds. None: no person answers."""
    _dice: Random = field(default_factory=lambda: Random(7))
    _next: list[int | None] = field(default_factory=list)

    def next(self) -> tuple[str, timedelta]:
        if not self._next:
            self._next = self._dice.sample(self.lasts, len(self.lasts))
        lasts = self._next.pop()
        return ("no-answer", RINGS) if lasts is None else ("completed", timedelta(seconds=lasts))


class Calls:
    """Calls in progress that end by callbacks of the carrier."""

    def __init__(self, tenant: Tenant, now: TestClock, hints: RecordingHints, hear: Hear, talk: Talk) -> None:
        self._tenant, self._now, self._hints, self._hear, self._talk = tenant, now, hints, hear, talk
        self._ends: list[tuple[datetime, UUID, str]] = []

    def add(self, attempt_id: UUID) -> None:
        status, lasts = self._talk.next()
        heappush(self._ends, (self._now() + lasts, attempt_id, status))

    def next_end(self) -> datetime | None:
        return self._ends[0][0] if self._ends else None

    def end(self) -> None:
        """End the calls that are over by now."""
        while self._ends and self._ends[0][0] <= self._now():
            _, attempt_id, status = heappop(self._ends)
            attempt = self._tenant.attempt(attempt_id)
            assert attempt.token is not None
            path = callback_path(attempt.token)
            for each in ("in-progress", "completed") if status == "completed" else (status,):
                form = a_form(attempt, each)
                self._hear.store([self._hear.genuine(attempt.token, path, form, signature(attempt.token, form))])
                heard = self._hints.ids(tasks.HEAR)
                self._hints.rung[:] = [rung for rung in self._hints.rung if rung[0] != tasks.HEAR]
                for event_id in heard:
                    self._hear.event(event_id)
            assert self._tenant.attempt(attempt_id).ended_at is not None

    def end_all(self) -> None:
        while (at := self.next_end()) is not None:
            self._now.instant = max(at, self._now())
            self.end()


class LastingLoop(DialLoop):
    """The dial loop with calls that last."""

    def __init__(self, tenant: Tenant, now: TestClock, hints: RecordingHints, calls: Calls) -> None:
        super().__init__(tenant, now, hints)
        self._calls = calls

    def _next_ids(self) -> list[UUID]:
        self._calls.end()
        return super()._next_ids()

    def _awake_at(self) -> datetime:
        at = super()._awake_at() if len(self._hand) else FAR_FUTURE
        return min(at, self._calls.next_end() or at)

    def _dial(self, ids: Sequence[UUID]) -> None:
        before = len(self.start_of)
        super()._dial(ids)
        for each in list(self.start_of)[before:]:
            self._calls.add(each)


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another company with calls that are due later, and with its hours."""

    calls: int
    due_in: int = 0
    pace: float = 1.0
    most: int = 1000
    intervals: tuple[CallTimeInterval, ...] = hours(LONG)
    kind: bulk.Kind = FIRST


@dataclass(frozen=True, kw_only=True)
class Case:
    new: int
    talk: Talk = field(default_factory=lambda: Talk((60,)))
    pace: float = 1.0
    most: int = 1000
    account_pace: float = 50.0
    account_most: int = 1000
    in_progress: int = 0
    retry_policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(max_retries=0))
    others: tuple[Other, ...] = ()


MIXED = (20, 40, 60, 80, 100)
OFTEN_UNANSWERED = (None, 40, 60, None, 100)
CASES = {
    "more than two waves": Case(new=41, most=20),
    "calls of many durations": Case(new=60, most=20, talk=Talk(MIXED)),
    "limit of the account": Case(new=40, account_most=16, talk=Talk(MIXED), others=(Other(calls=30),)),
    "others open later": Case(new=150, account_pace=1.2, others=(Other(calls=120, due_in=60),)),
    "others close": Case(new=40, account_most=16, others=(Other(calls=100, intervals=hours(timedelta(seconds=120))),)),
    "unanswered calls are retried": Case(
        new=60,
        most=20,
        talk=Talk(OFTEN_UNANSWERED),
        retry_policy=RetryPolicy(max_retries=2, delays={"NO_ANSWER": (timedelta(minutes=1),)}),
    ),
    "retries of others": Case(new=60, account_pace=1.2, others=(Other(calls=60, kind=RETRY, due_in=20),)),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_last_new_call_starts_when_expected(
    database: Database,
    postgres_url: str,
    hasher: Hasher,
    now: TestClock,
    hints: RecordingHints,
    carrier: SimulatedCarrier,
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = map(UUID, map("{:032x}".format, count(1)))  # ids decide between calls of the same instant
    for module in (conftest, builders, bulk):
        monkeypatch.setattr(module, "uuid4", ids.__next__)
    now.instant = NOON - WARM_UP
    mine = seed(
        database,
        now(),
        intervals=hours(LONG),
        limits=CallLimits(calls_per_second=case.pace, concurrent_calls=case.most),
        retry_policy=case.retry_policy,
    )
    tenant = a_tenant(
        database,
        mine,
        hasher,
        now,
        account_sid=ACCOUNT_SID,
        calls_per_second=case.account_pace,
        max_calls=case.account_most,
    )
    hear = Hear(tenant.context, hints, TwilioCallbacks(carrier.account(public_url=PUBLIC_URL)))
    calls = Calls(tenant, now, hints, hear, case.talk)
    past = of_company(tenant, seed(database, now()))
    for _ in range(ENDED_BEFORE):
        now.move(timedelta(seconds=20))
        calls.add(a_placed_attempt(past).id)
        calls.end()
    calls.end_all()
    for number in reversed(range(case.in_progress)):
        now.instant = NOON - timedelta(seconds=15 * (number + 1))
        calls.add(a_placed_attempt(tenant).id)
    now.instant = NOON
    calls.end()
    for each in case.others:
        limits = CallLimits(calls_per_second=each.pace, concurrent_calls=each.most)
        company = seed(database, NOON, intervals=each.intervals, limits=limits)
        bulk_attempts(
            postgres_url,
            of_company(tenant, company),
            each.calls,
            due_at=NOON + timedelta(seconds=each.due_in),
            kinds=[each.kind],
        )
    items = [a_wish(tenant) for _ in range(case.new)]
    run = DryRuns(tenant.context).decide(tenant.principal, None, items)
    assert (run.calls, run.expired, run.refused) == (len(items), 0, ())
    assert run.call_lasts is not None
    before = set(database_ids(database))
    apply = Apply(tenant.context, hints)
    commands = [sent(tenant, each) for each in items]
    apply_all(apply, [each.id for each in commands])
    assert all(answer_of(tenant, each).refusal is None for each in commands)
    created = set(database_ids(database)) - before
    set_apart(database)
    loop = LastingLoop(tenant, now, hints, calls)
    loop.run(timedelta(minutes=9) if case.others else timedelta(minutes=2))
    last = max(loop.start_of[each] for each in created)
    assert run.last_start_at is not None
    assert (run.last_start_at - NOON) / last == pytest.approx(1, rel=WITHIN)
