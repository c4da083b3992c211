"""Does this worker still hear its doorbell? One that is deaf ends itself, and whoever keeps it running starts it anew.

every 20 s: ring ─► a queue of this worker's own ─► its consumer ─► its pool ─► `heard`
heard: announced as live, for `/readyz`
four rings in a row that Redis took and nobody heard: deaf
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Collection
from secrets import token_hex

from celery import signals
from celery.worker import state
from kombu import Exchange, Queue
from redis import RedisError

from scheduler.logs import log
from scheduler.use_cases.bell import HEARD
from workers.app import app
from workers.bell import quick_connection
from workers.presence import ANNOUNCE_EVERY_S, Announcement, Presence

_log = log(__name__)
_RING_EVERY_S = ANNOUNCE_EVERY_S
_UNHEARD_RINGS = 4
"""After an outage Celery connects again within 32 s, and kombu drops a connection that is half open after 51 s at the
latest: whatever heals by itself is heard before the fourth."""
_MAY_TAKE_S = 25.0
"""How long the end may take that was asked for: longer than a dialler drains."""
_FORGOTTEN_AFTER_MS = 600_000
"""What is left of the queue of a worker that is gone goes by itself."""


class Hearing:
    """Rings for its own worker and counts what is not heard.

    `ring` puts a message into the worker's own queue, over another connection than the one that it consumes with, and
    raises when Redis does not take it. `is_full` says that every place is taken by a task in hand: such a worker hears
    nothing, and is at work. `on_deaf` is called once, from the thread that found out.

    `announce` reports the worker as live: at the start, and after each ring that was heard. `withdraw` takes that back
    at the end. What they raise is ignored, because Redis is away then.
    """

    def __init__(
        self,
        ring: Callable[[], None],
        *,
        is_full: Callable[[], bool],
        on_deaf: Callable[[], None],
        announce: Callable[[], None] = lambda: None,
        withdraw: Callable[[], None] = lambda: None,
        every_s: float = _RING_EVERY_S,
        unheard_rings: int = _UNHEARD_RINGS,
    ) -> None:
        self._ring = ring
        self._is_full = is_full
        self._on_deaf = on_deaf
        self._announce = announce
        self._withdraw = withdraw
        self._every_s = every_s
        self._most_unheard = unheard_rings
        self._unheard = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hearing", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Judge no more."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until the worker is withdrawn; at most 2 s. Call after `stop`."""
        if self._thread.is_alive():
            self._thread.join(2)

    def heard(self) -> None:
        """A ring has come all the way."""
        self._unheard = 0

    def _run(self) -> None:
        _quietly(self._announce)
        self._ring_until_stopped()
        _quietly(self._withdraw)

    def _ring_until_stopped(self) -> None:
        while not self._stopped.wait(self._every_s):
            if self._unheard >= self._most_unheard:
                self._on_deaf()
                return
            if self._unheard == 0:
                _quietly(self._announce)
            # Before the ring: it may be heard before `ring` returns.
            self._unheard += 1
            try:
                self._ring()
            except Exception:  # noqa: BLE001 - kombu wraps what went wrong in many kinds
                # Redis is away, for us too: nobody can hear a ring that was never taken, and a new process neither.
                self._unheard = 0
            else:
                if self._is_full():
                    self._unheard = 0


def _quietly(tell_redis: Callable[[], None]) -> None:
    with contextlib.suppress(OSError, RedisError):
        tell_redis()


class _Ears:
    """Those of this worker process, from its start to its end."""

    one: Hearing | None = None


def heard() -> None:
    if _Ears.one is not None:
        _Ears.one.heard()


def queue_of(hostname: str) -> Queue:
    """The queue that this process alone consumes; each call names another one.

    Two workers of one node name, as two `dial` lines on one host are, would take each other's rings for their own.
    """
    name = f"hearing.{hostname}.{os.getpid()}.{token_hex(4)}"
    return Queue(name, Exchange(""), routing_key=name, queue_arguments={"x-expires": _FORGOTTEN_AFTER_MS})


def listen(hostname: str, process: Announcement, places: int, redis_url: str) -> None:
    """Have this worker consume a queue of its own; judge it from when it is ready. Call while it is being set up.

    `process` is how it is announced, and `places` is how many tasks it runs at once.
    """
    queue = queue_of(hostname)
    app.amqp.queues.select_add(queue)
    connection = quick_connection(redis_url)

    def ring() -> None:
        try:
            app.send_task(HEARD, queue=queue, connection=connection, retry=False, ignore_result=True)
        except Exception:
            with contextlib.suppress(Exception):
                connection.close()
            raise

    in_hand: Collection[object] = state.reserved_requests
    presence = Presence(redis_url)
    _Ears.one = Hearing(
        ring,
        is_full=lambda: len(in_hand) >= places,
        on_deaf=_end,
        announce=lambda: presence.announce(process),
        withdraw=lambda: presence.withdraw(process),
    )


def _end() -> None:
    """As an operator would, so that what is in hand is finished; by force when that takes too long."""
    _log.error(
        "worker_unresponsive: this worker no longer received its messages; it exits to be started again",
        alarm="DEAF_WORKER",
        pid=os.getpid(),
    )
    threading.Timer(_MAY_TAKE_S, os._exit, (os.EX_SOFTWARE,)).start()
    os.kill(os.getpid(), signal.SIGTERM)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _start(**_: object) -> None:
    if _Ears.one is not None:
        _Ears.one.start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop(**_: object) -> None:
    if _Ears.one is not None:
        _Ears.one.stop()


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _join(**_: object) -> None:
    if _Ears.one is not None:
        _Ears.one.join()
