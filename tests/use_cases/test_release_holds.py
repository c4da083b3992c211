"""Due attempts that cannot be released leave the range that the clock reads, and come back as soon as they may."""

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from scheduler.domain.attempt import Cancelled, MovedBySettings, Reason
from scheduler.hashing import Hasher
from scheduler.persistence import schema
from scheduler.persistence.tables import inbox
from scheduler.use_cases.release import Release
from scheduler.use_cases.shared import hints as tasks
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.architecture.guards import guards
from tests.conftest import NOON, TestClock, seed
from tests.persistence.test_hot_statements import Watch
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_tenant,
    a_waiting_command,
)
from tests.support.separate_database import SeparateDatabase, separate_database
from tests.use_cases.conftest import Released
from tests.use_cases.test_release import another_company
from tests.verification.world.bulk_attempts import bulk_attempts

BLOCKED = int(os.environ.get("DUECALL_BLOCKED", "8000"))
"""`make proof` sets a million."""
MOST_READ = 500
"""Rows that one statement may read, however many calls are blocked."""
READ_WHILE_WAKING = 5_000
"""Rows that a statement may read of 500 lines that are free, and of their attempts."""
READ_FOR_TRIALS = 10_000
"""Rows that the search for trial calls may read."""
A_SECOND = timedelta(seconds=1)
A_CALLER = "UPDATE lines SET country = 'SK'"
A_BACKOFF = """
    INSERT INTO carrier_backoffs (account_id, country, company_id, caller, failures, down_until, cause, trials,
        is_asked, others_work, created_at, updated_at)
    SELECT max(id), 'SK', NULL, NULL, 5, CAST(:at AS timestamptz) + interval '5 minutes', 'A_TEST', 0,
        false, false, :at, :at
    FROM carrier_accounts
"""

HALF_OPEN = A_BACKOFF.replace("others_work,", "others_work, answered_at,").replace(
    "false, false,", "false, false, CAST(:at AS timestamptz) + interval '5 minutes',"
)


@pytest.fixture(scope="module")
def filled(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[tuple[SeparateDatabase, Tenant]]:
    """A company with many due calls, in a database of its own without open connections."""
    with separate_database(postgres, logins) as made:
        tenant = a_tenant(made.owner, seed(made.owner, NOON), Hasher("a pepper"), TestClock(NOON))
        bulk_attempts(made.url, tenant, BLOCKED, due_at=NOON - timedelta(minutes=1))
        with psycopg.connect(made.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        made.owner.close()
        yield made, tenant


@pytest.fixture
def big(postgres: EmbeddedPostgres, logins: schema.Logins, filled: tuple[SeparateDatabase, Tenant]) -> Iterator[Tenant]:
    """A copy of that company."""
    made, tenant = filled
    with separate_database(postgres, logins, copied=made) as own:
        yield replace(tenant, database=own.owner, now=TestClock(NOON))


def change_all(tenant: Tenant, statement: str, **values: Any) -> None:
    """Execute a statement without our time limits, which it may exceed for a million rows or on a busy machine."""
    url = tenant.database._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode(), values)


def block(tenant: Tenant, by: str) -> None:
    if by == "rest":
        change_all(tenant, "UPDATE lines SET free_at = %(at)s", at=tenant.now() + timedelta(minutes=5))
    elif by == "back-off":
        change_all(tenant, A_CALLER)
        tenant.change(A_BACKOFF, at=tenant.now())
    else:
        a_waiting_command(tenant, None)
        names = ", ".join(each.name for each in inbox.c if each.name not in {"id", "interview_id", "seq"})
        change_all(
            tenant,
            f"INSERT INTO inbox (id, interview_id, {names}) SELECT gen_random_uuid(), a.interview_id, {names}"
            " FROM (SELECT * FROM inbox LIMIT 1) x CROSS JOIN (SELECT interview_id FROM attempts) a",
        )


def read_by_a_round(tenant: Tenant, release: Release, most: int = MOST_READ) -> dict[str, int]:
    """Return the statements of a round that read more rows, with the rows."""
    watch = Watch()
    with watch.watching(tenant.database):
        release.round(resends=False)
    read = {str(each): sum(each.read.values()) for each in watch.explained}
    return {statement: rows for statement, rows in read.items() if rows > most}


@pytest.mark.parametrize("by", ["rest", "back-off", "command"])
def test_blocked_attempts_are_not_read_each_second(big: Tenant, by: str) -> None:
    block(big, by)
    hints = RecordingHints()
    release = Release(big.context, hints, big.account_id)
    rounds = 1
    while release.round(resends=False).more:
        rounds += 1
    assert rounds < BLOCKED // 500, "a large backlog leaves the range soon"
    assert hints.ids(tasks.DIAL) == []
    assert read_by_a_round(big, release) == {}
    mine, other = a_pending_attempt(big), a_pending_attempt(another_company(big))
    release.round(resends=False)
    assert set(hints.ids(tasks.DIAL)) == {mine.id, other.id}


@pytest.mark.parametrize("state", ["paused_at = :at, pause_reason = 'a test'", "concurrent_calls = 0"])
def test_full_or_paused_company_is_skipped(big: Tenant, state: str) -> None:
    big.change(f"UPDATE companies SET {state}".replace(":at", f"'{NOON.isoformat()}'"))
    hints = RecordingHints()
    release = Release(big.context, hints, big.account_id)
    assert read_by_a_round(big, release) == {}
    other = a_pending_attempt(another_company(big))
    release.round(resends=False)
    assert hints.ids(tasks.DIAL) == [other.id]


def test_calls_that_wait_for_a_turn_are_not_read(big: Tenant) -> None:
    """Also while another company has more blocked calls than a round looks at."""
    big.change("UPDATE companies SET calls_per_second = 1")
    other, number = another_company(big), a_number()
    for _ in range(60):
        a_pending_attempt(other, number)
    big.change(
        "UPDATE lines SET free_at = :at WHERE number_hash IN (SELECT number_hash FROM attempts WHERE company_id = :id)",
        at=big.now() + timedelta(minutes=5),
        id=other.company_id,
    )
    release = Release(big.context, RecordingHints(), big.account_id)
    for _ in range(2):
        assert read_by_a_round(big, release) == {}
    assert big.ask("SELECT count(*) FROM attempts WHERE held_until IS NOT NULL") == [(60,)]


@pytest.mark.parametrize("scope", ["'SK', NULL, NULL", "NULL, :company, '+421221020001'"])
def test_round_with_a_half_open_scope_reads_few_calls(big: Tenant, scope: str) -> None:
    """Its trial call is of another company than the many that are blocked."""
    trial = a_pending_attempt(another_company(big))
    change_all(big, "UPDATE lines SET free_at = %(at)s", at=big.now() + timedelta(minutes=5))
    hints = RecordingHints()
    release = Release(big.context, hints, big.account_id)
    while release.round(resends=False).more:
        pass
    number = "number_hash = (SELECT number_hash FROM attempts WHERE id = :id)"
    big.change(f"UPDATE lines SET country = 'SK', free_at = :at WHERE {number}", at=big.now(), id=trial.id)
    of_company = {"company": trial.company_id} if ":company" in scope else {}
    big.change(HALF_OPEN.replace("'SK', NULL, NULL", scope), at=big.now(), **of_company)
    assert read_by_a_round(big, release, most=READ_FOR_TRIALS) == {}
    assert hints.ids(tasks.DIAL) == [trial.id]


def test_trial_among_many_blocked_calls_is_found_in_turn(big: Tenant) -> None:
    [(trial, number)] = big.ask("SELECT id, number_hash FROM attempts ORDER BY interview_id DESC LIMIT 1")
    change_all(
        big, "UPDATE lines SET free_at = %(at)s WHERE number_hash <> %(own)s", at=big.now() + A_SECOND, own=number
    )
    big.change("UPDATE lines SET country = 'SK' WHERE number_hash = :own", own=number)
    big.change(HALF_OPEN, at=big.now())
    hints = RecordingHints()
    release = Release(big.context, hints, big.account_id)
    rounds = 0
    while not hints.ids(tasks.DIAL):
        release.round(resends=False)
        rounds += 1
    assert hints.ids(tasks.DIAL) == [trial]
    assert rounds <= BLOCKED // 2500 + 1


LINES = 510
"""More than a round looks at."""
_ON_FEW_LINES = f"""
    WITH chosen AS MATERIALIZED (
        SELECT (SELECT array_agg(number_hash) FROM (SELECT number_hash FROM lines ORDER BY 1 LIMIT {LINES}) x) AS hashes
    )
    UPDATE attempts SET number_hash = chosen.hashes[1 + mod(numbered.place, {LINES})]
    FROM chosen, (SELECT id, row_number() OVER () AS place FROM attempts) numbered
    WHERE attempts.id = numbered.id
"""


@pytest.mark.parametrize("then", ["free", "in a back-off"])
def test_freed_lines_of_a_company_keep_no_other_waiting(big: Tenant, then: str) -> None:
    """Each of its lines has many attempts, so that none of them leaves the awaited lines soon."""
    change_all(big, _ON_FEW_LINES)
    theirs = a_pending_attempt(another_company(big))
    free_at = big.now() + timedelta(minutes=5)
    change_all(big, "UPDATE lines SET free_at = %(at)s", at=free_at)
    big.change(
        "UPDATE lines SET free_at = :at WHERE number_hash = (SELECT number_hash FROM attempts WHERE id = :id)",
        at=free_at + A_SECOND,
        id=theirs.id,
    )
    hints = RecordingHints()
    release = Release(big.context, hints, big.account_id)
    while release.round(resends=False).more:
        pass
    big.context.now.move(timedelta(minutes=5) + 2 * A_SECOND)  # type: ignore[attr-defined]  # the clock of the test
    if then != "free":
        big.change(
            A_BACKOFF.replace("'SK', NULL, NULL", "NULL, :company, '+421221020001'"),
            at=big.now(),
            company=big.company_id,
        )
    rounds = 1
    while release.round(resends=False).more and theirs.id not in hints.ids(tasks.DIAL):
        rounds += 1
    assert theirs.id in hints.ids(tasks.DIAL)
    assert rounds <= 3


@pytest.mark.parametrize("statistics", ["old", "new"])
def test_round_that_ends_holds_reads_no_others(big: Tenant, statistics: str) -> None:
    change_all(big, "UPDATE lines SET free_at = %(at)s", at=big.now() + timedelta(minutes=5))
    release = Release(big.context, RecordingHints(), big.account_id)
    while release.round(resends=False).more:
        pass
    if statistics == "new":
        change_all(big, "ANALYZE attempts, lines")
    big.context.now.move(timedelta(minutes=6))  # type: ignore[attr-defined]  # the clock of the test
    assert read_by_a_round(big, release, most=READ_WHILE_WAKING) == {}


def held(tenant: Tenant, attempt_id: UUID) -> bool:
    [(until,)] = tenant.ask("SELECT held_until FROM attempts WHERE id = :id", id=attempt_id)
    return until is not None


@guards("hold_ends_with_the_line")
def test_freed_line_ends_the_holds_of_each_company(tenant: Tenant, released: Released) -> None:
    """The attempts of one company, which is paused since, do not hide the one of another."""
    number, other = a_number(), another_company(tenant)
    first = a_claimed_attempt(tenant, number)
    waiting = [a_pending_attempt(tenant, number, due_at=tenant.now() - A_SECOND) for _ in range(10)]
    theirs = a_pending_attempt(other, number)
    assert released() == []
    assert all(held(tenant, each.id) for each in [*waiting, theirs])
    tenant.change(
        "UPDATE companies SET paused_at = :at, pause_reason = 'a test' WHERE id = :id",
        at=tenant.now(),
        id=tenant.company_id,
    )
    tenant.dial.give_back(first, "A_TEST")
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    assert released() == [theirs.id]


@guards("hold_ends_with_the_line")
def test_freed_line_is_free_for_a_slower_clock(tenant: Tenant, released: Released, now: TestClock) -> None:
    """Its instant is a rule for claims, so no round may move it while others are held for the line."""
    number = a_number()
    first = a_claimed_attempt(tenant, number)
    waiting = [a_pending_attempt(tenant, number) for _ in range(5)]
    now.move(10 * A_SECOND)
    assert released() == []
    tenant.dial.give_back(first, "A_TEST")
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    found = released()
    assert found
    assert sum(held(tenant, each.id) for each in waiting) == 2
    now.move(-2 * A_SECOND)
    assert len(tenant.dial.claim(found[:1]).claimed) == 1


def test_resumed_company_misses_no_freed_line(tenant: Tenant, released: Released) -> None:
    number = a_number()
    first = a_claimed_attempt(tenant, number)
    waiting = a_pending_attempt(tenant, number)
    assert released() == []
    tenant.change("UPDATE companies SET paused_at = :at, pause_reason = 'a test'", at=tenant.now())
    tenant.dial.give_back(first, "A_TEST")
    tenant.take(first, Cancelled(reason=Reason.REPLACED))
    assert released() == []
    tenant.change("UPDATE companies SET paused_at = NULL, pause_reason = NULL")
    assert released() == [waiting.id]


def test_applied_command_ends_the_hold(tenant: Tenant, released: Released) -> None:
    waiting = a_pending_attempt(tenant)
    a_waiting_command(tenant, waiting.interview_id)
    assert released() == []
    assert held(tenant, waiting.id)
    tenant.change("DELETE FROM inbox")
    with tenant.database.transaction() as stores:
        assert stores.attempt_release.release_again(waiting.interview_id)
    assert released() == [waiting.id]


@guards("hold_awaits_its_line")
def test_line_that_is_locked_elsewhere_holds_no_attempt(tenant: Tenant, released: Released, postgres_url: str) -> None:
    """Its call may be ending now, and the end would not be seen."""
    number = a_number()
    a_claimed_attempt(tenant, number)
    waiting = a_pending_attempt(tenant, number)
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT FROM lines FOR UPDATE")
        assert released() == []
        assert not held(tenant, waiting.id)
    assert released() == []
    assert held(tenant, waiting.id)


@guards("hold_of_a_moved_attempt")
def test_moved_attempt_is_not_held(tenant: Tenant, released: Released, now: TestClock) -> None:
    number = a_number()
    a_claimed_attempt(tenant, number)
    waiting = a_pending_attempt(tenant, number)
    assert released() == []
    tenant.take(waiting, MovedBySettings(schedule=waiting.schedule, due_at=now() + A_SECOND))
    assert not held(tenant, waiting.id)


def test_hold_without_a_known_end_is_looked_at_again(tenant: Tenant, released: Released, now: TestClock) -> None:
    """For example after an operator has dropped the command."""
    waiting = a_pending_attempt(tenant)
    a_waiting_command(tenant, waiting.interview_id)
    assert released() == []
    tenant.change("DELETE FROM inbox")
    now.move(5 * A_SECOND)
    assert released() == [waiting.id]
