"""Evidence for the judge: the carrier's ledger and the rows of the attempts, read without interpretation."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from tests.verification.judge.history import Claim, HistoryEntry, Ring, Row


def rings_from(ledger: Iterable[dict[str, Any]]) -> tuple[Ring, ...]:
    return tuple(
        Ring(
            token=ring["token"],
            number=ring["to"],
            accepted_at=datetime.fromisoformat(ring["accepted_at"]),
            rang_at=_instant(ring["rang_at"]),
            answered_at=_instant(ring["answered_at"]),
            ended_at=_instant(ring["ended_at"]),
        )
        for ring in ledger
    )


def rows_of(postgres_url: str) -> tuple[Row, ...]:
    """Read every attempt, by several statements: call this only when the system is quiet."""
    with psycopg.connect(postgres_url, row_factory=dict_row) as connection:
        return rows_over(connection)


def rows_over(connection: psycopg.Connection[dict[str, Any]]) -> tuple[Row, ...]:
    happenings = defaultdict(list)
    for row in connection.execute("SELECT * FROM attempt_history ORDER BY id"):
        happenings[row["attempt_id"]].append(_happening(row))
    claims: dict[UUID, list[Claim]] = defaultdict(list)
    for row in connection.execute("SELECT attempt_id, token, claimed_at FROM attempt_tokens ORDER BY claimed_at"):
        claims[row["attempt_id"]].append(Claim(token=row["token"], at=row["claimed_at"]))
    return tuple(
        _row(row, tuple(happenings[row["id"]]), tuple(claims[row["id"]]))
        for row in connection.execute("SELECT * FROM attempts ORDER BY created_at, id")
    )


def _row(row: dict[str, Any], happenings: tuple[HistoryEntry, ...], claims: tuple[Claim, ...]) -> Row:
    return Row(
        id=row["id"],
        interview_id=row["interview_id"],
        company_id=row["company_id"],
        line=(row["number_hash"] or b"").hex(),
        state=row["state"],
        reason=row["reason"] or "",
        epoch=row["epoch"],
        due_at=row["due_at"],
        expires_at=row["expires_at"],
        happenings=happenings,
        claims=claims,
    )


def _happening(row: dict[str, Any]) -> HistoryEntry:
    return HistoryEntry(
        seq=row["id"],
        at=row["at"],
        event=row["event"],
        from_state=row["from_state"],
        to_state=row["to_state"],
        reason=row["reason"],
        epoch=row["epoch"],
        expires_at=_instant(row["detail"].get("expires_at")),
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
