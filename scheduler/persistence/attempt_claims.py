"""Attempts: locked for the claim, claimed, and checked a last time before dialling."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from scheduler.domain.attempt import Attempt, Claimed
from scheduler.lifecycle.capacity import in_turns
from scheduler.lifecycle.policy import RELEASE_SPAN
from scheduler.lifecycle.state_machine import changes, evolve, with_values
from scheduler.persistence.attempt_rows import attempt_of, column_of, sealed
from scheduler.persistence.call_conditions import COMPANY_MAY_CALL, LINE_HAS_A_CALL, LINE_RESTS, command_waits
from scheduler.persistence.carrier_accounts import DATABASE_NOW, DatabaseName
from scheduler.persistence.connection import as_json, given_rows
from scheduler.persistence.last_looks import (
    COLUMNS,
    LAST_LOOK,
    LOOK_WITHOUT_NUMBER,
    LastLookRow,
    LookWithoutNumber,
    last_look_of,
    look_of,
)
from scheduler.persistence.rows import AnyRow, from_row, readable
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempt_history, attempts


@dataclass(frozen=True, kw_only=True)
class CalleeNow:
    """The current number of a callee, which is personal data, and what forbids the claim."""

    phone_number: str | None = field(repr=False)
    command_waiting: bool
    """An accepted command for the interview is not applied yet."""
    is_erased: bool
    """The person was erased, and the interview is not cancelled yet."""


@dataclass(frozen=True, kw_only=True)
class ClaimFacts:
    """The facts that a claim needs besides the rows that it locks.

    While account and companies are locked, the numbers of calls can only become smaller, because only claims increase
    them.
    """

    database: DatabaseName
    calls: int
    """The calls in progress of the account."""
    calls_being_placed: int
    """Calls that are claimed and have no answer yet, and the trial of the voice server until its answer is judged."""
    calls_by_company: Mapping[UUID, int]
    """The calls in progress of the locked companies that have any."""
    companies: frozenset[UUID]
    """The companies of the attempts that may place calls, whether or not they are locked."""
    has_backoffs: bool
    """True if any orders of the account may have to wait."""
    callees: Mapping[UUID, CalleeNow]
    """The callees of the locked attempts, by interview."""


@dataclass(frozen=True, kw_only=True)
class Claimable:
    """The attempts that a claim has locked."""

    attempts: Sequence[Attempt]
    unreadable: frozenset[UUID] = frozenset()
    """Attempts whose rows a later release has written. They are not claimed."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """The pending attempts that a claim has named and not locked, but can have later."""

    locked_elsewhere: frozenset[UUID] = frozenset()
    """Another transaction has locked them or their lines, or another attempt to their number goes first."""
    early: Mapping[UUID, datetime] = field(default_factory=dict)
    """The due times of attempts that become due within a release."""


@dataclass(frozen=True, kw_only=True)
class NextSlots:
    """The next slots of the account and of companies after a claim."""

    account: datetime
    companies: Mapping[UUID, datetime]


class AttemptClaims(Store):
    def claim(self, attempt: Attempt, event: Claimed, account_id: int, actor: str, now: datetime) -> Attempt:
        """Claim one attempt, as `claim_all` does."""
        number: str | None = self._connection.execute(_NUMBER, {"id": attempt.interview_id}).scalar_one()
        [moved] = self.claim_all([(attempt, event, number)], account_id, actor, now)
        return moved

    def claim_all(
        self,
        claims: Sequence[tuple[Attempt, Claimed, str | None]],
        account_id: int,
        actor: str,
        now: datetime,
        slots: NextSlots | None = None,
    ) -> list[Attempt]:
        """Save attempts as claimed, with lines, history and slots, in one statement. Return them in order.

        Each new token names its attempt permanently, and the number that is called is stored. The caller has locked
        all rows. Raises NoSuchArrow if an attempt cannot be claimed.
        """
        key = self._connection.history_key
        written = [
            sealed(key, attempt, evolve(with_values(attempt, {"called_number": number}), event, now), event, actor)
            for attempt, event, number in claims
        ]
        moved, history = [each for each, _ in written], [row for _, row in written]
        changed = ("called_number", "history_seal", *changes(*claims[0][:2], now))
        names = ("id", "number_hash", *changed)
        of_companies = {} if slots is None else slots.companies
        self._connection.execute(
            _claim(changed, tuple(history[0])),
            {
                "rows": as_json([{name: column_of(each, name) for name in names} for each in moved]),
                "history": as_json(history),
                "count": len(moved),
                "account_id": account_id,
                "account_slot": None if slots is None else slots.account,
                "company_ids": list(of_companies),
                "company_slots": list(of_companies.values()),
            },
        )
        return moved

    def hinted(self, ids: Sequence[UUID]) -> list[Row[Any]]:
        """Read `id`, `company_id`, `manual`, `due_at` of the pending attempts: they decide the order of claims."""
        return list(self._connection.execute(_HINTED, {"ids": list(ids)}))

    def facts(
        self,
        account_id: int,
        ids: Sequence[UUID],
        locked: Collection[UUID],
        interview_ids: Sequence[UUID],
        tried_since: datetime | None = None,
    ) -> ClaimFacts:
        """Read the facts for a claim of these attempts.

        `tried_since`: calls that were claimed from then on are trials, as `voice_server.tried_since`.

        The caller has locked the account, the `locked` companies and the attempts of the interviews.

        A statement of its own, after all locks: an earlier one would not see what other transactions have committed
        until then. What commits between the locks and this statement cannot make a claim wrong:

        - the end of a call makes room, and no call begins, because each claim needs the lock on the account,
        - a command for an interview is seen here, or waits for the lock on the attempt and is accepted after the claim,
        - a pause or deletion concerns no locked company, and the attempts of the others are not claimed,
        - back-offs are written under the lock on the account,
        - a person is erased under the lock on the company,
        - a changed number is stored with the claim, and the last look compares it with the line.
        """
        values = {
            "account_id": account_id,
            "ids": list(ids),
            "locked": list(locked),
            "interview_ids": list(interview_ids),
            "tried_since": tried_since,
        }
        row = self._connection.execute(_CLAIM_FACTS, values).one()
        return ClaimFacts(
            database=from_row(DatabaseName, row),
            calls=row.calls,
            calls_being_placed=row.calls_being_placed,
            calls_by_company={UUID(key): calls for key, calls in row.calls_by_company.items()},
            companies=frozenset(row.companies),
            has_backoffs=row.has_backoffs,
            callees={
                UUID(key): CalleeNow(phone_number=number, command_waiting=command_waiting, is_erased=is_erased)
                for key, (number, command_waiting, is_erased) in row.callees.items()
            },
        )

    def lock_claimable(self, ids: Sequence[UUID], now: datetime, ahead: timedelta = timedelta()) -> Claimable:
        """Lock the attempts that may be claimed now, with their lines. One a number, the earliest due.

        `ahead`: how far the clock of `now` is ahead of the database's. No attempt is due earlier because of it.
        Companies take turns. Rows that another transaction has locked are left out, see `left`.
        """
        hashes: set[bytes] = set()
        claimable = []
        values = {"ids": list(ids), "now": now, "due_by": now - ahead}
        rows = self._connection.execute(_LOCK_CLAIMABLE, values).all()
        found = {each.id: each for each in readable(rows, attempt_of, attempts.name)}
        for row in rows:
            if row.id not in found:
                continue
            if row.number_hash in hashes:  # guard: one_per_number
                continue
            hashes.add(row.number_hash)
            claimable.append(found[row.id])
        return Claimable(attempts=in_turns(claimable), unreadable=frozenset(row.id for row in rows) - found.keys())

    def put_off_unreadable(self, ids: Collection[UUID], until: datetime) -> None:
        """End the release of locked attempts that this release cannot read. They are not released before `until`."""
        if ids:
            self._connection.execute(_PUT_OFF, {"ids": list(ids), "until": until})  # guard: unreadable_put_off

    def left(self, ids: Sequence[UUID], locked: Sequence[UUID], now: datetime, ahead: timedelta = timedelta()) -> Left:
        """Find the attempts not among the `locked` that seem claimable without locks, or are due soon.

        Due times are those of the clock of `now`, which is `ahead` of the database's.
        """
        rest = set(ids) - set(locked)
        if not rest:
            return Left()
        values = {"ids": list(rest), "now": now, "due_by": now - ahead, "soon": now + RELEASE_SPAN}
        rows = self._connection.execute(_LEFT, values).all()
        return Left(
            locked_elsewhere=frozenset(row.id for row in rows if row.due_at <= now - ahead),
            early={row.id: row.due_at + ahead for row in rows if row.due_at > now - ahead},
        )

    def look_all(self, ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
        """Read everything that the last looks need, with the database's clock. `last_look_of` reads each row."""
        return {row.id: row for row in self._connection.execute(LAST_LOOK, {"ids": list(ids)})}

    def look(self, attempt_id: UUID) -> LastLookRow | None:
        """Read everything that the last look of one attempt needs."""
        row = self.look_all([attempt_id]).get(attempt_id)
        return None if row is None else last_look_of(row)

    def look_without_number(self, attempt_id: UUID) -> LookWithoutNumber | None:
        """Read the same as `look`, in columns that the role of the console may read."""
        read = partial(look_of, LookWithoutNumber)
        return self._one(read, LOOK_WITHOUT_NUMBER, {"ids": [attempt_id]})


# The statement that locks attempts for the claim checks every guard itself: a hint is never a reason to dial.
_WHAT_MAY_BE_CLAIMED = f"""
    FROM attempts a
    JOIN lines l ON l.number_hash = a.number_hash
    WHERE a.id = ANY (:ids)
      AND a.state = 'PENDING'  -- guard: state
      AND a.due_at <= :due_by  -- guard: due_at
      AND a.expires_at > :now  -- guard: expires_at
      AND NOT {LINE_HAS_A_CALL}  -- guard: line
      AND NOT {LINE_RESTS}  -- guard: line_gap
"""


_LOCK_CLAIMABLE = text(f"""
    SELECT {COLUMNS}
    {_WHAT_MAY_BE_CLAIMED}
    ORDER BY a.manual DESC, a.due_at, a.id
    FOR NO KEY UPDATE OF l, a SKIP LOCKED
""")


_DUE_SOON = """
    FROM attempts a
    WHERE a.id = ANY (:ids) AND a.state = 'PENDING' AND a.due_at > :due_by AND a.due_at <= :soon
"""


_LEFT = text(f"SELECT a.id, a.due_at {_WHAT_MAY_BE_CLAIMED} UNION ALL SELECT a.id, a.due_at {_DUE_SOON}")


_CLAIM_FACTS = text(f"""
    SELECT d.server,
           d.copy,
           n.calls,
           n.calls_being_placed,
           coalesce(
               (SELECT jsonb_object_agg(b.company_id, b.calls) FROM (
                   SELECT a.company_id, count(*) AS calls
                   FROM attempts a
                   WHERE a.state = 'IN_PROGRESS' AND a.company_id = ANY (CAST(:locked AS uuid[]))
                   GROUP BY a.company_id
               ) b),
               '{{}}'
           ) AS calls_by_company,
           ARRAY (
               SELECT c.id FROM companies c
               WHERE c.id = ANY (ARRAY (SELECT a.company_id FROM attempts a WHERE a.id = ANY (CAST(:ids AS uuid[]))))
                 AND {COMPANY_MAY_CALL}
           ) AS companies,
           EXISTS (SELECT FROM carrier_backoffs b WHERE b.account_id = :account_id) AS has_backoffs,
           coalesce(
               (SELECT json_object_agg(i.id, json_build_array(
                    p.phone_number,
                    {command_waits("i.id")},
                    p.erased_at IS NOT NULL
                ))
                FROM interviews i
                JOIN candidates p ON p.id = i.candidate_id
                WHERE i.id = ANY (CAST(:interview_ids AS uuid[]))),
               '{{}}'
           ) AS callees
    FROM ({DATABASE_NOW}) d
    CROSS JOIN (
        SELECT count(*) AS calls,
               count(*) FILTER (
                   WHERE a.phase = 'DIALLING'
                      -- A callback that is faster than the record of the POST must not make room for another trial.
                      OR a.phase = 'PLACED' AND a.claimed_at >= CAST(:tried_since AS timestamptz)  -- guard: one_trial
               ) AS calls_being_placed
        FROM attempts a
        WHERE a.state = 'IN_PROGRESS' AND a.account_id = :account_id
    ) n
""")  # noqa: S608 - the inserted text is a constant of this package


_PUT_OFF = text("UPDATE attempts SET released_until = NULL, unreadable_until = :until WHERE id = ANY (:ids)")


_NUMBER = text("SELECT p.phone_number FROM interviews i JOIN candidates p ON p.id = i.candidate_id WHERE i.id = :id")


@cache
def _claim(changed: tuple[str, ...], of_history: tuple[str, ...]) -> TextClause:
    """Build the statement that claims attempts. `changed` names the columns that the arrow of the claim sets."""
    given = given_rows(attempts, ("id", "number_hash", *changed), rows=":rows")
    return text(f"""
        WITH given AS (
            SELECT * FROM {given} LIMIT :count
        ), of_account AS (
            UPDATE carrier_accounts SET next_slot_at = CAST(:account_slot AS timestamptz)
            WHERE id = :account_id AND CAST(:account_slot AS timestamptz) IS NOT NULL
        ), of_companies AS (
            UPDATE companies SET next_slot_at = slots.next_slot_at
            FROM unnest(CAST(:company_ids AS uuid[]), CAST(:company_slots AS timestamptz[])) AS slots (id, next_slot_at)
            WHERE companies.id = slots.id
        ), of_lines AS (
            UPDATE lines SET attempt_id = given.id FROM given WHERE lines.number_hash = given.number_hash
        ), of_tokens AS (
            INSERT INTO attempt_tokens (token, attempt_id, claimed_at) SELECT token, id, claimed_at FROM given
        ), of_history AS (
            INSERT INTO attempt_history ({", ".join(of_history)})
            SELECT * FROM {given_rows(attempt_history, of_history, rows=":history")}
        )
        UPDATE attempts
        SET {", ".join(f"{name} = given.{name}" for name in changed)}, account_id = :account_id, held_until = NULL
        FROM given
        WHERE attempts.id = given.id
    """)  # noqa: S608 - the inserted texts are names of our columns


_HINTED = text("""
    SELECT id, company_id, manual, due_at FROM attempts WHERE id = ANY (:ids) AND state = 'PENDING'
""")
