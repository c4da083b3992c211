"""Carrier events: callbacks as they came, stored before they are believed, each once."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, any_, case, func, select, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.lifecycle.policy import QUARANTINED_AFTER
from scheduler.persistence.reminders import has_waited
from scheduler.persistence.tables import attempt_tokens, attempts, carrier_events, interviews


@dataclass(frozen=True, kw_only=True)
class CarrierEvent:
    id: UUID
    token: str = field(repr=False)
    raw: dict[str, Any] = field(repr=False)
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class ClaimOfToken:
    attempt_id: UUID
    interview_id: UUID
    closed_sid: str | None
    """The call of that claim, when it was proven never to have been dialled."""


class CarrierEvents:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, event: CarrierEvent, fingerprint: bytes) -> bool:
        """Store it. False when the very same one is there already."""
        return (
            self._connection.execute(
                insert(carrier_events)
                .values(
                    id=event.id,
                    token=event.token,
                    fingerprint=fingerprint,
                    raw=event.raw,
                    received_at=event.received_at,
                    rung_at=event.received_at,
                )
                # Nothing of it is read back: whoever stores an event may see none. How many rows an INSERT made is
                # forgotten unless it is asked for.
                .on_conflict_do_nothing(),
                execution_options={"preserve_rowcount": True},
            ).rowcount
            == 1
        )

    def is_known(self, token: str) -> bool:
        """Whether a claim of ours has that token; PostgreSQL tells it to whoever has the token."""
        known: bool = self._connection.execute(select(func.token_is_known(token))).scalar_one()
        return known

    def claim_of(self, token: str) -> ClaimOfToken | None:
        """The claim that a token was made for, be it the attempt's last one or an old one."""
        row = self._connection.execute(
            select(attempts.c.id, attempts.c.interview_id, attempt_tokens.c.closed_sid)
            .join(attempt_tokens, attempt_tokens.c.attempt_id == attempts.c.id)
            .where(attempt_tokens.c.token == token)
        ).one_or_none()
        if row is None:
            return None
        return ClaimOfToken(attempt_id=row.id, interview_id=row.interview_id, closed_sid=row.closed_sid)

    def lock_unheard(self, event_id: UUID) -> CarrierEvent | None:
        """The event, if nobody has heard it, nobody else is about to, and it is not in quarantine."""
        row = self._connection.execute(
            select(carrier_events)
            .where(
                carrier_events.c.id == event_id,
                carrier_events.c.heard_at.is_(None),  # guard: heard_once
                carrier_events.c.quarantined_at.is_(None),
            )
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if row is None:
            return None
        return CarrierEvent(id=row.id, token=row.token, raw=row.raw, received_at=row.received_at)

    def heard(self, event_id: UUID, now: datetime) -> None:
        """It has changed what it could; its form, which names the person's number, goes."""
        self._connection.execute(
            update(carrier_events).where(carrier_events.c.id == event_id).values(heard_at=now, raw={})
        )

    def count_failure(self, event_id: UUID, now: datetime) -> bool:
        """One more failure to hear it, for no known reason. True when it is now in quarantine."""
        failures = carrier_events.c.failures + 1
        row = self._connection.execute(
            update(carrier_events)
            .where(carrier_events.c.id == event_id, carrier_events.c.heard_at.is_(None))
            .values(failures=failures, quarantined_at=case((failures >= QUARANTINED_AFTER, now)))
            .returning(carrier_events.c.quarantined_at)
        ).one_or_none()
        return row is not None and row.quarantined_at is not None

    def forget_candidate(self, candidate_id: UUID) -> None:
        """No form of this candidate's calls stays that was heard, which the release before kept, or is not to be."""
        tokens = (
            select(attempt_tokens.c.token)
            .join(attempts, attempts.c.id == attempt_tokens.c.attempt_id)
            .join(interviews, interviews.c.id == attempts.c.interview_id)
            .where(interviews.c.candidate_id == candidate_id)
        )
        self._connection.execute(
            update(carrier_events)
            .where(
                carrier_events.c.token.in_(tokens),
                carrier_events.c.heard_at.is_not(None) | carrier_events.c.quarantined_at.is_not(None),
                carrier_events.c.raw != {},
            )
            .values(raw={})
        )

    def is_one_unheard(self, token: str) -> bool:
        """Whether the carrier has said something of this token that is stored, and that nobody has heard yet."""
        return (
            self._connection.execute(
                select(carrier_events.c.id)
                .where(
                    carrier_events.c.token == token,
                    carrier_events.c.heard_at.is_(None),
                    carrier_events.c.quarantined_at.is_(None),
                )
                .limit(1)
            ).one_or_none()
            is not None
        )

    def ring_unheard(self, rung_before: datetime, now: datetime, limit: int) -> list[UUID]:
        """Events that nobody has heard since they were last rung for; they count as rung now."""
        unheard = (
            select(carrier_events.c.id)
            .where(
                carrier_events.c.heard_at.is_(None),
                carrier_events.c.quarantined_at.is_(None),
                has_waited(carrier_events, rung_before, now),
            )
            .order_by(carrier_events.c.rung_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = self._connection.execute(
            update(carrier_events)
            .where(carrier_events.c.id == any_(func.array(unheard.scalar_subquery())))
            .values(rung_at=now)
            .returning(carrier_events.c.id)
        )
        return [row.id for row in rows]
