"""Last looks: the facts that decide whether an attempt may ring now, read by one statement."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Row, text

from scheduler.domain.attempt import Attempt
from scheduler.domain.company import CompanySettings
from scheduler.lifecycle.backoffs import Backoff, Scope
from scheduler.lifecycle.breaker import Breaker
from scheduler.persistence.attempts import HIDDEN_FROM_OPERATORS, attempt_of
from scheduler.persistence.backoffs import MATCHES
from scheduler.persistence.json_columns import settings_of
from scheduler.persistence.rows import AnyRow, from_row
from scheduler.persistence.tables import attempts

L = TypeVar("L", bound="LastLookRow")


@dataclass(frozen=True, kw_only=True)
class LastLookRow:
    """The facts that the last look reads about one attempt. `phone_number` is personal data."""

    attempt: Attempt
    phone_number: str | None
    timezone: str | None
    gdpr_expiry_date: date
    caller_number: str
    interview_duration: timedelta
    settings: CompanySettings
    line_holder: UUID | None
    """The attempt that holds the line of this attempt's number."""
    line_interview: UUID | None
    """The interview that need not wait until `line_free_at`."""
    line_free_at: datetime | None
    interview_over: bool
    """Deleted, or no longer SCHEDULED."""
    command_waiting: bool
    account_paused: str | None
    company_paused: str | None
    company_deleted: bool
    breaker: Breaker
    backoff: Backoff | None
    """The back-off that holds this order, if there is one."""
    max_calls: int | None
    """The limit of the carrier account. None before an account exists."""
    database_clock: datetime


@dataclass(frozen=True, kw_only=True)
class LookWithoutNumber(LastLookRow):
    """The row for a reader who may read no number. `phone_number` and `caller_number` are empty."""

    has_number: bool
    line_country: str | None
    """The country of the attempt's line. None until a worker has determined it."""


def last_look_of(row: AnyRow) -> LastLookRow:
    """Return the facts in a row of `look_all`. Raises an error for one that this version cannot read."""
    return look_of(LastLookRow, row)


def look_of(kind: type[L], row: AnyRow) -> L:
    return from_row(
        kind,
        row,
        attempt=attempt_of(row),
        timezone=row.candidate_timezone,
        settings=settings_of(row),
        breaker=from_row(Breaker, row, "breaker_"),
        backoff=_backoff(row),
    )


def _backoff(row: Row[Any]) -> Backoff | None:
    """Without the caller of its scope, which no reader needs."""
    if row.backoff_cause is None:
        return None
    return Backoff(scope=from_row(Scope, row, "backoff_", caller=None), breaker=from_row(Breaker, row, "backoff_"))


# Named, because a prepared statement with a star fails after a migration that adds a column.
COLUMNS = ", ".join(f"a.{column.name}" for column in attempts.c)


# The only statement that may read the database's clock: it compares two clocks and decides nothing by either.
_LOOK = """
    SELECT {columns},
           {of_number},
           p.timezone AS candidate_timezone,
           p.gdpr_expiry_date,
           i.duration AS interview_duration,
           i.deleted_at IS NOT NULL OR i.status <> 'SCHEDULED' AS interview_over,
           CAST(c.settings AS text) AS settings,
           c.calls_per_second,
           c.concurrent_calls,
           l.attempt_id AS line_holder,
           l.interview_id AS line_interview,
           l.free_at AS line_free_at,
           k.pause_reason AS account_paused,
           c.pause_reason AS company_paused,
           c.deleted_at IS NOT NULL AS company_deleted,
           coalesce(k.failures, 0) AS breaker_failures,
           k.down_until AS breaker_down_until,
           k.answered_at AS breaker_answered_at,
           k.down_cause AS breaker_cause,
           coalesce(k.trials, 0) AS breaker_trials,
           k.max_calls,
           b.country AS backoff_country,
           b.company_id AS backoff_company_id,
           b.failures AS backoff_failures,
           b.down_until AS backoff_down_until,
           b.answered_at AS backoff_answered_at,
           b.cause AS backoff_cause,
           b.trials AS backoff_trials,
           EXISTS (SELECT FROM inbox x WHERE x.interview_id = a.interview_id AND x.applied_at IS NULL)
               AS command_waiting,
           clock_timestamp() AS database_clock
    FROM attempts a
    JOIN interviews i ON i.id = a.interview_id
    JOIN candidates p ON p.id = i.candidate_id
    JOIN companies c ON c.id = a.company_id
    -- An attempt that was never claimed has no account yet: it will use the installation's newest.
    LEFT JOIN carrier_accounts k ON k.id = coalesce(a.account_id, (SELECT max(id) FROM carrier_accounts))
    LEFT JOIN lines l ON l.number_hash = a.number_hash
    {joined}
    LEFT JOIN LATERAL (
        SELECT b.country, b.company_id, b.failures, b.down_until, b.answered_at, b.cause, b.trials
        FROM carrier_backoffs b
        WHERE b.account_id = k.id AND b.down_until IS NOT NULL AND ({matches})
        -- If two match, the one that lasts longer.
        ORDER BY coalesce(b.answered_at >= b.down_until, false), b.down_until DESC
        LIMIT 1
    ) b ON true
    WHERE a.id = ANY (:ids)
"""
LAST_LOOK = text(_LOOK.format(columns=COLUMNS, of_number="p.phone_number, i.caller_number", joined="", matches=MATCHES))
LOOK_WITHOUT_NUMBER = text(
    _LOOK.format(
        columns=", ".join(
            f"NULL AS {column.name}" if column.name in HIDDEN_FROM_OPERATORS else f"a.{column.name}"
            for column in attempts.c
        ),
        of_number="NULL AS phone_number, '' AS caller_number, n.is_there AS has_number, l.country AS line_country",
        joined="CROSS JOIN LATERAL numbers_of_interview(a.interview_id) n",
        matches="b.country = l.country OR b.id = ANY (n.backoffs)",
    )
)
