"""Alarms are kept as rows until an operator acknowledges them: one open row for each kind and what it is about."""

import ast
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy.exc import ProgrammingError

from scheduler.domain.alarm import AlarmKey, key_of
from scheduler.domain.company import ALARM
from scheduler.domain.refusals import NotFound
from scheduler.lifecycle.decisions import Alarm
from scheduler.persistence.alarms import AuditFilter
from scheduler.persistence.database import Database
from scheduler.persistence.schema import Logins
from scheduler.rules import retention
from scheduler.rules.tallies import ALARMS, labels_of
from scheduler.use_cases.operations.counts import Tallies
from scheduler.use_cases.operations.erase import Purge
from scheduler.use_cases.shared.alarms import Acts, Alarms, AlarmStore, Seen, raise_in
from scheduler.use_cases.shared.effects import InvariantViolated
from tests.architecture.sources import PRODUCT
from tests.conftest import NOON, TestClock
from tests.docs.pages import read
from tests.support.builders import RecordingHints, Tenant, a_placed_attempt
from tests.support.statements import statements_of

OPERATOR = "cli:ada@control"
AT = 1000.0
"""The process's monotonic clock in these tests."""
ONCE = Seen(count=1, first=AT, last=AT)
DEAF = AlarmKey(kind="DEAF_WORKER")


@pytest.fixture
def alarms(database: Database, now: TestClock) -> Alarms:
    return Alarms(database, now, OPERATOR)


@pytest.fixture
def store(database: Database, now: TestClock) -> AlarmStore:
    return AlarmStore(database, now, monotonic=lambda: AT)


def of_attempt(kind: str, attempt_id: UUID) -> AlarmKey:
    return key_of(kind, {"attempt_id": str(attempt_id), "count": 3})


# ---- one open row


def test_repetition_raises_the_count_of_the_open_alarm(alarms: Alarms, store: AlarmStore, now: TestClock) -> None:
    key = of_attempt("OUTCOME_UNKNOWN", uuid4())
    store.store({key: Seen(count=2, first=AT - 60, last=AT - 30)})
    now.move(timedelta(minutes=5))
    store.store({key: ONCE})
    [alarm] = alarms.open()
    assert (alarm.kind, dict(alarm.subjects)) == ("OUTCOME_UNKNOWN", dict(key.subjects))
    assert (alarm.count, alarm.acknowledged_at) == (3, None)
    assert alarm.first_seen_at == NOON - timedelta(seconds=60)
    assert alarm.last_seen_at == NOON + timedelta(minutes=5)


def test_alarms_of_other_subjects_and_kinds_are_other_rows(alarms: Alarms, store: AlarmStore) -> None:
    one, two = uuid4(), uuid4()
    store.store(dict.fromkeys([of_attempt("CAUSE_LOST", one), of_attempt("CAUSE_LOST", two), DEAF], ONCE))
    store.store({of_attempt("ORDER_REFUSED", one): ONCE})
    assert [each.count for each in alarms.open()] == [1, 1, 1, 1]
    assert alarms.count_open() == {"CAUSE_LOST": 2, "DEAF_WORKER": 1, "ORDER_REFUSED": 1}


def test_late_report_does_not_move_an_alarm_back(alarms: Alarms, store: AlarmStore) -> None:
    store.store({DEAF: ONCE})
    store.store({DEAF: Seen(count=1, first=AT - 90, last=AT - 90)})
    [alarm] = alarms.open()
    assert (alarm.last_seen_at, alarm.count) == (NOON, 2)


def test_two_processes_raise_one_alarm(alarms: Alarms, database: Database, now: TestClock) -> None:
    keys = [DEAF, *(of_attempt("CAUSE_LOST", uuid4()) for _ in range(20))]

    def raise_all(order: list[AlarmKey]) -> None:
        for _ in range(5):
            AlarmStore(database, now).store(dict.fromkeys(order, Seen(count=1, first=0, last=0)))

    threads = [threading.Thread(target=raise_all, args=(order,)) for order in (keys, keys[::-1])]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert {each.count for each in alarms.open()} == {10}
    assert len(alarms.open()) == len(keys)


def test_alarms_are_counted_by_kind_without_a_statement(database: Database, store: AlarmStore) -> None:
    seen = {
        of_attempt("CAUSE_LOST", uuid4()): ONCE,
        of_attempt("CAUSE_LOST", uuid4()): Seen(count=4, first=AT, last=AT),
    }
    with statements_of(database) as sent:
        store.store({**seen, DEAF: ONCE, AlarmKey(kind="CARRIER_HTTP_500"): ONCE})
    assert len([each for each in sent if "raise_alarms" in each]) == 1
    assert [each for each in sent if "tally_entries" in each and "raise_alarms" not in each] == []
    store.store({DEAF: ONCE})
    totals = Tallies(database).totals()
    counted = {labels_of(key): amount.n for key, amount in totals.items() if key[0] == ALARMS.name}
    assert counted == {("CAUSE_LOST",): 5, ("DEAF_WORKER",): 2, ("OTHER",): 1}


def test_rolled_back_alarm_is_not_counted(database: Database) -> None:
    with suppress(ZeroDivisionError), database.transaction() as stores:
        raise_in(stores, "CAUSE_LOST", NOON)
        raise ZeroDivisionError
    assert Tallies(database).totals() == {}


def test_alarm_is_stored_on_a_wrong_clock(database: Database, alarms: Alarms, postgres_url: str) -> None:
    behind = Database(postgres_url, pool_size=1, machine=lambda: NOON)
    AlarmStore(behind, lambda: NOON, monotonic=lambda: AT).store({AlarmKey(kind="CLOCK_SKEW"): ONCE})
    behind.close()
    [alarm] = alarms.open()
    assert alarm.last_seen_at > NOON + timedelta(days=1), "the database's time"


# ---- acknowledged


def test_occurrence_after_acknowledgement_opens_a_new_row(alarms: Alarms, store: AlarmStore, now: TestClock) -> None:
    store.store({DEAF: ONCE})
    [first] = alarms.open()
    assert [each.id for each in alarms.acknowledge(first.id, note="a proxy was restarted")] == [first.id]
    assert alarms.open() == []
    now.move(timedelta(hours=1))
    store.store({DEAF: ONCE})
    [second] = alarms.open()
    assert (second.id != first.id, second.count) == (True, 1)
    new, old = alarms.all()
    assert new == second
    assert (old.acknowledged_at, old.acknowledged_by, old.note) == (NOON, OPERATOR, "a proxy was restarted")
    assert old.post_at is None


def test_all_alarms_of_a_kind_are_acknowledged(alarms: Alarms, store: AlarmStore, database: Database) -> None:
    keys = [of_attempt("CAUSE_LOST", uuid4()) for _ in range(3)]
    store.store(dict.fromkeys([*keys, DEAF], ONCE))
    assert len(alarms.acknowledge(None, kind="CAUSE_LOST")) == 3
    assert [each.kind for each in alarms.open()] == ["DEAF_WORKER"]
    entries = Acts(database).newest(AuditFilter(target_kind="alarm"), None, 10)
    assert {each.actor for each in entries} == {OPERATOR}
    assert len({each.target_id for each in entries}) == 3


@pytest.mark.parametrize("kind", [None, "CAUSE_LOST"])
def test_alarm_that_is_not_open_is_not_found(alarms: Alarms, store: AlarmStore, kind: str | None) -> None:
    store.store({DEAF: ONCE})
    with pytest.raises(NotFound):
        alarms.acknowledge(None if kind else uuid4(), kind=kind)
    [alarm] = alarms.open()
    alarms.acknowledge(alarm.id)
    with pytest.raises(NotFound):
        alarms.acknowledge(alarm.id)


def test_only_old_acknowledged_alarms_are_purged(
    alarms: Alarms, store: AlarmStore, database: Database, hints: RecordingHints, now: TestClock
) -> None:
    store.store(dict.fromkeys([DEAF, AlarmKey(kind="LOCK_HELD")], ONCE))
    alarms.acknowledge(None, kind="DEAF_WORKER")
    now.move(retention.ALARMS)
    Purge(database, hints, now).round()
    assert len(alarms.all()) == 2
    now.move(timedelta(seconds=1))
    Purge(database, hints, now).round()
    assert [each.kind for each in alarms.all()] == ["LOCK_HELD"]


# ---- in the transaction of their cause


def test_alarm_that_pauses_a_company_is_stored_with_the_pause(tenant: Tenant, alarms: Alarms) -> None:
    attempt = a_placed_attempt(tenant)
    violated = InvariantViolated(Alarm(cause="TWO_CALLS_FOR_ONE_TOKEN"), attempt)
    tenant.effects.pause_for_alarm(violated)
    [alarm] = alarms.open()
    assert alarm.kind == "TWO_CALLS_FOR_ONE_TOKEN"
    assert dict(alarm.subjects) == {"attempt_id": str(attempt.id), "company_id": str(tenant.company_id)}
    [[reason]] = tenant.ask("SELECT pause_reason FROM companies")
    assert reason == f"{ALARM}TWO_CALLS_FOR_ONE_TOKEN"


def test_pause_that_is_rolled_back_stores_no_alarm(tenant: Tenant, alarms: Alarms) -> None:
    violated = InvariantViolated(Alarm(cause="TWO_CALLS_FOR_ONE_TOKEN"), a_placed_attempt(tenant))
    with suppress(KeyError), tenant.database.transaction() as stores:
        tenant.effects.pause_for_alarm_in(stores, violated, tenant.now())
        raise KeyError
    assert alarms.open() == []
    assert tenant.ask("SELECT pause_reason FROM companies") == [(None,)]


def calls_in(function: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
            yield node


def test_line_that_says_stored_is_next_to_its_row() -> None:
    functions = [
        node for path in PRODUCT for node in ast.walk(ast.parse(read(path))) if isinstance(node, ast.FunctionDef)
    ]
    stored = [
        each for each in functions if any("is_stored=True" in ast.unparse(line) for line in calls_in(each, "error"))
    ]
    assert len(stored) == 5
    for each in stored:
        [line] = [line for line in calls_in(each, "error") if "is_stored=True" in ast.unparse(line)]
        [row] = [*calls_in(each, "raise_in"), *calls_in(each, "raise_each_in")]
        kind = {keyword.arg: ast.unparse(keyword.value) for keyword in line.keywords}["alarm"]
        assert kind == ast.unparse(row.args[1])


# ---- rights of each role


def test_api_raises_alarms_and_sees_none(logins: Logins, alarms: Alarms, now: TestClock) -> None:
    api = Database(logins.api, pool_size=1, bound=True)
    AlarmStore(api, now, monotonic=lambda: AT).store({DEAF: ONCE})
    assert [each.kind for each in alarms.open()] == ["DEAF_WORKER"]
    for statement in ("SELECT FROM alarms", "DELETE FROM alarms", "UPDATE alarms SET count = 1"):
        with psycopg.connect(logins.api) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    with api.counting() as stores:
        assert stores.alarms.count_open() == {"DEAF_WORKER": 1}
    with api.counting() as stores, pytest.raises(ProgrammingError, match="permission denied"):
        stores.alarms.open(1)
    api.close()


# ---- keys


@pytest.mark.parametrize(
    ("fields", "subjects"),
    [
        ({}, {}),
        ({"company_id": "c", "seconds": 3, "name": "Ada", "call_sid": "CA1"}, {"company_id": "c"}),
        ({"country": "BG", "event": "x", "attempt_id": None}, {"country": "BG"}),
        ({"event_id": "a" * 99}, {"event_id": "a" * 40}),
    ],
)
def test_key_has_only_ids_from_the_log_line(fields: Mapping[str, object], subjects: Mapping[str, str]) -> None:
    assert dict(key_of("QUARANTINE", fields).subjects) == subjects


def test_kind_of_a_key_fits_the_column(store: AlarmStore, alarms: Alarms) -> None:
    for kind in ("", "carrier http 503: no", "X" * 200):
        store.store({key_of(kind, {}): ONCE})
    assert {each.kind for each in alarms.open()} == {"UNNAMED", "CARRIER_HTTP_503_NO", "X" * 80}
