"""Liveness: a worker that no longer receives its messages ends itself, and its supervisor starts it again.

every 20 s: ping ─► this worker's own queue ─► its consumer ─► its pool ─► `heard` ─► a transaction ─► `worked`
worked: announced as live, for `/readyz`, and the proof for health checks is touched
four pings in a row that Redis took and that were not received: unresponsive
"""

import contextlib
import os
import threading
from collections.abc import Callable
from secrets import token_hex

from celery import signals
from kombu import Exchange, Queue
from redis import RedisError

from scheduler.clock import monotonic
from scheduler.logs import log
from scheduler.use_cases.shared.hints import LIVENESS, QUEUES
from scheduler.watchdog import count_working, end_process
from workers import proof
from workers.app import app, at_start
from workers.hint_publisher import quick_connection
from workers.presence import ANNOUNCE_EVERY_S, Announcement, Presence

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
    tasks go on is for the watchdog (`scheduler/watchdog.py`). `on_unresponsive` is called once, from the thread of this
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
    proof.worked()
    if _Probe.one is not None:
        _Probe.one.worked()


def queue_of(hostname: str) -> Queue:
    """Return a new queue that only this process consumes.

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
