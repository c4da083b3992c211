"""Statements behind lists, search, metrics, status and workers read few rows by an index, however many there are.

Each is run as the role that runs it in production, because policies change a plan.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import md5
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import TextClause, text

from console.attempt_list import AttemptFilter, FoundPart, ListState, Place
from console.stores.attempt_lists import AttemptListStore, Bounds
from console.stores.resources import OperatedResources
from console.stores.search import Search
from scheduler.domain.attempt import Reason
from scheduler.domain.explanation import PACE
from scheduler.domain.interview import (
    SHOWN_ATTEMPTS,
    CandidateFilter,
    CandidateStatus,
    InterviewFilter,
    InterviewStatus,
    JobFilter,
)
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.resource import COUNTED_UP_TO, ExternalId, ExternalKind, Slice
from scheduler.lifecycle.retries import MOST_ATTEMPTS
from scheduler.persistence import due_calls, schema
from scheduler.persistence.attempts import COUNTED_ATTEMPTS
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.persistence.tables import candidates, inbox, interviews
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import CALLER, NOON, Seeded, seed
from tests.persistence.conftest import COUNT, COUNT_OF_OTHER, Big, Filled, a_copy
from tests.persistence.rows_read import reads, reads_of, rows_read
from tests.support.big_tables import search_index_made_last
from tests.support.separate_database import separate_database

FIRST = Slice(page=1, limit=20)
FAILED_CALLS = "ix_attempts_without_instructions_of_company"
NO_COMPANY = NO_ATTEMPT = UUID(int=0)
NO_NUMBER = bytes(32)
LATER = NOON + timedelta(days=1)
ROWS_OF_A_RANGE = 32 * 30
"""Rows in the last pages of `attempts`, which a BRIN index does not describe yet."""
ADAS_WITH_0 = sum(md5(str(n).encode()).hexdigest().startswith("0") for n in range(3, COUNT + 1, 3))
"""Candidates called Ada whose last name, a hash, begins with 0."""


@pytest.fixture(scope="module")
def big(postgres: EmbeddedPostgres, logins: schema.Logins, many_calls: Filled) -> Iterator[Big]:
    with a_copy(postgres, logins, many_calls) as (big, _):
        yield big


Act = Callable[[Stores, Seeded], Any]


def _interviews(**filters: Any) -> Act:
    return lambda stores, one: stores.interviews.page(
        one.company_id,
        FIRST,
        InterviewFilter(**{name: each(one) if callable(each) else each for name, each in filters.items()}),
    )


def _candidates(**filters: Any) -> Act:
    return lambda stores, one: stores.candidates.page(one.company_id, FIRST, CandidateFilter(**filters))


def _jobs(**filters: Any) -> Act:
    return lambda stores, one: stores.jobs.page(one.company_id, FIRST, JobFilter(**filters))


LISTS: dict[str, Act] = {
    "interviews": _interviews(),
    "interviews SCHEDULED": _interviews(statuses={InterviewStatus.SCHEDULED}),
    "interviews FAILED": _interviews(statuses={InterviewStatus.FAILED}),
    "interviews IN_PROGRESS": _interviews(statuses={InterviewStatus.IN_PROGRESS}),
    "interviews of an external id": _interviews(external_id="ats-4711"),
    "interviews of an agent": _interviews(agent_id=lambda one: one.agent_id),
    "interviews of an unused agent": _interviews(agent_id=NO_COMPANY),
    "interviews of a job": _interviews(job_id=NO_COMPANY),
    "interviews of a candidate": _interviews(candidate_id=NO_COMPANY),
    "candidates": _candidates(),
    "candidates APPLIED": _candidates(statuses={CandidateStatus.APPLIED}),
    "candidates ACCEPTED": _candidates(statuses={CandidateStatus.ACCEPTED}),
    "candidates of an external id": _candidates(external_id="ats-4711"),
    "candidates of a job": _candidates(job_id=NO_COMPANY),
    "search without a match": _candidates(search="no such person"),
    "search with one match": _candidates(search="123@example"),
    "search with many matches": _candidates(search="ada"),
    "search that all match": _candidates(search="@example.com"),
    "agents": lambda stores, one: stores.agents.page(one.company_id, FIRST),
    "jobs": _jobs(),
    "jobs of an external id": _jobs(external_id="ats-4711"),
    "phone numbers": lambda stores, one: stores.phone_numbers.page(one.company_id, FIRST),
}
COUNTS: dict[str, Callable[[Stores], Any]] = {
    "attempts": lambda stores: stores.attempt_counts.counts(NOON, NOON),
    "commands": lambda stores: stores.inbox.count_unapplied(),
    "carrier accounts": lambda stores: stores.carrier_accounts.calls_at_once(),
    "back-offs": lambda stores: stores.backoffs.waiting(),
    "callbacks": lambda stores: stores.carrier_events.count_quarantined(),
    "erasures": lambda stores: stores.erasures.count_open(),
    "alarms": lambda stores: stores.alarms.count_open(),
    "caller ids of a day": lambda stores: stores.caller_days.of_day(LATER.date()),
}
STEPS: dict[str, Callable[[Stores, Big], Any]] = {
    "pending attempts that a wrong clock wrote": lambda stores, _: stores.corrections.lock_impossible_pending(
        LATER, 100
    ),
    "gaps that a wrong clock wrote": lambda stores, _: stores.corrections.shorten_rests(LATER, LATER, 100),
    "chains of retries": lambda stores, _: stores.attempts.of_chains([NO_ATTEMPT] * 200),
    "refusals of interviews": lambda stores, _: stores.conversations.refusals_of([NO_ATTEMPT] * 200),
    "attempts of interviews": lambda stores, _: stores.attempts.counts_of([NO_ATTEMPT] * 200, 200),
    "open attempts of a company": lambda stores, big: stores.attempts.open_of_company(
        big.one.company_id, None, UUID(int=2**127), 25
    ),
    "first open attempts of a company": lambda stores, big: stores.attempts.open_of_company(
        big.one.company_id, None, None, 25
    ),
    "open attempts of a small company": lambda stores, big: stores.attempts.open_of_company(
        big.other.company_id, None, None, 25
    ),
    "pending attempts between two numbers": lambda stores, _: stores.attempt_polls.pending_to(NO_NUMBER, CALLER),
    "calls of a deleted company": lambda stores, big: stores.attempts.is_calling(big.other.company_id),
    "calls of a deleted company that must end": lambda stores, _: stores.attempts.to_stop(NO_COMPANY, 100),
    "rows of a deleted company": lambda stores, big: [
        stores.erasures._locked(table, big.other.company_id, 100) for table in (candidates, interviews, inbox)
    ],
    "external ids of new interviews": lambda stores, big: stores.external_ids.find_all(
        [
            ExternalId(kind=kind, company_id=big.one.company_id, text=f"ats-{number}")
            for kind in ExternalKind
            for number in range(100)
        ]
    ),
    "numbers of a company with their calls of a day": lambda stores, big: stores.caller_days.numbers_of(
        big.one.company_id, LATER.date()
    ),
    "whether a refusal is owed": lambda stores, _: stores.inbox.is_one_owed(LATER),
    "owed refusals": lambda stores, _: stores.inbox.take_owed(LATER, 200),
    "lines that no attempt needs": lambda stores, _: stores.lines.forget_free([NO_NUMBER] * 20, NOON),
}
PAGES: dict[str, Callable[[Stores, Big], Any]] = {
    "waiting commands of a company": lambda stores, big: OperatedResources(stores.connection).commands_of_company(
        big.one.company_id, 21
    ),
    "unknown outcomes of a company": lambda stores, big: stores.unknown_outcomes.page(big.one.company_id, 21),
}


SEARCHES: dict[str, Callable[[Stores], Any]] = {
    "an id": lambda stores: Search(stores.connection).of_id(NO_ATTEMPT),
    "a call's sid": lambda stores: Search(stores.connection).of_call("CA" + "0" * 32),
    "a number": lambda stores: Search(stores.connection).of_number(["+421905000000"], NO_NUMBER, 50),
    "attempts of a candidate": lambda stores: Search(stores.connection).attempts([], [], [NO_ATTEMPT], 50),
    "attempts of interviews": lambda stores: Search(stores.connection).attempts([NO_ATTEMPT], [NO_ATTEMPT], [], 50),
    "an attempt without its number": lambda stores: stores.attempt_claims.look_without_number(NO_ATTEMPT),
    "an interview": lambda stores: OperatedResources(stores.connection).interview(NO_ATTEMPT),
    "waiting commands": lambda stores: OperatedResources(stores.connection).commands_of_interview(NO_ATTEMPT, 20),
}


A_PAGE = Bounds(limit=50, scanned=200)
ATTEMPT_LISTS: dict[str, AttemptFilter] = {
    "all": AttemptFilter(),
    "due": AttemptFilter(state=ListState.DUE),
    "waiting": AttemptFilter(state=ListState.WAITING),
    "pending in a range": AttemptFilter(state=ListState.PENDING, due_from=LATER, due_to=LATER + timedelta(days=7)),
    "pending in a zone": AttemptFilter(state=ListState.PENDING, zone="Asia/Tokyo"),
    "in progress": AttemptFilter(state=ListState.IN_PROGRESS),
    "unknown": AttemptFilter(state=ListState.UNKNOWN),
    "cause lost": AttemptFilter(cause_lost=True),
    "finished": AttemptFilter(state=ListState.FINISHED),
    "busy": AttemptFilter(state=ListState.FINISHED, reason=Reason.BUSY),
    "finished in a range": AttemptFilter(
        state=ListState.FINISHED, due_from=LATER, due_to=LATER + timedelta(days=7), reason=Reason.NO_ANSWER
    ),
    "busy in a range": AttemptFilter(state=ListState.FAILED, due_from=LATER, reason=Reason.BUSY),
}


@pytest.mark.parametrize("kind", [KeyKind.REGULAR, KeyKind.ATS])
@pytest.mark.parametrize("name", LISTS)
def test_first_page_of_a_list_is_read_by_an_index(big: Big, name: str, kind: KeyKind) -> None:
    read = rows_read(big.api, big.api.reading(big.principal(kind)), lambda stores: LISTS[name](stores, big.one))
    # The rows that are counted, and those of a page.
    assert read <= COUNTED_UP_TO + 200


@pytest.mark.parametrize("kind", [KeyKind.REGULAR, KeyKind.ATS])
def test_late_page_reads_other_tables_only_for_its_rows(big: Big, kind: KeyKind) -> None:
    """Jobs and interviews of the candidates on earlier pages are not counted."""

    def act(stores: Stores) -> None:
        page = stores.candidates.page(big.one.company_id, Slice(page=500, limit=20), CandidateFilter())
        assert len(page.items) == page.asked.limit

    assert rows_read(big.api, big.api.reading(big.principal(kind)), act, frozenset({"interviews"})) <= 21


@pytest.mark.parametrize("kind", [KeyKind.REGULAR, KeyKind.ATS])
def test_first_page_of_companies_reads_no_big_table(big: Big, kind: KeyKind) -> None:
    principal = big.principal(kind)
    assert rows_read(big.api, big.api.reading(principal), lambda s: s.companies.page(principal, FIRST)) == 0


@pytest.mark.parametrize("name", COUNTS)
def test_count_for_metrics_and_status_reads_an_index(big: Big, name: str) -> None:
    assert rows_read(big.api, big.api.counting(), COUNTS[name]) <= 200


@pytest.mark.parametrize("name", STEPS)
def test_step_of_a_worker_reads_an_index(big: Big, name: str) -> None:
    assert rows_read(big.worker, big.worker.transaction(), lambda stores: STEPS[name](stores, big)) <= ROWS_OF_A_RANGE


@pytest.mark.parametrize("name", PAGES)
def test_page_of_the_console_reads_an_index(big: Big, name: str) -> None:
    assert rows_read(big.console, big.console.reading(), lambda stores: PAGES[name](stores, big)) <= 200


_MANY_ATTEMPTS = text("""
    INSERT INTO attempts (id, interview_id, company_id, chain_id, retry_number, manual, state, reason, due_at,
                          expires_at, schedule, warnings, number_hash, epoch, heard_rank, looks, not_placed, ended_at,
                          created_at, updated_at)
    SELECT gen_random_uuid(), interview_id, company_id, id, 0, false, 'CANCELLED', 'REPLACED', due_at, expires_at,
           schedule, warnings, number_hash, 0, 0, 0, 0, created_at, created_at - n * interval '1 minute', created_at
    FROM (SELECT * FROM attempts WHERE interview_id = :id LIMIT 1) a, generate_series(1, 20000) n
""")


_SET_TIME_LIMIT = text("SELECT set_config('statement_timeout', :limit, true)")


@contextmanager
def rolled_back(database: Database) -> Iterator[Stores]:
    """Open a transaction whose changes are undone at the end of the block."""
    with database.transaction() as stores:
        try:
            yield stores
        finally:
            stores.connection._connection._connection.rollback()


def fill(stores: Stores, interview_id: UUID, *statements: TextClause) -> None:
    """Execute these without the worker's time limit, which 20,000 rows can exceed on a busy machine."""
    limit = stores.connection.execute(text("SHOW statement_timeout")).scalar_one()
    stores.connection.execute(_SET_TIME_LIMIT, {"limit": "0"})
    for statement in statements:
        stores.connection.execute(statement, {"id": interview_id})
    stores.connection.execute(_SET_TIME_LIMIT, {"limit": limit})


def test_interview_with_20_000_attempts_is_read_by_its_newest(big: Big) -> None:
    """An earlier version had no limit."""
    with rolled_back(big.worker) as stores:
        interview_id = stores.connection.execute(text("SELECT max(id::text)::uuid FROM interviews")).scalar_one()
        fill(stores, interview_id, _MANY_ATTEMPTS)
        interview = stores.interviews.lock(interview_id)
        before = reads(stores)
        assert len(stores.attempts.story(interview).attempts) == SHOWN_ATTEMPTS
        assert stores.attempts.counts_of([interview_id], MOST_ATTEMPTS) == {interview_id: MOST_ATTEMPTS}
        assert len(stores.attempts.find_of_interview(interview_id)) == MOST_ATTEMPTS
        read = reads(stores) - before
    assert read["attempts", "seq_scan"] == 0
    assert sum(count for (table, _), count in read.items() if table == "attempts") <= COUNTED_ATTEMPTS + 1000


_WITHOUT_INSTRUCTIONS = text("""
    UPDATE attempts SET instructions_failed = true, claimed_at = created_at
    WHERE id IN (SELECT id FROM attempts WHERE interview_id = :id AND state = 'CANCELLED')
""")


@pytest.fixture
def own(postgres: EmbeddedPostgres, logins: schema.Logins, many_calls: Filled) -> Iterator[Big]:
    """A copy for one test that changes many rows: the dead ones would change the plans of other tests."""
    with a_copy(postgres, logins, many_calls) as (big, _):
        yield big


def test_trial_reads_one_failed_call_of_each_company(own: Big) -> None:
    """Only a trial reads failed calls, and of each company only the newest, by an index."""
    with rolled_back(own.worker) as stores:
        interview_id = stores.connection.execute(text("SELECT max(id::text)::uuid FROM interviews")).scalar_one()
        fill(stores, interview_id, _MANY_ATTEMPTS, _WITHOUT_INSTRUCTIONS)

        def failed_calls_read(at: datetime, *, on_trial: bool) -> int:
            before = reads_of(stores, FAILED_CALLS)
            assert stores.attempt_release.release(at, at + timedelta(seconds=1), 1, on_trial=on_trial)
            return reads_of(stores, FAILED_CALLS) - before

        assert failed_calls_read(NOON + timedelta(days=10), on_trial=False) == 0
        assert 1 <= failed_calls_read(NOON + timedelta(days=11), on_trial=True) <= 2


_WAITING_REFUSALS = text("""
    INSERT INTO inbox (id, principal_id, company_id, request_hash, kind, body, interview_id, number_hash, received_at,
                       rung_at, failures)
    SELECT gen_random_uuid(), company_id, company_id, ''::bytea, 'report_outcome', '{}'::jsonb, gen_random_uuid(),
           sha256(CAST(n AS text)::bytea), due_at, due_at, 0
    FROM (SELECT * FROM attempts WHERE id = ANY (:ids) LIMIT 1) a, generate_series(1, 20000) n
    UNION ALL
    SELECT gen_random_uuid(), company_id, company_id, ''::bytea, 'report_outcome', '{}'::jsonb, gen_random_uuid(),
           number_hash, due_at, due_at, 0
    FROM (SELECT * FROM attempts WHERE id = ANY (:ids) LIMIT 1) a
""")
_SOME_PENDING = text("SELECT id FROM attempts WHERE state = 'PENDING' ORDER BY id LIMIT 50")


def test_last_looks_read_only_waiting_refusals_of_their_numbers(own: Big) -> None:
    """Nothing waited when the statement was planned, and no statistics know of the backlog."""
    with rolled_back(own.worker) as stores:
        ids = list(stores.connection.execute(_SOME_PENDING).scalars())
        for _ in range(6):
            assert not any(each.refusal_waiting_since for each in stores.attempt_claims.look_all(ids).values())
        stores.connection.execute(_WAITING_REFUSALS, {"ids": ids})
        before, entries = reads(stores), reads_of(stores, "ix_inbox_refusals")
        found = stores.attempt_claims.look_all(ids).values()
        read = reads(stores) - before
        entries_read = reads_of(stores, "ix_inbox_refusals") - entries
    assert sum(each.refusal_waiting_since is not None for each in found) == entries_read == 1
    assert read["inbox", "seq_scan"] == 0


def test_calendar_reads_few_rows_of_many_pending_calls(big: Big, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the clocks are read from the table, up to twice the maximum. The counts are those of indexes."""
    monkeypatch.setattr(due_calls, "READ_CLOCKS", 100)
    begins = NOON + timedelta(days=1)
    with big.console.reading() as stores:
        found = stores.due_calls.cells(begins, begins + timedelta(days=1))
    assert sum(cell.calls for cell in found.cells) == COUNT + COUNT_OF_OTHER
    assert 0 < sum(sum(cell.clocks.values()) for cell in found.cells) <= 200
    read = rows_read(big.console, big.console.reading(), lambda stores: stores.due_calls.cells(begins, LATER))
    assert read <= 200
    of_others = rows_read(
        big.api,
        big.api.counting(),
        lambda stores: stores.due_calls.cells_of_others(big.other.company_id, begins, LATER),
    )
    assert of_others <= 200
    assert rows_read(big.console, big.console.reading(), lambda stores: stores.due_calls.account()) <= 200
    ids = [big.one.company_id]
    assert rows_read(big.console, big.console.reading(), lambda stores: stores.due_calls.companies(ids)) <= 200


def test_last_calls_of_the_calendar_are_read_by_their_keys(big: Big) -> None:
    """With some statistics, a join of these calls would read all attempts. Here, an index costs five times as much."""

    @contextmanager
    def with_dear_indexes() -> Iterator[Stores]:
        with big.console.reading() as stores:
            stores.connection.execute(text("SET LOCAL random_page_cost = 20"))
            yield stores

    rows_read(big.console, with_dear_indexes(), lambda stores: stores.due_calls.account())


@pytest.mark.parametrize("name", SEARCHES)
def test_search_of_the_console_reads_an_index(big: Big, name: str) -> None:
    assert rows_read(big.console, big.console.reading(), SEARCHES[name]) <= 10


@pytest.mark.parametrize("of", ["all companies", "one", "other"])
@pytest.mark.parametrize("name", ATTEMPT_LISTS)
def test_list_of_attempts_reads_an_index(big: Big, name: str, of: str) -> None:
    company_id = {"one": big.one.company_id, "other": big.other.company_id}.get(of)
    only = replace(ATTEMPT_LISTS[name], company_id=company_id)

    def part(stores: Stores, after: Place | None = None) -> FoundPart:
        found = AttemptListStore(stores.connection).part(only, after, A_PAGE, NOON)
        AttemptListStore(stores.connection).rows(found.attempts)
        return found

    assert rows_read(big.console, big.console.reading(), part) <= 4 * A_PAGE.scanned
    with big.console.reading() as stores:
        after = part(stores).next
    if after is not None:
        assert rows_read(big.console, big.console.reading(), lambda s: part(s, after)) <= 4 * A_PAGE.scanned


@pytest.mark.parametrize(
    ("name", "of"),
    [
        *(
            (name, of)
            for name in ("all", "waiting", "pending in a range", "finished")
            for of in ("all companies", "one")
        ),
        ("finished in a range", "one"),
    ],
)
def test_full_page_of_attempts_ends_its_search(big: Big, name: str, of: str) -> None:
    """Each row matches, so the search looks at no more of them than the page shows, although it may."""
    only = replace(ATTEMPT_LISTS[name], company_id=big.one.company_id if of == "one" else None)
    bounds = Bounds(limit=50, scanned=COUNT_OF_OTHER)

    def act(stores: Stores) -> None:
        assert len(AttemptListStore(stores.connection).part(only, None, bounds, NOON).attempts) == bounds.limit

    assert rows_read(big.console, big.console.reading(), act) <= 4 * bounds.limit


@pytest.mark.parametrize("rule", [None, PACE])
def test_due_attempts_are_listed_by_an_index(big: Big, rule: str | None) -> None:
    """As many are read as are counted: the rule of each is known only then."""
    now = LATER + timedelta(hours=12)
    with big.api.counting() as stores:
        due = sum(row.due for row in stores.attempt_counts.counts(now, now))
    assert due > 10 * A_PAGE.limit
    only = AttemptFilter(state=ListState.DUE, rule=rule, zone="Europe/Bratislava")
    read = rows_read(
        big.console,
        big.console.reading(),
        lambda stores: AttemptListStore(stores.connection).part(only, None, A_PAGE, now),
    )
    assert read <= 4 * due


def test_lines_of_free_numbers_are_not_read(big: Big) -> None:
    now = LATER + timedelta(hours=12)
    counted = rows_read(
        big.api, big.api.counting(), lambda stores: stores.attempt_counts.counts(now, now), frozenset({"lines"})
    )
    only = AttemptFilter(state=ListState.DUE)
    listed = rows_read(
        big.console,
        big.console.reading(),
        lambda stores: AttemptListStore(stores.connection).part(only, None, A_PAGE, now),
        frozenset({"lines"}),
    )
    assert (counted, listed) == (0, 0)


@pytest.mark.parametrize("state", [ListState.DUE, ListState.WAITING, ListState.PENDING])
def test_attempts_to_cancel_are_counted_by_an_index(big: Big, state: ListState) -> None:
    only = AttemptFilter(state=state, company_id=big.one.company_id)
    read = rows_read(
        big.console,
        big.console.reading(),
        lambda stores: AttemptListStore(stores.connection).counts(only, Bounds(limit=200, scanned=201), NOON, LATER),
    )
    assert read <= 2 * A_PAGE.scanned


def test_locks_to_cancel_are_taken_by_an_index(big: Big) -> None:
    def lock(stores: Stores) -> None:
        keys = stores.attempt_cancellations.keys(ids)
        stores.companies.hold_all({each.company_id for each in keys})
        interviews = [each.interview_id for each in keys]
        stores.interviews.lock_rows(interviews)
        assert len(stores.attempt_cancellations.lock_to_cancel(interviews, ids)) == len(ids)

    with big.console.reading() as stores:
        found = AttemptListStore(stores.connection).part(
            AttemptFilter(state=ListState.WAITING), None, Bounds(limit=200, scanned=201), NOON
        )
    ids = [each.id for each in found.attempts]
    assert rows_read(big.console, big.console.transaction(), lock) <= 6 * len(ids)


def test_waiting_attempts_are_counted_up_to_the_maximum(big: Big) -> None:
    with big.api.counting() as stores:
        rows = stores.attempt_counts.counts(NOON, NOON)
    counted = {row.company_id == big.one.company_id: (row.waiting, row.waiting_is_estimate) for row in rows}
    assert counted == {True: (COUNTED_UP_TO + 1, True), False: (COUNT_OF_OTHER, False)}
    assert all(row.next_due_at is not None for row in rows)


@pytest.mark.parametrize(
    ("search", "total"),
    [
        ("no such person", 0),
        ("123@EXAMPLE", 40),
        ("ada", 10_001),
        ("ada 0", ADAS_WITH_0),
        ("a", 10_001),
        ("@Example.com", 10_001),
    ],
)
def test_search_counts_its_matches(big: Big, search: str, total: int) -> None:
    with big.api.reading(big.principal(KeyKind.REGULAR)) as stores:
        page = stores.candidates.page(big.one.company_id, FIRST, CandidateFilter(search=search))
        applied = CandidateFilter(statuses=frozenset({CandidateStatus.APPLIED}), search=search)
        both = stores.candidates.page(big.one.company_id, FIRST, applied)
    assert (page.total, page.total_is_estimate) == (total, total > COUNTED_UP_TO)
    assert page == both
    assert [each.created_at for each in page.items] == sorted((each.created_at for each in page.items), reverse=True)
    assert len(page.items) == min(total, FIRST.limit)


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Two companies with rows in the same pages.

    Of the second one, a third of the names begin with "marek", and its newest and oldest names end with "vrba".
    """

    api: Database
    one: Principal
    other: Principal


@pytest.fixture(scope="module")
def mixed(postgres: EmbeddedPostgres, logins: schema.Logins) -> Iterator[Mixed]:
    with separate_database(postgres, logins) as made:
        one, other = seed(made.owner, NOON).company_id, seed(made.owner, NOON).company_id
        with search_index_made_last(made.url), psycopg.connect(made.url) as connection:
            connection.execute(_MIXED, {"one": one, "other": other, "now": NOON})
        principals = (
            Principal(id=uuid4(), key_id=uuid4(), kind=KeyKind.REGULAR, company_id=each, scopes=frozenset())
            for each in (one, other)
        )
        yield Mixed(api=made.api, one=next(principals), other=next(principals))


_MIXED = """
    INSERT INTO candidates (id, company_id, first_name, last_name, email, gdpr_expiry_date, created_at, updated_at)
    SELECT gen_random_uuid(), CASE WHEN n % 4 = 0 THEN %(one)s::uuid ELSE %(other)s::uuid END,
           CASE WHEN n % 4 = 1 THEN 'Marek' ELSE md5((-n)::text) END,
           md5(n::text) || CASE WHEN n % 4 <> 0 AND (n <= 100 OR n > 19000) THEN ' Vrba' ELSE '' END,
           CASE WHEN n % 4 = 1 THEN 'marek' ELSE 'x' END || n || '@example.com', '2099-12-31',
           %(now)s::timestamptz - n * interval '1 second', %(now)s
    FROM generate_series(1, 20000) AS n
""".replace(" % ", " %% ")


def test_search_reads_nothing_of_other_companies(mixed: Mixed) -> None:
    """The work of a search without a match is equal, so that its time reveals no name of another company."""
    assert [_found(mixed.api, mixed.other, each) for each in ("marek", "wjqvz")] == [5_000, 0]
    assert [_found(mixed.api, mixed.one, each) for each in ("marek", "wjqvz")] == [0, 0]
    read = [_pages_read(mixed.api, mixed.one, each) for each in ("marek", "wjqvz")]
    assert read[0] == read[1] < 100


def test_new_names_of_other_companies_are_not_read(mixed: Mixed) -> None:
    """They are in the index itself, not in a list of pending entries that each search reads."""
    with mixed.api.reading(mixed.one) as stores:
        [options] = stores.connection.execute(
            text("SELECT reloptions FROM pg_class WHERE relname = 'ix_candidates_search'")
        ).one()
    assert options == ["fastupdate=false"]


def test_new_rows_are_summarised_whatever_their_state(big: Big) -> None:
    """Autovacuum is asked for a summary when an indexed row begins a range: of an index of all rows, any row is one."""
    with big.api.counting() as stores:
        [found] = stores.connection.execute(
            text(
                "SELECT c.reloptions, i.indpred IS NULL AS has_all_rows FROM pg_class c"
                " JOIN pg_index i ON i.indexrelid = c.oid WHERE c.relname = 'ix_attempts_updated_at'"
            )
        )
    assert found.has_all_rows
    assert "autosummarize=true" in [each.lower() for each in found.reloptions]


@pytest.mark.parametrize(
    ("part", "most", "is_index_read"),
    [
        pytest.param("vrba", 50, False, id="the newest candidates suffice"),
        pytest.param("vrba", 500, True, id="older ones are needed"),
        pytest.param("marek", 1_000, False, id="the newest 4,500 suffice"),
        pytest.param("marek", 5_000, True, id="all are needed"),
    ],
)
def test_search_reads_its_index_for_older_candidates(mixed: Mixed, part: str, most: int, is_index_read: bool) -> None:
    """Three quarters of the newest 100 are called Vrba, but only 75 of the newest 1,000. A third is called Marek."""
    values = {"company": mixed.other.company_id, "part": part, "most": most}
    with mixed.api.reading(mixed.other) as stores:
        before = _scans_of_search_index(stores)
        found = stores.connection.execute(text(_FIND), values).scalars()
        assert bool(_scans_of_search_index(stores) - before) is is_index_read
    assert len(set(found)) == most


def test_search_for_a_long_text_reads_few_pages(big: Big) -> None:
    """All addresses have the letters of the domain. Looking up each three of them took 242 pages, now it takes 149."""
    assert _found(big.api, big.principal(KeyKind.REGULAR), "4711@example.com") == len(
        ("4711", "14711", "24711", "34711")
    )
    assert _pages_read(big.api, big.principal(KeyKind.REGULAR), "4711@example.com") <= 190


def _scans_of_search_index(stores: Stores) -> int:
    """Count the session's scans of this index since it last reported them."""
    scans = stores.connection.execute(text("SELECT pg_stat_get_xact_numscans('ix_candidates_search'::regclass)"))
    return int(scans.scalar_one())


_FIND = "SELECT found FROM candidates_found(:company, :part, :most) AS found"
_MOST = COUNTED_UP_TO + 1


def _found(api: Database, principal: Principal, part: str) -> int:
    with api.reading(principal) as stores:
        return len(
            stores.connection.execute(text(_FIND), {"company": principal.company_id, "part": part, "most": _MOST}).all()
        )


def _pages_read(api: Database, principal: Principal, part: str) -> int:
    """Count the pages that a search reads, also within the function."""
    explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_FIND}")
    with api.reading(principal) as stores:
        # Some also read the catalog: the first ones of a session, and those after a change of it, as by autovacuum.
        values = {"company": principal.company_id, "part": part, "most": _MOST}
        plans = [stores.connection.execute(explain, values).scalar_one()[0]["Plan"] for _ in range(6)]
    return min(int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]) for plan in plans)
