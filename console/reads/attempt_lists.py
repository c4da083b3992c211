"""Lists of attempts for operators, and the pending attempts that one act cancels."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from console.attempt_list import AttemptFilter, ListedAttempt, ListOrder, Place
from console.stores.attempt_lists import AttemptListStore, Bounds, PartCounts
from scheduler.clock import Now
from scheduler.domain.refusals import InvalidFields
from scheduler.persistence.database import Database

PAGE_SIZE = 50
SCANNED = 5_000
"""Attempts or events that a page looks at, if its filter has no index."""
INTERVIEWS_SCANNED = 2_000
"""Interviews of one company whose attempts a page looks at."""
_FEW_SCANNED = 200
_MOST_SCANNED = 20_000
"""Rows that an act looks at. Its form counts them twice."""
SOON = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class AttemptPage:
    attempts: Sequence[ListedAttempt]
    next: Place | None
    """None: the list ends here."""
    is_cut: bool
    """True if the page ended before it was full, because it had looked at enough rows. The list may go on."""


class AttemptLists:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def page(self, only: AttemptFilter, after: Place | None) -> AttemptPage:
        """Return a page of the list. Raises InvalidFields for an unknown company, and DatabaseAway."""
        bounds = Bounds(limit=PAGE_SIZE, scanned=_scanned(only))
        with self._database.reading() as stores:
            if only.company_id is not None and not stores.companies.is_there(only.company_id):
                raise InvalidFields("There is no company with this id. The page Companies lists all.")
            found = AttemptListStore(stores.connection).part(only, after, bounds, self._now())
            rows = AttemptListStore(stores.connection).rows(found.attempts)
        return AttemptPage(attempts=rows, next=found.next, is_cut=found.is_cut)

    def matching(self, only: AttemptFilter, most: int) -> Sequence[UUID]:
        """Return the pending attempts that meet the filter. Raises as `matching_counts`."""
        with self._database.reading() as stores:
            found = AttemptListStore(stores.connection).part(only, None, _bounds(only, most), self._now())
        _check_size(most, is_cut=found.is_cut, goes_on=found.next is not None)
        return [each.id for each in found.attempts]

    def matching_counts(self, only: AttemptFilter, most: int) -> PartCounts:
        """Count the pending attempts that meet the filter. Raises InvalidFields for more than `most`, DatabaseAway.

        Attempts that will be due within `SOON` count as `soon`. Raises InvalidFields too if a time zone would be
        searched among too many attempts.
        """
        now = self._now()
        with self._database.reading() as stores:
            counted = AttemptListStore(stores.connection).counts(only, _bounds(only, most), now, now + SOON)
        _check_size(most, is_cut=counted.is_cut, goes_on=counted.attempts > most)
        return counted


def _bounds(only: AttemptFilter, most: int) -> Bounds:
    is_searched = only.zone is not None or only.has_history
    return Bounds(limit=most, scanned=_MOST_SCANNED if is_searched else most + 1)


def _check_size(most: int, *, is_cut: bool, goes_on: bool) -> None:
    if is_cut:
        raise InvalidFields(
            f"Over {_MOST_SCANNED:,} pending calls would be searched for this filter. Name a company or a shorter"
            " range of due times."
        )
    if goes_on:
        raise InvalidFields(f"More than {most:,} pending calls match. Name a company or a shorter range of due times.")


def _scanned(only: AttemptFilter) -> int:
    """Return the most rows that a page of this list looks at."""
    if only.order is ListOrder.INTERVIEW:
        return INTERVIEWS_SCANNED
    return SCANNED if only.zone is not None or only.is_ended or only.has_history else _FEW_SCANNED
