"""The forecast comes true: it predicts the starts of the dial loop, which runs on a clock that is moved."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest
from sqlalchemy import text

from console.reads.calendar import Calendars
from scheduler.domain.call import Accepted
from scheduler.domain.company import EVERY_DAY, CallLimits, CallTimeInterval
from scheduler.hashing import Hasher
from scheduler.lifecycle.policy import RELEASE_AHEAD
from scheduler.persistence.database import Database
from scheduler.use_cases.dialling.claim import PLACES_COME_TOGETHER
from scheduler.use_cases.dialling.claimer import KnownPaces
from scheduler.use_cases.dialling.hand import Hand
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests import conftest
from tests.conftest import NOON, TestClock, seed
from tests.support import builders, exhaustive
from tests.support.builders import RecordingHints, Tenant, a_sid, a_tenant, of_company
from tests.verification.world import bulk_attempts as bulk
from tests.verification.world.bulk_attempts import FIRST, bulk_attempts

SHORT, LONGER = timedelta(minutes=4), timedelta(minutes=6)
LONG = timedelta(hours=6)
WITHIN, OF_FEW_WITHIN = 0.05, 0.06
"""How much the forecast may differ. The second is for calls past closing when most calls start.

A slot of a company that opens just after a call of another waits for the account, which the forecast leaves out. So
2 % fewer calls start, which is more of the few that are left. A mean wait for each call would be wrong too: companies
with the same pace start their calls between those of the others and do not wait.
"""
SLOW_ACCOUNT = [(1.0, [(200, 0), (80, 120)]), (1.0, [(150, 60)]), (0.2, [(120, 1)])]
"""For each company: its pace, and its calls with the seconds until they are due."""
FAST_ACCOUNT = [(5.0, [(200, 0)]), (5.0, [(200, 10)]), (5.0, [(100, 0)])]
SLOW_COMPANY = [(10.0, [(300, 0)]), (10.0, [(300, 10)]), (2.0, [(60, 0)])]
ONE_LATER = [(1.0, [(300, 0)]), (1.0, [(100, 30)])]
TICK, A_MOMENT = timedelta(seconds=1), timedelta(milliseconds=5)
FAR_FUTURE = datetime.max.replace(tzinfo=UTC)
IDLE_FOR = timedelta(seconds=30)
"""No call starts for this time: the dial loop has ended."""


def hours(closes_in: timedelta) -> tuple[CallTimeInterval, ...]:
    """Hours in Bratislava, where it is 14:00 at NOON."""
    start = timedelta(hours=8)
    return (CallTimeInterval(days=EVERY_DAY, start=start, end=timedelta(hours=14) + closes_in),)


def set_apart(database: Database) -> None:
    """Give each attempt a due time of its own, in the order of ids.

    A release takes attempts of one instant in the order of their rows on disk. That depends on the moment at which the
    database prunes a page, so each run would start other calls.
    """
    with database.transaction() as stores:
        stores.connection.execute(
            text("""
                UPDATE attempts a SET due_at = a.due_at - later.others * interval '1 microsecond'
                FROM (SELECT id, row_number() OVER (ORDER BY id DESC) AS others FROM attempts) later
                WHERE later.id = a.id
            """)
        )


class DialLoop:
    """The loop of a dialler on a clock that is moved, with the product's hand and paces. Its POSTs take no time."""

    def __init__(self, tenant: Tenant, now: TestClock, hints: RecordingHints) -> None:
        self._tenant, self._now, self._hints = tenant, now, hints
        self._release = Release(tenant.context, hints, tenant.account_id)
        self._hand, self._paces = Hand(), KnownPaces()
        self._account_free_at = NOON
        self._last_start_at = NOON
        self.starts: dict[UUID, list[timedelta]] = defaultdict(list)
        self.start_of: dict[UUID, timedelta] = {}
        """By attempt."""

    def run(self, idle_for: timedelta = IDLE_FOR) -> None:
        """Let releases, claims, last looks and records run until nothing starts."""
        round_at = NOON
        while self._now() < self._last_start_at + idle_for:
            if self._now() >= round_at:
                round_at = self._round()
            self._hand.become_due(self._seconds())
            if ids := self._next_ids():
                self._dial(ids)
            self._now.instant = max(self._now() + A_MOMENT, min(self._awake_at(), round_at))

    def _round(self) -> datetime:
        """Let the clock release attempts. Return when it does so again."""
        done = self._release.round(resends=False, ahead=RELEASE_AHEAD)
        due_at = {each: self._seconds(at) for each, at in self._hints.due_at.items()}
        self._hand.take(self._hints.ids(tasks.DIAL), self._seconds(), due_at)
        self._hints.rung.clear()
        self._hints.due_at.clear()
        return self._now() if done.more else min(self._now() + TICK, done.next_due or FAR_FUTURE)

    def _seconds(self, at: datetime | None = None) -> float:
        return ((at or self._now()) - NOON).total_seconds()

    def _next_ids(self) -> list[UUID]:
        is_free = self._account_free_at <= self._now()
        limit, dial = self._paces.of_account(self._now()) if is_free else 0, self._tenant.dial
        if ids := self._hand.untried(limit):
            return ids
        if fresh := self._hand.without_a_turn():
            self._hand.give_turns(fresh, dial.hinted(fresh), self._paces.last_start_of, self._seconds())
        return self._hand.next(self._seconds(), limit, lambda company: self._paces.of_company(company, self._now()))

    def _awake_at(self) -> datetime:
        """Return when the next claim may be made, if no hint comes before."""
        ready_at, due_at = self._hand.ready_at() or 0.0, self._hand.due_at()
        earliest = ready_at if due_at is None else min(ready_at, due_at)
        return max(self._account_free_at, NOON + timedelta(seconds=earliest))

    def _dial(self, ids: Sequence[UUID]) -> None:
        claimed_at = self._now()
        claims = self._tenant.dial.claim(ids)
        again_at = claims.try_again_at or claimed_at - PLACES_COME_TOGETHER / 2
        again_s = max(again_at + PLACES_COME_TOGETHER - claimed_at, A_MOMENT).total_seconds()
        self._paces.learn(claims.account, claims.companies)
        self._hand.wait_until_due({each: self._seconds(at) for each, at in claims.early.items()})
        self._hand.drop(each for each in ids if each not in claims.waiting)
        self._hand.hold(claims.full, self._seconds() + again_s)
        self._account_free_at = claims.account_free_at or claimed_at
        sent = []
        for each in sorted(claims.claimed, key=lambda each: each.send_at):
            self._now.instant = max(claimed_at, each.send_at)
            if self._tenant.dial.last_look(each.attempt) is not None:
                self._last_start_at = self._now()
                self.starts[each.attempt.company_id].append(self._now() - NOON)
                self.start_of[each.attempt.id] = self._now() - NOON
                sent.append((each.attempt, Accepted(call_sid=a_sid())))
        self._now.instant = claimed_at  # the next claim is made before the calls of this one are sent
        self._tenant.dial.record(sent)


@pytest.mark.parametrize(
    ("calls_per_second", "installation", "closes_in"),
    [
        pytest.param(1.4, SLOW_ACCOUNT, SHORT, id="slow account, many calls past closing"),
        pytest.param(14.0, SLOW_COMPANY, LONG, id="fast account, a slow company"),
        *exhaustive.more(
            pytest.param(1.4, SLOW_ACCOUNT, LONGER, id="slow account, few calls past closing"),
            pytest.param(1.4, SLOW_ACCOUNT, LONG, id="slow account"),
            pytest.param(12.0, FAST_ACCOUNT, LONG, id="fast account"),
            pytest.param(1.0, ONE_LATER, LONG, id="account with the pace of one company"),
        ),
    ],
)
def test_forecast_comes_true(
    database: Database,
    postgres_url: str,
    hasher: Hasher,
    now: TestClock,
    hints: RecordingHints,
    calls_per_second: float,
    installation: list[tuple[float, list[tuple[int, int]]]],
    closes_in: timedelta,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ids decide between calls of the same instant. Random ones give another last start in each run.
    ids = map(UUID, map("{:032x}".format, count(1)))
    for module in (conftest, builders, bulk):
        monkeypatch.setattr(module, "uuid4", ids.__next__)
    companies = [
        seed(
            database,
            NOON,
            intervals=hours(closes_in),
            limits=CallLimits(calls_per_second=pace, concurrent_calls=1000),
        )
        for pace, _ in installation
    ]
    tenant = a_tenant(database, companies[0], hasher, now, calls_per_second=calls_per_second)
    for company, (_, calls) in zip(companies, installation, strict=True):
        for number, due_in in calls:
            due_at = NOON + timedelta(seconds=due_in)
            bulk_attempts(postgres_url, of_company(tenant, company), number, due_at=due_at, kinds=[FIRST])
    forecast = Calendars(tenant.context).day().forecast
    set_apart(database)
    loop = DialLoop(tenant, now, hints)
    loop.run()
    starts = loop.starts
    every = sorted(each for own in starts.values() for each in own)
    assert forecast.total.calls == sum(number for _, calls in installation for number, _ in calls)
    past = forecast.total.calls - len(every)
    assert (past > 0) == (closes_in != LONG)
    assert forecast.total.calls - forecast.total.past_closing == pytest.approx(len(every), rel=WITHIN)
    of_past = OF_FEW_WITHIN if closes_in == LONGER else WITHIN
    assert forecast.total.past_closing == pytest.approx(past, rel=of_past)
    assert forecast.total.last_start_at is not None
    assert (forecast.total.last_start_at - NOON) / every[-1] == pytest.approx(1, rel=WITHIN)
    for company in companies:
        found, own = forecast.companies[company.company_id], starts[company.company_id]
        assert found.last_start_at is not None
        assert (found.last_start_at - NOON) / own[-1] == pytest.approx(1, rel=WITHIN)
