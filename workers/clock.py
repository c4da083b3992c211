"""The clock: Celery's Beat with a scheduler that looks into PostgreSQL. Two may run; each row is released by one."""

from contextlib import suppress
from typing import Any

import psycopg
from celery.beat import Scheduler
from psycopg.conninfo import make_conninfo
from redis import RedisError

from scheduler import assembly
from scheduler.clock import monotonic
from scheduler.logs import log
from scheduler.persistence.database import DUE_CHANNEL, FINDS_OUT, ClockWrong, DatabaseAway, WrongRole
from scheduler.settings import MissingSetting, settings
from workers.app import app
from workers.bell import RedisBell
from workers.presence import ANNOUNCE_EVERY_S, Announcement, Presence

_log = log(__name__)
_LOOK_EVERY = 1.0
_SHORTEST_WAIT = 0.005
_RELEASES_A_LOOK = 10
"""So often at most, before anything else is looked at: however much is due, commands and leases get their turn."""
_PURGE_EVERY = 6 * 3600.0
"""So that what is old goes on the same day; whoever starts a clock anew only makes it earlier."""


class Clock(Scheduler):  # type: ignore[misc]
    """Releases what is due, and rings again for what nobody has looked at.

    It waits inside `tick`, on LISTEN: Beat sleeps between ticks, and nothing can wake that sleep. No error leaves
    `tick`, because one that did would end Beat. Nothing is kept in Beat's own schedule.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Beat's own
        self._listening: psycopg.Connection[Any] | None = None
        self._bell: RedisBell | None = None
        self._next_sweep = 0.0
        self._next_purge = 0.0
        self._next_announcement = 0.0
        self._presence: Presence | None = None
        self._process = Announcement(times=settings().times)
        super().__init__(*args, **kwargs)
        if kwargs.get("lazy"):
            return
        chosen = settings()
        self._bell = RedisBell(app, chosen.redis)
        self._bell.start()
        self._presence = Presence(chosen.redis)
        try:
            self._release = assembly.workshop(chosen, self._bell).release
        except ClockWrong as wrong:
            raise SystemExit(str(wrong)) from None
        except DatabaseAway as away:
            raise SystemExit(f"the database cannot be reached: {away}") from None
        except (MissingSetting, WrongRole) as error:
            raise SystemExit(str(error)) from None
        self._sweep_every = chosen.policy.sweep.total_seconds()

    def setup_schedule(self) -> None:
        """Beat's own schedule stays empty."""

    def tick(self, *_: Any, **__: Any) -> float:  # noqa: ANN401 - Beat's own
        """Look once, then wait for the next due time, a notification, or a second. Beat need not sleep after it."""
        self._announce()
        try:
            more = self._look()
            self._wait(0 if more else self._until_next())
        except (DatabaseAway, psycopg.Error):
            _log.warning("database_away: the database could not be reached; the clock retries in 1 s")
            self._forget_connection()
            return _LOOK_EVERY
        except Exception:  # noqa: BLE001 - an error out of tick ends Beat
            _log.exception("tick_failed: a tick failed; the clock retries in 1 s")
            self._forget_connection()
            return _LOOK_EVERY
        return 0

    def _look(self) -> bool:
        """Whether there is more to release right away.

        On a wrong clock nothing is released; other processes still hear when to settle and to purge.
        """
        more = False
        # Logged by the database, once.
        with suppress(ClockWrong):
            more = all(self._release.due() for _ in range(_RELEASES_A_LOOK))
            self._release.unanswered()
        instant = monotonic()
        if instant >= self._next_sweep:
            self._next_sweep = instant + self._sweep_every
            self._release.silent()
        if instant >= self._next_purge:
            self._next_purge = instant + _PURGE_EVERY
            self._release.old()
        return more

    def _announce(self) -> None:
        """Report this process as live. Without Redis that costs half a second, and no hint can be sent then either."""
        instant = monotonic()
        if self._presence is not None and instant >= self._next_announcement:
            self._next_announcement = instant + ANNOUNCE_EVERY_S
            with suppress(OSError, RedisError):
                self._presence.announce(self._process)

    def _until_next(self) -> float:
        next_due = self._release.next_due()
        wait = min(_LOOK_EVERY, max(0.0, self._next_sweep - monotonic()))
        if next_due is None:
            return wait
        return min(wait, max(_SHORTEST_WAIT, (next_due - self._release.now()).total_seconds()))

    def _wait(self, seconds: float) -> None:
        if self._listening is None:
            where = make_conninfo(settings().database("listen"), application_name="duecall clock", **FINDS_OUT)
            self._listening = psycopg.connect(where, autocommit=True)
            self._listening.execute(f"LISTEN {DUE_CHANNEL}")
        for _ in self._listening.notifies(timeout=seconds, stop_after=1):
            return

    def _forget_connection(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def close(self) -> None:
        self._forget_connection()
        if self._presence is not None:
            with suppress(OSError, RedisError):
                self._presence.withdraw(self._process)
        if self._bell is not None:
            self._bell.stop()  # what waits to be rung for counts as rung for already
