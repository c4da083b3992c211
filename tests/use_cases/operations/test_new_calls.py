"""The expected start of the last new call comes true: the dial loop runs on a clock that is moved."""

from datetime import timedelta
from itertools import count
from uuid import UUID

import pytest
from sqlalchemy import text

from scheduler.domain.company import EVERY_DAY, CallLimits, CallTimeInterval
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.dry_run import DryRuns
from tests import conftest
from tests.conftest import NOON, TestClock, seed
from tests.console.test_forecast_of_calendar import WITHIN, DialLoop, hours, set_apart
from tests.support import builders
from tests.support.builders import RecordingHints, a_tenant, of_company
from tests.use_cases.test_apply import a_wish, answer_of, sent
from tests.use_cases.test_intake_statements import apply_all
from tests.verification.world import bulk_attempts as bulk
from tests.verification.world.bulk_attempts import FIRST, bulk_attempts

LONG = timedelta(hours=6)
GAP = timedelta(minutes=8)


def with_a_gap(closes_in: timedelta) -> tuple[CallTimeInterval, ...]:
    """Hours in Bratislava, where it is 14:00 at NOON, that close and open again soon."""
    (first,) = hours(closes_in)
    return (first, CallTimeInterval(days=EVERY_DAY, start=first.end + GAP, end=timedelta(hours=22)))


@pytest.mark.parametrize(
    ("account", "pace", "own", "others", "new", "intervals"),
    [
        pytest.param(50.0, 1.0, [], [], [(200, 0)], hours(LONG), id="alone"),
        pytest.param(50.0, 1.0, [(100, 0), (60, 400)], [], [(150, 30)], hours(LONG), id="between own calls"),
        pytest.param(1.4, 1.0, [(60, 0)], [(1.0, 150)], [(120, 20)], hours(LONG), id="beside another company"),
        pytest.param(
            50.0,
            1.0,
            [(60, 0)],
            [],
            [(150, 0)],
            with_a_gap(timedelta(minutes=2)),
            id="past closing, at the next opening",
        ),
    ],
)
def test_last_new_call_starts_when_expected(
    database: Database,
    postgres_url: str,
    hasher: Hasher,
    now: TestClock,
    hints: RecordingHints,
    account: float,
    pace: float,
    own: list[tuple[int, int]],
    others: list[tuple[float, int]],
    new: list[tuple[int, int]],
    intervals: tuple[CallTimeInterval, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = map(UUID, map("{:032x}".format, count(1)))  # ids decide between calls of the same instant
    for module in (conftest, builders, bulk):
        monkeypatch.setattr(module, "uuid4", ids.__next__)
    mine, *other = [
        seed(database, NOON, intervals=intervals, limits=CallLimits(calls_per_second=each, concurrent_calls=1000))
        for each in (pace, *(each for each, _ in others))
    ]
    tenant = a_tenant(database, mine, hasher, now, calls_per_second=account)
    for number, due_in in own:
        bulk_attempts(postgres_url, tenant, number, due_at=NOON + timedelta(seconds=due_in), kinds=[FIRST])
    for company, (_, number) in zip(other, others, strict=True):
        bulk_attempts(postgres_url, of_company(tenant, company), number, due_at=NOON, kinds=[FIRST])
    items = [
        a_wish(tenant, scheduled_at=f"{NOON + timedelta(seconds=due_in):%Y-%m-%dT%H:%M:%SZ}")
        for number, due_in in new
        for _ in range(number)
    ]
    run = DryRuns(tenant.context).decide(tenant.principal, None, items)
    assert (run.calls, run.expired, run.refused) == (len(items), 0, ())
    before = set(database_ids(database))
    apply = Apply(tenant.context, hints)
    commands = [sent(tenant, each) for each in items]
    apply_all(apply, [each.id for each in commands])
    assert all(answer_of(tenant, each).refusal is None for each in commands)
    created = set(database_ids(database)) - before
    set_apart(database)
    loop = DialLoop(tenant, now, hints)
    loop.run(GAP * 2)
    last = max(loop.start_of[each] for each in created)
    assert run.last_start_at is not None
    assert (run.last_start_at - NOON) / last == pytest.approx(1, rel=WITHIN)


def database_ids(database: Database) -> list[UUID]:
    with database.transaction() as stores:
        return list(stores.connection.execute(text("SELECT id FROM attempts")).scalars())
