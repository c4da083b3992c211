"""Erase people: cancel the interviews of erased candidates in batches, when they are too many for one request.

Each batch is one transaction, and the interviews that are left are the progress: a worker can crash anywhere, or two
can run.
"""

import threading
from datetime import timedelta
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.failpoints import failpoint
from scheduler.logs import log, place_of
from scheduler.persistence.database import BATCH_LOCK_S
from scheduler.persistence.errors import DatabaseAway, LockTaken, StatementFailed
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.erased_people import BATCH, cancel_interviews, note_rest
from scheduler.use_cases.shared.hints import Hints

_log = log(__name__)
_MAX_TURN_S = 2.0
"""Longer work queues up again, so that other tasks of the queue get a turn."""
_PUT_OFF = timedelta(seconds=5)
"""Delay before interviews are tried again that other transactions held."""
_ACTOR = "erase"


class ErasePeople:
    """`batch` is the number of interviews in one transaction."""

    def __init__(self, context: Context, hints: Hints, *, batch: int = BATCH) -> None:
        self._database = context.database
        self._hints = hints
        self._now = context.now
        self._batch = batch
        self._has_turn = threading.Lock()

    def turn(self) -> None:
        """Cancel interviews of erased people for one turn, in turns between people. Raises DatabaseAway.

        In each process only one thread works, because a second one would delay e-mail and changed settings.
        """
        if not self._has_turn.acquire(blocking=False):
            return
        try:
            until = monotonic() + _MAX_TURN_S
            while self._cancel_batch():
                failpoint("leave.batch")
                if monotonic() >= until:
                    self._hints.send(tasks.ERASE_PEOPLE)
                    return
        finally:
            self._has_turn.release()

    def _cancel_batch(self) -> bool:
        """Cancel one batch of the person who has waited longest. False: no person waits for this worker.

        A person whose rows cannot be locked or written is put off, so that others are not kept waiting.
        """
        candidate_id = None
        try:
            with self._database.transaction(lock_s=BATCH_LOCK_S) as stores:
                now = stores.instant(self._now)
                candidate_id = stores.candidates.lock_leaving(now)
                if candidate_id is None:
                    return False
                is_done = cancel_interviews(stores, candidate_id, self._batch, _ACTOR, now)
                note_rest(stores, candidate_id, now if is_done else now + _PUT_OFF)
        except Exception as error:
            is_away = isinstance(error, DatabaseAway) and not isinstance(error, LockTaken | StatementFailed)
            if candidate_id is None or is_away:
                raise
            self._put_off(candidate_id, error)
        return True

    def _put_off(self, candidate_id: UUID, error: Exception) -> None:
        write = _log.warning if isinstance(error, DatabaseAway) else _log.error
        write(
            "erased_person_put_off: interviews could not be cancelled now",
            table="candidates",
            row_id=str(candidate_id),
            cause=place_of(error),
        )
        with self._database.transaction() as stores:
            stores.candidates.note_leaving(candidate_id, stores.instant(self._now) + _PUT_OFF)
