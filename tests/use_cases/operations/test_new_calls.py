"""The expected start of the last new call comes true: the dial loop runs on a clock that is moved.

With calls that last, they end by callbacks and are retried. `make proof` runs all cases.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from random import Random
from uuid import UUID

import pytest

from scheduler.carriers.twilio import TwilioCallbacks, callback_path
from scheduler.domain.command import CreateInterview
from scheduler.domain.company import EVERY_DAY, CallLimits, CallTimeInterval, RetryPolicy
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
from tests.use_cases.test_apply import a_wish, answer_of, sent
from tests.use_cases.test_hear import a_form, signature
from tests.use_cases.test_intake_statements import apply_all
from tests.verification.world import bulk_attempts as bulk
from tests.verification.world.bulk_attempts import FIRST, RETRY, bulk_attempts

LONG = timedelta(hours=8)
GAP = timedelta(minutes=8)
RINGS = timedelta(seconds=20)
"""An unanswered call ends after this time."""
ENDED_BEFORE = 30
WARM_UP = timedelta(hours=2)


def with_a_gap(closes_in: timedelta) -> tuple[CallTimeInterval, ...]:
    """Hours in Bratislava, where it is 14:00 at NOON, that close and open again soon."""
    (first,) = hours(closes_in)
    return (first, CallTimeInterval(days=EVERY_DAY, start=first.end + GAP, end=timedelta(hours=22)))


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

    def teach_durations(self) -> None:
        """Let calls of another company end before, whose durations the forecast knows."""
        past = of_company(self._tenant, seed(self._tenant.database, self._now()))
        for _ in range(ENDED_BEFORE):
            self._now.move(timedelta(seconds=20))
            self.add(a_placed_attempt(past).id)
            self.end()
        self.end_all()

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
    intervals: tuple[CallTimeInterval, ...] = hours(LONG)
    kind: bulk.Kind = FIRST

    def add(self, tenant: Tenant, postgres_url: str) -> None:
        limits = CallLimits(calls_per_second=1.0, concurrent_calls=1000)
        company = of_company(tenant, seed(tenant.database, NOON, intervals=self.intervals, limits=limits))
        due_at = NOON + timedelta(seconds=self.due_in)
        bulk_attempts(postgres_url, company, self.calls, due_at=due_at, kinds=[self.kind])


@dataclass(frozen=True, kw_only=True)
class Case:
    new: tuple[tuple[int, int], ...]
    """New calls, and the seconds after which they are due."""
    own: tuple[tuple[int, int], ...] = ()
    """Calls that the company has already, likewise."""
    talk: Talk | None = None
    """None: calls take no time."""
    most: int = 1000
    account_pace: float = 50.0
    account_most: int = 1000
    intervals: tuple[CallTimeInterval, ...] = hours(LONG)
    retry_policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(max_retries=0))
    others: tuple[Other, ...] = ()


MINUTES, MIXED = Talk((60,)), Talk((20, 40, 60, 80, 100))
OFTEN_UNANSWERED = Talk((None, 40, 60, None, 100))
CASES = {
    "between own calls": Case(own=((20, 0), (12, 80)), new=((30, 6),)),
    "limit of the account": Case(new=((40, 0),), account_most=16, talk=MIXED, others=(Other(calls=30),)),
}
ALL_CASES = {
    "between many own calls": Case(own=((100, 0), (60, 400)), new=((150, 30),)),
    "alone": Case(new=((200, 0),)),
    "beside another company": Case(account_pace=1.4, own=((60, 0),), others=(Other(calls=150),), new=((120, 20),)),
    "past closing, at the next opening": Case(
        own=((60, 0),), new=((150, 0),), intervals=with_a_gap(timedelta(minutes=2))
    ),
    "more than two waves": Case(new=((41, 0),), most=20, talk=MINUTES),
    "calls of many durations": Case(new=((60, 0),), most=20, talk=MIXED),
    "others open later": Case(new=((150, 0),), account_pace=1.2, talk=MINUTES, others=(Other(calls=120, due_in=60),)),
    "others close": Case(
        new=((40, 0),),
        account_most=16,
        talk=MINUTES,
        others=(Other(calls=100, intervals=hours(timedelta(seconds=120))),),
    ),
    "unanswered calls are retried": Case(
        new=((60, 0),),
        most=20,
        talk=OFTEN_UNANSWERED,
        retry_policy=RetryPolicy(max_retries=2, delays={"NO_ANSWER": (timedelta(minutes=1),)}),
    ),
    "retries of others": Case(
        new=((60, 0),), account_pace=1.2, talk=MINUTES, others=(Other(calls=60, kind=RETRY, due_in=20),)
    ),
}
if os.environ.get("DUECALL_FORECASTS") == "all":
    CASES |= ALL_CASES


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
    limits = CallLimits(calls_per_second=1.0, concurrent_calls=case.most)
    mine = seed(database, now(), intervals=case.intervals, limits=limits, retry_policy=case.retry_policy)
    pace, most = case.account_pace, case.account_most
    tenant = a_tenant(database, mine, hasher, now, account_sid=ACCOUNT_SID, calls_per_second=pace, max_calls=most)
    calls = None
    if case.talk is not None:
        hear = Hear(tenant.context, hints, TwilioCallbacks(carrier.account(public_url=PUBLIC_URL)))
        calls = Calls(tenant, now, hints, hear, case.talk)
        calls.teach_durations()
    now.instant = NOON
    for number, due_in in case.own:
        bulk_attempts(postgres_url, tenant, number, due_at=NOON + timedelta(seconds=due_in), kinds=[FIRST])
    for each in case.others:
        each.add(tenant, postgres_url)
    items = [
        a_wish(tenant, scheduled_at=f"{NOON + timedelta(seconds=due_in):%Y-%m-%dT%H:%M:%SZ}")
        for number, due_in in case.new
        for _ in range(number)
    ]
    run = DryRuns(tenant.context).decide(tenant.principal, None, items)
    assert (run.calls, run.expired, run.refused) == (len(items), 0, ())
    assert (run.call_lasts is None) is (calls is None)
    created = applied_ids(tenant, Apply(tenant.context, hints), items)
    set_apart(database)
    loop = DialLoop(tenant, now, hints) if calls is None else LastingLoop(tenant, now, hints, calls)
    loop.run(2 * GAP)
    last = max(loop.start_of[each] for each in created)
    assert run.last_start_at is not None
    assert (run.last_start_at - NOON) / last == pytest.approx(1, rel=WITHIN)


def applied_ids(tenant: Tenant, apply: Apply, items: Sequence[CreateInterview]) -> set[UUID]:
    """Create the interviews. Return the ids of their attempts."""
    before = attempt_ids(tenant)
    commands = [sent(tenant, each) for each in items]
    apply_all(apply, [each.id for each in commands])
    assert all(answer_of(tenant, each).refusal is None for each in commands)
    return attempt_ids(tenant) - before


def attempt_ids(tenant: Tenant) -> set[UUID]:
    return {row[0] for row in tenant.ask("SELECT id FROM attempts")}
