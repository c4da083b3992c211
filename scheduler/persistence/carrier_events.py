"""Carrier events: callbacks, stored once each as they were received, before they are evaluated."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import and_, bindparam, func, select, text

from scheduler.persistence.connection import Fixed, among_given
from scheduler.persistence.quarantine import WorkStore, has_waited, taking
from scheduler.persistence.rows import AnyRow, from_row
from scheduler.persistence.tables import attempt_tokens, attempts, carrier_events, interviews

# No RETURNING: the API role may insert events and not read them.
# Sorted, because two transactions that insert the same events in different orders would wait for each other.
_ADD = text("""
    INSERT INTO carrier_events (id, token, fingerprint, raw, received_at, rung_at)
    SELECT id, token, fingerprint, CAST(raw AS jsonb), CAST(:now AS timestamptz), CAST(:now AS timestamptz)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:tokens AS text[]), CAST(:fingerprints AS bytea[]), CAST(:raws AS text[])
    ) AS given (id, token, fingerprint, raw)
    WHERE token_is_known(token)
    ORDER BY fingerprint
    ON CONFLICT DO NOTHING
""")


_IS_AFTER_UNHEARD = text("""
    SELECT EXISTS (
        SELECT FROM lines l
        JOIN attempt_tokens t ON t.attempt_id = l.attempt_id
        JOIN carrier_events earlier ON earlier.token = t.token
        WHERE l.number_hash = :number_hash
          AND earlier.heard_at IS NULL AND earlier.quarantined_at IS NULL
          AND earlier.id <> :id
          AND earlier.received_at <= (SELECT received_at FROM carrier_events WHERE id = :id AND received_at > :since)
    )
""")


@dataclass(frozen=True, kw_only=True)
class NewCarrierEvent:
    """A genuine callback that is not stored yet."""

    id: UUID
    token: str = field(repr=False)
    raw: dict[str, Any] = field(repr=False)
    fingerprint: bytes = field(repr=False)
    """The same for repetitions of a callback."""


@dataclass(frozen=True, kw_only=True)
class CarrierEvent:
    id: UUID
    token: str = field(repr=False)
    raw: dict[str, Any] = field(repr=False)
    received_at: datetime
    failures: int
    claim: "ClaimOfToken | None"
    """None after the attempt was erased."""


@dataclass(frozen=True, kw_only=True)
class ClaimOfToken:
    attempt_id: UUID
    interview_id: UUID
    closed_sid: str | None
    """The call of that claim, when it was proven never to have been dialled."""


_CLAIM_COLUMNS = (attempt_tokens.c.closed_sid, attempts.c.id.label("attempt_id"), attempts.c.interview_id)
_CLAIM_OF = Fixed(
    select(*_CLAIM_COLUMNS)
    .join(attempt_tokens, attempt_tokens.c.attempt_id == attempts.c.id)
    .where(attempt_tokens.c.token == bindparam("token"))
)
_EVENTS = (
    select(*(carrier_events.c[name] for name in ("id", "token", "raw", "received_at", "failures")), *_CLAIM_COLUMNS)
    .outerjoin(attempt_tokens, attempt_tokens.c.token == carrier_events.c.token)
    .outerjoin(attempts, attempts.c.id == attempt_tokens.c.attempt_id)
)
_COMPANIES_OF = Fixed(
    select(carrier_events.c.id, attempts.c.company_id)
    .join(attempt_tokens, attempt_tokens.c.token == carrier_events.c.token)
    .join(attempts, attempts.c.id == attempt_tokens.c.attempt_id)
    .where(among_given(carrier_events.c.id, "ids"))
)
_LOCK_UNHEARD = Fixed(
    _EVENTS.where(
        among_given(carrier_events.c.id, "ids"),
        carrier_events.c.heard_at.is_(None),  # guard: heard_once
        carrier_events.c.quarantined_at.is_(None),
    ).with_for_update(of=carrier_events, skip_locked=True)
)
_COUNT_QUARANTINED = Fixed(
    select(func.count()).where(carrier_events.c.heard_at.is_(None), carrier_events.c.quarantined_at.is_not(None))
)
_HEARD = text("UPDATE carrier_events SET heard_at = :now, raw = '{}' WHERE id = ANY (:ids)")


class CarrierEvents(WorkStore):
    _done_at = carrier_events.c.heard_at
    _due = taking(
        carrier_events.c.id,
        and_(
            carrier_events.c.heard_at.is_(None), carrier_events.c.quarantined_at.is_(None), has_waited(carrier_events)
        ),
    )

    def add(self, events: Sequence[NewCarrierEvent], now: datetime) -> int:
        """Store the events whose tokens name a claim and that are not stored yet. Return how many are new.

        Callable by any role that has the tokens.
        """
        return self._connection.execute(
            _ADD,
            {
                "ids": [each.id for each in events],
                "tokens": [each.token for each in events],
                "fingerprints": [each.fingerprint for each in events],
                "raws": [json.dumps(each.raw) for each in events],
                "now": now,
            },
        ).rowcount

    def claim_of(self, token: str) -> ClaimOfToken | None:
        """Find the claim of a token, also if the attempt was claimed again since."""
        return self._one(partial(from_row, ClaimOfToken), _CLAIM_OF, {"token": token})

    def lock_unheard(self, event_ids: Sequence[UUID]) -> list[CarrierEvent]:
        """Lock the events that were not processed, not locked by another worker and not in quarantine."""
        return self._readable(carrier_events, _event, _LOCK_UNHEARD, {"ids": list(event_ids)})

    def companies_of(self, event_ids: Sequence[UUID]) -> Mapping[UUID, UUID]:
        """Find the company of each event whose attempt exists."""
        rows = self._connection.execute(_COMPANIES_OF, {"ids": list(event_ids)})
        return {row.id: row.company_id for row in rows}

    def heard(self, event_ids: Sequence[UUID], now: datetime) -> None:
        """Mark the events as processed and delete their forms, which contain the person's number."""
        self._connection.execute(_HEARD, {"ids": list(event_ids), "now": now})

    def count_quarantined(self) -> int:
        """Count the events in quarantine, from the index of unprocessed events."""
        return int(self._connection.execute(_COUNT_QUARANTINED).scalar_one())

    def forget_candidate(self, candidate_id: UUID) -> None:
        """Delete the forms of this candidate's processed and quarantined events. The previous version kept them."""
        tokens = (
            select(attempt_tokens.c.token)
            .join(attempts, attempts.c.id == attempt_tokens.c.attempt_id)
            .join(interviews, interviews.c.id == attempts.c.interview_id)
            .where(interviews.c.candidate_id == candidate_id)
        )
        self._update(
            carrier_events,
            carrier_events.c.token.in_(tokens),
            carrier_events.c.heard_at.is_not(None) | carrier_events.c.quarantined_at.is_not(None),
            carrier_events.c.raw != {},
            raw={},
        )

    def forget(self, before: datetime, limit: int) -> int:
        """Delete callbacks that were processed before then. Unprocessed callbacks stay, however old they are."""
        old = select(carrier_events.c.id).where(carrier_events.c.heard_at < before)
        return self._delete_free(carrier_events.c.id, old.order_by(carrier_events.c.heard_at).limit(limit))

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

    def is_after_unheard(self, event_id: UUID, number_hash: bytes | None, since: datetime) -> bool:
        """Return True if an earlier event of the attempt that holds this number's line is not yet processed.

        Events of one transaction have the same instant. False for an event that was received before `since`.
        """
        values = {"id": event_id, "number_hash": number_hash, "since": since}
        return bool(self._connection.execute(_IS_AFTER_UNHEARD, values).scalar_one())


def _event(row: AnyRow) -> CarrierEvent:
    claim = None if row.attempt_id is None else from_row(ClaimOfToken, row)
    return from_row(CarrierEvent, row, claim=claim)
