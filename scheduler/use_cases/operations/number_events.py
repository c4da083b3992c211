"""Number events: give committed partner events their places in the order and their sequences, and make deliveries.

One transaction at a time does it. Another one that tries at the same time leaves without a wait.
"""

from dataclasses import replace

from scheduler.clock import Now
from scheduler.domain.webhook import EVENTS_A_BATCH
from scheduler.failpoints import failpoint
from scheduler.lifecycle import partner_events
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION
from scheduler.persistence.database import BATCH_LOCK_S, Database
from scheduler.persistence.events import Numbered
from scheduler.persistence.webhook_deliveries import Work
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints, take_turn


class NumberEvents:
    def __init__(self, database: Database, hints: Hints, now: Now) -> None:
        self._database = database
        self._hints = hints
        self._now = now

    def batch(self) -> None:
        """Number one batch if there is an event to number, and leave more to a worker. For the clock, at each tick.

        Also send a hint for deliveries that are due. Raises DatabaseAway.
        """
        with self._database.statement() as stores:
            work = stores.webhook_deliveries.work(self._now())
        if work.is_one_due:
            self._hints.send(tasks.DELIVER)
        if work.is_one_unnumbered and self._is_full_batch():
            self._hints.send(tasks.NUMBER_EVENTS)

    def all(self) -> None:
        """Report owed refusals and number all events, for one turn. Raises DatabaseAway."""
        self._report_owed()  # guard: owed_refusal
        if take_turn(self._is_full_batch):
            self._hints.send(tasks.NUMBER_EVENTS)

    def _report_owed(self) -> None:
        """Report refusals that no request has returned, for example because its process died."""
        with self._database.transaction(lock_s=BATCH_LOCK_S) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            stores.events.note(
                partner_events.of_result(each.id, each.company_id, each.interview_id, each.code, now)
                for each in stores.inbox.take_owed(now, AT_MOST_A_TRANSACTION)
            )

    def look(self) -> Work:
        """Number all events, for one turn, and return what can be sent. For the process that sends them.

        Raises DatabaseAway.
        """
        with self._database.statement() as stores:
            work = stores.webhook_deliveries.work(self._now())
        if not (work.is_one_unnumbered and work.is_one_active):
            return work
        take_turn(lambda: _is_full(self._numbered()))
        return replace(work, is_one_due=True)

    def _is_full_batch(self) -> bool:
        numbered = self._numbered()
        if numbered is not None and numbered.deliveries:
            self._hints.send(tasks.DELIVER)
        return _is_full(numbered)

    def _numbered(self) -> Numbered | None:
        # No other process can number these events, so a wrong clock is corrected. Short waits, because the clock has
        # calls to release.
        with self._database.transaction(corrected=True, lock_s=BATCH_LOCK_S) as stores:
            numbered = stores.events.number(EVENTS_A_BATCH, stores.instant(self._now))
            failpoint("events.numbering")
        return numbered


def _is_full(numbered: Numbered | None) -> bool:
    return numbered is not None and numbered.events == EVENTS_A_BATCH
