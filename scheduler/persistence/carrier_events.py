"""Carrier events: callbacks, stored once each as they were received, before they are evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, func, select, update
from sqlalchemy.dialects.postgresql import insert

from scheduler.lifecycle.policy import QUARANTINED_AFTER
from scheduler.persistence.many import among
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
        return self.claims_of([token]).get(token)

    def claims_of(self, tokens: Sequence[str]) -> dict[str, ClaimOfToken]:
        """Return the claim of each known token, like `claim_of`, in one query."""
        rows = self._connection.execute(
            select(attempt_tokens.c.token, attempt_tokens.c.closed_sid, attempts.c.id, attempts.c.interview_id)
            .join(attempt_tokens, attempt_tokens.c.attempt_id == attempts.c.id)
            .where(among(attempt_tokens.c.token, tokens))
        )
        return {row.token: from_row(ClaimOfToken, row, attempt_id=row.id) for row in rows}

    def lock_unheard(self, event_ids: Sequence[UUID]) -> list[CarrierEvent]:
        """Lock those of the events that were not processed, not locked by another worker and not in quarantine."""
        query = (
            select(carrier_events)
            .where(
                among(carrier_events.c.id, event_ids),
                carrier_events.c.heard_at.is_(None),  # guard: heard_once
                carrier_events.c.quarantined_at.is_(None),
            )
            .with_for_update(skip_locked=True)
        )
        return self._all(partial(from_row, CarrierEvent), query)

    def heard(self, event_ids: Sequence[UUID], now: datetime) -> None:
        """Mark the events as processed and delete their forms, which contain the person's number."""
        self._connection.execute(
            update(carrier_events).where(among(carrier_events.c.id, event_ids)).values(heard_at=now, raw={})
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
