"""Unknown outcomes: the attempts about which an operator has yet to decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TypeAlias
from uuid import UUID

from sqlalchemy import literal_column, select, tuple_

from scheduler.domain.attempt import Reason
from scheduler.domain.command import CommandKind
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, companies, inbox


@dataclass(frozen=True, kw_only=True)
class UnknownOutcome:
    """An attempt of unknown outcome, without the person's name or number."""

    id: UUID
    interview_id: UUID
    company_id: UUID
    claimed_at: datetime | None
    """The call can have been placed from then on."""
    ended_at: datetime
    """The outcome was given up then."""
    listed_at: datetime | None
    """The carrier's list of calls was last read in full then. None: never."""
    search_at: datetime | None
    """The next search of the carrier's list. None: the call must have ended, or was found."""
    look_at: datetime | None
    """The next poll about a call that was found live. None: no call was found."""
    call_sid: str | None
    """The carrier's id of the call that was found live, or of one that the carrier had accepted."""
    company_name: str
    is_decided: bool
    """An operator's decision about the interview waits for a worker."""


UnknownPlace: TypeAlias = tuple[datetime, UUID]
"""The place of an attempt in the list: when its outcome was given up, and its id."""

_DECISION = (
    select(inbox.c.id)
    .where(
        inbox.c.interview_id == attempts.c.interview_id,
        inbox.c.kind == CommandKind.DECIDE_OUTCOME.value,
        inbox.c.applied_at.is_(None),
    )
    .exists()
)
_OTHER = {"company_name", "is_decided"}
# As literals: they must match the index.
_TO_DECIDE = (
    select(
        *(attempts.c[name] for name in UnknownOutcome.__dataclass_fields__ if name not in _OTHER),
        companies.c.name.label("company_name"),
        _DECISION.label("is_decided"),
    )
    .join(companies, companies.c.id == attempts.c.company_id)
    .where(
        attempts.c.reason == literal_column(f"'{Reason.OUTCOME_UNKNOWN.value}'"),
        attempts.c.decided_at.is_(None),
        companies.c.deleted_at.is_(None),
    )
)
_unknown = partial(from_row, UnknownOutcome)


class UnknownOutcomes(Store):
    def page(self, company_id: UUID | None, limit: int, after: UnknownPlace | None = None) -> Sequence[UnknownOutcome]:
        """Return up to `limit` attempts that are to be decided, of one company or of all, oldest first.

        `after`: only attempts that follow this place.
        """
        query = _TO_DECIDE.order_by(attempts.c.ended_at, attempts.c.id).limit(limit)
        if company_id is not None:
            query = query.where(attempts.c.company_id == company_id)
        if after is not None:
            query = query.where(tuple_(attempts.c.ended_at, attempts.c.id) > tuple_(*after))
        return self._readable(attempts, _unknown, query)

    def find(self, attempt_id: UUID) -> UnknownOutcome | None:
        """Return the attempt if it is to be decided."""
        return self._one(_unknown, _TO_DECIDE.where(attempts.c.id == attempt_id))
