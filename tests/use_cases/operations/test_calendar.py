"""The forecast comes true: it predicts the starts of the dial loop, which runs on a clock that is moved."""

from datetime import timedelta
from uuid import UUID

import pytest

from scheduler.domain.call import Accepted
from scheduler.domain.company import EVERY_DAY, CallLimits, CallTimeInterval
from scheduler.hashing import Hasher
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION
from scheduler.persistence.database import Database
from scheduler.use_cases.operations.calendar import Calendars
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import NOON, TestClock, seed
from tests.support.builders import RecordingHints, Tenant, a_sid, a_tenant, of_company
from tests.verification.nights.bulk_attempts import FIRST, bulk_attempts

SHORT = timedelta(minutes=6)
OF_ALL = 0.05
OF_A_COMPANY = 0.1
"""The shares of companies are exact only over several releases, which are sized by the pace of the account."""
TICK, SHORTEST_TICK = timedelta(seconds=1), timedelta(milliseconds=10)
IDLE_FOR = timedelta(minutes=2)
"""No call starts for this time: the dial loop has ended."""


def hours(closes_in: timedelta) -> tuple[CallTimeInterval, ...]:
    """Hours in Bratislava, where it is 14:00 at NOON."""
    start = timedelta(hours=8)
    return (CallTimeInterval(days=EVERY_DAY, start=start, end=timedelta(hours=14) + closes_in),)


def started(tenant: Tenant, now: TestClock, hints: RecordingHints) -> dict[UUID, list[timedelta]]:
    """Let releases, claims, last looks and records run until nothing starts. Return the starts of each company."""
    release = Release(tenant.context, hints, tenant.account_id)
    starts: dict[UUID, list[timedelta]] = {}
    waiting: dict[UUID, None] = {}
    idle_since = now()
    while now() - idle_since < IDLE_FOR:
        release.round(resends=False)
        waiting.update(dict.fromkeys(hints.ids(tasks.DIAL)))
        hints.rung.clear()
        claims = tenant.dial.claim([*waiting][:AT_MOST_A_TRANSACTION])
        waiting = dict.fromkeys(claims.waiting)
        sent = []
        for each in sorted(claims.claimed, key=lambda each: each.send_at):
            now.instant = max(now(), each.send_at)
            if tenant.dial.last_look(each.attempt) is not None:
                starts.setdefault(each.attempt.company_id, []).append(now() - NOON)
                sent.append((each.attempt, Accepted(call_sid=a_sid())))
                idle_since = now()
        tenant.dial.record(sent)
        if not claims.claimed:
            now.instant = min(max(claims.try_again_at or now() + TICK, now() + SHORTEST_TICK), now() + TICK)
    return starts


@pytest.mark.parametrize("closes_in", [SHORT, timedelta(hours=6)])
def test_forecast_comes_true(
    database: Database,
    postgres_url: str,
    hasher: Hasher,
    now: TestClock,
    hints: RecordingHints,
    closes_in: timedelta,
) -> None:
    fast, later, slow = (
        seed(
            database,
            NOON,
            intervals=hours(closes_in),
            limits=CallLimits(calls_per_second=pace, concurrent_calls=1000),
        )
        for pace in (1.0, 1.0, 0.2)
    )
    tenant = a_tenant(database, fast, hasher, now, calls_per_second=1.4)
    for company, count, due_in in ((fast, 200, 0), (fast, 80, 120), (later, 150, 60), (slow, 120, 0)):
        due_at = NOON + timedelta(seconds=due_in)
        bulk_attempts(postgres_url, of_company(tenant, company), count, due_at=due_at, kinds=[FIRST])
    forecast = Calendars(tenant.context).day().forecast
    starts = started(tenant, now, hints)
    every = sorted(each for own in starts.values() for each in own)
    assert forecast.total.calls == 550
    past = forecast.total.calls - len(every)
    assert (past > 0) == (closes_in == SHORT), "only one of the cases has calls past closing"
    assert forecast.total.past_closing == pytest.approx(past, rel=OF_ALL)
    assert forecast.total.last_start_at is not None
    assert (forecast.total.last_start_at - NOON) / every[-1] == pytest.approx(1, rel=OF_ALL)
    for company in (fast, later, slow):
        found, own = forecast.companies[company.company_id], starts[company.company_id]
        assert found.last_start_at is not None
        assert (found.last_start_at - NOON) / own[-1] == pytest.approx(1, rel=OF_A_COMPANY)
