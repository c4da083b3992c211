"""Filtered lists read few rows by an index, however many there are. Each is read as the API reads it.

DUECALL_PENDING=1000000 python -m pytest tests/persistence/test_filtered_lists.py
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest

from scheduler.domain.attempt import AttemptState, CompanyAttemptFilter
from scheduler.domain.interview import (
    CandidateFilter,
    CandidateStatus,
    InterviewFilter,
    InterviewStatus,
    JobFilter,
    JobStatus,
)
from scheduler.domain.principal import KeyKind
from scheduler.domain.resource import NEWEST_FIRST, Cursor, KeysetPage, KeysetSlice, Sort, SortField, Span, Spans
from scheduler.persistence import schema
from scheduler.persistence.keyset import LOOKED_AT, NARROW
from scheduler.persistence.stores import Stores
from standalone.valkey_and_postgres import EmbeddedPostgres
from tests.conftest import NOON, Seeded
from tests.persistence.conftest import COUNT, Big, Filled, a_copy
from tests.persistence.rows_read import rows_read, rows_read_by_table
from tests.support.big_tables import search_index_made_last

pytestmark = pytest.mark.timeout(1800)

LIMIT = 100
OLDEST_CHANGE = Sort(by=SortField.UPDATED_AT, descending=False)
NEWEST_CHANGE = Sort(by=SortField.UPDATED_AT, descending=True)
OLDEST = Sort(by=SortField.CREATED_AT, descending=False)
EARLIEST = Sort(by=SortField.SCHEDULED_AT, descending=False)
LATEST = Sort(by=SortField.SCHEDULED_AT, descending=True)
LONG_AGO = NOON - timedelta(seconds=COUNT // 2)
A_WEEK_LATER = NOON + timedelta(days=7)


@pytest.fixture(scope="module")
def big(postgres: EmbeddedPostgres, logins: schema.Logins, many_calls: Filled) -> Iterator[Big]:
    with a_copy(postgres, logins, many_calls) as (big, url):
        with search_index_made_last(url), psycopg.connect(url, autocommit=True) as connection:
            for statement in _OTHER_ROWS:
                connection.execute(statement, {"company": big.one.company_id, "now": NOON})
            connection.execute("VACUUM ANALYZE")
        yield big


_OTHER_ROWS = (
    b"""
    UPDATE interviews SET status = 'COMPLETED', finished_at = updated_at, external_id = 'ats ' || id
    WHERE company_id = %(company)s AND extract(epoch FROM created_at)::bigint %% 2 = 0
    """,
    b"""
    UPDATE candidates
    SET status = CASE WHEN extract(epoch FROM created_at)::bigint %% 2 = 0 THEN 'ACCEPTED' ELSE 'APPLIED' END,
        updated_at = created_at, external_id = 'ats ' || id
    WHERE company_id = %(company)s
    """,
    b"""
    INSERT INTO jobs (id, company_id, title, description, status, created_at, updated_at)
    SELECT gen_random_uuid(), %(company)s, 'Beekeeper', 'Has bees', CASE WHEN n %% 2 = 0 THEN 'OPEN' ELSE 'CLOSED' END,
           %(now)s::timestamptz - n * interval '1 second', %(now)s::timestamptz - n * interval '1 second'
    FROM generate_series(1, 5000) AS n
    """,
)


def asked(sort: Sort = NEWEST_FIRST, **spans: Span) -> KeysetSlice:
    return KeysetSlice(limit=LIMIT, sort=sort, spans=Spans(**spans))


List = Callable[[Stores, Seeded, Cursor | None], KeysetPage[Any]]


def interviews(part: KeysetSlice, **filters: Any) -> List:
    only = InterviewFilter(**filters)
    return lambda stores, one, after: stores.interviews.keyset_page(one.company_id, replace(part, after=after), only)


def candidates(part: KeysetSlice, **filters: Any) -> List:
    only = CandidateFilter(**filters)
    return lambda stores, one, after: stores.candidates.keyset_page(one.company_id, replace(part, after=after), only)


def jobs(part: KeysetSlice, **filters: Any) -> List:
    only = JobFilter(**filters)
    return lambda stores, one, after: stores.jobs.keyset_page(one.company_id, replace(part, after=after), only)


def attempts(part: KeysetSlice, **filters: Any) -> List:
    only = CompanyAttemptFilter(**filters)
    return lambda stores, one, after: stores.company_attempts.keyset_page(
        one.company_id, replace(part, after=after), only
    )


def of_the_agent(stores: Stores, one: Seeded, after: Cursor | None) -> KeysetPage[Any]:
    return interviews(asked(OLDEST), agent_id=one.agent_id)(stores, one, after)


def since(at: datetime) -> Span:
    return Span(since=at)


def until(at: datetime) -> Span:
    return Span(until=at)


SCHEDULED, COMPLETED = InterviewStatus.SCHEDULED, InterviewStatus.COMPLETED
FULL: dict[str, List] = {
    "interviews": interviews(asked()),
    "oldest interviews": interviews(asked(OLDEST)),
    "interviews created before": interviews(asked(created=until(LONG_AGO))),
    "interviews created since": interviews(asked(OLDEST, created=since(LONG_AGO))),
    "interviews of two statuses": interviews(asked(), statuses={SCHEDULED, COMPLETED}),
    "interviews of a status, created before": interviews(asked(created=until(LONG_AGO)), statuses={COMPLETED}),
    "interviews updated since": interviews(asked(OLDEST_CHANGE, updated=since(LONG_AGO))),
    "completed interviews updated since": interviews(
        asked(OLDEST_CHANGE, updated=since(LONG_AGO)), statuses={COMPLETED}
    ),
    "newest changes of interviews": interviews(asked(NEWEST_CHANGE)),
    "interviews scheduled": interviews(asked(EARLIEST, scheduled=since(A_WEEK_LATER))),
    "latest interviews": interviews(asked(LATEST)),
    "completed interviews scheduled": interviews(asked(EARLIEST, scheduled=since(A_WEEK_LATER)), statuses={COMPLETED}),
    "interviews of the agent": of_the_agent,
    "candidates": candidates(asked()),
    "candidates created before": candidates(asked(created=until(LONG_AGO))),
    "candidates of two statuses": candidates(asked(), statuses={CandidateStatus.APPLIED, CandidateStatus.ACCEPTED}),
    "accepted candidates updated since": candidates(
        asked(OLDEST_CHANGE, updated=since(LONG_AGO)), statuses={CandidateStatus.ACCEPTED}
    ),
    "candidates with a letter": candidates(asked(OLDEST), search="@"),
    "frequent names created before": candidates(asked(created=until(LONG_AGO)), search="example"),
    "jobs updated since": jobs(asked(OLDEST_CHANGE, updated=since(NOON - timedelta(hours=1)))),
    "closed jobs created before": jobs(asked(created=until(NOON - timedelta(minutes=9))), statuses={JobStatus.CLOSED}),
    "attempts": attempts(asked(LATEST)),
    "pending attempts scheduled": attempts(
        asked(EARLIEST, scheduled=since(A_WEEK_LATER)), states={AttemptState.PENDING}
    ),
    "failed attempts scheduled": attempts(asked(EARLIEST, scheduled=since(A_WEEK_LATER)), states={AttemptState.FAILED}),
    "attempts of two states": attempts(asked(LATEST), states={AttemptState.PENDING, AttemptState.FAILED}),
    "attempts updated since": attempts(asked(LATEST, updated=since(LONG_AGO))),
}
"""Filters that many rows meet: each list fills its page."""
NO_ID = UUID(int=0)
SPARSE: dict[str, List] = {
    "interviews of a status without any": interviews(asked(), statuses={InterviewStatus.CANCELLED, COMPLETED}),
    "failed interviews updated since": interviews(
        asked(OLDEST_CHANGE, updated=since(LONG_AGO)), statuses={InterviewStatus.FAILED}
    ),
    "interviews in progress": interviews(asked(OLDEST), statuses={InterviewStatus.IN_PROGRESS}),
    "interviews of an unused agent": interviews(asked(OLDEST), agent_id=NO_ID),
    "interviews of a candidate": interviews(asked(EARLIEST), candidate_id=NO_ID),
    "interviews scheduled in no week, newest first": interviews(asked(scheduled=since(NOON + timedelta(days=300)))),
    "interviews of an external id": interviews(asked(OLDEST_CHANGE), external_id="ats-4711"),
    "candidates of an external id": candidates(asked(OLDEST_CHANGE), external_id="ats-4711"),
    "jobs of an external id": jobs(asked(OLDEST_CHANGE), external_id="ats-4711"),
    "candidates with a rare name": candidates(asked(OLDEST), search="123@example"),
    "candidates with two rare letters": candidates(asked(OLDEST), search="qz"),
    "candidates with a name of no candidate": candidates(asked(OLDEST), search="example ada"),
    "candidates of a job": candidates(asked(OLDEST), job_id=NO_ID),
    "rejected candidates updated since": candidates(
        asked(OLDEST_CHANGE, updated=since(LONG_AGO)), statuses={CandidateStatus.REJECTED}
    ),
    "calls in progress": attempts(asked(LATEST), states={AttemptState.IN_PROGRESS}),
    "completed attempts": attempts(asked(LATEST), states={AttemptState.COMPLETED}),
    "attempts of an interview": attempts(asked(LATEST), interview_id=NO_ID),
    "attempts to call a candidate": attempts(asked(LATEST), candidate_id=NO_ID),
    "attempts of an external id": attempts(asked(LATEST), external_id="ats-4711"),
    "attempts created later": attempts(asked(LATEST, created=since(NOON + timedelta(days=1)))),
}
"""Filters that few rows meet, or none: the search ends after a limited number of rows."""
BESIDE = {
    # Rows that tell that a filter is not narrow.
    "interviews of the agent": NARROW + 1,
    "frequent names created before": NARROW + 100,
    # Half of the rows have this status.
    "completed interviews updated since": LIMIT,
    "accepted candidates updated since": LIMIT,
    # A quarter of the attempts were updated before. Chance decides which ones follow each other: 290 to 430 are read.
    "attempts updated since": 2 * LIMIT,
    # Each interview has two attempts. Which one is newer takes both of them.
    "interviews scheduled": 4 * LIMIT,
    "latest interviews": 4 * LIMIT,
    # Half of the rows also have this status. Chance decides which ones follow each other: 1,270 to 1,480 are read.
    "completed interviews scheduled": 20 * LIMIT,
}
"""The most rows that these lists may read in addition."""
JOINED = 3
"""Tables of which each row that is returned may take rows."""


@pytest.mark.parametrize("kind", [KeyKind.REGULAR, KeyKind.ATS])
@pytest.mark.parametrize("name", FULL)
def test_full_page_reads_three_rows_for_each_of_its_own(big: Big, name: str, kind: KeyKind) -> None:
    after = None
    for _ in range(2):
        with big.api.reading(big.principal(kind)) as stores:
            page = FULL[name](stores, big.one, after)
        assert len(page.items) == LIMIT
        opened = big.api.reading(big.principal(kind))
        found = rows_read_by_table(big.api, opened, partial(read, big, name, after))
        assert max(found.values()) <= 3 * (LIMIT + 1) + BESIDE.get(name, 0), found
        after = page.next
        assert after is not None


def read(big: Big, name: str, after: Cursor | None, stores: Stores) -> None:
    {**FULL, **SPARSE}[name](stores, big.one, after)


@pytest.mark.parametrize("kind", [KeyKind.REGULAR, KeyKind.ATS])
@pytest.mark.parametrize("name", SPARSE)
def test_page_of_a_rare_filter_reads_a_limited_number_of_rows(big: Big, name: str, kind: KeyKind) -> None:
    opened = big.api.reading(big.principal(kind))
    assert rows_read(big.api, opened, partial(read, big, name, None)) <= (1 + JOINED) * LOOKED_AT
