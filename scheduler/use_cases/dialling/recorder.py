"""Recorder of a dial worker: writes carrier answers in groups until all are written."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CarrierAnswer
from scheduler.lifecycle.capacity import RecordSize
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway, LockTaken

_log = log(__name__)
_FLUSH_EVERY = 0.02
_RETRY_AFTER = 0.5
_MAX_TRANSACTIONS = 4
"""Concurrent transactions. With a slow network they wait for round trips, not for each other."""

Answer = tuple[Attempt, CarrierAnswer]
Write = Callable[[Sequence[Answer]], Awaitable[None]]
Forget = Callable[[Answer], None]


class Recorder:
    """Collects answers for 20 ms and passes groups of them to `write`. `forget` receives each answer it gives up."""

    def __init__(self, write: Write, forget: Forget) -> None:
        self._write = write
        self._forget = forget
        self._answers: list[Answer] = []
        self._again: list[list[Answer]] = []
        self._writing: dict[asyncio.Task[None], int] = {}
        self._size = RecordSize()
        self._wake = asyncio.Event()
        self._conflicts = 0

    def __len__(self) -> int:
        """Return the number of answers that are not written yet."""
        return len(self._answers) + sum(map(len, self._again)) + sum(self._writing.values())

    def add(self, *answers: Answer) -> None:
        self._answers.extend(answers)
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Write answers until `is_over` returns True and none is left. After `is_over` changes, call `wake`."""
        while not (is_over() and not len(self)):
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_FLUSH_EVERY)
            while len(self._writing) < _MAX_TRANSACTIONS and (group := self._next_group()):
                task = asyncio.create_task(self._write_group(group))
                self._writing[task] = len(group)
                task.add_done_callback(self._written)

    def _next_group(self) -> list[Answer]:
        size = self._size.size
        group, self._answers = self._answers[:size], self._answers[size:]
        return group or (self._again.pop(0) if self._again else [])

    def _written(self, task: asyncio.Task[None]) -> None:
        del self._writing[task]
        self.wake()

    async def _write_group(self, group: list[Answer]) -> None:
        """Write a group in one call. After a failure its answers are tried again in smaller groups."""
        begun = monotonic()
        try:
            await self._write(group)
        except LockTaken:
            # Another transaction holds one of the rows. Halve the group so that the others do not wait for it.
            self._conflicts += 1
            _log.info("record_conflict: another transaction held a row", count=self._conflicts)
            self._again += _halves(group)
        except DatabaseAway:
            _log.warning("record_delayed: the database is unavailable, so the answers are retried", count=len(group))
            await asyncio.sleep(_RETRY_AFTER)
            self._again.append(group)
        except Exception:  # noqa: BLE001 - the loop goes on for the other answers
            if len(group) > 1:
                self._again += [[each] for each in group]
                return
            _log.exception(
                "record_failed: an unexpected error stopped a record, and the attempt will be settled",
                attempt_id=str(group[0][0].id),
            )
            self._forget(group[0])
        else:
            self._size.took(len(group), monotonic() - begun)


def _halves(group: list[Answer]) -> list[list[Answer]]:
    middle = (len(group) + 1) // 2
    return [half for half in (group[:middle], group[middle:]) if half]
