"""Known paces: hints of how many attempts the next claim can use, from the last claims of this process.

Without them each claim would lock a whole batch of attempts to place a few. The rows decide: another process may have
taken places since, and calls that have ended free places.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from scheduler.lifecycle.capacity import Pace
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, SEND_SPAN

MOST_COMPANIES = 10_000
"""Companies whose paces are kept. More than a process claims for within the time in which a pace gets old."""


class KnownPaces:
    def __init__(self) -> None:
        self._account: Pace | None = None
        self._companies: dict[UUID, Pace] = {}
        """In the order in which they were learned."""

    def learn(self, account: Pace | None, companies: Mapping[UUID, Pace]) -> None:
        """Keep the paces that a claim has left."""
        self._account = account or self._account
        for company_id, pace in companies.items():
            self._companies.pop(company_id, None)
            self._companies[company_id] = pace
        while len(self._companies) > MOST_COMPANIES:
            del self._companies[next(iter(self._companies))]

    def of_account(self, now: datetime) -> int:
        """Return how many calls the account may start within the next second. At least one, because paces get old."""
        return _places(self._account, now)

    def of_company(self, company_id: UUID, now: datetime) -> int:
        """Return the same for a company."""
        return _places(self._companies.get(company_id), now)

    def last_start_of(self, company_id: UUID) -> float:
        """Return when the company's last known call started, in seconds since 1970. 0 if none is known."""
        pace = self._companies.get(company_id)
        return 0.0 if pace is None else pace.last_start_at.timestamp()


def _places(pace: Pace | None, now: datetime) -> int:
    return AT_MOST_A_TRANSACTION if pace is None else max(1, pace.places(now, SEND_SPAN))
