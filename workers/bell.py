"""The doorbell over Redis: a background publisher that never keeps a caller waiting, and knows when Redis is away."""

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from uuid import UUID

import redis
from celery import Celery
from kombu import Connection

from scheduler.clock import monotonic
from scheduler.logs import log
from scheduler.use_cases.bell import HEAR, QUEUES
from workers.app import ANSWERED_CHANNEL, KEY_PREFIX

_log = log(__name__)
_SOCKET_TIMEOUT = 0.5
_TRY_AGAIN_AFTER = 1.0
_MAX_WAITING = 10_000
_GATHERED_FOR_S = 0.05
_MOST_GATHERED = 50
_ERRORS = (OSError, redis.RedisError)


def quick_connection(redis_url: str) -> Connection:
    """A connection of one's own to publish with, which gives up after half a second; it connects when it is used."""
    return Connection(
        redis_url,
        connect_timeout=_SOCKET_TIMEOUT,
        transport_options={
            "socket_timeout": _SOCKET_TIMEOUT,
            "socket_connect_timeout": _SOCKET_TIMEOUT,
            "global_keyprefix": KEY_PREFIX,
        },
    )


class RedisBell:
    """Rings in the background, without retries: what is lost, the clock rings for again.

    In order, but for callbacks: nobody waits for those to be heard, and a message costs a worker twice as much as
    hearing what it is about. Those of a twentieth of a second share one. Start it in the process that uses it, after
    any fork.
    """

    def __init__(self, app: Celery, redis_url: str) -> None:
        self._app = app
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=_SOCKET_TIMEOUT, socket_connect_timeout=_SOCKET_TIMEOUT
        )
        self._connection = quick_connection(redis_url)
        self._waiting: queue.Queue[tuple[str, tuple[UUID, ...]] | UUID | None] = queue.Queue(_MAX_WAITING)
        self._gathered: list[UUID] = []
        self._due_at = 0.0
        """When those are rung for, on the monotonic clock."""
        self._away = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
        self._stopped = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Publish what waits, then end; at most 2 s."""
        self._stopped = True
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(2)

    @property
    def is_away(self) -> bool:
        """Redis did not take the last ring; nobody should wait for an answer over it."""
        return self._away.is_set()

    def ring(self, task: str, ids: Sequence[UUID] = ()) -> None:
        """Tell a worker to look at these. Never raises."""
        self._put((task, tuple(ids)))

    def answered(self, command_id: UUID) -> None:
        """Tell whoever waits for this command that its answer is there. Never raises."""
        self._put(command_id)

    def _put(self, ring: tuple[str, tuple[UUID, ...]] | UUID) -> None:
        # While Redis is away rings are dropped, not piled up: the rows know what waits.
        if self._away.is_set():
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(ring)

    def _run(self) -> None:
        while True:
            try:
                ring = self._waiting.get(timeout=self._patience())
            except queue.Empty:
                if self._away.is_set():
                    self._look_whether_it_is_back()
            else:
                if ring is None:
                    self._try(self._publish_gathered)
                    return
                self._try(lambda ring=ring: self._take(ring))  # type: ignore[misc]
            if self._gathered and (monotonic() >= self._due_at or len(self._gathered) >= _MOST_GATHERED):
                self._try(self._publish_gathered)

    def _patience(self) -> float | None:
        if self._gathered:
            return max(0.0, self._due_at - monotonic())
        return _TRY_AGAIN_AFTER if self._away.is_set() else None

    def _try(self, publish: Callable[[], None]) -> None:
        try:
            publish()
        except Exception as error:  # noqa: BLE001 - kombu wraps what went wrong in many kinds
            if not isinstance(error, _ERRORS):
                _log.warning("hint_lost: a hint could not be published; the clock sends it again", exc_info=error)
            self._went_away()

    def _take(self, ring: tuple[str, tuple[UUID, ...]] | UUID) -> None:
        if isinstance(ring, tuple) and ring[0] == HEAR:
            if not self._gathered:
                self._due_at = monotonic() + _GATHERED_FOR_S
            self._gathered.extend(ring[1])
        else:
            self._publish(ring)

    def _publish_gathered(self) -> None:
        ids, self._gathered = tuple(self._gathered), []
        if ids:
            self._publish((HEAR, ids))

    def _publish(self, ring: tuple[str, tuple[UUID, ...]] | UUID) -> None:
        if isinstance(ring, UUID):
            self._redis.publish(ANSWERED_CHANNEL, str(ring))
            return
        task, ids = ring
        self._app.send_task(
            task,
            args=[[str(each) for each in ids]],
            queue=QUEUES[task],
            connection=self._connection,
            retry=False,
            ignore_result=True,
        )

    def _went_away(self) -> None:
        if not self._away.is_set():
            _log.warning("redis_away: Redis could not be reached; the clock sends the hints again")
        self._away.set()
        self._gathered.clear()
        with contextlib.suppress(Exception):
            self._connection.close()

    def _look_whether_it_is_back(self) -> None:
        with contextlib.suppress(*_ERRORS):
            self._redis.ping()
            self._away.clear()
            _log.info("redis_back: Redis answered again")
