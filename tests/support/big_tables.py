"""Rows in the number at which PostgreSQL plans as for a million, made by SQL because the API would take minutes."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import uuid4

import psycopg
from psycopg.types.json import Jsonb

from scheduler.persistence.json_columns import schedule_as_json
from tests.conftest import Seeded
from tests.support.builders import a_schedule

_WITHOUT_CHECKS = "SET session_replication_role = replica"
"""Without checks of foreign keys, which take most of the time. The rows are consistent by construction."""


def new_id_sql(at: str) -> str:
    """Build the SQL of an id like those of `scheduler.ids`, for a row that is created at that SQL's instant."""
    milliseconds = f"lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0')"
    random = "substr(md5(random()::text)"
    return f"({milliseconds} || '7' || {random}, 1, 3) || '8' || {random}, 1, 15))::uuid"


_CREATED_AT = "(%(now)s::timestamptz - n * interval '1 second')"
_CANDIDATES = f"""
    INSERT INTO candidates (id, company_id, first_name, last_name, email, gdpr_expiry_date, created_at, updated_at)
    SELECT {new_id_sql(_CREATED_AT)}, %(company)s, CASE WHEN %(named)s THEN (ARRAY['Ada', 'Grace', 'Jozef'])[1 + n %% 3]
           ELSE 'A' END, CASE WHEN %(named)s THEN md5(n::text) ELSE 'B' END,
           CASE WHEN %(named)s THEN n || '@example.com' ELSE 'a@b' END, '2099-12-31', {_CREATED_AT}, %(now)s
    FROM generate_series(1, %(count)s) AS n
"""
_OTHERS = (
    f"""
    INSERT INTO interviews (id, company_id, candidate_id, agent_id, type, focus, duration, caller_number, status,
                            is_test, metadata, expires_at, created_at, updated_at)
    SELECT {new_id_sql("created_at")}, company_id, id, %(agent)s, 'PHONE', 'GENERIC', '10 minutes', '+421221020001',
           'SCHEDULED', false, '{{}}', created_at + interval '60 days', created_at, created_at
    FROM candidates WHERE company_id = %(company)s
    """,
    """
    INSERT INTO lines (number_hash, free_at)
    SELECT sha256(id::text::bytea), %(now)s FROM interviews WHERE company_id = %(company)s
    """,
    """
    INSERT INTO attempts (id, interview_id, company_id, chain_id, retry_number, manual, state, due_at, expires_at,
                          schedule, warnings, number_hash, epoch, heard_rank, looks, not_placed, created_at, updated_at)
    SELECT id, id, company_id, id, 0, true, 'PENDING',
           %(now)s::timestamptz + interval '1 day' + random() * interval '27 days', expires_at, %(schedule)s,
           '{}', sha256(id::text::bytea), 0, -1, 0, 0, created_at, created_at
    FROM interviews WHERE company_id = %(company)s
    """,
    f"""
    INSERT INTO inbox (id, principal_id, company_id, request_hash, kind, interview_id, received_at, rung_at, applied_at,
                       answer, failures)
    SELECT {new_id_sql("created_at")}, company_id, company_id, '', 'CREATE_INTERVIEW', id, created_at, created_at,
           created_at, '{{}}', 0
    FROM interviews WHERE company_id = %(company)s
    """,
)
_FINISHED = f"""
    INSERT INTO attempts (id, interview_id, company_id, chain_id, retry_number, manual, state, reason, due_at,
                          expires_at, schedule, warnings, number_hash, epoch, heard_rank, looks, not_placed, created_at,
                          updated_at, ended_at)
    SELECT {new_id_sql("created_at - interval '60 days'")}, interview_id, company_id, id, 0, true, 'FAILED',
           'NO_ANSWER', due_at, expires_at, schedule, '{{}}', number_hash, 2, -1, 0, 0, created_at, created_at,
           created_at
    FROM attempts WHERE company_id = %(company)s AND state = 'PENDING'
"""
_ENDS = """
    INSERT INTO attempt_history (attempt_id, at, event, from_state, to_state, reason, epoch, actor, detail)
    SELECT id, ended_at, 'ended', 'IN_PROGRESS', state, reason, epoch, 'a test', '{}'
    FROM attempts WHERE company_id = %(company)s AND ended_at IS NOT NULL ORDER BY ended_at
"""


@contextmanager
def search_index_made_last(url: str) -> Iterator[None]:
    """Fill `candidates` without the index of searches. Adding each row to it takes longer than everything else."""
    with psycopg.connect(url, autocommit=True) as connection:
        [made] = connection.execute("SELECT pg_get_indexdef('ix_candidates_search'::regclass)").fetchall()
        connection.execute("DROP INDEX ix_candidates_search")
        yield
        connection.execute(made[0].encode())
        connection.execute("VACUUM ANALYZE candidates")


def add_candidates(url: str, seeded: Seeded, now: datetime, count: int, *, named: bool = True) -> None:
    """Add candidates, the newest first: a third each is called Ada, Grace and Jozef.

    Without names and addresses, for tests that search for none, they take a fifth of the time.
    """
    values = {"company": seeded.company_id, "now": now, "count": count, "named": named}
    with psycopg.connect(url) as connection:
        connection.execute(_CANDIDATES.encode(), values)


def add_pending_calls(url: str, seeded: Seeded, now: datetime, count: int, *, named: bool = True) -> None:
    """Add candidates with a pending interview each, and analyze the tables."""
    add_candidates(url, seeded, now, count, named=named)
    values = {
        "company": seeded.company_id,
        "agent": seeded.agent_id,
        "now": now,
        "schedule": Jsonb(schedule_as_json(a_schedule(now))),
    }
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_WITHOUT_CHECKS)
        for statement in _OTHERS:
            connection.execute(statement.encode(), values)
        connection.execute("VACUUM ANALYZE")


def add_finished_calls(url: str, seeded: Seeded) -> None:
    """Add an earlier attempt of each interview, which has failed, with its end, and analyze the tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (_FINISHED, _ENDS):
            connection.execute(statement.encode(), {"company": seeded.company_id})
        connection.execute("VACUUM ANALYZE")


_ANSWERED = (
    """
    INSERT INTO candidates (id, company_id, first_name, last_name, phone_number, gdpr_expiry_date,
                            created_at, updated_at)
    VALUES (%(candidate)s, %(company)s, 'Ada', 'Byron', '+421915000000', '2099-12-31', %(now)s, %(now)s)
    """,
    f"""
    CREATE TEMPORARY TABLE made AS
    SELECT {new_id_sql(_CREATED_AT)} AS id, {new_id_sql(_CREATED_AT)} AS interview,
           sha256((%(company)s::text || n)::bytea) AS line, {_CREATED_AT} AS ended_at
    FROM generate_series(1, %(count)s) AS n
    """,
    """
    INSERT INTO interviews (id, company_id, candidate_id, agent_id, type, focus, duration, caller_number, status,
                            is_test, metadata, expires_at, created_at, updated_at, finished_at)
    SELECT interview, %(company)s, %(candidate)s, %(agent)s, 'PHONE', 'GENERIC', '10 minutes', '+421221020001',
           'COMPLETED', false, '{}', ended_at + interval '7 days', ended_at, ended_at, ended_at
    FROM made
    """,
    "INSERT INTO lines (number_hash, free_at) SELECT line, ended_at FROM made",
    """
    INSERT INTO attempts (id, interview_id, company_id, chain_id, retry_number, manual, state, reason, due_at,
                          expires_at, schedule, warnings, number_hash, epoch, token, account_id, claimed_at, call_sid,
                          heard_rank, looks, not_placed, ended_at, created_at, updated_at)
    SELECT id, interview, %(company)s, id, 0, false, 'COMPLETED', 'ANSWERED', ended_at, ended_at + interval '7 days',
           %(schedule)s, '{}', line, 1, 'token ' || id, %(account)s, ended_at, 'CA' || id, 3, 0, 0, ended_at, ended_at,
           ended_at
    FROM made
    """,
    "INSERT INTO attempt_tokens (token, attempt_id, claimed_at) SELECT 'token ' || id, id, ended_at FROM made",
    """
    INSERT INTO carrier_events (id, token, fingerprint, raw, received_at, rung_at, heard_at)
    SELECT id, 'token ' || id, line, '{}', ended_at, ended_at, ended_at FROM made
    """,
    """
    INSERT INTO attempt_history (attempt_id, at, event, from_state, to_state, reason, epoch, actor, detail)
    SELECT id, ended_at, event, '', 'PENDING', '', 0, 'a test', '{}' FROM made, (VALUES ('created')) AS done (event)
    """,
    """
    INSERT INTO usage (attempt_id, company_id, interview_id, booked_at, billing_system, cost_key, talked)
    SELECT id, %(company)s, interview, ended_at, 'minutes', 'PHONE', '1 minute' FROM made
    """,
    "DROP TABLE made",
)


def add_answered_calls(url: str, seeded: Seeded, now: datetime, count: int, account_id: int) -> None:
    """Add calls that were answered, with all that remains of them. The last one ended a second ago."""
    values = {
        "company": seeded.company_id,
        "agent": seeded.agent_id,
        "account": account_id,
        "candidate": uuid4(),
        "now": now,
        "count": count,
        "schedule": Jsonb(schedule_as_json(a_schedule(now))),
    }
    with psycopg.connect(url) as connection:
        connection.execute(_WITHOUT_CHECKS)
        for statement in _ANSWERED:
            connection.execute(statement.encode(), values)
