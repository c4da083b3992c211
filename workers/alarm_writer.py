"""A background writer of alarms: every log line with an alarm becomes a row, without slowing the code that logs it."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from scheduler.clock import monotonic
from scheduler.domain.alarm import AlarmKey, key_of
from scheduler.logs import log, watch_alarms
from scheduler.persistence.errors import DatabaseAway, WrongDatabase
from scheduler.process import QUIET_DATABASE_S, watching
from scheduler.use_cases.shared.alarms import Seen

_log = log(__name__)
_MOST_KEYS = 1000
"""Different alarms that wait while the database is away. Further ones are counted by their kind alone."""
_PAUSE_S = 1.0
"""Shortest time between two transactions. Repetitions within it are gathered."""
_LONGEST_PAUSE_S = 30.0
_STOP_S = 3.0


class _Store(Protocol):
    def store(self, seen: Mapping[AlarmKey, Seen]) -> None: ...

    def close(self) -> None: ...


class AlarmWriter:
    """Stores the alarms of this process. Start it in the process that logs, after any fork.

    A caller only adds to a dictionary. Alarms wait in memory while the database is away, and each kind keeps its count
    however many there are. Alarms that the writer's own thread logs are not stored.
    """

    def __init__(self, store: _Store) -> None:
        self._store = store
        self._waiting: dict[AlarmKey, Seen] = {}
        self._lock = threading.Lock()
        self._raised = threading.Event()
        self._stopping = threading.Event()
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)

    def start(self) -> None:
        watch_alarms(self.take)
        self._thread.start()

    def stop(self) -> None:
        """Store the waiting alarms and stop, within 3 s."""
        watch_alarms(None)
        self._stopping.set()
        self._raised.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def take(self, kind: str, fields: Mapping[str, object]) -> None:
        """Store an alarm soon. Never waits for the database."""
        if threading.current_thread() is self._thread:
            return
        instant = monotonic()
        self._add({key_of(kind, fields): Seen(count=1, first=instant, last=instant)})
        self._raised.set()

    def _add(self, seen: Mapping[AlarmKey, Seen]) -> None:
        with self._lock:
            for each, occurrences in seen.items():
                is_known = each in self._waiting or len(self._waiting) < _MOST_KEYS
                key = each if is_known else AlarmKey(kind=each.kind)
                before = self._waiting.get(key)
                self._waiting[key] = occurrences if before is None else before.and_also(occurrences)

    def _run(self) -> None:
        pause_s = _PAUSE_S
        while not self._stopping.is_set():
            self._raised.wait()
            self._raised.clear()
            is_done = False
            with suppress(Exception):  # an unexpected error must not end this thread: the next alarm would be lost
                is_done = self._write()
            pause_s = _PAUSE_S if is_done else min(2 * pause_s, _LONGEST_PAUSE_S)
            self._stopping.wait(pause_s)
        self._write()

    def _write(self) -> bool:
        """Store what waits. Return False if it must be tried again."""
        with self._lock:
            seen, self._waiting = self._waiting, {}
        if not seen:
            return True
        is_stored = False
        try:
            with watching("alarms", QUIET_DATABASE_S):
                self._store.store(seen)
            is_stored = True
        except (DatabaseAway, WrongDatabase):
            return False
        finally:
            if not is_stored:
                self._add(seen)
                self._raised.set()
                self._report_failure()
        self._store.close()
        self._is_away = False
        return True

    def _report_failure(self) -> None:
        if not self._is_away:
            _log.warning(
                "alarms_not_stored: alarms could not be stored; they wait in memory and are stored later",
                exc_info=True,
            )
        self._is_away = True
