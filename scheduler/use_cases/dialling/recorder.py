"""Recorder of a dial worker: writes carrier answers in groups until all are written."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CarrierAnswer
from scheduler.lifecycle.capacity import RecordSize
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway, LockTaken
from scheduler.use_cases.dialling.claims import SomeHeld

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
        """Groups that are written by themselves, because they failed in a larger one."""
        self._held: list[Answer] = []
        """Answers that are tried again, whose rows were locked."""
        self._waiting = 0
        """The number of answers with locked rows that are not tried again yet."""
        self._writing: dict[asyncio.Task[None], int] = {}
        self._size = RecordSize()
        self._wake = asyncio.Event()
        self._conflicts = 0

    def __len__(self) -> int:
        """Return the number of answers that are not written yet."""
        return self.unwritten + len(self._held) + self._waiting

    @property
    def unwritten(self) -> int:
        """Return the number of answers that are not written yet, without those whose rows are locked.

        A claim has room for fewer calls while answers wait. Locked rows of one company must not take it from others.
        """
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
        if not group and self._again:
            return self._again.pop(0)
        if not group:
            group, self._held = self._held[:size], self._held[size:]
        return group

    def _written(self, task: asyncio.Task[None]) -> None:
        del self._writing[task]
        self.wake()

    async def _write_group(self, group: list[Answer]) -> None:
        """Write a group in one call. Answers with locked rows are tried again later, and the others are written."""
        begun = monotonic()
        try:
            await self._write(group)
        except SomeHeld as held:
            self._put_off([each for each in group if each[0].id in held.attempt_ids])
        except LockTaken:
            # A row that is not skipped, such as a line. Its company's answers must not keep those of others waiting.
            self._put_off_owners(group)
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

    def _put_off(self, held: list[Answer]) -> None:
        """Write answers with locked rows later, and by themselves. They take no place of other groups meanwhile."""
        self._conflicts += 1
        _log.info("record_conflict: another transaction held rows", count=self._conflicts)
        self._waiting += len(held)
        asyncio.get_running_loop().call_later(_RETRY_AFTER, self._write_again, held)

    def _write_again(self, held: list[Answer]) -> None:
        self._waiting -= len(held)
        self._held += held
        self.wake()

    def _put_off_owners(self, group: list[Answer]) -> None:
        by_company: dict[UUID, list[Answer]] = {}
        for each in group:
            by_company.setdefault(each[0].company_id, []).append(each)
        if len(by_company) == 1:
            self._put_off(group)
        else:
            self._again += by_company.values()
