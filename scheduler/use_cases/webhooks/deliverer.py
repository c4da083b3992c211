"""Deliverer: the loop of the process `webhooks`. One thread claims and records, the others send.

A receiver can hold a sending thread for 15 s and nothing else. The loop never waits for one.
"""

import queue
import threading
from collections.abc import Callable
from uuid import UUID

from scheduler.domain.webhook import ClaimedDelivery
from scheduler.logs import log
from scheduler.persistence.errors import ClockWrong, DatabaseAway, LockTaken
from scheduler.persistence.webhook_deliveries import Work
from scheduler.process import end_process, watching
from scheduler.rules.webhooks import room
from scheduler.use_cases.webhooks.deliver import Deliver, Result

_log = log(__name__)
THREADS = 16
LOOK_EVERY_S = 0.25
"""The most time between a change and the number of its event, on a machine that keeps up."""
LOOK_WITHOUT_WEBHOOKS_EVERY_S = 5.0
"""While no webhook may receive an event. The hint that one was created or enabled may be lost."""
_RECORD_AGAIN_AFTER_S = 0.5
_QUIET_S = 90
"""Seconds without a step in a try. The system's resolver may wait for a minute before it gives a name up."""
_DRAINS_WITHIN_S = 25.0
"""Longer than a try takes. What is not recorded by then is sent again after its lease."""


class Deliverer:
    """Sends deliveries that are due, as many at once as it has threads, until it is stopped."""

    def __init__(
        self,
        deliver: Deliver,
        *,
        look: Callable[[], Work] | None = None,
        threads: int = THREADS,
        worked: Callable[[], None] = lambda: None,
        on_failure: Callable[[], None] = end_process,
    ) -> None:
        self._deliver = deliver
        self._worked = worked
        """Called after each turn of the loop that has succeeded."""
        self._on_failure = on_failure
        self._look = look
        """Numbers new events. Hints of the clock come once a second, which would be late for a partner."""
        self._looks_again_after_s: float | None = LOOK_EVERY_S if look is not None else None
        self._count = threads
        self._to_send: queue.SimpleQueue[ClaimedDelivery | None] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        """Results, and None for a hint or the end."""
        self._sending: dict[UUID, ClaimedDelivery] = {}
        """Messages in flight, by claim."""
        self._results: list[Result] = []
        self._is_stopping = threading.Event()
        self._loop = threading.Thread(target=self._run_or_end, name="webhooks", daemon=True)

    def start(self) -> None:
        for place in range(self._count):
            threading.Thread(target=self._send, name=f"webhook {place}", daemon=True).start()
        self._loop.start()
        self.wake()

    def wake(self) -> None:
        """Look for deliveries that are due. Never blocks."""
        self._news.put(None)

    def stop_claiming(self) -> None:
        self._is_stopping.set()
        self.wake()

    def stop(self) -> None:
        """Wait until the messages in flight are recorded, at most 25 s."""
        self.stop_claiming()
        if self._loop.ident is not None:
            self._loop.join(_DRAINS_WITHIN_S)
        for _ in range(self._count):
            self._to_send.put(None)

    def _send(self) -> None:
        while (claimed := self._to_send.get()) is not None:
            with watching("webhook", _QUIET_S):
                self._news.put(self._deliver.send(claimed))

    def _run_or_end(self) -> None:
        try:
            self._run()
        except BaseException:  # noqa: BLE001 - after any error, a worker without its loop delivers nothing
            _log.exception("deliverer_failed: the loop of deliveries ended with an error, so the worker exits")
            self._on_failure()

    def _run(self) -> None:
        while not (self._is_stopping.is_set() and not self._sending and not self._results):
            is_woken = self._take_news()
            self._work(is_woken=is_woken)

    def _work(self, *, is_woken: bool) -> None:
        with watching("webhooks"):
            try:
                self._record()
                if not self._is_stopping.is_set() and (self._is_one_due() or is_woken):
                    self._claim()
                self._worked()
            except ClockWrong:
                _log.debug("clock_wrong: no delivery was claimed; the clock sends the hint again")
            except DatabaseAway:
                _log.warning("database_away: deliveries could not be claimed or recorded; they are tried again")
            except Exception:  # noqa: BLE001 - the loop goes on with the next hint
                _log.exception("deliveries_failed: claiming or recording deliveries failed; the next hint retries")

    def _is_one_due(self) -> bool:
        if self._look is None:
            return False
        work = self._look()
        self._looks_again_after_s = LOOK_EVERY_S if work.is_one_active else LOOK_WITHOUT_WEBHOOKS_EVERY_S
        return work.is_one_due

    def _take_news(self) -> bool:
        """Wait for a result or a hint, and take all that are there. Return False if nothing is there yet."""
        is_woken = False
        try:
            news = self._news.get(timeout=_RECORD_AGAIN_AFTER_S if self._results else self._looks_again_after_s)
            while True:
                is_woken = True
                if news is not None:
                    self._results.append(news)
                    del self._sending[news.claimed.claim]
                news = self._news.get_nowait()
        except queue.Empty:
            return is_woken

    def _record(self) -> None:
        """Record all results, and keep the ones that the database does not take now."""
        if self._results:
            alone = self._deliver.record(self._results)
            self._results = list(alone)
            for each in alone:
                if self._record_alone(each):
                    self._results.remove(each)

    def _record_alone(self, result: Result) -> bool:
        """Return False if the result is kept, because another transaction has locked its rows."""
        try:
            return not self._deliver.record([result])
        except LockTaken:
            return False
        except DatabaseAway:
            raise
        except Exception:  # noqa: BLE001 - the others are recorded, and this one is sent again
            _log.exception(
                "result_not_recorded: the result of a delivery could not be recorded; it is sent again",
                event_id=str(result.claimed.delivery.event_id),
            )
            return True

    def _claim(self) -> None:
        sending = [(each.owner, each.is_slow) for each in self._sending.values()]
        found = room(self._count, sending, unrecorded=len(self._results))
        if found.free > 0:
            for each in self._deliver.claim(found, on_backlog=self.wake):
                self._sending[each.claim] = each
                self._to_send.put(each)
