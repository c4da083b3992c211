"""Times of the POSTs of a dial worker: those in flight, and those whose answers are not recorded yet."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.rules.tallies import Sent

_UNANSWERED_CALLS = 2
_UNANSWERED_FOR_S = 1.0


class PostTimes:
    def __init__(self, ticks: Callable[[], float] = monotonic) -> None:
        self._ticks = ticks
        self._begun_at: dict[UUID, float] = {}
        self._answered_at = 0.0
        self._left_at: dict[UUID, float] = {}
        self._sent: dict[UUID, Sent] = {}

    @contextmanager
    def in_flight(self, attempt_id: UUID) -> Iterator[None]:
        """Note that the POST of this block is in flight."""
        self._begun_at[attempt_id] = self._ticks()
        try:
            yield
        finally:
            del self._begun_at[attempt_id]
            left_at = self._left_at.pop(attempt_id, None)
            if left_at is not None:
                self._sent[attempt_id] = replace(self._sent[attempt_id], answered_after=self._ticks() - left_at)

    def left(self, attempt_id: UUID, lateness: timedelta) -> None:
        """Note that the first byte of a POST in flight is sent."""
        self._left_at[attempt_id] = self._ticks()
        self._sent[attempt_id] = Sent(lateness=lateness, answered_after=0.0)

    def answered(self) -> None:
        """Note that the carrier has answered a POST."""
        self._answered_at = self._ticks()

    def are_unanswered(self) -> bool:
        """Return True if at least two POSTs are in flight, the first for over a second, and none was answered since."""
        unanswered = [begun for begun in self._begun_at.values() if begun > self._answered_at]
        return len(unanswered) >= _UNANSWERED_CALLS and min(unanswered) < self._ticks() - _UNANSWERED_FOR_S

    def of(self, attempt_ids: Iterable[UUID]) -> dict[UUID, Sent]:
        """Return the times of those attempts whose POST was sent."""
        return {each: self._sent[each] for each in attempt_ids if each in self._sent}

    def drop(self, attempt_ids: Iterable[UUID]) -> None:
        for each in attempt_ids:
            self._sent.pop(each, None)
