"""The clock: Celery Beat with a scheduler that reads PostgreSQL. Two may run, and only one of them releases a row."""

from contextlib import suppress
from typing import Any

import psycopg
from celery.beat import Scheduler
from psycopg.conninfo import make_conninfo
from redis import RedisError

from scheduler import assembly
from scheduler.clock import monotonic
from scheduler.lifecycle.policy import RELEASE_AHEAD
from scheduler.logs import log
from scheduler.persistence import sessions
from scheduler.persistence.database import FINDS_OUT
from scheduler.persistence.errors import ClockWrong, DatabaseAway
from scheduler.persistence.sessions import BoundedConnection
from scheduler.persistence.stores import DUE_CHANNEL
from scheduler.process import QUIET_DATABASE_S, Watchdog, raise_limit, watching
from scheduler.settings import Settings, settings
from scheduler.use_cases.release import Round
from workers.alarm_writer import AlarmWriter
from workers.app import app, begin_proof, end_proof, note_work, starting
from workers.hints import RedisHintPublisher
from workers.liveness import ANNOUNCE_EVERY_S, Announcement, Presence

_log = log(__name__)
_TICK_S = 1.0
_MIN_WAIT_S = 0.005
_RESEND_EVERY_S = 1.0
_PURGE_EVERY = 6 * 3600.0
"""Old rows are deleted on the same day. A restart of the clock only brings the next purge forward."""


class Clock(Scheduler):  # type: ignore[misc]
    """Releases due attempts and sends hints again for work that no worker has finished.

    It waits inside `tick`, on LISTEN, because Beat's sleep between ticks cannot be interrupted. No error leaves `tick`,
    because it would end Beat. Beat's own schedule is not used.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Beat's own
        self._listening: psycopg.Connection[Any] | None = None
        self._hints: RedisHintPublisher | None = None
        self._alarms: AlarmWriter | None = None
        self._next_sweep = 0.0
        self._next_purge = 0.0
        self._next_announcement = 0.0
        self._next_resend = 0.0
        self._next_numbering = 0.0
        self._has_failed = False
        self._presence: Presence | None = None
        with starting():
            self._process = Announcement(times=settings().times)
        super().__init__(*args, **kwargs)
        if kwargs.get("lazy"):
            return
        with starting():
            self._start(settings())

    def _start(self, chosen: Settings) -> None:
        raise_limit()
        begin_proof(chosen.duecall_proof_file)
        assembly.check_worker_start(chosen)
        self._hints = RedisHintPublisher(app, chosen.redis)
        self._hints.start()
        self._presence = Presence(chosen.redis)
        sessions.refuse_transaction_pooler(chosen.database("listen"), "DATABASE_LISTEN_URL")
        self._release = assembly.release(chosen, self._hints)
        self._alarms = AlarmWriter(assembly.alarm_store(chosen, "worker"))
        self._alarms.start()
        Watchdog().start()
        self._sweep_every = chosen.policy.sweep.total_seconds()

    def setup_schedule(self) -> None:
        """Beat's own schedule stays empty."""

    def tick(self, *_: Any, **__: Any) -> float:  # noqa: ANN401 - Beat's own
        """Do the due work once, then wait for the next due time, a notification, or a second. Beat need not sleep."""
        with watching("clock", QUIET_DATABASE_S):
            return self._tick()

    def _tick(self) -> float:
        try:
            wait = self._work()
            if not self._has_failed:
                note_work()
                self._announce()
            self._wait(wait)
        except (DatabaseAway, psycopg.Error):
            _log.warning("database_away: the database could not be reached; the clock retries in 1 s")
            self._forget_connection()
            return _TICK_S
        except Exception:  # noqa: BLE001 - an error out of tick ends Beat
            _log.exception("tick_failed: a tick failed; the clock retries in 1 s")
            self._forget_connection()
            return _TICK_S
        return 0

    def _work(self) -> float:
        """Do the due work once. Return the seconds until there is more.

        On a wrong clock nothing is released, but the hints to settle and to purge are still sent.
        """
        # The sweep comes first: while releases fail, what is settled does not depend on them.
        instant = monotonic()
        if instant >= self._next_sweep:
            self._next_sweep = instant + self._sweep_every
            self._release.hint_sweep()
            self._fold_tallies()
            self._fold_callers()
        if instant >= self._next_purge:
            self._next_purge = instant + _PURGE_EVERY
            self._release.hint_purge()
        wait = self._until_sweep()
        # `Database` logs it once.
        with suppress(ClockWrong):
            wait = self._until_next(self._round(instant))
        # After the release, which must not wait for it.
        if instant >= self._next_numbering:
            self._next_numbering = instant + _TICK_S
            self._number_events()
        return wait

    def _fold_tallies(self) -> None:
        try:
            self._release.fold_tallies()
        except Exception:  # noqa: BLE001 - figures must not stop the releases
            _log.exception("tallies_not_folded: the counters of /metrics could not be added up; the next sweep retries")

    def _fold_callers(self) -> None:
        try:
            self._release.fold_callers()
        except Exception:  # noqa: BLE001 - figures must not stop the releases
            _log.exception("callers_not_folded: calls could not be added to their caller ids; the next sweep retries")

    def _number_events(self) -> None:
        try:
            self._release.number_events()
        except Exception:  # noqa: BLE001 - partners' events must not stop the releases
            _log.exception("events_not_numbered: partners' events could not be numbered; the next tick retries")

    def _round(self, instant: float) -> Round:
        # No hints for unfinished work after a failed round: a query that fails for them must not stop the releases.
        resends = instant >= self._next_resend and not self._has_failed
        self._has_failed = True
        done = self._release.round(resends=resends, ahead=RELEASE_AHEAD)
        self._has_failed = False
        if resends:
            self._next_resend = instant + _RESEND_EVERY_S
        return done

    def _announce(self) -> None:
        """Announce this process as live. Without Redis this takes half a second, and no hint can be sent either."""
        instant = monotonic()
        if self._presence is not None and instant >= self._next_announcement:
            self._next_announcement = instant + ANNOUNCE_EVERY_S
            with suppress(OSError, RedisError):
                self._presence.announce(self._process)

    def _until_next(self, done: Round) -> float:
        if done.more:
            return 0
        if done.next_due is None:
            return self._until_sweep()
        return min(self._until_sweep(), max(_MIN_WAIT_S, (done.next_due - self._release.now()).total_seconds()))

    def _until_sweep(self) -> float:
        """Compute the seconds until the next sweep, and at most those of one tick."""
        return min(_TICK_S, max(0.0, self._next_sweep - monotonic()))

    def _wait(self, seconds: float) -> None:
        if self._listening is None:
            conninfo = make_conninfo(settings().database("listen"), application_name="duecall clock", **FINDS_OUT)
            self._listening = BoundedConnection.connect(conninfo, autocommit=True)
            self._listening.execute(f"LISTEN {DUE_CHANNEL}")
        for _ in self._listening.notifies(timeout=seconds, stop_after=1):
            return

    def _forget_connection(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def close(self) -> None:
        end_proof()
        self._forget_connection()
        if self._presence is not None:
            with suppress(OSError, RedisError):
                self._presence.withdraw(self._process)
        if self._hints is not None:
            self._hints.stop()  # publishes waiting hints: their rows are already marked as sent
        if self._alarms is not None:
            self._alarms.stop()
