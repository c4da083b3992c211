"""Thousands of due attempts, written with COPY."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from itertools import cycle, islice
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from scheduler.domain.schedule import Schedule
from scheduler.persistence.json_columns import schedule_as_json
from scheduler.timing import callee_zones
from tests.support.builders import BRATISLAVA, FOREVER, Tenant, a_number

A_FEW = 100

_COLUMNS = {
    "candidates": "id, company_id, first_name, last_name, phone_number, gdpr_expiry_date, created_at, updated_at",
    "interviews": "id, company_id, candidate_id, agent_id, type, focus, duration, caller_number, status, is_test,"
    " metadata, expires_at, created_at, updated_at",
    "lines": "number_hash, free_at",
    "attempts": "id, interview_id, company_id, chain_id, retry_number, manual, state, due_at, expires_at, schedule,"
    " warnings, number_hash, epoch, heard_rank, looks, not_placed, created_at, updated_at",
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Reason why an attempt exists."""

    retry_number: int
    manual: bool


INVOKE = Kind(manual=True, retry_number=0)
FIRST = Kind(manual=False, retry_number=0)
RETRY = Kind(manual=False, retry_number=1)
EACH_KIND = (INVOKE, FIRST, RETRY)


def bulk_attempts(
    url: str, tenant: Tenant, count: int, *, due_at: datetime, kinds: Sequence[Kind] = EACH_KIND
) -> list[UUID]:
    """Create people, each with an attempt that is due then, and return its ids. The kinds are used in turn."""
    now = tenant.now()
    schedule = Schedule(
        requested=None,
        clock=BRATISLAVA,
        due_at=due_at,
        earliest_at=due_at,
        tzdata_version=callee_zones.TZDATA_VERSION,
    )
    untouched = (0, -1, 0, 0, now, now)
    form, expires_at, length = Jsonb(schedule_as_json(schedule)), due_at + timedelta(days=7), timedelta(minutes=10)
    rows: dict[str, list[Sequence[object]]] = {table: [] for table in _COLUMNS}
    ids = []
    for kind in islice(cycle(kinds), count):
        person, interview, attempt, number = uuid4(), uuid4(), uuid4(), a_number()
        number_hash = tenant.hasher.number(number)
        company = tenant.company_id
        ids.append(attempt)
        rows["candidates"].append((person, company, "Ada", "Byron", number, FOREVER, now, now))
        agent = (tenant.agent_id, "PHONE", "GENERIC", length, tenant.caller)
        rows["interviews"].append(
            (interview, company, person, *agent, "SCHEDULED", False, Jsonb({}), expires_at, now, now)
        )
        rows["lines"].append((number_hash, now))
        times = (due_at, expires_at, form)
        rows["attempts"].append(
            (attempt, interview, company, attempt, *astuple(kind), "PENDING", *times, [], number_hash, *untouched)
        )
    with psycopg.connect(url) as connection:
        for table, columns in _COLUMNS.items():
            _copy(connection, f"COPY {table} ({columns}) FROM STDIN", rows[table])
    if count > A_FEW:  # otherwise the planner uses outdated statistics
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE")
    return ids


def _copy(connection: psycopg.Connection, statement: str, rows: Iterable[Sequence[object]]) -> None:
    with connection.cursor().copy(statement.encode()) as copy:
        for row in rows:
            copy.write_row(row)
