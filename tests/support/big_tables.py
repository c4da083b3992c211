"""Rows in the number at which PostgreSQL plans as for a million, made by SQL because the API would take minutes."""

from datetime import datetime

import psycopg
from psycopg.types.json import Jsonb

from scheduler.persistence.json_columns import schedule_as_json
from tests.conftest import Seeded
from tests.support.builders import a_schedule


def new_id_sql(at: str) -> str:
    """Return the SQL of an id like those of `scheduler.ids`, for a row that is created at that SQL's instant."""
    milliseconds = f"lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0')"
    random = "substr(md5(random()::text)"
    return f"({milliseconds} || '7' || {random}, 1, 3) || '8' || {random}, 1, 15))::uuid"


_CREATED_AT = "(%(now)s::timestamptz - n * interval '1 second')"
_CANDIDATES = f"""
    INSERT INTO candidates (id, company_id, first_name, last_name, email, gdpr_expiry_date, created_at, updated_at)
    SELECT {new_id_sql(_CREATED_AT)}, %(company)s, (ARRAY['Ada', 'Grace', 'Jozef'])[1 + n %% 3], md5(n::text),
           n || '@example.com', '2099-12-31', {_CREATED_AT}, %(now)s
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


def add_candidates(url: str, seeded: Seeded, now: datetime, count: int) -> None:
    """Add candidates, the newest first: a third each is called Ada, Grace and Jozef."""
    with psycopg.connect(url) as connection:
        connection.execute(_CANDIDATES.encode(), {"company": seeded.company_id, "now": now, "count": count})


def add_pending_calls(url: str, seeded: Seeded, now: datetime, count: int) -> None:
    """Add candidates with a pending interview each, and analyze the tables."""
    add_candidates(url, seeded, now, count)
    values = {
        "company": seeded.company_id,
        "agent": seeded.agent_id,
        "now": now,
        "schedule": Jsonb(schedule_as_json(a_schedule(now))),
    }
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _OTHERS:
            connection.execute(statement.encode(), values)
        connection.execute("VACUUM ANALYZE")


def add_finished_calls(url: str, seeded: Seeded) -> None:
    """Add an earlier attempt of each interview, which has failed, and analyze the tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FINISHED.encode(), {"company": seeded.company_id})
        connection.execute("VACUUM ANALYZE")
