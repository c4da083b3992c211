"""Caller ids by day: statements read few rows of many numbers and days, and other roles see and write nothing more."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from console.stores.resources import OperatedResources
from scheduler.persistence import schema
from scheduler.persistence.stores import Stores
from scheduler.rules.reputation import CallerResult
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, Seeded, seed
from tests.persistence.rows_read import rows_read
from tests.support.separate_database import SeparateDatabase, separate_database

TABLES = frozenset({"phone_numbers", "caller_days"})
TODAY = NOON.date()
NUMBERS, DAYS = 3_000, 60
WITH_CALLS = 40
"""Numbers that have calls today."""
_FILL = f"""
    INSERT INTO phone_numbers (id, company_id, number, created_at, updated_at)
    SELECT gen_random_uuid(), %(company)s, '+42190' || 1000000 + n, %(at)s, %(at)s FROM generate_series(1, {NUMBERS}) n;
    INSERT INTO caller_days (company_id, phone_number_id, day, calls, answered, declined, blocked)
    SELECT company_id, id, CAST(%(at)s AS date) - d, 9, 4, 2, 1 FROM phone_numbers, generate_series(1, {DAYS}) d;
    INSERT INTO caller_days (company_id, phone_number_id, day, calls, answered, declined, blocked)
    SELECT company_id, id, %(at)s, 9, 4, 2, 1 FROM phone_numbers ORDER BY number LIMIT {WITH_CALLS}
"""
Filled = tuple[SeparateDatabase, Seeded, Seeded]


@pytest.fixture(scope="module")
def filled(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[Filled]:
    with separate_database(postgres, logins) as made:
        many, few = seed(made.owner, NOON), seed(made.owner, NOON)
        with psycopg.connect(made.url, autocommit=True) as connection:
            for statement in _FILL.split(";\n"):
                connection.execute(statement.encode(), {"company": many.company_id, "at": NOON})
            connection.execute("ANALYZE phone_numbers, caller_days")
        yield made, many, few


def results(company: Seeded, count: int) -> list[CallerResult]:
    return [
        CallerResult(company_id=company.company_id, number=f"+42190{1_000_001 + each}", day=TODAY, is_blocked=True)
        for each in range(count)
    ]


def append(stores: Stores, company: Seeded, count: int) -> None:
    with stores.connection.gathering():
        for each in results(company, count):
            stores.caller_days.add(each)


def test_counts_of_today_are_read_by_an_index(filled: Filled) -> None:
    made, _, _ = filled
    found: list[Any] = []
    read = rows_read(
        made.api, made.api.counting(), lambda stores: found.extend(stores.caller_days.of_day(TODAY)), TABLES
    )
    assert len(found) == WITH_CALLS
    assert read <= 2 * WITH_CALLS


@pytest.mark.parametrize("of_console", [False, True])
def test_numbers_of_a_company_read_nothing_of_others(filled: Filled, *, of_console: bool) -> None:
    made, _, few = filled
    database = made.console if of_console else made.worker

    def act(stores: Stores) -> None:
        if of_console:
            numbers: Any = OperatedResources(stores.connection).numbers(few.company_id, TODAY, 21)
        else:
            numbers = stores.caller_days.numbers_of(few.company_id, TODAY)
        assert len(numbers) == 1

    assert rows_read(database, database.reading(), act, TABLES) <= 4


def test_results_find_their_numbers_by_an_index(filled: Filled) -> None:
    made, many, _ = filled
    assert rows_read(made.worker, made.worker.transaction(), lambda s: append(s, many, 200), TABLES) <= 400


def test_fold_reads_few_days_of_many(filled: Filled) -> None:
    made, many, _ = filled
    with made.worker.transaction() as stores:
        append(stores, many, 100)
    changed: list[Any] = []

    def fold(stores: Stores) -> None:
        taken, days = stores.caller_days.fold(1000)
        changed.extend(days)
        assert taken >= len(days) >= 100

    assert rows_read(made.worker, made.worker.transaction(), fold, TABLES) <= 1000
    assert {each.day for each in changed} == {TODAY}


def test_blocked_calls_of_numbers_are_read_and_noted_by_indexes(filled: Filled) -> None:
    made, _, _ = filled
    numbers: list[Any] = []

    def report(stores: Stores) -> None:
        numbers.extend(stores.caller_days.blocked_numbers(stores.caller_days.of_day(TODAY)))
        stores.caller_days.note_blocked(numbers)

    assert rows_read(made.worker, made.worker.transaction(), report, TABLES) <= 2000
    assert len(numbers) >= WITH_CALLS
    assert not any(each.is_reported for each in numbers)


def test_old_days_are_deleted_by_an_index(filled: Filled) -> None:
    made, _, _ = filled
    before = TODAY - timedelta(days=DAYS - 1)

    def forget(stores: Stores) -> None:
        assert stores.caller_days.forget(before, 100) == 100

    assert rows_read(made.worker, made.worker.transaction(), forget, TABLES) <= 400


def test_release_0_2_0_erases_numbers_with_their_days_only(filled: Filled) -> None:
    made, many, _ = filled
    [erased, kept] = [f"+42190{1_000_000 + each}" for each in (NUMBERS - 1, NUMBERS)]
    left = text(
        "SELECT count(*) FROM caller_days JOIN phone_numbers n ON n.id = phone_number_id WHERE n.number = :number"
    )
    with made.worker.transaction() as stores:
        days = stores.connection.execute(text("SELECT count(*) FROM caller_days")).scalar_one()
        of_erased = stores.connection.execute(left, {"number": erased}).scalar_one()
        of_kept = stores.connection.execute(left, {"number": kept}).scalar_one()
        # That release deletes a company's numbers and does not know their days.
        stores.connection.execute(
            text("DELETE FROM phone_numbers WHERE company_id = :company AND number = :number"),
            {"company": many.company_id, "number": erased},
        )
        assert stores.connection.execute(text("SELECT count(*) FROM caller_days")).scalar_one() == days - of_erased
        assert stores.connection.execute(left, {"number": kept}).scalar_one() == of_kept > 0
    assert of_erased > 0


# ---- roles

DENIED = "permission denied"


@pytest.mark.parametrize(
    "statement",
    ["SELECT 1 FROM caller_days", "SELECT 1 FROM caller_results", "DELETE FROM caller_days"],
)
def test_api_role_neither_reads_nor_writes_days(filled: Filled, statement: str) -> None:
    made, _, _ = filled
    with pytest.raises(ProgrammingError, match=DENIED), made.api.transaction() as stores:
        stores.connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE caller_days SET blocked = 0", "SELECT 1 FROM caller_results", "INSERT INTO caller_results DEFAULT VALUES"],
)
def test_console_role_only_reads_days(filled: Filled, statement: str) -> None:
    made, _, _ = filled
    with made.console.reading() as stores:
        assert stores.caller_days.of_day(TODAY)
    with pytest.raises(ProgrammingError, match=DENIED), made.console.transaction() as stores:
        stores.connection.execute(text(statement))


def test_counting_role_reads_days_and_no_results(filled: Filled) -> None:
    made, _, _ = filled
    with made.api.counting() as stores:
        assert stores.caller_days.of_day(TODAY)
    with pytest.raises(ProgrammingError, match=DENIED), made.api.counting() as stores:
        stores.connection.execute(text("SELECT 1 FROM caller_results"))
