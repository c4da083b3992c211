"""Alarm posts: each new alarm is posted to the operator's webhook, and again with a back-off until it is accepted."""

import threading
from datetime import timedelta

from scheduler.alarm_receiver import DEADLINE_S, AlarmReceiver, NotPosted
from scheduler.clock import Now, monotonic
from scheduler.domain.alarm import KeptAlarm
from scheduler.logs import log
from scheduler.persistence.database import Database
from scheduler.rules.alarm_posting import try_again_at

_log = log(__name__)
_HOLD = timedelta(seconds=6 * DEADLINE_S)
"""Time for one try. After a crash within it the alarm is posted again."""
_MAX_TURN_S = 5.0
"""Further alarms wait for the next sweep, so that other tasks of the queue get a turn."""


class AlarmPosts:
    """Posts open alarms. Any number of processes may run it at once, with one thread in each.

    Without a receiver nothing is posted, and alarms wait: an operator who sets one later gets those that are open.
    """

    def __init__(self, database: Database, receiver: AlarmReceiver | None, now: Now) -> None:
        self._database = database
        self._receiver = receiver
        self._now = now
        self._posting = threading.Lock()

    def send(self) -> None:
        """Post alarms that are due until none is left, or the receiver accepts none. Raises DatabaseAway."""
        if self._receiver is None or not self._posting.acquire(blocking=False):
            return
        try:
            until = monotonic() + _MAX_TURN_S
            while (alarm := self._take()) is not None and self._post(self._receiver, alarm) and monotonic() < until:
                pass
        finally:
            self._posting.release()

    def _take(self) -> KeptAlarm | None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            return stores.alarms.take_to_post(now, now + _HOLD)

    def _post(self, receiver: AlarmReceiver, alarm: KeptAlarm) -> bool:
        """Post one alarm and record the outcome. False: it was not accepted."""
        try:
            receiver.post(alarm)
        except NotPosted as error:
            self._not_posted(alarm, error)
            return False
        with self._database.transaction() as stores:
            stores.alarms.posted(alarm.id, stores.instant(self._now))
        return True

    def _not_posted(self, alarm: KeptAlarm, error: NotPosted) -> None:
        with self._database.transaction() as stores:
            again_at = try_again_at(alarm.tries, stores.instant(self._now))
            stores.alarms.not_posted(alarm.id, again_at)
        # No alarm: it could not be posted either.
        _log.warning(
            "alarm_given_up: an alarm was not posted and will not be retried"
            if again_at is None
            else "alarm_not_posted: an alarm was not posted and will be retried",
            status=error.status,
            count=alarm.tries,
            until=None if again_at is None else again_at.isoformat(),
        )
