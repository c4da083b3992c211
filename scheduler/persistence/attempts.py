"""Attempts: released, claimed, checked a last time before dialling, and saved together with their history."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    any_,
    bindparam,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from scheduler.domain.attempt import Attempt, AttemptState, Claimed, Event, HangUpCause, NeverDialled, Phase, Reason
from scheduler.domain.call import AnsweredBy, CallProgress
from scheduler.domain.company import CallLimits, CompanySettings
from scheduler.domain.explanation import HistoryEntry
from scheduler.domain.schedule import ScheduleWarning
from scheduler.lifecycle import bounds
from scheduler.lifecycle.backoffs import Backoff, Scope
from scheduler.lifecycle.breaker import Breaker
from scheduler.lifecycle.capacity import in_turns
from scheduler.lifecycle.policy import SEND_SPAN
from scheduler.lifecycle.state_machine import arrow_of, evolve
from scheduler.persistence.backoffs import MATCHES, breaker_of
from scheduler.persistence.json_columns import schedule_as_json, schedule_from_json, settings_from_json
from scheduler.persistence.tables import attempt_history, attempt_tokens, attempts, inbox, interviews, stray_calls

MAY_BE_RINGING = or_(
    attempts.c.state == AttemptState.IN_PROGRESS.value,
    attempts.c.look_at.is_not(None),
    and_(attempts.c.search_at.is_not(None), attempts.c.listed_at.is_(None)),
    attempts.c.id.in_(select(stray_calls.c.attempt_id).where(stray_calls.c.look_at.is_not(None))),
)
"""True if a phone may be ringing for the attempt.

That is while it is in progress, while a stray call of it is open, and after its outcome was given up until the
carrier's list has been read, or while its call was seen alive.
"""


@dataclass(frozen=True, kw_only=True)
class Claimable:
    """A due attempt with a free line, both locked by this transaction."""

    attempt: Attempt
    calls_in_progress: int
    """Those of its company."""


@dataclass(frozen=True, kw_only=True)
class LookRow:
    """The facts that the last look reads, in one query. `phone_number` is personal data."""

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
class CalleeRow:
    """The person whom an interview calls, and the settings of the company. `phone_number` is personal data."""

    phone_number: str | None
    timezone: str | None
    gdpr_expiry_date: date
    settings: CompanySettings
    company_deleted: bool


class Attempts:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # ---- creating and reading

    def add(self, attempt: Attempt, event: Event, actor: str) -> None:
        """Insert a new attempt with the first row of its history."""
        self._connection.execute(insert(attempts).values(**_columns(attempt)))
        arrow = arrow_of(None, event)
        self._write_history(attempt, event.name, None, arrow.target, arrow.reason, actor, {})

    def of_interview(self, company_id: UUID, interview_id: UUID) -> tuple[Attempt, ...]:
        """Return the attempts of an interview that were not deleted, oldest first."""
        rows = self._connection.execute(
            select(attempts)
            .where(
                attempts.c.company_id == company_id,
                attempts.c.interview_id == interview_id,
                attempts.c.deleted_at.is_(None),
            )
            .order_by(attempts.c.created_at, attempts.c.id)
        )
        return tuple(attempt_of(row) for row in rows)

    def of_interviews(self, interview_ids: Sequence[UUID]) -> dict[UUID, tuple[Attempt, ...]]:
        """Return the attempts of each interview, like `of_interview`, in one query."""
        rows = self._connection.execute(
            select(attempts)
            .where(attempts.c.interview_id.in_(interview_ids), attempts.c.deleted_at.is_(None))
            .order_by(attempts.c.created_at, attempts.c.id)
        )
        by_interview: dict[UUID, list[Attempt]] = {interview_id: [] for interview_id in interview_ids}
        for row in rows:
            by_interview[row.interview_id].append(attempt_of(row))
        return {interview_id: tuple(each) for interview_id, each in by_interview.items()}

    def of_chain(self, chain_id: UUID) -> tuple[Attempt, ...]:
        """Return all attempts of a chain of retries. Deleted attempts still count as tries."""
        rows = self._connection.execute(
            select(attempts).where(attempts.c.chain_id == chain_id).order_by(attempts.c.retry_number)
        )
        return tuple(attempt_of(row) for row in rows)

    def find(self, attempt_id: UUID) -> Attempt | None:
        """Return the attempt of any company, for operators."""
        row = self._connection.execute(select(attempts).where(attempts.c.id == attempt_id)).one_or_none()
        return attempt_of(row) if row else None

    def find_of_interview(self, interview_id: UUID) -> tuple[Attempt, ...]:
        """Return all attempts of an interview of any company, also deleted attempts, oldest first, for operators."""
        rows = self._connection.execute(
            select(attempts)
            .where(attempts.c.interview_id == interview_id)
            .order_by(attempts.c.created_at, attempts.c.id)
        )
        return tuple(attempt_of(row) for row in rows)

    def history(self, attempt_id: UUID) -> tuple[HistoryEntry, ...]:
        """Return the events of the attempt, oldest first."""
        rows = self._connection.execute(
            select(attempt_history).where(attempt_history.c.attempt_id == attempt_id).order_by(attempt_history.c.id)
        )
        return tuple(
            HistoryEntry(
                at=row.at,
                event=row.event,
                from_state=row.from_state or None,
                to_state=row.to_state,
                reason=row.reason or None,
                actor=row.actor,
                detail=row.detail,
            )
            for row in rows
        )

    def callee_of(self, interview_id: UUID) -> CalleeRow:
        """Return the person whom the interview calls, with their current data."""
        row = self._connection.execute(_CALLEE, {"id": interview_id}).one()
        limits = CallLimits(concurrent_calls=row.concurrent_calls, calls_per_second=float(row.calls_per_second))
        return CalleeRow(
            phone_number=row.phone_number,
            timezone=row.timezone,
            gdpr_expiry_date=row.gdpr_expiry_date,
            settings=settings_from_json(row.settings, limits),
            company_deleted=row.company_deleted,
        )

    def interview_of(self, attempt_id: UUID) -> UUID | None:
        """Return the id of the interview, which must be locked before the attempt."""
        interview_id: UUID | None = self._connection.execute(
            select(attempts.c.interview_id).where(attempts.c.id == attempt_id)
        ).scalar_one_or_none()
        return interview_id

    def lock(self, attempt_id: UUID) -> Attempt:
        """Lock the attempt: no other transaction may change it until we commit."""
        row = self._connection.execute(
            select(attempts).where(attempts.c.id == attempt_id).with_for_update(key_share=True)
        ).one()
        return attempt_of(row)

    def lock_of_interview(self, interview_id: UUID, attempt_id: UUID) -> Attempt | None:
        """Lock an attempt of the interview, unless it was deleted."""
        row = self._connection.execute(
            select(attempts)
            .where(
                attempts.c.id == attempt_id,
                attempts.c.interview_id == interview_id,
                attempts.c.deleted_at.is_(None),
            )
            .with_for_update(key_share=True)
        ).one_or_none()
        return attempt_of(row) if row else None

    def lock_open(self, interview_id: UUID) -> Attempt | None:
        """Lock the interview's attempt that is pending or in progress, so that it cannot be claimed until we commit."""
        row = self._connection.execute(
            select(attempts)
            .where(
                attempts.c.interview_id == interview_id,
                attempts.c.state.in_([AttemptState.PENDING.value, AttemptState.IN_PROGRESS.value]),
            )
            .with_for_update(key_share=True)  # guard: acceptance
        ).one_or_none()
        return attempt_of(row) if row else None

    def is_listed(self, interview_id: UUID, attempt_id: UUID) -> bool:
        """Return True if the interview has that attempt and it was not deleted."""
        query = select(attempts.c.id).where(
            attempts.c.id == attempt_id,
            attempts.c.interview_id == interview_id,
            attempts.c.deleted_at.is_(None),
        )
        return self._connection.execute(query).first() is not None

    def forget_candidate(self, candidate_id: UUID) -> None:
        """Delete the called number of the candidate's finished attempts: the previous version kept it there."""
        of_candidate = select(interviews.c.id).where(interviews.c.candidate_id == candidate_id)
        self._connection.execute(
            update(attempts)
            .where(
                attempts.c.interview_id.in_(of_candidate),
                attempts.c.state != AttemptState.IN_PROGRESS.value,
                attempts.c.called_number.is_not(None),
            )
            .values(called_number=None)
        )

    def has_open(self, interview_id: UUID) -> bool:
        """Return True if the interview has an attempt that is pending or in progress."""
        query = select(attempts.c.id).where(
            attempts.c.interview_id == interview_id,
            attempts.c.state.in_([AttemptState.PENDING.value, AttemptState.IN_PROGRESS.value]),
        )
        return self._connection.execute(query).first() is not None

    def lock_live_leg(self, interview_id: UUID) -> Attempt | None:
        """Lock the interview's attempt of unknown outcome whose call was later seen alive and has not ended."""
        row = self._connection.execute(
            select(attempts)
            .where(
                attempts.c.interview_id == interview_id,
                attempts.c.state == AttemptState.FAILED.value,
                attempts.c.look_at.is_not(None),
            )
            .order_by(attempts.c.created_at.desc())
            .limit(1)
            .with_for_update(key_share=True)
        ).one_or_none()
        return attempt_of(row) if row else None

    def pending_of(self, company_id: UUID, candidate_id: UUID | None, after: UUID | None, limit: int) -> list[Attempt]:
        """Return up to `limit` pending attempts of a company, or of one of its candidates, with ids above `after`."""
        query = select(attempts).where(
            attempts.c.company_id == company_id, attempts.c.state == AttemptState.PENDING.value
        )
        if candidate_id is not None:
            query = query.join(interviews, interviews.c.id == attempts.c.interview_id).where(
                interviews.c.candidate_id == candidate_id
            )
        if after is not None:
            query = query.where(attempts.c.id > after)
        return [attempt_of(row) for row in self._connection.execute(query.order_by(attempts.c.id).limit(limit))]

    def has_older_zone_data(self, version: str) -> bool:
        """Return True if a pending attempt was resolved with zone data older than `version`."""
        return self._connection.execute(_older_zone_data(version).limit(1)).first() is not None

    def lock_older_zone_data(self, version: str, limit: int) -> list[Attempt]:
        """Lock up to `limit` pending attempts that were resolved with zone data older than `version`.

        Their interviews are locked too. An attempt that another transaction has locked is left for later.
        """
        older = _older_zone_data(version).join(interviews, interviews.c.id == attempts.c.interview_id).limit(limit)
        free = older.with_for_update(of=[attempts, interviews], key_share=True, skip_locked=True)
        ids = self._connection.execute(free).scalars().all()
        rows = self._connection.execute(select(attempts).where(attempts.c.id.in_(ids)))
        return [attempt_of(row) for row in rows]

    def note_zone_data(self, attempt_ids: Sequence[UUID], version: str) -> None:
        """Record that these pending attempts were checked against zone data of `version`."""
        outdated = (
            select(attempts.c.id)
            .where(
                attempts.c.id.in_(attempt_ids),
                attempts.c.state == AttemptState.PENDING.value,
                _zone_data < version,
            )
            .with_for_update(skip_locked=True, key_share=True)
        )
        self._connection.execute(
            update(attempts)
            .where(attempts.c.id == any_(func.array(outdated.scalar_subquery())))
            .values(schedule=attempts.c.schedule.op("||")(func.jsonb_build_object("tzdata_version", version)))
        )

    def lock_as_of(self, attempt_id: UUID, epoch: int) -> Attempt | None:
        """Lock the attempt if nothing has happened to it since the caller read it. None: the caller writes nothing."""
        row = self._connection.execute(
            select(attempts)
            .where(
                attempts.c.id == attempt_id,
                attempts.c.epoch == epoch,  # guard: epoch
            )
            .with_for_update(key_share=True)
        ).one_or_none()
        return attempt_of(row) if row else None

    # ---- moving

    def save(self, attempt: Attempt, event: Event, actor: str, now: datetime) -> Attempt:
        """Apply `event` to an attempt that the caller has locked, and save it with its history row.

        Raises NoSuchArrow if the event cannot happen to it.
        """
        arrow = arrow_of(attempt, event)
        moved = evolve(attempt, event, now)
        self._connection.execute(update(attempts).where(attempts.c.id == attempt.id).values(**_columns(moved)))
        self._write_history(moved, event.name, attempt.state, arrow.target, arrow.reason, actor, _detail(event))
        if isinstance(event, NeverDialled):
            self._connection.execute(
                update(attempt_tokens).where(attempt_tokens.c.token == attempt.token).values(closed_sid=event.call_sid)
            )
        return moved

    def claim(self, attempt: Attempt, event: Claimed, account_id: int, actor: str, now: datetime) -> Attempt:
        """Claim one attempt, as `claim_all` does."""
        [moved] = self.claim_all([(attempt, event)], account_id, actor, now)
        return moved

    def claim_all(
        self, claims: Sequence[tuple[Attempt, Claimed]], account_id: int, actor: str, now: datetime
    ) -> list[Attempt]:
        """Save attempts as claimed, with their history, in a constant number of statements. Return them in order.

        Each new token names its attempt permanently, and the number that is called is stored. The caller has locked
        the attempts. Raises NoSuchArrow if an attempt cannot be claimed.
        """
        ids = [attempt.interview_id for attempt, _ in claims]
        numbers = {row.id: row.phone_number for row in self._connection.execute(_NUMBERS_TO_CALL, {"ids": ids})}
        arrows = [arrow_of(attempt, event) for attempt, event in claims]
        moved = [
            evolve(replace(attempt, called_number=numbers[attempt.interview_id]), event, now)
            for attempt, event in claims
        ]
        self._connection.execute(
            update(attempts).where(attempts.c.id == bindparam("moved_id")).values(account_id=account_id),
            [{"moved_id": each.id, **_columns(each)} for each in moved],
        )
        self._connection.execute(
            insert(attempt_history),
            [
                _history_row(each, event.name, attempt.state, arrow.target, arrow.reason, actor, _detail(event))
                for each, arrow, (attempt, event) in zip(moved, arrows, claims, strict=True)
            ],
        )
        self._connection.execute(
            insert(attempt_tokens),
            [{"token": event.token, "attempt_id": attempt.id, "claimed_at": now} for attempt, event in claims],
        )
        return moved

    def _write_history(
        self,
        attempt: Attempt,
        event: str,
        source: AttemptState | None,
        target: AttemptState,
        reason: Reason | None,
        actor: str,
        detail: dict[str, Any],
    ) -> None:
        row = _history_row(attempt, event, source, target, reason, actor, detail)
        self._connection.execute(insert(attempt_history).values(**row))

    # ---- release

    def release(
        self, now: datetime, until: datetime, limit: int, account_id: int | None = None, *, on_trial: bool = False
    ) -> list[UUID]:
        """Release up to `limit` due attempts that seem claimable without locks. They count as released until `until`.

        Companies take turns. Each gets only as many as its room and pace allow, and none before its next call may
        start, so that a company with thousands of attempts or a slow pace does not delay another one. A company's
        manual calls (invokes) go first within its own turn only, so that they do not delay other companies' retries.
        `on_trial`: if the last trial could not be claimed, the next one is another company's, because nothing else is
        tried while a trial is released.
        """
        rows = self._connection.execute(
            _RELEASE,
            {
                "on_trial": on_trial,
                "account_id": account_id,
                "now": now,
                "soon": now + SEND_SPAN,
                "until": until,
                "latest": bounds.latest_release(now),
                "latest_slot": bounds.latest_slot(now, 1.0) - timedelta(seconds=1),
                "limit": limit,
                "span_s": (until - now).total_seconds(),
            },
        ).all()
        return [row.id for row in in_turns(rows)]

    def release_anew(self, interview_id: UUID) -> bool:
        """End the release of the interview's pending attempt, whose hint may be lost. True if there was one."""
        rows = self._connection.execute(
            update(attempts)
            .where(
                attempts.c.interview_id == interview_id,
                attempts.c.state == AttemptState.PENDING.value,
                attempts.c.released_until.is_not(None),
            )
            .values(released_until=None)
            .returning(attempts.c.id)
        )
        return rows.first() is not None

    def released(self, now: datetime) -> int:
        """Count the attempts that are released and not yet claimed. A release from the future is not counted."""
        values = {"now": now, "latest": bounds.latest_release(now)}
        count: int = self._connection.execute(_COUNT_RELEASED, values).scalar_one()
        return count

    def next_due(self, after: datetime) -> datetime | None:
        """Return the instant at which the next pending attempt becomes due."""
        due_at: datetime | None = self._connection.execute(_NEXT_DUE, {"after": after}).scalar_one_or_none()
        return due_at

    # ---- claim and last look

    def hinted(self, ids: Sequence[UUID]) -> list[Row[Any]]:
        """Return `id`, `company_id`, `manual`, `due_at` of the pending attempts: they decide the order of claims."""
        return list(self._connection.execute(_HINTED, {"ids": list(ids)}))

    def companies_of(self, ids: Sequence[UUID]) -> list[UUID]:
        """Return the companies of these attempts."""
        rows = self._connection.execute(select(attempts.c.company_id).where(attempts.c.id.in_(ids)).distinct())
        return [row.company_id for row in rows]

    def lock_claimable(self, ids: Sequence[UUID], now: datetime) -> list[Claimable]:
        """Lock the attempts that may be claimed now, with their lines. One a number, the earliest due.

        Companies take turns. Rows that another transaction has locked are left out, see `passed_over`.
        """
        rows = self._connection.execute(_LOCK_CLAIMABLE, {"ids": list(ids), "now": now}).all()
        calls = {row.company_id: row.calls for row in self._connection.execute(_CALLS_BY_COMPANY)}
        hashes: set[bytes] = set()
        claimable = []
        for row in rows:
            if row.number_hash in hashes:  # guard: one_per_number
                continue
            hashes.add(row.number_hash)
            claimable.append(Claimable(attempt=attempt_of(row), calls_in_progress=calls.get(row.company_id, 0)))
        return in_turns(claimable, attempt_of=lambda each: each.attempt)

    def passed_over(self, ids: Sequence[UUID], locked: Sequence[UUID], now: datetime) -> frozenset[UUID]:
        """Return the attempts that seem claimable without locks and are not among the `locked`.

        Another transaction has locked them or their lines, or another attempt to their number goes first.
        """
        rest = set(ids) - set(locked)
        if not rest:
            return frozenset()
        return frozenset(row.id for row in self._connection.execute(_CLAIMABLE, {"ids": list(rest), "now": now}))

    def look(self, attempt_id: UUID) -> LookRow | None:
        """Read everything that the last look needs, with the database's clock."""
        row = self._connection.execute(_LAST_LOOK, {"id": attempt_id}).one_or_none()
        if row is None:
            return None
        limits = CallLimits(concurrent_calls=row.concurrent_calls, calls_per_second=float(row.calls_per_second))
        return LookRow(
            attempt=attempt_of(row),
            phone_number=row.phone_number,
            timezone=row.candidate_timezone,
            gdpr_expiry_date=row.gdpr_expiry_date,
            caller_number=row.caller_number,
            interview_duration=row.interview_duration,
            settings=settings_from_json(row.settings, limits),
            line_holder=row.line_holder,
            line_interview=row.line_interview,
            line_free_at=row.line_free_at,
            interview_over=row.interview_over,
            command_waiting=row.command_waiting,
            account_paused=row.account_paused,
            company_paused=row.company_paused,
            company_deleted=row.company_deleted,
            breaker=breaker_of(row, "breaker_"),
            backoff=_backoff(row),
            max_calls=row.max_calls,
            database_clock=row.database_clock,
        )

    def to_stop(self, company_id: UUID, limit: int) -> list[Attempt]:
        """Return open attempts of a deleted company: pending, or with a call whose end was not yet ordered."""
        rows = self._connection.execute(_TO_STOP, {"company_id": company_id, "limit": limit})
        return [attempt_of(row) for row in rows]

    def is_calling(self, company_id: UUID) -> bool:
        """Return True if a phone may be ringing for the company."""
        query = select(attempts.c.id).where(attempts.c.company_id == company_id, MAY_BE_RINGING).limit(1)
        return self._connection.execute(query).first() is not None

    def calls_of_company(self, company_id: UUID) -> int:
        """Count the company's calls in progress."""
        count: int = self._connection.execute(
            select(func.count())
            .select_from(attempts)
            .where(attempts.c.company_id == company_id, attempts.c.state == AttemptState.IN_PROGRESS.value)
        ).scalar_one()
        return count

    # ---- settle

    def silent(self, now: datetime, limit: int) -> list[Attempt]:
        """Return attempts whose lease has ended without a record of an outcome."""
        rows = self._connection.execute(
            select(attempts)
            .where(attempts.c.phase == Phase.DIALLING.value, attempts.c.lease_until <= now)
            .order_by(attempts.c.lease_until)
            .limit(limit)
        )
        return [attempt_of(row) for row in rows]

    def to_expire(self, now: datetime, limit: int) -> list[Attempt]:
        """Return pending attempts whose interview has expired, unless a command was received before the expiry."""
        rows = self._connection.execute(
            select(attempts).where(*_is_to_expire(now)).order_by(attempts.c.expires_at).limit(limit)
        )
        return [attempt_of(row) for row in rows]

    def is_to_expire(self, attempt_id: UUID, now: datetime) -> bool:
        """Return True if this attempt should expire now, like `to_expire`. The caller has locked the interview."""
        query = select(attempts.c.id).where(attempts.c.id == attempt_id, *_is_to_expire(now))
        return self._connection.execute(query).first() is not None

    def take_looks(self, now: datetime, hold_until: datetime, limit: int) -> list[Attempt]:
        """Return attempts whose poll is due. No other process polls for them until `hold_until`."""
        rows = self._connection.execute(_TAKE_LOOKS, {"now": now, "hold_until": hold_until, "limit": limit})
        return [attempt_of(row) for row in rows]

    def look_again(self, attempt_id: UUID, epoch: int, look_at: datetime, listed_at: datetime | None = None) -> None:
        """Record a poll of the carrier, and the instant of the next one.

        `listed_at`: the request of a list that was read in full. None keeps the instant of the last one.
        """
        self._connection.execute(
            update(attempts)
            .where(attempts.c.id == attempt_id, attempts.c.epoch == epoch, attempts.c.look_at.is_not(None))
            .values(
                look_at=look_at, looks=attempts.c.looks + 1, listed_at=func.coalesce(listed_at, attempts.c.listed_at)
            )
        )

    def undecided(self, before: datetime) -> tuple[int, datetime | None]:
        """Count the attempts that became unknown at `before` or earlier, and return the instant of the oldest."""
        row = self._connection.execute(
            select(func.count(), func.min(attempts.c.unknown_at)).where(
                # For the index of attempts that are polled.
                attempts.c.look_at.is_not(None),
                attempts.c.phase == Phase.UNKNOWN.value,
                attempts.c.unknown_at <= before,
            )
        ).one()
        return row[0], row[1]

    def take_searches(self, now: datetime, hold_until: datetime, limit: int) -> list[Attempt]:
        """Return attempts without a known outcome whose call is to be searched for now.

        No other process searches for them until `hold_until`.
        """
        rows = self._connection.execute(_TAKE_SEARCHES, {"now": now, "hold_until": hold_until, "limit": limit})
        return [attempt_of(row) for row in rows]

    def search_again(
        self, attempt_id: UUID, epoch: int, search_at: datetime | None, listed_at: datetime | None
    ) -> None:
        """Record an unsuccessful search of the list, and the instant of the next one, if any.

        `listed_at` as in `look_again`. The called number is deleted with the last search.
        """
        self._connection.execute(
            update(attempts)
            .where(attempts.c.id == attempt_id, attempts.c.epoch == epoch, attempts.c.search_at.is_not(None))
            .values(
                search_at=search_at,
                looks=attempts.c.looks + 1,
                listed_at=func.coalesce(listed_at, attempts.c.listed_at),
                **({"called_number": None} if search_at is None else {}),
            )
        )

    def forget_number_of_erased(self, attempt_id: UUID) -> None:
        """Delete the called number of the attempt if its candidate was erased."""
        self._connection.execute(_FORGET_NUMBER_OF_ERASED, {"id": attempt_id})

    def numbers_of(self, attempt_id: UUID) -> tuple[str | None, str | None]:
        """Return the number that was called and the caller id. Personal data."""
        row = self._connection.execute(_NUMBERS, {"id": attempt_id}).one()
        return row.called_number, row.caller_number

    def callers_of_pending(self) -> list[str]:
        """Return the caller ids of all pending attempts."""
        return [row.caller_number for row in self._connection.execute(_CALLERS_OF_PENDING)]

    def pending_to(self, number_hash: bytes, caller: str) -> Attempt | None:
        """Return the earliest due pending attempt between these two numbers."""
        row = self._connection.execute(
            select(attempts)
            .join(interviews, interviews.c.id == attempts.c.interview_id)
            .where(
                attempts.c.state == AttemptState.PENDING.value,
                attempts.c.number_hash == number_hash,
                interviews.c.caller_number == caller,
            )
            .order_by(attempts.c.due_at, attempts.c.id)
            .limit(1)
        ).one_or_none()
        return attempt_of(row) if row else None

    def bound_sids(self, call_sids: Iterable[str]) -> frozenset[str]:
        """Return the carrier's calls that belong to an attempt, or did."""
        sids = list(call_sids)
        rows = self._connection.execute(
            select(attempts.c.call_sid)
            .where(attempts.c.call_sid.in_(sids))
            .union_all(select(attempt_tokens.c.closed_sid).where(attempt_tokens.c.closed_sid.in_(sids)))
        )
        return frozenset(row.call_sid for row in rows)

    def counts(self, now: datetime, undecided_before: datetime) -> list[Row[Any]]:
        """Count the attempts of each company: due, late, waiting, in progress, unknown, failed without a known cause.

        Attempts that became unknown at `undecided_before` or earlier also count as undecided.
        """
        times = {
            "now": now,
            "soon": now + SEND_SPAN,
            "impossible": now + _NO_SLOT_IS_FURTHER,
            "undecided_before": undecided_before,
        }
        return list(self._connection.execute(_COUNTS, times))


_zone_data = attempts.c.schedule["tzdata_version"].astext
"""Versions of the tz database sort by name: 2026a, 2026b, ... 2027a."""


def _older_zone_data(version: str) -> Select[tuple[UUID]]:
    return (
        select(attempts.c.id)
        .where(attempts.c.state == AttemptState.PENDING.value, _zone_data < version)
        .order_by(_zone_data)
    )


_RELEASE = text(f"""
    WITH calling AS (
        SELECT company_id, count(*) AS calls FROM attempts WHERE state = 'IN_PROGRESS' GROUP BY company_id
    ), released AS (
        SELECT company_id, count(*) AS calls FROM attempts
        WHERE state = 'PENDING' AND released_until IS NOT NULL AND released_until > :now
          AND released_until <= :latest  -- guard: release_of_company
        GROUP BY company_id
    ), turns AS (
        SELECT due.id, due.manual, due.due_at, due.released_until, row_number() OVER (
            PARTITION BY c.id ORDER BY due.manual DESC, due.due_at
        ) AS turn
        FROM companies c
        LEFT JOIN calling ON calling.company_id = c.id
        LEFT JOIN released ON released.company_id = c.id
        CROSS JOIN LATERAL (SELECT greatest(0, least(
            :limit,
            c.concurrent_calls - coalesce(calling.calls, 0) - coalesce(released.calls, 0),
            ceil(c.calls_per_second * :span_s) - coalesce(released.calls, 0)
        )) AS calls) room
        CROSS JOIN LATERAL (
            SELECT earliest.*
            FROM (VALUES (true), (false)) AS kind (by_hand)
            -- Manual and other attempts separately, so that only the rows that are taken are read.
            CROSS JOIN LATERAL (
                SELECT a.id, a.manual, a.due_at, a.released_until
                FROM attempts a
                JOIN lines l ON l.number_hash = a.number_hash
                WHERE a.company_id = c.id
                  AND a.state = 'PENDING'
                  AND a.manual = kind.by_hand
                  AND a.due_at <= :now
                  AND a.expires_at > :now
                  AND (a.released_until IS NULL OR a.released_until <= :now OR a.released_until > :latest)
                  AND l.attempt_id IS NULL
                  AND (l.free_at <= :now OR l.interview_id = a.interview_id)
                  AND NOT EXISTS (SELECT FROM inbox x WHERE x.interview_id = a.interview_id AND x.applied_at IS NULL)
                  -- Attempts that wait for the carrier block no others; a trial is released separately.
                  AND NOT EXISTS (
                      SELECT FROM carrier_backoffs b
                      WHERE b.account_id = coalesce(
                              CAST(:account_id AS smallint), (SELECT max(id) FROM carrier_accounts)
                          )
                        AND b.down_until IS NOT NULL AND ({MATCHES})
                  )
                ORDER BY a.due_at
                LIMIT room.calls
            ) earliest
            ORDER BY earliest.manual DESC, earliest.due_at
            LIMIT room.calls
        ) due
        WHERE c.paused_at IS NULL AND c.deleted_at IS NULL
          -- A later slot was taken on a wrong clock, see `capacity.Pace.of_this_clock`.
          AND (c.next_slot_at < :soon
               OR c.next_slot_at > CAST(:latest_slot AS timestamptz) + interval '1 second' / c.calls_per_second)
    )
    UPDATE attempts SET released_until = :until
    WHERE id = ANY (ARRAY (
        SELECT a.id
        FROM attempts a
        JOIN (
            SELECT * FROM turns
            ORDER BY turn, CASE WHEN CAST(:on_trial AS boolean) THEN released_until END NULLS FIRST, due_at
            LIMIT :limit
        ) chosen ON chosen.id = a.id
        WHERE a.state = 'PENDING'
          AND (a.released_until IS NULL OR a.released_until <= :now OR a.released_until > :latest)
        FOR NO KEY UPDATE OF a SKIP LOCKED
    ))
    RETURNING id, company_id, manual, due_at
""")  # noqa: S608 - the inserted text is a constant of this package

_COUNT_RELEASED = text("""
    SELECT count(*) FROM attempts
    WHERE state = 'PENDING' AND released_until IS NOT NULL AND released_until > :now
      AND released_until <= :latest  -- guard: release_of_account
""")

_NEXT_DUE = text("SELECT min(due_at) FROM attempts WHERE state = 'PENDING' AND due_at > :after")

# The statement that locks attempts for the claim checks every guard itself: a hint is never a reason to dial.
_WHAT_MAY_BE_CLAIMED = """
    FROM attempts a
    JOIN lines l ON l.number_hash = a.number_hash
    WHERE a.id = ANY (:ids)
      AND a.state = 'PENDING'  -- guard: state
      AND a.due_at <= :now  -- guard: due_at
      AND a.expires_at > :now  -- guard: expires_at
      AND l.attempt_id IS NULL  -- guard: line
      AND (l.free_at <= :now OR l.interview_id = a.interview_id)  -- guard: line_gap
"""
_LOCK_CLAIMABLE = text(f"""
    SELECT a.*
    {_WHAT_MAY_BE_CLAIMED}
    ORDER BY a.manual DESC, a.due_at, a.id
    FOR NO KEY UPDATE OF l, a SKIP LOCKED
""")
_CLAIMABLE = text(f"SELECT a.id {_WHAT_MAY_BE_CLAIMED}")

_CALLS_BY_COMPANY = text(
    "SELECT company_id, count(*) AS calls FROM attempts WHERE state = 'IN_PROGRESS' GROUP BY company_id"
)

# The only statement that may read the database's clock: it compares two clocks and decides nothing by either.
_LAST_LOOK = text(f"""
    SELECT a.*,
           p.phone_number,
           p.timezone AS candidate_timezone,
           p.gdpr_expiry_date,
           i.caller_number,
           i.duration AS interview_duration,
           i.deleted_at IS NOT NULL OR i.status <> 'SCHEDULED' AS interview_over,
           c.settings,
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
    LEFT JOIN LATERAL (
        SELECT * FROM carrier_backoffs b
        WHERE b.account_id = k.id AND b.down_until IS NOT NULL AND ({MATCHES})
        -- If two match, the one that lasts longer.
        ORDER BY coalesce(b.answered_at >= b.down_until, false), b.down_until DESC
        LIMIT 1
    ) b ON true
    WHERE a.id = :id
""")  # noqa: S608 - the inserted text is a constant of this package

_CALLEE = text("""
    SELECT p.phone_number, p.timezone, p.gdpr_expiry_date, c.settings, c.calls_per_second, c.concurrent_calls,
           c.deleted_at IS NOT NULL AS company_deleted
    FROM interviews i
    JOIN candidates p ON p.id = i.candidate_id
    JOIN companies c ON c.id = i.company_id
    WHERE i.id = :id
""")

_CALLERS_OF_PENDING = text("""
    SELECT DISTINCT i.caller_number FROM attempts a JOIN interviews i ON i.id = a.interview_id
    WHERE a.state = 'PENDING' AND i.caller_number IS NOT NULL ORDER BY i.caller_number
""")

_NUMBERS_TO_CALL = text("""
    SELECT i.id, p.phone_number FROM interviews i JOIN candidates p ON p.id = i.candidate_id WHERE i.id = ANY (:ids)
""")

_HINTED = text("""
    SELECT id, company_id, manual, due_at FROM attempts WHERE id = ANY (:ids) AND state = 'PENDING'
""")

_TAKE_LOOKS = text("""
    UPDATE attempts SET look_at = :hold_until
    WHERE id = ANY (ARRAY (
        SELECT id FROM attempts
        WHERE look_at <= :now
        ORDER BY look_at
        LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ))
    RETURNING *
""")

_TAKE_SEARCHES = text("""
    UPDATE attempts SET search_at = :hold_until
    WHERE id = ANY (ARRAY (
        SELECT id FROM attempts
        WHERE search_at <= :now AND state = 'FAILED' AND reason = 'OUTCOME_UNKNOWN' AND look_at IS NULL
        ORDER BY search_at
        LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    ))
    RETURNING *
""")

_FORGET_NUMBER_OF_ERASED = text("""
    UPDATE attempts SET called_number = NULL
    WHERE id = :id AND EXISTS (
        SELECT FROM interviews i JOIN candidates p ON p.id = i.candidate_id
        WHERE i.id = attempts.interview_id AND p.erased_at IS NOT NULL
    )
""")

# In the order in which every transaction locks several interviews.
_TO_STOP = text("""
    SELECT * FROM (
        SELECT * FROM attempts WHERE company_id = :company_id AND state = 'PENDING'
        UNION ALL
        SELECT * FROM attempts WHERE company_id = :company_id AND state = 'IN_PROGRESS' AND phase = 'PLACED'
        UNION ALL
        -- Given up as unknown, then seen alive.
        SELECT * FROM attempts WHERE company_id = :company_id AND state = 'FAILED' AND look_at IS NOT NULL
    ) open
    WHERE state = 'PENDING' OR hang_up IS DISTINCT FROM 'COMPANY_DELETED'
    ORDER BY interview_id
    LIMIT :limit
""")

_NUMBERS = text("""
    SELECT
        -- The previous version did not store the number. The candidate's is the same unless it has changed since.
        coalesce(a.called_number, CASE WHEN p.updated_at <= a.claimed_at THEN p.phone_number END) AS called_number,
        i.caller_number
    FROM attempts a
    JOIN interviews i ON i.id = a.interview_id
    JOIN candidates p ON p.id = i.candidate_id
    WHERE a.id = :id
""")

_NO_SLOT_IS_FURTHER = timedelta(hours=1)
"""No pace leads to a later slot: such a slot was taken on a wrong clock and counts as free."""

_COUNTS = text("""
    WITH account AS (
        -- The account in use. After a change of the account, the others keep their last state.
        SELECT k.id, k.next_slot_at, k.calls_per_second,
               CASE WHEN k.updated_at > k.created_at THEN k.updated_at END AS changed_at,
               k.paused_at IS NULL AND k.down_until IS NULL
               AND (k.next_slot_at < :soon OR k.next_slot_at > :impossible)
               AND k.max_calls > (
                   SELECT count(*) FROM attempts a WHERE a.state = 'IN_PROGRESS' AND a.account_id = k.id
               ) AS takes_calls
        FROM carrier_accounts k
        ORDER BY greatest(k.updated_at, CASE WHEN k.next_slot_at < :impossible THEN k.next_slot_at END) DESC
        LIMIT 1
    ), calling AS (
        SELECT company_id,
               count(*) AS in_progress,
               count(*) FILTER (WHERE phase = 'UNKNOWN') AS asked_for,
               count(*) FILTER (WHERE phase = 'UNKNOWN' AND unknown_at <= :undecided_before) AS undecided
        FROM attempts WHERE state = 'IN_PROGRESS' GROUP BY company_id
    ), due AS (
        SELECT a.company_id, waits.busy, waits.held, c.next_slot_at, c.calls_per_second,
               a.expires_at > :now AND NOT waits.busy AND NOT waits.held AND c.paused_at IS NULL
               AND (c.next_slot_at < :soon OR c.next_slot_at > :impossible)
               AND c.concurrent_calls > coalesce(calling.in_progress, 0)
               AND coalesce((SELECT takes_calls FROM account), true)
               -- This role cannot read caller ids, so one refused number excuses the company's other numbers too.
               AND NOT EXISTS (
                   SELECT FROM carrier_backoffs b
                   WHERE b.account_id = (SELECT id FROM account)
                     AND b.down_until IS NOT NULL AND (b.country = l.country OR b.company_id = a.company_id)
               ) AS could_ring,
               -- Time before these instants is not our delay: something else kept the phone from ringing.
               greatest(
                   a.due_at,
                   CASE WHEN l.interview_id IS DISTINCT FROM a.interview_id AND l.free_at > a.created_at
                        THEN l.free_at END,
                   c.resumed_at,
                   (SELECT changed_at FROM account)
               ) AS since
        FROM attempts a
        JOIN lines l ON l.number_hash = a.number_hash
        JOIN companies c ON c.id = a.company_id
        LEFT JOIN calling ON calling.company_id = a.company_id
        CROSS JOIN LATERAL (SELECT
            l.attempt_id IS NOT NULL
                OR (l.free_at > :now AND l.interview_id IS DISTINCT FROM a.interview_id) AS busy,
            EXISTS (SELECT FROM inbox x WHERE x.interview_id = a.interview_id AND x.applied_at IS NULL) AS held
        ) waits
        WHERE a.state = 'PENDING' AND a.due_at <= :now
    ), late AS (
        SELECT company_id,
               count(*) AS due,
               -- If more attempts wait than the pace starts in a second, they wait for slots, but not longer than that.
               max(:now - greatest(
                   since,
                   CASE WHEN ringable_of_company > calls_per_second THEN least(next_slot_at, :now) END,
                   CASE WHEN ringable > (SELECT calls_per_second FROM account)
                        THEN least((SELECT next_slot_at FROM account), :now) END
               )) FILTER (WHERE could_ring AND since <= :now) AS late,
               count(*) FILTER (WHERE held) AS for_commands,
               count(*) FILTER (WHERE busy AND NOT held) AS for_numbers,
               count(*) FILTER (WHERE NOT busy AND NOT held) AS for_places
        FROM (
            SELECT *,
                   count(*) FILTER (WHERE could_ring) OVER (PARTITION BY company_id) AS ringable_of_company,
                   count(*) FILTER (WHERE could_ring) OVER () AS ringable
            FROM due
        ) counted
        GROUP BY company_id
    ), waiting AS (
        -- Most attempts are here, so this reads only columns of an index.
        SELECT company_id, count(*) AS waiting, min(due_at) AS next_due_at
        FROM attempts WHERE state = 'PENDING' AND due_at > :now GROUP BY company_id
    ), unknown AS (
        SELECT company_id, count(*) AS unknown FROM attempts WHERE reason = 'OUTCOME_UNKNOWN' GROUP BY company_id
    ), causeless AS (
        SELECT company_id, count(*) AS cause_lost FROM attempts WHERE cause_is_lost GROUP BY company_id
    )
    SELECT c.id AS company_id,
           c.pause_reason,
           c.concurrent_calls,
           coalesce(waiting.waiting, 0) AS waiting,
           coalesce(late.due, 0) AS due,
           late.late,
           coalesce(late.for_commands, 0) AS for_commands,
           coalesce(late.for_numbers, 0) AS for_numbers,
           coalesce(late.for_places, 0) AS for_places,
           waiting.next_due_at,
           coalesce(calling.in_progress, 0) AS in_progress,
           coalesce(calling.asked_for, 0) AS asked_for,
           coalesce(calling.undecided, 0) AS undecided,
           coalesce(unknown.unknown, 0) AS unknown,
           coalesce(causeless.cause_lost, 0) AS cause_lost
    FROM companies c
    LEFT JOIN late ON late.company_id = c.id
    LEFT JOIN waiting ON waiting.company_id = c.id
    LEFT JOIN calling ON calling.company_id = c.id
    LEFT JOIN unknown ON unknown.company_id = c.id
    LEFT JOIN causeless ON causeless.company_id = c.id
    WHERE c.deleted_at IS NULL
    ORDER BY c.id
""")


def _backoff(row: Row[Any]) -> Backoff | None:
    """Without the caller of its scope, which no reader needs."""
    if row.backoff_cause is None:
        return None
    return Backoff(
        scope=Scope(country=row.backoff_country, company_id=row.backoff_company_id),
        breaker=breaker_of(row, "backoff_"),
    )


def _is_to_expire(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Commands received before the expiry are applied first, however late. Quarantined commands do not delay it."""
    has_command = exists().where(
        inbox.c.interview_id == attempts.c.interview_id,
        inbox.c.received_at < attempts.c.expires_at,
        inbox.c.applied_at.is_(None),
        inbox.c.quarantined_at.is_(None),
    )
    return attempts.c.state == AttemptState.PENDING.value, attempts.c.expires_at <= now, ~has_command


_NOT_IN_DETAIL = frozenset({"token", "number_hash", "schedule", "warnings"})
"""Not in `detail`: the token, with which a reader could forge callbacks, and values that have their own column."""


def _detail(event: Event) -> dict[str, Any]:
    assert hasattr(event, "__dataclass_fields__")
    schedule = getattr(event, "schedule", None)
    moved_to = {} if schedule is None else {"due_at": schedule.due_at.isoformat()}
    return moved_to | {
        field.name: _plain(getattr(event, field.name))
        for field in fields(event)  # type: ignore[arg-type]
        if field.name not in _NOT_IN_DETAIL and getattr(event, field.name) is not None
    }


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def _history_row(
    attempt: Attempt,
    event: str,
    source: AttemptState | None,
    target: AttemptState,
    reason: Reason | None,
    actor: str,
    detail: dict[str, Any],
) -> dict[str, Any]:
    return {
        "attempt_id": attempt.id,
        "at": attempt.updated_at,
        "event": event,
        "from_state": source.value if source else "",
        "to_state": target.value,
        "reason": reason.value if reason else "",
        "epoch": attempt.epoch,
        "actor": actor,
        "detail": detail,
    }


def _columns(attempt: Attempt) -> dict[str, Any]:
    values = {field.name: getattr(attempt, field.name) for field in fields(attempt)}
    values["schedule"] = schedule_as_json(attempt.schedule)
    values["warnings"] = [warning.value for warning in attempt.warnings]
    values["heard_rank"] = int(attempt.heard_rank)
    for name in ("state", "phase", "reason", "answered_by", "hang_up"):
        values[name] = None if values[name] is None else values[name].value
    return values


def attempt_of(row: Row[Any]) -> Attempt:
    """Return the attempt in a row of `attempts`."""
    return Attempt(
        id=row.id,
        interview_id=row.interview_id,
        company_id=row.company_id,
        chain_id=row.chain_id,
        retry_number=row.retry_number,
        manual=row.manual,
        state=AttemptState(row.state),
        schedule=schedule_from_json(row.schedule),
        due_at=row.due_at,
        expires_at=row.expires_at,
        created_at=row.created_at,
        updated_at=row.updated_at,
        number_hash=row.number_hash,
        warnings=tuple(ScheduleWarning(warning) for warning in row.warnings),
        phase=None if row.phase is None else Phase(row.phase),
        reason=None if row.reason is None else Reason(row.reason),
        released_until=row.released_until,
        epoch=row.epoch,
        token=row.token,
        claimed_at=row.claimed_at,
        lease_until=row.lease_until,
        call_sid=row.call_sid,
        heard_rank=CallProgress(row.heard_rank),
        unknown_at=row.unknown_at,
        look_at=row.look_at,
        cause_is_lost=bool(row.cause_is_lost),
        listed_at=row.listed_at,
        search_at=row.search_at,
        looks=row.looks,
        not_placed=row.not_placed,
        answered_by=None if row.answered_by is None else AnsweredBy(row.answered_by),
        duration=row.duration,
        ended_at=row.ended_at,
        called_number=row.called_number,
        hang_up=None if row.hang_up is None else HangUpCause(row.hang_up),
        deleted_at=row.deleted_at,
    )
