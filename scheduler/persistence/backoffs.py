"""Back-offs: scopes whose orders wait because the carrier refuses or fails them. Written under the account's lock."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import bindparam, insert, select, text

from scheduler.domain.attempt import Phase
from scheduler.lifecycle.backoffs import Backoff, Backoffs, Scope
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.policy import latest_release
from scheduler.persistence.call_conditions import (
    COMPANY_MAY_CALL,
    IS_NOT_RELEASED,
    LINE_IS_BUSY,
    MATCHES,
    command_waits,
)
from scheduler.persistence.connection import Fixed, among
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import carrier_backoffs as table

FIRST_LOOK = UUID(int=0)
_LOOKED_AT = 2500
"""Attempts that a look for trial calls reads in each order: the first due ones of companies, and by interview."""
_FIRST_OF_COMPANY = 50
_MOST_LOCKED = 20
"""Attempts of a scope that other transactions may have locked, until the next look finds others."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The two numbers of an attempt's order. `called` is personal data."""

    attempt_id: UUID
    company_id: UUID
    caller: str
    called: str | None
    number_hash: bytes | None
    country: str | None
    """None until a worker has determined it."""


_ends = partial(from_row, Ends)
_OF_ACCOUNT = Fixed(select(table).where(table.c.account_id == bindparam("account_id")).order_by(table.c.id))
_WAITING = Fixed(
    select(*table.c["country", "company_id", "failures", "down_until", "answered_at", "cause", "trials"])
    .where(table.c.down_until.is_not(None))
    .order_by(table.c.country, table.c.company_id, table.c.id)
)


class CarrierBackoffs(Store):
    def of(self, account_id: int) -> Backoffs:
        """Read the back-offs of an account, by scope."""
        return {each.scope: each for _, each in self._rows(account_id)}

    def _rows(self, account_id: int) -> list[tuple[int, Backoff]]:
        rows = self._connection.execute(_OF_ACCOUNT, {"account_id": account_id})
        return [
            (row.id, from_row(Backoff, row, scope=from_row(Scope, row), breaker=from_row(Breaker, row))) for row in rows
        ]

    def waiting(self) -> list[Backoff]:
        """List the back-offs of all accounts that wait or are half-open, countries first, without caller ids.

        Reads only columns that the counting role may read.
        """
        rows = self._connection.execute(_WAITING)
        return [Backoff(scope=from_row(Scope, row, caller=None), breaker=from_row(Breaker, row)) for row in rows]

    def save(self, account_id: int, after: Backoffs, now: datetime) -> None:
        """Replace the back-offs of an account that the caller has locked."""
        before = self._rows(account_id)
        outdated = [row_id for row_id, each in before if after.get(each.scope) != each]
        unchanged = {each.scope for row_id, each in before if row_id not in outdated}
        if outdated:
            self._delete(table, among(table.c.id, outdated))
        new = [_columns(account_id, each, now) for scope, each in after.items() if scope not in unchanged]
        if new:
            self._connection.execute(insert(table), new)

    def forget_company(self, company_id: UUID) -> int:
        return self._delete(table, table.c.company_id == company_id)

    def forget(self, updated_before: datetime, limit: int) -> int:
        """Delete up to `limit` back-offs that have not changed since `updated_before`."""
        return self._delete_free(table.c.id, select(table.c.id).where(table.c.updated_at < updated_before).limit(limit))

    # ---- the ends of orders

    def ends_of(self, attempt_ids: Collection[UUID]) -> list[Ends]:
        """Read the numbers of these attempts, except those of deleted companies."""
        return self._all(_ends, _ENDS, {"ids": list(attempt_ids)})

    def ends_being_placed(self, account_id: int) -> list[Ends]:
        """Read the numbers of orders that are claimed and have no answer yet."""
        return self._all(_ends, _ENDS_BEING_PLACED, {"phase": Phase.DIALLING.value, "account_id": account_id})

    def due_without_a_country(self, now: datetime, limit: int) -> list[Ends]:
        """Read the numbers of attempts, due or claimed and not yet sent, whose country is not determined yet."""
        return self._all(_ends, _WITHOUT_A_COUNTRY, {"now": now, "limit": limit})

    def know_countries(self, countries: Sequence[tuple[bytes, str]]) -> None:
        """Write the countries of lines. A line that another transaction has locked is skipped."""
        values = {"hashes": [each for each, _ in countries], "countries": [country for _, country in countries]}
        self._connection.execute(_KNOW_COUNTRIES, values)

    # ---- release

    def release_trials(
        self, account_id: int, now: datetime, until: datetime, limit: int, after: UUID = FIRST_LOOK
    ) -> tuple[list[UUID], UUID]:
        """Release one due attempt of each half-open scope, unless one is already released or being placed.

        At most `limit` in all. The first due attempts of each company are looked at, and open ones of interviews after
        this one: a scope can have few calls among a million. Returns the attempts, and the `after` of the next look.
        """
        values = {"account_id": account_id, "now": now, "until": until, "limit": limit, "after": after}
        row = self._connection.execute(_RELEASE_TRIALS, {**values, "latest": latest_release(now)}).one()
        return row.ids, row.last or FIRST_LOOK

    def hold(self, attempt_ids: Collection[UUID]) -> None:
        """End the release of attempts that may not be claimed now. The caller has locked them."""
        self._connection.execute(_HOLD, {"ids": list(attempt_ids)})


def _columns(account_id: int, each: Backoff, now: datetime) -> dict[str, object]:
    return as_columns(
        each,
        without={"scope", "breaker"},
        account_id=account_id,
        **as_columns(each.scope),
        **as_columns(each.breaker, cause=each.cause),
        created_at=now,
        updated_at=now,
    )


_SELECT_ENDS = """
    SELECT a.id AS attempt_id, a.company_id, i.caller_number AS caller,
           coalesce(a.called_number, p.phone_number) AS called, a.number_hash, l.country
    FROM attempts a
    JOIN interviews i ON i.id = a.interview_id
    JOIN candidates p ON p.id = i.candidate_id
    JOIN companies c ON c.id = a.company_id
    LEFT JOIN lines l ON l.number_hash = a.number_hash
    WHERE c.deleted_at IS NULL AND i.caller_number IS NOT NULL
"""
_ENDS = text(f"{_SELECT_ENDS} AND a.id = ANY (:ids)")
_ENDS_BEING_PLACED = text(f"{_SELECT_ENDS} AND a.phase = :phase AND a.account_id = :account_id")
_WITHOUT_A_COUNTRY = text(
    f"""{_SELECT_ENDS} AND l.country IS NULL
      AND (a.state = 'PENDING' AND a.due_at <= :now OR a.phase = 'DIALLING') LIMIT :limit"""
)

_KNOW_COUNTRIES = text("""
    UPDATE lines SET country = known.country
    FROM unnest(CAST(:hashes AS bytea[]), CAST(:countries AS text[])) AS known (number_hash, country)
    WHERE lines.number_hash = known.number_hash
      AND lines.number_hash = ANY (ARRAY (
          SELECT l.number_hash FROM lines l
          WHERE l.number_hash = ANY (CAST(:hashes AS bytea[]))
          FOR NO KEY UPDATE SKIP LOCKED
      ))
""")

_OPEN = """
    SELECT a.id, a.interview_id, a.company_id, a.number_hash, a.state, a.due_at, a.expires_at, a.released_until
    FROM attempts a
    WHERE EXISTS (SELECT FROM carrier_backoffs b WHERE b.account_id = :account_id AND b.answered_at >= b.down_until)
"""
_RELEASE_TRIALS = text(f"""
    WITH walked AS MATERIALIZED (
        {_OPEN} AND a.state IN ('PENDING', 'IN_PROGRESS') AND a.interview_id > :after
        ORDER BY a.interview_id
        LIMIT {_LOOKED_AT}
    ), first AS MATERIALIZED (
        SELECT a.*
        FROM companies c
        CROSS JOIN LATERAL (
            -- Row comparisons, and in their order: the planner might read the due attempts of all companies by time.
            {_OPEN} AND a.state = 'PENDING'
              AND (a.company_id, a.due_at) >= (c.id, CAST('-infinity' AS timestamptz))
              AND (a.company_id, a.due_at) <= (c.id, CAST(:now AS timestamptz))
            ORDER BY a.company_id, a.due_at
            LIMIT {_FIRST_OF_COMPANY}
        ) a
        WHERE {COMPANY_MAY_CALL}
        LIMIT {_LOOKED_AT}
    ), due AS MATERIALIZED (
        SELECT a.*, l.country
        FROM (SELECT * FROM first UNION ALL SELECT * FROM walked) a
        CROSS JOIN LATERAL (SELECT * FROM lines l WHERE l.number_hash = a.number_hash LIMIT 1) l
        WHERE a.state = 'PENDING' AND a.due_at <= :now AND a.expires_at > :now
          AND {IS_NOT_RELEASED}
          AND NOT {LINE_IS_BUSY}
    ), released AS (
        UPDATE attempts SET released_until = :until
        WHERE id = ANY (ARRAY (
            SELECT tried.id
            FROM carrier_backoffs b
            CROSS JOIN LATERAL (
                SELECT free.id
                FROM (
                    SELECT a.id
                    FROM due a
                    CROSS JOIN LATERAL (SELECT a.country) l
                    JOIN companies c ON c.id = a.company_id
                    WHERE ({MATCHES})
                      AND {COMPANY_MAY_CALL}
                      AND NOT {command_waits()}
                      -- The claim would hold an attempt that also waits for another scope, and it would be tried
                      -- repeatedly.
                      AND NOT EXISTS (
                          SELECT FROM carrier_backoffs b
                          WHERE b.account_id = :account_id AND b.down_until IS NOT NULL
                            AND NOT coalesce(b.answered_at >= b.down_until, false) AND ({MATCHES})
                      )
                    -- An attempt that was released before and not claimed (no room in its company, for example) comes
                    -- last.
                    ORDER BY a.released_until NULLS FIRST, a.due_at
                    LIMIT {_MOST_LOCKED}
                ) best
                CROSS JOIN LATERAL (
                    SELECT a.id FROM attempts a WHERE a.id = best.id AND a.state = 'PENDING'
                    LIMIT 1
                    FOR NO KEY UPDATE SKIP LOCKED
                ) free
                LIMIT 1
            ) tried
            WHERE b.account_id = :account_id
              AND b.answered_at >= b.down_until
              AND NOT EXISTS (
                  SELECT FROM attempts a
                  JOIN lines l ON l.number_hash = a.number_hash
                  WHERE ({MATCHES}) AND a.state = 'IN_PROGRESS' AND a.phase = 'DIALLING'
              )
              AND NOT EXISTS (
                  SELECT FROM attempts a
                  JOIN lines l ON l.number_hash = a.number_hash
                  WHERE ({MATCHES})
                    -- A later release was made by a wrong clock.
                    AND a.state = 'PENDING' AND a.released_until > :now AND a.released_until <= :latest
              )
            LIMIT :limit
        ))
        RETURNING id
    )
    SELECT ARRAY (SELECT id FROM released) AS ids,
           (SELECT interview_id FROM walked ORDER BY interview_id OFFSET {_LOOKED_AT} - 1 LIMIT 1) AS last
""")  # noqa: S608 - the inserted texts are constants

_HOLD = text("UPDATE attempts SET released_until = NULL WHERE id = ANY (:ids) AND state = 'PENDING'")
