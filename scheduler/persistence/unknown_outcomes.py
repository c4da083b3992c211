"""Unknown outcomes: the attempts about which an operator has yet to decide."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from sqlalchemy import literal_column, select

from scheduler.domain.attempt import Reason
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store
from scheduler.persistence.tables import attempts, companies


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


_COLUMNS = tuple(attempts.c[name] for name in UnknownOutcome.__dataclass_fields__)


class UnknownOutcomes(Store):
    def page(self, company_id: UUID | None, limit: int) -> Sequence[UnknownOutcome]:
        """Return up to `limit` attempts that are to be decided, of one company or of all, oldest first."""
        # As literals: they must match the index.
        query = (
            select(*_COLUMNS)
            .join(companies, companies.c.id == attempts.c.company_id)
            .where(
                attempts.c.reason == literal_column(f"'{Reason.OUTCOME_UNKNOWN.value}'"),
                attempts.c.decided_at.is_(None),
                companies.c.deleted_at.is_(None),
            )
            .order_by(attempts.c.ended_at, attempts.c.id)
            .limit(limit)
        )
        if company_id is not None:
            query = query.where(attempts.c.company_id == company_id)
        return self._all(partial(from_row, UnknownOutcome), query)
