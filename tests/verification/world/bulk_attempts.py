"""Many attempts of new people, written with COPY."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import cycle, islice
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from scheduler.domain.attempt import Created
from scheduler.domain.call import Schedule
from scheduler.persistence.attempt_rows import columns_of, sealed
from tests.support.builders import FOREVER, Tenant, a_number, a_schedule, an_unsaved_attempt

A_FEW = 100


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Reason why an attempt exists."""

    retry_number: int
    manual: bool


INVOKE = Kind(manual=True, retry_number=0)
FIRST = Kind(manual=False, retry_number=0)
RETRY = Kind(manual=False, retry_number=1)
EACH_KIND = (INVOKE, FIRST, RETRY)


@dataclass(frozen=True, kw_only=True)
class NewCall:
    """A new person and the first attempt to call this person."""

    tenant: Tenant
    kind: Kind
    number: str
    schedule: Schedule
    expires_at: datetime
    interview_id: UUID = field(default_factory=uuid4)
    timezone: str | None = None
    consent_until: date = FOREVER


def bulk_attempts(
    url: str, tenant: Tenant, count: int, *, due_at: datetime, kinds: Sequence[Kind] = EACH_KIND
) -> list[UUID]:
    """Create people, each with an attempt that is due then, and return its ids. The kinds are used in turn."""
    schedule, expires_at = a_schedule(due_at), due_at + timedelta(days=7)
    return copy_calls(
        url,
        [
            NewCall(tenant=tenant, kind=kind, number=a_number(), schedule=schedule, expires_at=expires_at)
            for kind in islice(cycle(kinds), count)
        ],
    )


def copy_calls(url: str, calls: Sequence[NewCall]) -> list[UUID]:
    """Write what `apply` would write for each call, and return the ids of the attempts."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in calls:
        for table, row in _rows_of(call).items():
            rows[table].append(row)
    with psycopg.connect(url) as connection:
        # People with the same number share a line.
        connection.execute(
            "INSERT INTO lines (number_hash, free_at) SELECT unnest(%s::bytea[]), %s ON CONFLICT DO NOTHING",
            ([row["number_hash"] for row in rows["attempts"]], calls[0].tenant.now()),
        )
        for table, written in rows.items():
            with connection.cursor().copy(f"COPY {table} ({', '.join(written[0])}) FROM STDIN".encode()) as copy:
                for row in written:
                    copy.write_row([Jsonb(value) if isinstance(value, dict) else value for value in row.values()])
    if len(calls) > A_FEW:  # otherwise the planner uses outdated statistics
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE")
    return [row["id"] for row in rows["attempts"]]


def _rows_of(call: NewCall) -> dict[str, dict[str, Any]]:
    """Return the row of each table."""
    tenant, candidate_id = call.tenant, uuid4()
    attempt = an_unsaved_attempt(
        tenant,
        call.interview_id,
        call.number,
        schedule=call.schedule,
        expires_at=call.expires_at,
        manual=call.kind.manual,
        retry_number=call.kind.retry_number,
    )
    attempt, history = sealed(tenant.hasher.history_key(), None, attempt, Created(), "a test")
    common = {"company_id": tenant.company_id, "created_at": attempt.created_at, "updated_at": attempt.updated_at}
    return {
        "candidates": {
            "id": candidate_id,
            "first_name": "Ada",
            "last_name": "Byron",
            "phone_number": call.number,
            "timezone": call.timezone,
            "gdpr_expiry_date": call.consent_until,
            **common,
        },
        "interviews": {
            "id": call.interview_id,
            "candidate_id": candidate_id,
            "agent_id": tenant.agent_id,
            "type": "PHONE",
            "focus": "GENERIC",
            "duration": timedelta(minutes=10),
            "caller_number": tenant.caller,
            "status": "SCHEDULED",
            "is_test": False,
            "metadata": {},
            "expires_at": call.expires_at,
            **common,
        },
        "attempts": columns_of(attempt),
        "attempt_history": history,
    }
