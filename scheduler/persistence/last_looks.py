"""Last looks, and the lines of the numbers that they are about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Row, func, select, text, update

from scheduler.domain.attempt import Attempt, AttemptState, ConversationOutcome
from scheduler.domain.company import CompanySettings
from scheduler.lifecycle.backoffs import Backoff, Scope
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.policy import SLACK
from scheduler.persistence.attempt_rows import attempt_of
from scheduler.persistence.attempts import HIDDEN_FROM_OPERATORS
from scheduler.persistence.call_conditions import MATCHES, command_waits
from scheduler.persistence.connection import Connection, among
from scheduler.persistence.json_columns import settings_of
from scheduler.persistence.rows import AnyRow, from_row
from scheduler.persistence.store import Store, Write
from scheduler.persistence.tables import attempts, lines

# --- Lines: a person's number, busy or free. One call at a time to a number, in the whole installation


_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""An instant before every call. With the present instant of a wrong clock, a new line could be free only in an hour."""

# The two parts see the same lines: a line is either created, or existed before and is locked by the second part. The
# weakest lock: it blocks the deletion of a line and no claim.
_ENSURE_ALL = text("""
    WITH created AS (
        INSERT INTO lines (number_hash, free_at)
        SELECT number_hash, :always FROM unnest(CAST(:hashes AS bytea[])) AS given (number_hash)
        ON CONFLICT DO NOTHING
        RETURNING number_hash
    ), kept AS (
        SELECT number_hash FROM lines WHERE number_hash = ANY (CAST(:hashes AS bytea[]))
        ORDER BY number_hash
        FOR KEY SHARE
    )
    SELECT (SELECT count(*) FROM created) + (SELECT count(*) FROM kept)
""")


_GIVE_BACK_ALL = text("UPDATE lines SET attempt_id = NULL WHERE attempt_id = ANY (:ids)")


# By the columns of the updated row itself: after a wait for its lock they are those of the newest version.
_IS_BLOCKED = "(l.interview_id IS NULL OR l.interview_id IS DISTINCT FROM given.interview_id) AND l.free_at > given.now"
_START_GAPS = text(f"""
    UPDATE lines l
    SET attempt_id = NULL,
        interview_id = CASE WHEN {_IS_BLOCKED} THEN NULL ELSE given.interview_id END,
        free_at = CASE WHEN {_IS_BLOCKED} THEN greatest(l.free_at, given.free_at) ELSE given.free_at END
    FROM unnest(
        CAST(:attempt_ids AS uuid[]), CAST(:interview_ids AS uuid[]),
        CAST(:nows AS timestamptz[]), CAST(:free_ats AS timestamptz[])
    ) AS given (attempt_id, interview_id, now, free_at)
    WHERE l.attempt_id = given.attempt_id
""")  # noqa: S608 - the inserted text is a constant of this module


class Lines(Store):
    def ensure(self, number_hash: bytes) -> None:
        """Create a free line for this number unless it exists, and keep it from being deleted until we commit."""
        self._connection.write(_ENSURE, number_hash, number_hash)

    def hold(self, number_hash: bytes, attempt_id: UUID) -> bool:
        """Assign the line to this attempt, for a call that was seen late. False if another attempt has it."""
        self.ensure(number_hash)
        row = self._connection.execute(
            update(lines)
            .where(
                lines.c.number_hash == number_hash,
                (lines.c.attempt_id.is_(None)) | (lines.c.attempt_id == attempt_id),
            )
            .values(attempt_id=attempt_id)
            .returning(lines.c.number_hash)
        ).one_or_none()
        return row is not None

    def give_back(self, attempt_id: UUID) -> None:
        """Free the line of an attempt that did not ring, without a gap."""
        self._connection.write(_GIVE_BACK, attempt_id, attempt_id)

    def start_gap(self, attempt_id: UUID, interview_id: UUID | None, now: datetime, free_at: datetime) -> None:
        """Free the line after a call and start its gap: other interviews wait until `free_at`.

        Retries of `interview_id` need not wait. None: all wait. All also wait while the line is blocked for another
        reason (a stray call, or another interview's gap), and until the later one of both instants.
        """
        row = {"attempt_id": attempt_id, "interview_id": interview_id, "now": now, "free_at": free_at}
        self._connection.write(_START_GAP, attempt_id, row)

    def block_until(self, number_hash: bytes, free_at: datetime) -> None:
        """Block the line until `free_at`, also for retries, because a stray call to its number may be live."""
        self._connection.execute(
            update(lines)
            .where(lines.c.number_hash == number_hash)
            .values(interview_id=None, free_at=func.greatest(lines.c.free_at, free_at))
        )

    def refused(self, number_hash: bytes, country: str | None, refused_at: datetime, free_at: datetime) -> None:
        """Block the line until `free_at`, because the carrier blocks its number. `country`: None if it is unknown."""
        values = {"number_hash": number_hash, "country": country, "refused_at": refused_at, "free_at": free_at}
        self._connection.execute(_REFUSED, values)

    def refused_countries(self, since: datetime, now: datetime, numbers: int) -> frozenset[str]:
        """Find the countries of which the carrier has blocked at least this many numbers since then."""
        rows = self._connection.execute(_REFUSED_COUNTRIES, {"since": since, "now": now, "numbers": numbers})
        return frozenset(rows.scalars())

    # ---- deleting

    def forget_free(self, number_hashes: Sequence[bytes], now: datetime) -> int:
        """Delete the lines among these that are free and that no pending attempt needs."""
        free = (
            select(lines.c.number_hash)
            .where(among(lines.c.number_hash, number_hashes), lines.c.attempt_id.is_(None), lines.c.free_at <= now)
            .with_for_update(skip_locked=True)
        )
        hashes = self._connection.execute(free).scalars()
        # A second statement, after the lock: it sees each attempt that needs a line. A later attempt creates its own.
        waiting = (
            select(attempts.c.id)
            .where(attempts.c.number_hash == lines.c.number_hash, attempts.c.state == AttemptState.PENDING.value)
            .exists()
        )
        return self._delete(lines, among(lines.c.number_hash, hashes), ~waiting)

    def forget_free_above(self, number_hash: bytes, free_before: datetime, limit: int) -> bytes | None:
        """Delete up to `limit` free and unneeded lines above this one, like `forget_free`.

        Returns the last line that was checked. None at the end of the table.
        """
        above = (
            select(lines.c.number_hash)
            .where(lines.c.number_hash > number_hash)
            .order_by(lines.c.number_hash)
            .limit(limit)
        )
        hashes = self._connection.execute(above).scalars()
        self.forget_free(hashes, free_before)
        return hashes[-1] if len(hashes) == limit else None


def _ensure_all(connection: Connection, hashes: Sequence[bytes]) -> None:
    """Create the missing ones of these lines, and keep all from being deleted until we commit.

    In their order, so that two transactions that create the same ones do not wait for each other.
    """
    ordered = sorted(hashes)
    # A line that was created or deleted during the statement is neither created nor kept by it. The next one sees it.
    while connection.execute(_ENSURE_ALL, {"hashes": ordered, "always": _ALWAYS}).scalar_one() < len(ordered):
        pass


def _give_back_all(connection: Connection, attempt_ids: Sequence[UUID]) -> None:
    connection.execute(_GIVE_BACK_ALL, {"ids": list(attempt_ids)})


def _start_gaps(connection: Connection, gaps: Sequence[Mapping[str, Any]]) -> None:
    connection.execute(_START_GAPS, {f"{name}s": [gap[name] for gap in gaps] for name in gaps[0]})


_REFUSED = text("""
    UPDATE lines
    SET interview_id = NULL, free_at = greatest(free_at, :free_at), refused_at = :refused_at,
        country = coalesce(country, CAST(:country AS text))
    WHERE number_hash = :number_hash
""")
_REFUSED_COUNTRIES = text("""
    SELECT country FROM lines
    WHERE refused_at > :since AND refused_at <= :now AND country IS NOT NULL
    GROUP BY country
    HAVING count(*) >= :numbers
""")

# Before all others, which can then be sent together.
_ENSURE = Write(execute=_ensure_all, turn=-1, merge=lambda first, _: first)
_GIVE_BACK = Write(execute=_give_back_all, turn=4)
_START_GAP = Write(execute=_start_gaps, turn=5)


# --- Last looks: the facts that decide whether an attempt may ring now, read by one statement


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
    refused_by: ConversationOutcome | None
    """WRONG_PERSON or OPTED_OUT, as an earlier conversation has reported for this number.

    OPTED_OUT also if one of the interview has reported it for any number since this attempt was planned.
    """
    command_waiting: bool
    refusal_waiting_since: datetime | None
    """The receipt of the oldest accepted refusal of this number that is not applied yet. None without one."""
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
    """Read the facts in a row of `look_all`. Raises an error for one that this version cannot read."""
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


# At any number since the attempt was planned: see `conversations.has_opted_out_since`. The outcome is a condition that
# no index has, so that the attempts of the interview are read.
_OPTED_OUT = f"""(
               SELECT max(o.outcome) FROM attempts o
               WHERE o.interview_id = a.interview_id AND coalesce(o.outcome, '') = 'OPTED_OUT'
                 AND o.outcome_at >= a.created_at - interval '{SLACK.total_seconds()} s'
           )"""  # noqa: S608 - the inserted text is a constant


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
           {command_waits} AS command_waiting,
           -- The company as a condition that no index has: the index of refusals is read, which is nearly empty.
           (
               SELECT min(x.received_at) FROM inbox x
               WHERE x.number_hash = a.number_hash
                 AND x.company_id IS NOT DISTINCT FROM a.company_id  -- guard: own_refusals
           ) AS refusal_waiting_since,
           coalesce(
               {opted_out},  -- guard: look_opted_out
               (
                   SELECT min(r.outcome) FROM attempts r JOIN interviews ri ON ri.id = r.interview_id
                   WHERE r.number_hash = a.number_hash AND r.outcome IN ('OPTED_OUT', 'WRONG_PERSON')
                     AND r.company_id = a.company_id
                     AND (r.outcome = 'OPTED_OUT' OR ri.candidate_id = i.candidate_id)
               )
           ) AS refused_by,
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
LAST_LOOK = text(
    _LOOK.format(
        columns=COLUMNS,
        of_number="p.phone_number, i.caller_number",
        command_waits=command_waits(),
        opted_out=_OPTED_OUT,
        joined="",
        matches=MATCHES,
    )
)
LOOK_WITHOUT_NUMBER = text(
    _LOOK.format(
        columns=", ".join(
            f"NULL AS {column.name}" if column.name in HIDDEN_FROM_OPERATORS else f"a.{column.name}"
            for column in attempts.c
        ),
        of_number="NULL AS phone_number, '' AS caller_number, n.is_there AS has_number, l.country AS line_country",
        command_waits=command_waits(),
        opted_out=_OPTED_OUT,
        joined="CROSS JOIN LATERAL numbers_of_interview(a.interview_id) n",
        matches="b.country = l.country OR b.id = ANY (n.backoffs)",
    )
)
