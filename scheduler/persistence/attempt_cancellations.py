"""Pending attempts that an operator cancels: their rows, and the locks of the command."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from uuid import UUID

from sqlalchemy import select

from scheduler.domain.attempt import AttemptState
from scheduler.domain.command import CommandKind
from scheduler.persistence.connection import Fixed
from scheduler.persistence.many import among_given
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, inbox


@dataclass(frozen=True, kw_only=True)
class AttemptKey:
    """The rows that a transaction locks for an attempt."""

    id: UUID
    interview_id: UUID
    company_id: UUID


class AttemptCancellations(Store):
    def keys(self, attempt_ids: Sequence[UUID]) -> list[AttemptKey]:
        return self._all(partial(from_row, AttemptKey), _KEYS, {"ids": list(attempt_ids)})

    def lock_to_cancel(self, interview_ids: Sequence[UUID], attempt_ids: Sequence[UUID]) -> list[AttemptKey]:
        """Lock those of these attempts of locked interviews that are pending and not being cancelled by an operator."""
        values = {"interview_ids": list(interview_ids), "ids": list(attempt_ids)}
        return self._all(partial(from_row, AttemptKey), _LOCK_TO_CANCEL, values)


# Hashed once, with this limit, as in `attempt_counts`.
_CANCELLATIONS = (
    select(inbox.c.interview_id)
    .where(
        inbox.c.applied_at.is_(None),
        inbox.c.interview_id.is_not(None),
        inbox.c.kind == CommandKind.CANCEL_ATTEMPT.value,
    )
    .limit(100_000)
)
_KEY = tuple(attempts.c[each.name] for each in fields(AttemptKey))
_KEYS = Fixed(select(*_KEY).where(among_given(attempts.c.id, "ids")))
_LOCK_TO_CANCEL = Fixed(
    select(*_KEY)
    .where(
        among_given(attempts.c.interview_id, "interview_ids"),
        among_given(attempts.c.id, "ids"),
        attempts.c.state == AttemptState.PENDING.value,
        attempts.c.interview_id.not_in(_CANCELLATIONS),
    )
    .order_by(attempts.c.id)
    .with_for_update(key_share=True)  # guard: cancellation
)
