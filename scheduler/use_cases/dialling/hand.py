"""The hints that a dial worker holds in memory, in the order in which their attempts are claimed.

A claim passes only as many ids to the database as it may claim, so the order is decided here: companies take turns
(`capacity.in_turns`). Early hints wait here until their attempts are due, and for those that become due soon after
(`policy.claim_at`). All instants are seconds on the monotonic clock: a wall clock that is set neither hastens nor
delays them.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.lifecycle import policy
from scheduler.lifecycle.capacity import in_turns
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, MAX_CLOCK_SKEW, RELEASE_AHEAD, RELEASE_SPAN

MOST_HINTS = int(2 * AT_MOST_A_TRANSACTION * RELEASE_SPAN.total_seconds())
"""As many as one process can claim during a release. The clock sends the hints that are not kept again."""
_LONGEST_EARLY_S = (RELEASE_AHEAD + MAX_CLOCK_SKEW).total_seconds()
"""A longer wait comes from a wrong clock. The claim that follows finds the time that is left."""


def on_monotonic(due_at: Mapping[UUID, datetime], now: Now) -> dict[UUID, float]:
    """Convert due times to the monotonic clock, which no change of the machine's time affects."""
    if not due_at:
        return {}
    wall, instant = now(), monotonic()  # in this order, so that no result is too early
    return {each: instant + min(_LONGEST_EARLY_S, (at - wall).total_seconds()) for each, at in due_at.items()}


@dataclass(frozen=True, kw_only=True)
class Hinted:
    """A pending attempt named by a hint, with the fields that decide its turn."""

    id: UUID
    company_id: UUID
    manual: bool
    due_at: datetime


class Hand:
    def __init__(self) -> None:
        self._hints: list[Hinted] = []
        self._until: dict[UUID, float] = {}
        self._not_before: dict[UUID, float] = {}
        """Keys are ids of attempts and of companies."""
        self._new: dict[UUID, float] = {}
        self._tried: dict[UUID, float] = {}
        """Given to a claim without a turn. Apart from `_new`, so that a hint that comes during the claim is kept."""
        self._early: dict[UUID, tuple[float, float]] = {}
        """Waiting: the instants at which the attempt is due and at which its release ends."""
        self._due_at: list[tuple[float, UUID]] = []
        """The early hints in the order of their due times. Sorted, because the loop asks after each call."""

    def __len__(self) -> int:
        return len(self._until) + len(self._new) + len(self._tried) + len(self._early)

    def take(self, ids: Iterable[UUID], instant: float, due_at: Mapping[UUID, float] | None = None) -> None:
        """Keep these ids while their release lasts, at most `MOST_HINTS`. Their turn is not known yet.

        `due_at`: the instants at which those attempts are due that are not due yet.
        """
        until = instant + RELEASE_SPAN.total_seconds()
        if len(self) >= MOST_HINTS:
            self._end_releases(instant)
        for each in ids:
            if not self._has_room_for(each):
                continue
            at = instant if due_at is None else due_at.get(each, instant)
            if at > instant:
                self._wait_until(each, at, until)
            else:
                self._wait_no_longer(each)
                self._new[each] = until

    def _has_room_for(self, attempt_id: UUID) -> bool:
        kept = (self._until, self._new, self._tried, self._early)
        return len(self) < MOST_HINTS or any(attempt_id in each for each in kept)

    def _end_releases(self, instant: float) -> None:
        """Drop hints whose release has ended. While nothing can be claimed, no other method drops them."""
        for kept in (self._until, self._new, self._tried):
            for each in [each for each, until in kept.items() if until <= instant]:
                del kept[each]

    def ids(self) -> list[UUID]:
        """List the ids of all hints."""
        return list({**self._until, **self._new, **self._tried, **self._early})

    def become_due(self, instant: float) -> None:
        """Treat early hints whose attempts are due by now as new ones, the earliest due first.

        They go on waiting for attempts that become due soon, unless a claim is made now in any case.
        """
        if not self._due_at or (self._claim_at() > instant and not self._is_ready(instant)):
            return
        count = bisect_right(self._due_at, instant, key=lambda each: each[0])
        due, self._due_at = self._due_at[:count], self._due_at[count:]
        self._new.update((each, self._early.pop(each)[1]) for _, each in due)

    def due_at(self) -> float | None:
        """Find the instant at which the next early hints are to be claimed. None without one."""
        return self._claim_at() if self._due_at else None

    def _claim_at(self) -> float:
        return policy.claim_at([at for at, _ in self._due_at[: policy.ENOUGH]])

    def _is_ready(self, instant: float) -> bool:
        """Return True if a hint may be tried now that is not an early one."""
        if self._new or self._tried:
            return True
        return any(self._ready_at(each) <= instant for each in self._hints if each.id in self._until)

    def _wait_until(self, attempt_id: UUID, at: float, until: float) -> None:
        self._wait_no_longer(attempt_id)
        self._early[attempt_id] = (at, until)
        insort(self._due_at, (at, attempt_id))

    def _wait_no_longer(self, attempt_id: UUID) -> None:
        former = self._early.pop(attempt_id, None)
        if former is not None:
            del self._due_at[bisect_left(self._due_at, (former[0], attempt_id))]

    def wait_until_due(self, due_at: Mapping[UUID, float]) -> None:
        """Keep ids that a claim has found not due yet. Otherwise they would be lost for the rest of their release."""
        for each, at in due_at.items():
            until = self._tried.pop(each, None) or self._until.pop(each, None)
            if until is not None and at < until:
                self._wait_until(each, at, until)

    def untried(self, limit: int) -> list[UUID]:
        """Take all ids once, without their turns, if there are no others and at most `limit`.

        They need no order, which would cost a statement. Those that a claim leaves get their turns.
        """
        if self._until or self._tried or len(self._new) > limit:
            return []
        self._tried, self._new = self._new, {}
        return list(self._tried)

    def without_a_turn(self) -> Sequence[UUID]:
        """List the ids that `give_turns` has not received yet."""
        return list(self._tried | self._new)

    def give_turns(
        self,
        ids: Collection[UUID],
        pending: Iterable[Hinted],
        last_start_of: Callable[[UUID], float] = lambda _: 0.0,
        instant: float = 0.0,
    ) -> None:
        """Sort the `pending` attempts into the order of turns. The other `ids` are not pending and are dropped.

        `last_start_of` returns when a company's last call started, as far as this worker knows. At a low pace a claim
        takes one attempt, and the company that is due earliest would take each of them. Hints whose release has ended
        by `instant` are dropped: they cannot be claimed, and would take the first turns of their company.
        """
        self._end_releases(instant)
        known = self._tried | self._new
        until = {each: known[each] for each in ids if each in known}
        for each in until:
            self._tried.pop(each, None)
            self._new.pop(each, None)
        fresh = {each.id: each for each in pending if each.id in until}
        self._until.update({each: until[each] for each in fresh})
        former = [each for each in self._hints if each.id in self._until and each.id not in fresh]
        self._hints = in_turns([*former, *fresh.values()], last_start_of)

    def next(self, instant: float, limit: int, limit_of: Callable[[UUID], int] | None = None) -> list[UUID]:
        """Choose up to `limit` ids that may be tried now, in turn. Drops hints whose release has ended.

        `limit_of` returns the limit of one company. Hints behind the last returned one are not read, because a worker
        may hold thousands.
        """
        self._new = {each: until for each, until in self._new.items() if until > instant}
        self._tried = {each: until for each, until in self._tried.items() if until > instant}
        self._not_before = {each: at for each, at in self._not_before.items() if at > instant}
        if len(self._hints) > 2 * len(self._until):
            self._hints = [each for each in self._hints if each.id in self._until]
        ids: list[UUID] = []
        of_companies: Counter[UUID] = Counter()
        for each in self._hints:
            if len(ids) >= limit:
                break
            if self._until.get(each.id, instant) <= instant:
                self._until.pop(each.id, None)
            elif self._ready_at(each) <= instant and (
                limit_of is None or of_companies[each.company_id] < limit_of(each.company_id)
            ):
                ids.append(each.id)
                of_companies[each.company_id] += 1
        return ids

    def drop(self, ids: Iterable[UUID]) -> None:
        for each in ids:
            self._until.pop(each, None)
            self._tried.pop(each, None)

    def clear(self) -> None:
        """Drop all hints except early ones, which no claim has tried yet."""
        self._hints, self._until, self._not_before, self._new, self._tried = [], {}, {}, {}, {}

    def hold(self, attempts_or_companies: Iterable[UUID], until: float) -> None:
        """Hold back these attempts, or all attempts of these companies, until then."""
        self._not_before.update(dict.fromkeys(attempts_or_companies, until))

    def ready_at(self) -> float | None:
        """Find the instant at which the next hint may be tried. None without hints."""
        return min((self._ready_at(each) for each in self._hints if each.id in self._until), default=None)

    def _ready_at(self, hinted: Hinted) -> float:
        return max(self._not_before.get(hinted.id, 0.0), self._not_before.get(hinted.company_id, 0.0))
