"""How many calls the next claim can use: the room of this machine, and the paces of account and companies."""

from collections.abc import Callable, Mapping, Sized
from datetime import datetime
from uuid import UUID

from scheduler import process
from scheduler.clock import monotonic
from scheduler.lifecycle.capacity import Pace, SendRate
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, SEND_SPAN

# --- Room of this machine, so that each claimed call can be sent and recorded in time


class Room:
    """Counts claimed calls until they are sent. `posts`: the claimed calls until their answers are known.

    `unwritten` counts the answers that are not written yet. `wake` wakes the loop.
    """

    def __init__(self, posts: Sized, unwritten: Callable[[], int], wake: Callable[[], None]) -> None:
        self._posts = posts
        self._unwritten = unwritten
        self._wake = wake
        self._rate = SendRate()
        self._unsent: set[UUID] = set()
        self.is_awaited = False
        """True if the loop waits for an answer, or for calls to be sent or recorded. Otherwise none wakes it."""

    def places(self) -> int:
        """Compute how many calls this machine may claim now."""
        places = self._rate.may_claim(monotonic(), len(self._unsent) + self._unwritten())
        # Each claimed call may need a connection. Without a free one, other dial workers can send these calls.
        places = min(places, max(0, process.most_posts() - len(self._posts)))
        if places and process.are_out():  # guard: no_descriptor
            process.report_shortage()
            places = 0
        self.is_awaited = not places
        return places

    def fill(self, attempt_id: UUID) -> None:
        """Note a claimed call that is to be sent."""
        self._unsent.add(attempt_id)

    def free(self, attempt_id: UUID) -> None:
        """Make room for another call: this one was sent or given back."""
        self._unsent.discard(attempt_id)
        self.wake_if_awaited()

    def sent(self, attempt_id: UUID) -> None:
        """Note that a call was sent, which also shows how fast this machine is."""
        self._rate.sent(monotonic())
        self.free(attempt_id)

    def fell_behind(self) -> None:
        """Note that claimed calls could not be sent in time, so that fewer are claimed."""
        self._rate.fell_behind(monotonic())

    def wake_if_awaited(self) -> None:
        if self.is_awaited:
            self._wake()


# --- Known paces: hints of how many attempts the next claim can use, from the last claims of this process
# Without them each claim would lock a whole batch of attempts to place a few. The rows decide: another process may
# have taken places since, and calls that have ended free places.


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
        """Estimate how many calls the account may start within the next second. At least one, because paces get old."""
        return _places(self._account, now)

    def of_company(self, company_id: UUID, now: datetime) -> int:
        """Estimate the same for a company."""
        return _places(self._companies.get(company_id), now)

    def last_start_of(self, company_id: UUID) -> float:
        """Find the start of the company's last known call, in seconds since 1970. 0 if none is known."""
        pace = self._companies.get(company_id)
        return 0.0 if pace is None else pace.last_start_at.timestamp()


def _places(pace: Pace | None, now: datetime) -> int:
    return AT_MOST_A_TRANSACTION if pace is None else max(1, pace.places(now, SEND_SPAN))
