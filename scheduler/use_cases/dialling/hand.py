"""The hints that a dial worker holds in memory, in the order in which their attempts are claimed.

A claim passes only as many ids to the database as it may claim, so that the order is decided here: the companies take
turns (`capacity.in_turns`). All instants are seconds on the monotonic clock.
"""

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from scheduler.lifecycle.capacity import in_turns
from scheduler.lifecycle.policy import RELEASE_SPAN
from scheduler.use_cases.dial import Hinted


class Hand:
    def __init__(self) -> None:
        self._hints: list[Hinted] = []
        self._until: dict[UUID, float] = {}
        self._not_before: dict[UUID, float] = {}
        """Of attempts and of companies."""
        self._new: dict[UUID, float] = {}

    def __bool__(self) -> bool:
        return bool(self._until or self._new)

    def take(self, ids: Iterable[UUID], instant: float) -> None:
        """Keep these for as long as their release lasts. Their turn is not known yet."""
        self._new.update(dict.fromkeys(ids, instant + RELEASE_SPAN.total_seconds()))

    def without_a_turn(self) -> Sequence[UUID]:
        """Ids that `give_turns` has not been told about."""
        return list(self._new)

    def give_turns(self, asked: Collection[UUID], found: Iterable[Hinted]) -> None:
        """Put `found` in their turns. The rest of `asked` is not pending, and is dropped."""
        until = {each: self._new.pop(each) for each in asked if each in self._new}
        fresh = {each.id: each for each in found if each.id in until}
        self._until.update({each: until[each] for each in fresh})
        kept = [each for each in self._hints if each.id in self._until and each.id not in fresh]
        self._hints = in_turns([*kept, *fresh.values()])

    def next(self, instant: float, limit: int) -> list[UUID]:
        """Up to `limit` ids that may be tried now, in their turns. Hints whose release is over are dropped."""
        self._hints = [each for each in self._hints if self._until.get(each.id, 0.0) > instant]
        self._until = {each.id: self._until[each.id] for each in self._hints}
        self._new = {each: until for each, until in self._new.items() if until > instant}
        self._not_before = {each: at for each, at in self._not_before.items() if at > instant}
        ready = (each.id for each in self._hints if self._ready_at(each) <= instant)
        return [each for _, each in zip(range(limit), ready, strict=False)]

    def drop(self, ids: Iterable[UUID]) -> None:
        for each in ids:
            self._until.pop(each, None)

    def clear(self) -> None:
        self._hints, self._until, self._not_before, self._new = [], {}, {}, {}

    def hold(self, attempts_or_companies: Iterable[UUID], until: float) -> None:
        """Do not try these attempts, or any of these companies, before `until`."""
        self._not_before.update(dict.fromkeys(attempts_or_companies, until))

    def ready_at(self) -> float | None:
        """When the next hint may be tried; None when there is none."""
        return min((self._ready_at(each) for each in self._hints if each.id in self._until), default=None)

    def _ready_at(self, hinted: Hinted) -> float:
        return max(self._not_before.get(hinted.id, 0.0), self._not_before.get(hinted.company_id, 0.0))
