"""Copies one interview with its pending call many times, so that the rows are those that the API writes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import psycopg

from scheduler.hashing import Hasher
from tests.support.big_tables import new_id_sql

FIRST_NUMBER = 421_915_000_000
_COPIES = """
    CREATE TEMPORARY TABLE copies (
        place int, number text, number_hash bytea, due_at timestamptz, created_at timestamptz,
        candidate uuid, interview uuid, attempt uuid, command uuid
    ) ON COMMIT DROP
"""
_IN_ORDER = f"""
    UPDATE copies SET created_at = made.at, command = {new_id_sql("made.at")}, candidate = {new_id_sql("made.at")},
                      interview = {new_id_sql("made.at")}, attempt = {new_id_sql("made.at")}
    FROM (SELECT place, now() - (max(place) OVER () - place) * interval '5 milliseconds' AS at FROM copies) made
    WHERE made.place = copies.place
"""
"""Rows are created one after another, each with ids of its time."""
_MANY = """
    INSERT INTO copies (place, number, number_hash, due_at)
    SELECT n, '+' || (%(first)s + n), sha256(n::text::bytea), %(begin)s::timestamptz + random() * interval '27 days'
    FROM generate_series(1, %(count)s) AS n
"""
_ROWS = {
    "candidates": "id = (SELECT candidate_id FROM interviews WHERE id = %(interview)s)",
    "interviews": "id = %(interview)s",
    "attempts": "interview_id = %(interview)s",
    "lines": "number_hash = (SELECT number_hash FROM attempts WHERE interview_id = %(interview)s)",
    "attempt_history": "attempt_id = (SELECT id FROM attempts WHERE interview_id = %(interview)s)",
    "inbox": "interview_id = %(interview)s",
}
_CHANGES = {
    "candidates": "'id', c.candidate, 'phone_number', c.number, 'created_at', c.created_at",
    "interviews": "'id', c.interview, 'candidate_id', c.candidate, 'created_at', c.created_at",
    "attempts": "'id', c.attempt, 'interview_id', c.interview, 'chain_id', c.attempt, 'number_hash', c.number_hash,"
    " 'due_at', c.due_at, 'created_at', c.created_at",
    "lines": "'number_hash', c.number_hash",
    "attempt_history": "'attempt_id', c.attempt",
    "inbox": "'id', c.command, 'interview_id', c.interview, 'idempotency_key', NULL",
}
_GENERATED = {"attempt_history": "id", "inbox": "seq"}
"""Identity columns, which PostgreSQL fills."""


def add_due(connection: psycopg.Connection, interview_id: UUID, hasher: Hasher, due: Sequence[datetime]) -> list[str]:
    """Add a pending call for each instant, to a number of its own, and return the numbers in that order."""
    first = FIRST_NUMBER + _count(connection)
    numbers = [f"+{first + place}" for place in range(len(due))]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_COPIES)
        with cursor.copy("COPY copies (place, number, number_hash, due_at) FROM STDIN") as copy:
            for place, (number, due_at) in enumerate(zip(numbers, due, strict=True)):
                copy.write_row((place, number, hasher.number(number), due_at))
        _copy_all(connection, interview_id)
    return numbers


def add_pending(connection: psycopg.Connection, interview_id: UUID, count: int, begin: datetime) -> None:
    """Add calls that become due in the 27 days from `begin` on. Their lines are hashes of no number."""
    with connection.transaction():
        connection.execute(_COPIES)
        connection.execute(_MANY, {"first": FIRST_NUMBER + 30_000_000, "count": count, "begin": begin})
        _copy_all(connection, interview_id)
    connection.execute("VACUUM ANALYZE")


def _count(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM lines").fetchone()
    assert row is not None
    return int(row[0])


def _copy_all(connection: psycopg.Connection, interview_id: UUID) -> None:
    connection.execute(_IN_ORDER.encode())
    connection.execute("SET LOCAL session_replication_role = replica")  # the rows are consistent by construction
    for table, condition in _ROWS.items():
        generated = _GENERATED.get(table)
        columns = ", ".join(
            f'"{name}"'
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_name = %s AND table_schema = current_schema() ORDER BY ordinal_position",
                [table],
            )
            if name != generated
        )
        wanted = ", ".join(f"r.{name}" for name in columns.split(", "))
        connection.execute(
            f"INSERT INTO {table} ({columns}) SELECT {wanted} FROM {table} t, copies c,"
            f" jsonb_populate_record(t, jsonb_build_object({_CHANGES[table]})) r WHERE t.{condition}"
            " ORDER BY c.created_at".encode(),
            {"interview": interview_id},
        )
