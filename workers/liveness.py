"""Liveness and presence: a worker shows that it works, or ends itself so that its supervisor starts it again."""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Literal, cast

from celery import signals
from kombu import Exchange, Queue
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduler.clock import monotonic
from scheduler.logs import log
from scheduler.process import count_working, end_process
from scheduler.timing.zone_names import TZDATA_VERSION
from scheduler.use_cases.shared.hints import LIVENESS, QUEUES
from workers.app import app, at_start, note_work
from workers.hints import quick_connection

# --- Announcements of live processes in Redis, from which `/readyz` sees which queues are served
#
#     every worker and clock, each 20 s ─► one sorted set, by Redis's own clock ─► /readyz
#
# Asking the workers instead would be a broadcast, which takes as long as the slowest of them may take to answer.


ANNOUNCE_EVERY_S = 20.0
LIVE_FOR_S = 50.0
"""A process counts as live for this time after its announcement: one may be lost, and the next may be slow."""
KEY = "duecall:processes"
Degraded = Literal["redis", "workers", "tzdata", "clock"]
"""The values that `/readyz` reports as degraded."""
_TIMEOUT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """A live process: its queues, the version of its tz database, and the times that it dials with. No secrets."""

    queues: frozenset[str] = frozenset()
    tzdata: str = TZDATA_VERSION
    times: Mapping[str, float] = field(default_factory=dict)
    """Times of the dial protocol, in seconds, by the names of their environment variables."""
    token: str = field(default_factory=lambda: token_hex(8))
    """Different for each process, so that processes of one kind are counted apart."""

    def as_text(self) -> str:
        form = {"token": self.token, "queues": sorted(self.queues), "tzdata": self.tzdata, "times": dict(self.times)}
        return json.dumps(form)

    @classmethod
    def of_text(cls, text: bytes) -> "Announcement":
        """Parse a stored announcement. A foreign entry raises ValueError, LookupError, TypeError or AttributeError."""
        form = json.loads(text)
        return cls(
            token=form["token"],
            queues=frozenset(form["queues"]),
            tzdata=str(form["tzdata"]),
            times={name: float(seconds) for name, seconds in form.get("times", {}).items()},
        )


class Presence:
    """The announcements in one Redis. Each method raises RedisError or OSError, within a second or so."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(
            redis_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )

    def announce(self, process: Announcement) -> None:
        """Make the process count as live from now on, for LIVE_FOR_S."""
        now = self._now_s()
        with self._redis.pipeline() as pipeline:
            pipeline.zadd(KEY, {process.as_text(): now})
            pipeline.zremrangebyscore(KEY, "-inf", now - LIVE_FOR_S)
            pipeline.expire(KEY, int(LIVE_FOR_S))
            pipeline.execute()

    def withdraw(self, process: Announcement) -> None:
        """Make the process count as gone at once, for example while it drains."""
        self._redis.zrem(KEY, process.as_text())

    def live(self) -> Sequence[Announcement]:
        """List the live processes. Malformed entries are skipped."""
        now = self._now_s()
        # Also bounded above: after a backward step of Redis's clock a dead process would count as live for too long.
        entries = self._redis.zrangebyscore(KEY, now - LIVE_FOR_S, now + LIVE_FOR_S)
        return [each for each in (_read(text) for text in entries) if each is not None]

    def close(self) -> None:
        self._redis.close()

    def _now_s(self) -> float:
        # Redis's clock for all: to a process with a wrong clock, every other process would seem dead.
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1_000_000


class TimesUnknown(Exception):
    """The times that the live processes dial with are not known. The message gives the reason."""


def times_of(redis_url: str) -> Mapping[str, float]:
    """Read the times that the live processes dial with. Raises TimesUnknown."""
    presence = Presence(redis_url)
    try:
        announced = [each.times for each in presence.live() if each.times]
    except (OSError, RedisError) as error:
        raise TimesUnknown("Redis does not answer") from error
    finally:
        presence.close()
    if not announced:
        raise TimesUnknown("no live process has announced its times")
    if any(each != announced[0] for each in announced):
        raise TimesUnknown("the live processes have different times")
    return announced[0]


def degraded_by(live: Collection[Announcement], own_tzdata: str = TZDATA_VERSION) -> list[Degraded]:
    """Decide what `/readyz` reports of these live processes: `workers`, `tzdata`, both or nothing.

    `own_tzdata` is the version of the calling process.
    """
    served = {queue for each in live for queue in each.queues}
    versions = {own_tzdata, *(each.tzdata for each in live)}
    is_degraded: dict[Degraded, bool] = {"workers": not served.issuperset(QUEUES.values()), "tzdata": len(versions) > 1}
    return [name for name, applies in is_degraded.items() if applies]


def _read(text: object) -> Announcement | None:
    try:
        return Announcement.of_text(cast("bytes", text))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


# --- Liveness: a worker that no longer receives its messages ends itself, and its supervisor starts it again
#
#     every 20 s: ping ─► this worker's own queue ─► its consumer ─► its pool ─► `heard` ─► a transaction ─► `worked`
#
# The process `webhooks` has no transaction here: each turn of its loop calls `worked`, and so does each task that has
# done its work. `worked` touches the proof for health checks, and the worker is announced as live, for `/readyz`, once
# a ping. After four pings in a row that Redis took and that were not received, while a place was free, the worker is
# unresponsive.


_log = log(__name__)
_PING_EVERY_S = ANNOUNCE_EVERY_S
_MAX_MISSED = 4
"""After an outage Celery connects again within 32 s, and kombu drops a half-open connection within 51 s: a worker that
recovers by itself receives a ping before the fourth one."""
_EXIT_TIMEOUT_S = 25.0
"""The time for an orderly exit: longer than a dialler drains."""
_QUEUE_EXPIRES_MS = 600_000
"""Redis deletes the queue of a dead worker after this time."""


class LivenessProbe:
    """Sends pings to its own worker and counts the missed ones.

    `ring` puts a ping into the worker's own queue, over a connection other than its consumer's, and raises if Redis
    does not take it. `is_full` is True while every place works on a task: such a worker receives no ping. Whether these
    tasks go on is for the watchdog (`scheduler/process.py`). `on_unresponsive` is called once, from the thread of this
    object.

    `announce` reports the worker as live, only after its work has succeeded since the last time. `withdraw` ends that.
    Their errors are ignored, because Redis is away then.
    """

    def __init__(
        self,
        ring: Callable[[], None],
        *,
        is_full: Callable[[], bool],
        on_unresponsive: Callable[[], None],
        announce: Callable[[], None] = lambda: None,
        withdraw: Callable[[], None] = lambda: None,
        every_s: float = _PING_EVERY_S,
        max_missed: int = _MAX_MISSED,
    ) -> None:
        self._ring = ring
        self._is_full = is_full
        self._on_unresponsive = on_unresponsive
        self._announce = announce
        self._withdraw = withdraw
        self._every_s = every_s
        self._max_missed = max_missed
        self._missed = 0
        self._worked = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hearing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop pinging and judging the worker."""
        self._stopped.set()
        self._worked.set()

    def join(self) -> None:
        """Wait until the worker is withdrawn, at most 2 s. Call after `stop`."""
        if self._thread.is_alive():
            self._thread.join(2)

    def heard(self) -> None:
        """Record that a ping was received."""
        self._missed = 0

    def worked(self) -> None:
        """Record that work has succeeded."""
        self._worked.set()

    def _run(self) -> None:
        self._ping_until_stopped()
        _quietly(self._withdraw)

    def _ping_until_stopped(self) -> None:
        while not self._stopped.is_set():
            if self._missed >= self._max_missed:
                self._on_unresponsive()
                return
            # Count before sending: the ping may be received before `ring` returns.
            self._missed += 1
            try:
                self._ring()
            except Exception:  # noqa: BLE001 - kombu wraps what went wrong in many kinds
                # Redis is away. No ping was sent, and a restarted worker could not receive one either.
                self._missed = 0
            else:
                if self._is_full():
                    self._missed = 0
            self._wait()

    def _wait(self) -> None:
        """Wait until the next ping, and announce the worker once its work has succeeded."""
        ends = monotonic() + self._every_s
        if self._worked.wait(self._every_s) and not self._stopped.is_set():
            self._worked.clear()
            _quietly(self._announce)
            self._stopped.wait(max(0.0, ends - monotonic()))


def _quietly(report: Callable[[], None]) -> None:
    with contextlib.suppress(OSError, RedisError):
        report()


class _Probe:
    """The liveness probe of this worker process."""

    one: LivenessProbe | None = None


def heard() -> None:
    if _Probe.one is not None:
        _Probe.one.heard()


def worked() -> None:
    """Note that work of this process has succeeded."""
    note_work()
    if _Probe.one is not None:
        _Probe.one.worked()


def queue_of(hostname: str) -> Queue:
    """Make a new queue that only this process consumes.

    A queue by node name alone would be shared by two workers of one name, for example two `dial` lines on one host, and
    each would receive the other's pings.
    """
    name = f"hearing.{hostname}.{os.getpid()}.{token_hex(4)}"
    return Queue(name, Exchange(""), routing_key=name, queue_arguments={"x-expires": _QUEUE_EXPIRES_MS})


def listen(hostname: str, process: Announcement, places: int, redis_url: str) -> None:
    """Give this worker its own queue, and probe it once it is ready. Call while the worker is being set up.

    `process` is its announcement, and `places` is the number of tasks that it runs at once.
    """
    queue = queue_of(hostname)
    app.amqp.queues.select_add(queue)
    connection = quick_connection(redis_url)

    def ping() -> None:
        try:
            app.send_task(LIVENESS, queue=queue, connection=connection, retry=False, ignore_result=True)
        except Exception:
            with contextlib.suppress(Exception):
                connection.close()
            raise

    presence = Presence(redis_url)
    _Probe.one = LivenessProbe(
        ping,
        # Messages that wait in this process do not count: a worker that is full of them may work on none.
        is_full=lambda: count_working(QUEUES) >= places,
        on_unresponsive=_end,
        announce=lambda: presence.announce(process),
        withdraw=lambda: presence.withdraw(process),
    )


def _end() -> None:
    """End the worker by SIGTERM, so that it finishes its tasks, and by force after `_EXIT_TIMEOUT_S`."""
    _log.error(
        "worker_unresponsive: this worker no longer received its messages; it exits to be started again",
        alarm="DEAF_WORKER",
        pid=os.getpid(),
    )
    end_process(_EXIT_TIMEOUT_S)


@at_start(signals.worker_ready)
def _start(**_: object) -> None:
    if _Probe.one is not None:
        _Probe.one.start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: object) -> None:
    if _Probe.one is not None:
        _Probe.one.stop()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _join(**_: object) -> None:
    if _Probe.one is not None:
        _Probe.one.join()
