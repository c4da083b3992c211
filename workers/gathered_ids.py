"""Ids of hints that arrive while earlier ones are being processed. They are processed together."""

import threading
from collections.abc import Callable, Iterable
from itertools import islice
from uuid import UUID

_MOST_BATCHES_WAITING = 4


class GatheredIds:
    """Gathers the ids of all threads of a process.

    A thread whose ids another thread will take returns at once. So batches grow only while the process is busy, and no
    id waits for a batch to fill. Ids are lost with the process, like hints: the clock sends them again.

    `at_a_time`: how many threads may call `process`, with at most `largest` ids each. While four such batches wait, a
    thread with further ids waits too, so that other processes receive the next messages.
    """

    def __init__(self, process: Callable[[list[UUID]], None], *, at_a_time: int, largest: int) -> None:
        self._process = process
        self._at_a_time = at_a_time
        self._largest = largest
        self._changed = threading.Condition()
        self._waiting: dict[UUID, None] = {}
        self._running = 0

    def take(self, ids: Iterable[UUID]) -> None:
        """Process these ids and all others that wait, or leave them to another thread. Raises errors of `process`."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._waiting.update(dict.fromkeys(ids))
            if self._running == self._at_a_time:
                return
            self._running += 1
        while batch := self._next():
            try:
                self._process(batch)
            except BaseException:
                self._end()
                raise

    def _has_room(self) -> bool:
        return self._running < self._at_a_time or len(self._waiting) < _MOST_BATCHES_WAITING * self._largest

    def _next(self) -> list[UUID]:
        """Return the next batch. The thread that finds none has ended: a later id starts another one."""
        with self._changed:
            batch = list(islice(self._waiting, self._largest))
            for each in batch:
                del self._waiting[each]
            if batch:
                self._changed.notify_all()
            else:
                self._end()
            return batch

    def _end(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()
