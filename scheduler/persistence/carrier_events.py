"""Carrier events: callbacks, stored once each as they were received, before they are evaluated."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, func, select, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.lifecycle.policy import QUARANTINED_AFTER
from scheduler.persistence.redelivery import due_hints, has_waited
from scheduler.persistence.rows import as_columns, from_row
from scheduler.persistence.store import Store
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


class CarrierEvents(Store):
    def add(self, event: CarrierEvent, fingerprint: bytes) -> bool:
        """Store the event. False if an identical one exists."""
        return (
            self._connection.execute(
                insert(carrier_events)
                .values(**as_columns(event, fingerprint=fingerprint, rung_at=event.received_at))
                # No RETURNING: the API role may insert events and not read them. SQLAlchemy keeps an INSERT's row count
                # only with this option.
                .on_conflict_do_nothing(),
                execution_options={"preserve_rowcount": True},
            ).rowcount
            == 1
        )

    def is_known(self, token: str) -> bool:
        """Return True if a claim has that token. Callable by any role that has the token."""
        known: bool = self._connection.execute(select(func.token_is_known(token))).scalar_one()
        return known

    def claim_of(self, token: str) -> ClaimOfToken | None:
        """Return the claim of a token, also if the attempt was claimed again since."""
        row = self._connection.execute(
            select(attempts.c.id, attempts.c.interview_id, attempt_tokens.c.closed_sid)
            .join(attempt_tokens, attempt_tokens.c.attempt_id == attempts.c.id)
            .where(attempt_tokens.c.token == token)
        ).one_or_none()
        return None if row is None else from_row(ClaimOfToken, row, attempt_id=row.id)

    def lock_unheard(self, event_id: UUID) -> CarrierEvent | None:
        """Lock the event, unless it was processed, is locked by another worker or is in quarantine."""
        query = (
            select(carrier_events)
            .where(
                carrier_events.c.id == event_id,
                carrier_events.c.heard_at.is_(None),  # guard: heard_once
                carrier_events.c.quarantined_at.is_(None),
            )
            .with_for_update(skip_locked=True)
        )
        return self._one(partial(from_row, CarrierEvent), query)

    def heard(self, event_id: UUID, now: datetime) -> None:
        """Mark the event as processed and delete its form, which contains the person's number."""
        self._connection.execute(
            update(carrier_events).where(carrier_events.c.id == event_id).values(heard_at=now, raw={})
        )

    def count_failure(self, event_id: UUID, now: datetime) -> bool:
        """Count an unexpected failure to process the event. True if it is now in quarantine."""
        failures = carrier_events.c.failures + 1
        row = self._connection.execute(
            update(carrier_events)
            .where(carrier_events.c.id == event_id, carrier_events.c.heard_at.is_(None))
            .values(failures=failures, quarantined_at=case((failures >= QUARANTINED_AFTER, now)))
            .returning(carrier_events.c.quarantined_at)
        ).one_or_none()
        return row is not None and row.quarantined_at is not None

    def forget_candidate(self, candidate_id: UUID) -> None:
        """Delete the forms of this candidate's processed and quarantined events. The previous version kept them."""
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
        """Return True if an event with this token is stored and not yet processed."""
        return self._is_any(
            select(carrier_events.c.id)
            .where(
                carrier_events.c.token == token,
                carrier_events.c.heard_at.is_(None),
                carrier_events.c.quarantined_at.is_(None),
            )
            .limit(1)
        )

    def due_hints(self, rung_before: datetime, now: datetime, limit: int) -> list[UUID]:
        """Return unprocessed events whose hint is to be sent again, and record it as sent now."""
        is_due = and_(
            carrier_events.c.heard_at.is_(None),
            carrier_events.c.quarantined_at.is_(None),
            has_waited(carrier_events, rung_before, now),
        )
        return due_hints(self._connection, carrier_events.c.id, is_due, now, limit)
