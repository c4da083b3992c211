"""Ids of hints that arrive while earlier ones are being processed. They are processed together."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from uuid import UUID

from scheduler.watchdog import made_progress

_MOST_BATCHES_WAITING = 4
_LOOKS_AGAIN_S = 1.0
_HELD_UP_S = 0.1
"""A batch that takes longer may wait for a lock. Usual ones take a tenth of it."""


class GatheredIds:
    """Gathers the ids of all threads of a process.

    A thread whose ids another thread will take returns at once. So batches grow only while the process is busy, and no
    id waits for a batch to fill. Ids are lost with the process, like hints: the clock sends them again.

    `at_a_time`: how many threads may call `process`, with at most `largest` ids each. A further one begins only when no
    batch has begun for `held_up_s`: two small batches cost twice as much as one. While four batches wait, a thread with
    further ids waits too, so that other processes receive the next messages.
    """

    def __init__(
        self, process: Callable[[list[UUID]], None], *, at_a_time: int, largest: int, held_up_s: float = _HELD_UP_S
    ) -> None:
        self._process = process
        self._at_a_time = at_a_time
        self._largest = largest
        self._held_up_s = held_up_s
        self._changed = threading.Condition()
        self._waiting: dict[UUID, None] = {}
        self._running = 0
        self._begun = 0
        """The number of batches so far."""
        self._is_one_patient = False
        """True while a thread waits to learn if the running ones are held up."""

    def take(self, ids: Iterable[UUID]) -> None:
        """Process these ids and all others that wait, or leave them to another thread. Raises errors of `process`."""
        with self._changed:
            while not self._changed.wait_for(self._has_room, _LOOKS_AGAIN_S):
                made_progress()  # the threads for which this one waits are watched themselves
            self._waiting.update(dict.fromkeys(ids))
            if self._running == self._at_a_time or self._is_one_patient:
                return
            self._be_patient()
            if not self._waiting:
                return
            self._running += 1
        while batch := self._next():
            try:
                self._process(batch)
            except BaseException:
                self._end()
                raise

    def _has_room(self) -> bool:
        is_one_needed = self._running + self._is_one_patient < self._at_a_time
        return is_one_needed or len(self._waiting) < _MOST_BATCHES_WAITING * self._largest

    def _be_patient(self) -> None:
        """Wait until all ids are taken, no thread runs, or the running ones are held up."""
        self._is_one_patient, is_held_up = True, False
        try:
            while self._waiting and self._running and not is_held_up:
                begun = self._begun
                is_held_up = not self._changed.wait_for(partial(self._has_gone_on, begun), self._held_up_s)
        finally:
            self._is_one_patient = False

    def _has_gone_on(self, begun: int) -> bool:
        return self._begun != begun or not self._running

    def _next(self) -> list[UUID]:
        """Return the next batch. The thread that finds none has ended: a later id starts another one."""
        with self._changed:
            batch = list(islice(self._waiting, self._largest))
            for each in batch:
                del self._waiting[each]
            if batch:
                self._begun += 1
                self._changed.notify_all()
            else:
                self._end()
            return batch

    def _end(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()
