"""Statements of the path of a call read few rows by an index, however many calls there are.

    DUECALL_PENDING=1000000 python -m pytest tests/persistence/test_hot_statements.py     # `make proof`

The use cases themselves send the statements, in the roles of production. Each statement is explained right before it is
executed, with its own parameters, and what EXPLAIN has changed is undone.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import event

from scheduler.carriers.twilio import TwilioCallbacks
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import Accepted, AnswerUnknown
from scheduler.domain.command import DeleteAttempt, DeleteInterview, InvokeAttempt, Request, UpdateInterview
from scheduler.domain.explanation import CallTimeQuestion
from scheduler.domain.principal import KeyKind
from scheduler.hashing import Hasher
from scheduler.persistence import schema
from scheduler.persistence.database import Database
from scheduler.persistence.inbox import FoundCommand
from scheduler.use_cases.apply import Apply
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.hear import Hear
from scheduler.use_cases.operations.counts import Counts, Tallies
from scheduler.use_cases.release import Release
from scheduler.use_cases.resources.keys import Keys
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.submit import Submit
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, TestClock, seed
from tests.persistence.test_plans import ROWS_OF_A_RANGE
from tests.support.big_tables import add_answered_calls, add_pending_calls
from tests.support.builders import (
    RecordingHints,
    Tenant,
    a_candidate,
    a_pending_attempt,
    a_sid,
    a_tenant,
    a_waiting_command,
)
from tests.support.separate_database import separate_database
from tests.support.servers import ACCOUNT_SID, SimulatedCarrier
from tests.use_cases.conftest import EMPTY_LIST, PUBLIC_URL, answering, settle_at
from tests.use_cases.test_apply import a_wish
from tests.use_cases.test_hear import a_form, deliver
from tests.use_cases.test_submit_and_apply import TOMORROW, move
from tests.verification.world.bulk_attempts import bulk_attempts
from tests.verification.world.moved_clock import a_clock

pytestmark = pytest.mark.timeout(1800)

PENDING = int(os.environ.get("DUECALL_PENDING", "40000"))
DUE = PENDING // 100
BIG = frozenset(
    {
        *(
            "candidates",
            "interviews",
            "attempts",
            "attempt_history",
            "attempt_tokens",
            "carrier_events",
            "inbox",
            "lines",
        ),
        "usage",
    }
)
CLAIMED = 100
WAITING = 400
MAY_READ = {
    # These compare instants for which there is no index. They read calls in progress, or that are searched for, and
    # never pending or finished ones.
    "WHERE lease_until IS NOT NULL AND (lease_until >": CLAIMED,
    "WHERE look_at IS NOT NULL AND ( claimed_at >": CLAIMED,
    "WHERE search_at IS NOT NULL AND (search_at >": CLAIMED,
    "SELECT count(*) AS count_1, min(attempts.unknown_at)": CLAIMED,
    "WHERE state = 'PENDING' AND updated_at >": 4 * ROWS_OF_A_RANGE,
    # No index holds the kind of a due attempt. Each kind's turns read the others too, and released ones.
    "WITH calling AS ( SELECT company_id": 5 * DUE,
    # Looks at fifty attempts of each company and kind, whether or not they are blocked, and skips released ones.
    "SELECT blocked.* FROM companies": 2 * DUE,
    # Skips the attempts that were released early.
    "SELECT min(due_at) FROM attempts": 10,
    # While few commands wait, the index of all of them is as short as the one by interview.
    "SELECT inbox.id, inbox.quarantined_at FROM inbox": 20,
}
"""Statements that read more than three rows for each row that they use, and the most that they may read."""
DIFFERENT_STATEMENTS = 100
A_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Explained:
    step: str
    statement: str
    read: Mapping[str, int]
    """Rows of each big table."""
    used: int
    """Rows that were returned, changed, counted or named by a parameter."""
    scanned: frozenset[str]
    """Big tables with a sequential scan, also within functions, triggers and foreign keys."""
    milliseconds: float
    plan: dict[str, Any]

    @property
    def too_much(self) -> dict[str, int]:
        """The tables of which more than three rows were read for each used row, with the rows read."""
        most = max([3 * max(1, self.used), *(rows for words, rows in MAY_READ.items() if words in self.statement)])
        return {table: rows for table, rows in self.read.items() if rows > most}

    def __str__(self) -> str:
        found = f"used {self.used}, read {dict(self.read)}, scanned {sorted(self.scanned)}"
        return f"{self.step}: {found}: {self.statement}\n{json.dumps(self.plan)}"


@dataclass
class Watch:
    """Explains the statements of two databases."""

    step: str = ""
    explained: list[Explained] = field(default_factory=list)

    @contextmanager
    def watching(self, *databases: Database) -> Iterator[None]:
        for each in databases:
            event.listen(each._engine, "before_cursor_execute", self._explain)
        yield
        for each in databases:
            event.remove(each._engine, "before_cursor_execute", self._explain)

    def _explain(self, connection: Any, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if (
            statement.lstrip().split()[0] not in {"SELECT", "WITH", "INSERT", "UPDATE", "DELETE"}
            or "; BEGIN" in statement
        ):
            return
        driver: psycopg.Connection = connection.connection.driver_connection
        is_alone = driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        begin, undo = ("BEGIN", "ROLLBACK") if is_alone else ("SAVEPOINT watch", "ROLLBACK TO SAVEPOINT watch")
        with psycopg.Cursor(driver, row_factory=psycopg.rows.tuple_row) as cursor:
            cursor.execute(begin.encode())
            before = _scans(cursor)
            cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}".encode(), parameters)
            [([explained],)] = cursor.fetchall()
            scanned = _scans(cursor) - before
            cursor.execute(undo.encode())
        scans = [node for node in _nodes(explained["Plan"]) if _is_scan(node)]
        read: Counter[str] = Counter()
        for each in scans:
            read[each["Relation Name"]] += _read_by(each)
        self.explained.append(
            Explained(
                step=self.step,
                statement=" ".join(statement.split()),
                read=read,
                used=max(_used(explained["Plan"]), _named(parameters)),
                scanned=frozenset(each["Relation Name"] for each in scans if each["Node Type"] == "Seq Scan")
                | {table for table in BIG if scanned[table]},
                milliseconds=explained["Planning Time"] + explained["Execution Time"],
                plan=explained["Plan"],
            )
        )


def _scans(cursor: psycopg.Cursor[Any]) -> Counter[str]:
    """Count the sequential scans of each table since the transaction began."""
    cursor.execute("SELECT relname, seq_scan FROM pg_stat_xact_user_tables")
    return Counter(dict(cursor.fetchall()))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _is_scan(node: dict[str, Any]) -> bool:
    return node["Node Type"].endswith("Scan") and node.get("Relation Name") in BIG


def _rows(node: dict[str, Any]) -> int:
    rows: int = round(node["Actual Rows"] * node["Actual Loops"])
    return rows


def _read_by(scan: dict[str, Any]) -> int:
    removed = sum(number for name, number in scan.items() if name.startswith("Rows Removed"))
    rows: int = round(removed * scan["Actual Loops"])
    return _rows(scan) + rows


def _named(parameters: Any) -> int:
    """Return the length of the longest array among the parameters."""
    values = parameters.values() if isinstance(parameters, Mapping) else parameters or ()
    return max((len(each) for each in values if isinstance(each, list)), default=0)


def _used(plan: dict[str, Any]) -> int:
    """Return the most rows that the statement returns, changes or counts."""
    ends = [plan]
    for node in _nodes(plan):
        if node["Node Type"] in {"ModifyTable", "Aggregate"}:
            ends += node.get("Plans", ())
    return max(map(_rows, ends))


@dataclass(frozen=True, kw_only=True)
class Path:
    """A company with many calls, as API and workers see it."""

    owner: Tenant
    api: Tenant
    worker: Tenant
    url: str
    now: TestClock


@pytest.fixture(scope="module")
def path(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[Path]:
    with separate_database(postgres, logins) as made:
        now, hasher = TestClock(NOON), Hasher("a pepper")
        one, other = seed(made.owner, NOON), seed(made.owner, NOON)
        tenant = a_tenant(made.owner, one, hasher, now, account_sid=ACCOUNT_SID)
        with psycopg.connect(made.url, autocommit=True) as connection:
            # Nothing on the path searches, and to fill this index takes longer than everything else.
            connection.execute("DROP INDEX ix_candidates_search")
        for seeded, count in ((one, PENDING), (other, PENDING // 8)):
            add_pending_calls(made.url, seeded, NOON, count)
            add_answered_calls(made.url, seeded, NOON, count // 4, tenant.account_id)
        yield Path(
            owner=tenant,
            api=replace(tenant, database=made.api),
            worker=replace(tenant, database=made.worker),
            url=made.url,
            now=now,
        )


@pytest.fixture(scope="module")
def explained(path: Path, broker: None) -> list[Explained]:
    bulk_attempts(path.url, path.owner, DUE, due_at=path.now() - A_SECOND)
    with psycopg.connect(path.url, autocommit=True) as connection:
        # Autovacuum does this within a minute: the index asks for it after each range (`autosummarize`). In production
        # that minute adds fewer rows than this module.
        connection.execute("SELECT brin_summarize_new_values('ix_attempts_updated_at')")
    walk = Walk(path)
    with walk.watch.watching(path.api.database, path.worker.database):
        walk.key()
        walk.submit_and_apply()
        claimed = walk.release_and_claim()
        walk.record_and_hear(claimed)
        walk.settle()
        walk.explain(claimed)
        walk.count()
    return walk.watch.explained


class Walk:
    """The path of a call, with enough calls at each of its steps."""

    def __init__(self, path: Path) -> None:
        self.owner, self.api, self.worker, self.now = path.owner, path.api, path.worker, path.now
        self.watch, self.hints = Watch(), RecordingHints()
        self.release = Release(self.worker.context, self.hints, self.worker.account_id)
        self.principal, self.secret = Keys(self.owner.database, self.owner.hasher, self.now).create(
            kind=KeyKind.REGULAR, name="a backend", company_id=self.owner.company_id
        )

    def a_call(self) -> Attempt:
        return a_pending_attempt(self.owner, due_at=self.now() + timedelta(days=1))

    def key(self) -> None:
        self.watch.step = "key"
        keys = Keys(self.api.database, self.api.hasher, self.now)
        keys.authenticate(self.secret)
        keys.used(self.principal)

    def submit_and_apply(self) -> None:
        new: list[Request] = [
            *(a_wish(self.owner) for _ in range(10)),
            a_wish(self.owner, candidate_id=a_candidate(self.owner).id),
        ]
        moved, invoked, cancelled, patched, deleted = (self.a_call() for _ in range(5))
        changes: list[Request] = [
            move(moved),
            InvokeAttempt(interview_id=invoked.interview_id),
            DeleteAttempt(interview_id=cancelled.interview_id, attempt_id=cancelled.id),
            UpdateInterview(interview_id=patched.interview_id, scheduled_at=TOMORROW),
            DeleteInterview(interview_id=deleted.interview_id),
        ]
        self.watch.step = "submit"
        submit = Submit(self.api.database, self.hints, self.now)
        commands = [
            submit.command(self.principal, None, each, idempotency_key=str(place), request_hash=b"hash").command.id
            for place, each in enumerate([*new, *changes])
        ]
        assert submit.command(self.principal, None, new[0], idempotency_key="0", request_hash=b"hash").replayed
        submit.find(self.principal, "0")

        self.watch.step = "clock, while commands wait"
        self.now.move(10 * A_SECOND)
        a_clock(self.release)._work()
        assert set(commands) <= set(self.hints.ids(tasks.APPLY))

        self.watch.step = "apply"
        apply = Apply(self.worker.context, self.hints)
        assert set(apply.batch(commands)) == set(commands[len(new) :])
        for each in commands[len(new) :]:
            apply.command(each)
        found = submit.find_all(self.principal, commands).values()
        answers = [each.command.answer for each in found if isinstance(each, FoundCommand)]
        assert [each and each.refusal for each in answers] == [None] * len(commands)

    def release_and_claim(self) -> list[Attempt]:
        for _ in range(3):
            a_pending_attempt(self.owner, due_at=self.now() + 17 * A_SECOND)
        self.hints.rung.clear()
        self.now.move(16 * A_SECOND)
        self.watch.step = "clock"
        clock = a_clock(self.release)
        clock._work()
        ids = self.hints.ids(tasks.DIAL)
        self.watch.step = "clock, nothing new"
        clock._work()

        self.watch.step = "dial"
        dial = self.worker.dial
        dial.hinted(ids)
        claimed = [each.attempt for each in dial.claim(ids[:CLAIMED]).claimed]
        assert len(claimed) == CLAIMED
        dial.lock_holder(self.worker.company_id)
        dial.looks.try_look(claimed[0].id)
        assert len(dial.look_all(claimed[:50]).rows) == 50
        return claimed

    def record_and_hear(self, claimed: list[Attempt]) -> None:
        accepted, lost, unsent = claimed[:80], claimed[80:90], claimed[90:95]  # the others keep their lease
        self.worker.dial.record([(each, Accepted(call_sid=a_sid())) for each in accepted])
        self.worker.dial.record([(each, AnswerUnknown(cause="A_TEST")) for each in lost])
        for each in unsent:
            self.worker.dial.give_back(each, "A_TEST")

        self.watch.step = "hear"
        callbacks = TwilioCallbacks(SimulatedCarrier("http://127.0.0.1:9").account(public_url=PUBLIC_URL))
        store, hear = (Hear(each.context, self.hints, callbacks) for each in (self.api, self.worker))
        self.hints.rung.clear()
        for each in accepted[:30]:
            placed = self.owner.attempt(each.id)
            for status in ("ringing", "completed"):
                deliver(store, placed, a_form(placed, status))
        events = self.hints.ids(tasks.HEAR)
        assert hear.batch(events[:-1]) == []
        hear.event(events[-1])

    def settle(self) -> None:
        with answering(200, EMPTY_LIST) as url:
            settle = settle_at(self.worker, url)
            for step, span in {
                "settle, lapsed leases": self.worker.policy.lease,
                "settle, polls": self.worker.policy.settle,
                "settle, searches": timedelta(hours=4),
                "settle, nothing new": A_SECOND,
            }.items():
                self.watch.step = step
                self.now.move(span)
                settle.round()
            self.watch.step = "settle, expired"
            a_pending_attempt(self.owner, expires_at=self.now() + A_SECOND)
            self.now.move(2 * A_SECOND)
            settle.round()

    def explain(self, claimed: list[Attempt]) -> None:
        explain = Explain(self.api.context)
        for kind, each in {"pending": self.a_call(), "ended": claimed[0], "unknown": claimed[80]}.items():
            self.watch.step = f"explain, {kind}"
            explain.attempt(self.principal, None, each.interview_id, each.id)
            explain.explanation(self.principal, None, each.interview_id, each.id)
        self.watch.step = "explain, preview"
        explain.preview(self.principal, None, CallTimeQuestion(candidate_id=a_candidate(self.owner).id))

    def count(self) -> None:
        self.watch.step = "gauges"
        # So many commands wait, too, that to read all of them for each due attempt is too much.
        for _ in range(WAITING):
            a_waiting_command(self.owner, uuid4())
        Counts(self.api.context).status()
        Tallies(self.api.database).totals()
        self.watch.step = "health"
        self.api.database.schema_revision()
        self.api.database.clock_is_right()


def _milliseconds(each: Explained) -> float:
    return each.milliseconds


def test_hot_statements_read_few_rows_by_an_index(explained: list[Explained], aloud: Callable[[str], None]) -> None:
    slowest = {each.statement: each for each in sorted(explained, key=_milliseconds)}
    for each in sorted(slowest.values(), key=_milliseconds)[-5:]:
        aloud(f"  {each.milliseconds:6.1f} ms  {each.step}: {each.statement[:80]}")
    assert len({each.statement for each in explained}) > DIFFERENT_STATEMENTS
    wrong = [each for each in explained if each.scanned or each.too_much]
    assert not wrong, "\n".join(map(str, {(each.step, each.statement): each for each in wrong}.values()))
    for words in MAY_READ:
        assert any(words in each.statement for each in explained), f"no statement contains: {words}"
