"""Fairness: one company's thousands of due calls of any kind do not delay another company's single retry.

The product's clock, a dial worker in its own process and the carrier over HTTP run in real time. The assertions count
the calls placed in between, so a busy machine does not change the result. Seconds are only printed.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from scheduler.domain.company import CallLimits
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database
from scheduler.persistence.errors import LockTaken
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from tests.conftest import TestClock, real_now, seed, wait_until
from tests.support import exhaustive
from tests.support.builders import (
    ALWAYS,
    RecordingHints,
    Tenant,
    a_pending_attempt,
    a_tenant,
    a_waiting_command,
    of_company,
)
from tests.verification.world.bulk_attempts import RETRY, bulk_attempts
from tests.verification.world.moved_clock import a_clock
from tests.verification.world.real_time import TIMES, clock_at_work, put_back, rung_at
from tests.verification.world.workers import CPS, CrashSetup, working

THOUSANDS = exhaustive.cases(10_000, 2_500)
"""More than are called until the end of a test."""
SMALL = 10
A_WHILE = timedelta(seconds=10)
IN_A_SECOND = int(CPS)
"""Calls that may be sent in a second. At most as many are claimed ahead."""
MOST_DURING_A_BACKLOG = 3 * IN_A_SECOND
"""One second of calls was claimed ahead, and another is claimed until the clock looks. On a machine too busy for the
account's pace, one more claim may be under way."""


def small_companies(setup: CrashSetup) -> list[Tenant]:
    now = setup.tenant.now()
    return [
        of_company(setup.tenant, seed(setup.tenant.database, now, intervals=ALWAYS, limits=CallLimits()))
        for _ in range(SMALL)
    ]


def numbers_of(tenant: Tenant) -> set[str]:
    rows = tenant.ask("SELECT phone_number FROM candidates WHERE company_id = :id", id=tenant.company_id)
    return {row.phone_number for row in rows}


@dataclass(frozen=True, kw_only=True)
class Waited:
    seconds: list[float]
    """Waiting times of the small companies' calls since they were due."""
    overtaken_by: int
    """The most calls of the big company while one of these was due."""
    overtaken_again_by: int
    """The same for calls that a machine too slow for their last looks had put back, since they were due again."""


def waited(setup: CrashSetup, tenants: Sequence[Tenant], since: datetime) -> Waited:
    numbers = {tenant.company_id: numbers_of(tenant).pop() for tenant in tenants}
    small = set(numbers.values())
    wait_until(lambda: small <= set(rung_at(setup)), seconds=90, says="each small company's call was placed")
    rung = rung_at(setup)
    seconds, overtaken, overtaken_again = [], [0], [0]
    for row in setup.tenant.ask(_DUE, ids=list(numbers)):
        begins, ends = max(since, row.due_at), rung[numbers[row.company_id]]
        seconds.append((ends - begins).total_seconds())
        others = sum(begins <= at <= ends for number, at in rung.items() if number not in small)
        (overtaken_again if row.was_put_back else overtaken).append(others)
    return Waited(seconds=sorted(seconds), overtaken_by=max(overtaken), overtaken_again_by=max(overtaken_again))


_DUE = """
    SELECT a.company_id, a.due_at, EXISTS (
        SELECT FROM attempt_history h WHERE h.attempt_id = a.id AND h.event IN ('deferred', 'not_placed')
    ) AS was_put_back
    FROM attempts a
    WHERE a.company_id = ANY (:ids)
"""


def figures(what: str, waited: Waited, **more: object) -> str:
    return (
        f"  {what}: median {statistics.median(waited.seconds):.2f} s, longest {max(waited.seconds):.2f} s,"
        f" overtaken by {waited.overtaken_by} calls, {waited.overtaken_again_by} when put back; {more}"
    )


def test_clock_sends_hints_for_commands_despite_a_backlog(
    broker: None, postgres_url: str, database: Database, hasher: Hasher, hints: RecordingHints
) -> None:
    companies = [seed(database, real_now(), intervals=ALWAYS) for _ in range(6)]
    tenant = a_tenant(database, companies[0], hasher, real_now, calls_per_second=1000, max_calls=10_000)
    for company in companies:
        bulk_attempts(postgres_url, of_company(tenant, company), 250, due_at=real_now())
    command = a_waiting_command(tenant, None)
    tenant.change("UPDATE inbox SET rung_at = rung_at - interval '1 minute'")
    clock = a_clock(Release(tenant.context, hints, tenant.account_id), tenant.policy.sweep.total_seconds())
    assert clock._work() == 0, "there is more to release at once"
    assert len(hints.ids(tasks.DIAL)) == 500
    assert hints.ids(tasks.APPLY) == [command.id]
    assert hints.rings.count((tasks.SETTLE, ())) == 1
    clock._next_sweep = clock._next_resend = math.inf
    for _ in range(2):
        assert clock._work() == 0
    assert clock._work() > 0
    assert len(hints.ids(tasks.DIAL)) == len(set(hints.ids(tasks.DIAL))) == 6 * 250


def test_call_due_during_the_clocks_work_is_released_next(broker: None, tenant: Tenant, now: TestClock) -> None:
    class SlowHints(RecordingHints):
        def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
            super().send(task, ids, due_at)
            now.move(timedelta(milliseconds=300))

    hints = SlowHints()
    tenant.change("UPDATE carrier_accounts SET calls_per_second = 0.3")  # too slow for an early hint
    due = a_pending_attempt(tenant, due_at=now() + timedelta(milliseconds=200))
    a_waiting_command(tenant, None)
    tenant.change("UPDATE inbox SET rung_at = rung_at - interval '1 minute'")
    clock = a_clock(Release(tenant.context, hints, tenant.account_id), tenant.policy.sweep.total_seconds())
    clock._next_sweep = clock._next_purge = math.inf
    assert 0 < clock._work() < 0.01
    assert hints.ids(tasks.APPLY) != [], "time passed after the query for due attempts"
    assert hints.ids(tasks.DIAL) == []
    clock._work()
    assert hints.ids(tasks.DIAL) == [due.id]


def test_sweep_goes_on_while_releases_fail(
    broker: None, postgres_url: str, tenant: Tenant, release: Release, hints: RecordingHints
) -> None:
    clock = a_clock(release, tenant.policy.sweep.total_seconds())
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE carrier_accounts IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LockTaken):
            clock._work()
    assert (tasks.SETTLE, ()) in hints.rings


@pytest.mark.timeout(200)
def test_small_companies_are_called_in_the_first_second(
    broker: None, postgres_url: str, aloud: Callable[[str], None]
) -> None:
    with working(postgres_url, settling=False, **TIMES) as setup:
        setup.carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        due_at = setup.tenant.now()
        bulk_attempts(postgres_url, setup.tenant, THOUSANDS, due_at=due_at)
        small = small_companies(setup)
        for tenant in small:
            bulk_attempts(postgres_url, tenant, 1, due_at=due_at, kinds=[RETRY])
        with clock_at_work(postgres_url, setup):
            wait_until(setup.carrier.rings, seconds=60, says="the first call was placed")
            first = min(rung_at(setup).values())
            result = waited(setup, small, first)
        aloud(figures("ten small companies and a big one", result, put_back=put_back(setup.tenant)))
        assert result.overtaken_by <= IN_A_SECOND
        assert result.overtaken_again_by <= MOST_DURING_A_BACKLOG


@pytest.mark.timeout(200)
def test_small_companies_due_during_a_backlog_wait_no_longer(
    broker: None, postgres_url: str, aloud: Callable[[str], None]
) -> None:
    with working(postgres_url, settling=False, **TIMES) as setup:
        setup.carrier.plan(ring_s=0, talk_s=0, callbacks="none")
        bulk_attempts(postgres_url, setup.tenant, THOUSANDS, due_at=setup.tenant.now())
        small = small_companies(setup)
        with clock_at_work(postgres_url, setup):
            wait_until(lambda: len(setup.carrier.rings()) > 150, seconds=60, says="more than 150 calls were placed")
            begun, before = setup.tenant.now(), len(setup.carrier.rings())
            due_at = setup.tenant.now() + A_WHILE
            for tenant in small:
                bulk_attempts(postgres_url, tenant, 1, due_at=due_at, kinds=[RETRY])
            late = setup.tenant.now() - due_at
            result = waited(setup, small, due_at)
            pace = (len(setup.carrier.rings()) - before) / (setup.tenant.now() - begun).total_seconds()
        what, causes = "ten small companies that are due later", put_back(setup.tenant)
        aloud(figures(what, result, pace=round(pace, 1), put_back=causes))
        assert late < timedelta(0)
        keeps_pace = pace >= 0.95 * CPS
        assert result.overtaken_by <= (2 * IN_A_SECOND if keeps_pace else MOST_DURING_A_BACKLOG)
        assert result.overtaken_again_by <= MOST_DURING_A_BACKLOG
