"""Claims in: keeps the hints of a worker, and claims as many of their attempts as can be sent soon."""

from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from datetime import datetime
from functools import cache
from uuid import UUID

from scheduler import process
from scheduler.clock import Now, monotonic
from scheduler.domain.call import NeverTaken
from scheduler.lifecycle.capacity import Pace, SendRate
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, LOOK_TO_SEND, RELEASE_SPAN, SEND_SPAN
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway, LockTaken
from scheduler.use_cases.dialling.claim import (
    PLACES_COME_TOGETHER,
    ClaimInDoubt,
    Claiming,
    Claims,
    ClaimTooSlow,
    ToSend,
)
from scheduler.use_cases.dialling.hand import Hand, on_monotonic
from scheduler.use_cases.dialling.look import Looks
from scheduler.use_cases.dialling.record import Recorder
from scheduler.use_cases.dialling.watch import DatabaseThreads, LockWatch, LookWatch

_log = log(__name__)
RETRY_CLAIM_S = 0.25
_RETRY_LOOK_S = 1.0
_LONGEST_WAIT_S = RELEASE_SPAN.total_seconds()


class NotNow(Exception):
    """Nothing was claimed. The loop claims again after these seconds. None: when a hint wakes it."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        self.seconds = seconds


class Claimer:
    """Decides which hinted attempts to claim, and when to claim again. Belongs to one event loop."""

    def __init__(
        self,
        claiming: Claiming,
        looks: Looks,
        threads: DatabaseThreads,
        now: Now,
        room: "Room",
        watch: LookWatch,
        recorder: Recorder,
    ) -> None:
        self._claiming = claiming
        self._looks = looks
        self._threads = threads
        self._now = now
        self._room = room
        self._watch = watch
        self._recorder = recorder
        self.hand = Hand()
        self.paces = KnownPaces()
        self.locks = LockWatch(claiming.lock_holder)
        self._account_free_at = 0.0
        """The monotonic instant before which the account starts no call."""
        self._conflicts = 0

    def take(self, ids: Sequence[UUID], due_at: Mapping[UUID, datetime]) -> None:
        """Take hints. `due_at`: the due times of attempts that are not due yet."""
        self.hand.take(ids, monotonic(), on_monotonic(due_at, self._now))

    async def claim(self) -> Sequence[ToSend]:
        """Claim the attempts that have a place now. Raises NotNow after a failure."""
        if not self.hand:
            return ()
        self.hand.become_due(monotonic())
        limit = self.limit()
        ids: Sequence[UUID] = ()
        try:
            ids = await self._next(limit)
            if not ids:
                return ()
            claims = await self._threads.run(lambda: self._claiming.claim(ids))
        except NotNow:
            raise
        except Exception as error:
            raise NotNow(await self._after(error, ids)) from error
        await self.learn(ids, claims)
        return claims.claimed

    async def _after(self, error: Exception, ids: Sequence[UUID]) -> float | None:
        """Log why these attempts were not claimed. Return the seconds until the next try."""
        match error:
            case ClaimInDoubt():
                _log.warning(
                    "claim_in_doubt: commit status of the claim is unknown, so the attempts go back to PENDING",
                    count=len(error.claimed),
                )
                # The recorder looks up each by its token, on another connection, until it can read which are committed.
                for each in error.claimed:
                    self._recorder.add(each.attempt, NeverTaken(cause="NOT_SENT"))
            case LockTaken():
                self._conflicts += 1
                _log.info("claim_conflict: another transaction held a row", count=self._conflicts)
                await self._threads.run(lambda: self.locks.saw({None}, set(), monotonic()))
                return 0.0
            case ClaimTooSlow():
                _log.warning("claim_too_slow: a claim took too long and was rolled back", count=len(ids))
                self._room.fell_behind()
            case DatabaseAway():
                _log.warning("claim_failed: the database is unavailable")
            case _:
                # Dropped rather than retried in a loop: the clock releases the rows again.
                _log.error("claim_failed: an unexpected error stopped a claim", exc_info=error)
                self.hand.clear()
                return self._until_due()  # early hints are kept
        return RETRY_CLAIM_S

    async def _next(self, limit: int) -> Sequence[UUID]:
        """Choose the ids to claim now. Raises NotNow, DatabaseAway."""
        ids = self.hand.untried(limit)
        if not ids:
            await self.give_turns()
            ids = self._next_ids()
        if ids and await self._looks_are_too_slow(ids[0]):
            raise NotNow(_RETRY_LOOK_S)
        return ids

    async def give_turns(self) -> None:
        """Sort new hints into the order of turns. Raises DatabaseAway."""
        ids = self.hand.without_a_turn()
        if ids:
            pending = await self._threads.run(lambda: self._claiming.hinted(ids))
            self.hand.give_turns(ids, pending, cache(self.paces.last_start_of), monotonic())

    def _next_ids(self) -> list[UUID]:
        """Choose the next ids to claim, as many as this machine can send soon and the account may start."""
        limit, now = self.limit(), self._now()
        if not limit:
            return []
        return self.hand.next(monotonic(), limit, cache(lambda company_id: self.paces.of_company(company_id, now)))

    def limit(self) -> int:
        """Compute how many ids the next claim can use."""
        room = self._room.places()
        if not room or self._account_free_at > monotonic():
            return 0
        return min(room, self.paces.of_account(self._now()))

    async def _looks_are_too_slow(self, attempt_id: UUID) -> bool:
        """Return True if claimed calls would only be given back. Measures again if the latest look took too long.

        Do not claim them: if the database became too slow to give them back, their outcome would stay undecided.
        """
        if self._watch.took is not None and self._watch.took > LOOK_TO_SEND:
            self._watch.took = await self._threads.run(lambda: self._looks.try_look(attempt_id))
        return self._watch.are_too_slow(monotonic())

    async def learn(self, ids: Sequence[UUID], claims: Claims) -> None:
        """Drop the hints that a claim has used, and hold back those that it could not use."""
        instant = monotonic()
        if claims.is_stopped:
            self.hand.clear()
        else:
            self.paces.learn(claims.account, claims.companies)
            self.hand.wait_until_due(on_monotonic(claims.early, self._now))
            self.hand.drop(each for each in ids if each not in claims.waiting)
            for until_s, held in self._holds(claims):
                self.hand.hold(held, instant + until_s)
            if claims.account_free_at is not None:
                self._account_free_at = instant + self._until(claims.account_free_at)
        if claims.locked or self.locks:
            # The row of the account was free.
            await self._threads.run(lambda: self.locks.saw(claims.locked, {None, *claims.unlocked}, instant))

    def _holds(self, claims: Claims) -> Sequence[tuple[float, Collection[UUID]]]:
        """List how many seconds attempts and companies wait for the next claim. A later row replaces an earlier one."""
        again_s = RETRY_CLAIM_S
        if claims.try_again_at is not None:
            again_s = max(0.01, self._until(claims.try_again_at + PLACES_COME_TOGETHER))
        without_room = [each for each in claims.full if claims.companies[each].room <= 0]
        return (
            # Not attempts that lack only a place: later hints would take each place that becomes free.
            (RETRY_CLAIM_S, claims.waiting - claims.unplaced),
            (again_s, claims.full),
            # There is no event for the end of a call, and its place must not wait for the pace of another company.
            (min(again_s, RETRY_CLAIM_S), without_room),
            (RETRY_CLAIM_S, claims.locked),
        )

    def _until(self, at: datetime) -> float:
        """Compute the seconds until then, at most the length of a release: the clock may have been set back."""
        return min(_LONGEST_WAIT_S, max(0.0, (at - self._now()).total_seconds()))

    def pause(self) -> float | None:
        """Compute the seconds until the next claim, if no call is sent or recorded and no hint arrives before."""
        if not self.hand:
            return None
        if not self._room.places():
            return RETRY_CLAIM_S  # a call that is sent or recorded wakes the loop
        if self._next_ids():
            return 0.0
        instant, due_at = monotonic(), self.hand.due_at()
        wait = max(self._account_free_at, self.hand.ready_at() or 0.0) - instant
        wait = wait if wait > 0 else RETRY_CLAIM_S
        return wait if due_at is None else max(0.0, min(wait, max(self._account_free_at, due_at) - instant))

    def _until_due(self) -> float | None:
        """Compute the seconds until the next early hint becomes due. None without one."""
        due_at = self.hand.due_at()
        return None if due_at is None else max(0.0, due_at - monotonic())


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
