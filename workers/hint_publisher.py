"""A background publisher of hints over Redis. It never blocks a caller, and detects when Redis is away."""

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import redis
from celery import Celery
from kombu import Connection

from scheduler.clock import monotonic
from scheduler.logs import log
from scheduler.use_cases.shared.hints import HEAR, QUEUES
from workers.app import ANSWERED_CHANNEL, DUE_AT, KEY_PREFIX
from workers.hint_batch import HintBatch

_log = log(__name__)
_SOCKET_TIMEOUT = 0.5
_RETRY_AFTER_S = 1.0
_MAX_WAITING = 10_000
_ERRORS = (OSError, redis.RedisError)


def quick_connection(redis_url: str) -> Connection:
    """Build a separate connection for publishing, which gives up after half a second and connects on first use."""
    return Connection(
        redis_url,
        connect_timeout=_SOCKET_TIMEOUT,
        transport_options={
            "socket_timeout": _SOCKET_TIMEOUT,
            "socket_connect_timeout": _SOCKET_TIMEOUT,
            "global_keyprefix": KEY_PREFIX,
        },
    )


@dataclass(frozen=True, kw_only=True)
class _Message:
    task: str
    ids: tuple[UUID, ...]
    due_at: Mapping[UUID, datetime] | None = None


class RedisHintPublisher:
    """Publishes hints in the background, without retries: the clock sends a lost hint again.

    Hints are published in order, except those for carrier callbacks: a HintBatch gathers them. Start it in the process
    that uses it, after any fork.
    """

    def __init__(self, app: Celery, redis_url: str) -> None:
        self._app = app
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=_SOCKET_TIMEOUT, socket_connect_timeout=_SOCKET_TIMEOUT
        )
        self._connection = quick_connection(redis_url)
        self._waiting: queue.Queue[_Message | UUID | None] = queue.Queue(_MAX_WAITING)
        self._callbacks = HintBatch()
        self._away = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
        self._stopped = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Publish the waiting hints and stop, within 2 s."""
        self._stopped = True
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(2)

    @property
    def is_away(self) -> bool:
        """True if Redis did not take the last message, so that no request should wait for an answer over it."""
        return self._away.is_set()

    def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
        """Send a worker a hint with these ids. `due_at`: due times of those that are not due yet. Never raises."""
        self._put(_Message(task=task, ids=tuple(ids), due_at=due_at))

    def answered(self, command_id: UUID) -> None:
        """Tell waiting requests that this command was answered. Never raises."""
        self._put(command_id)

    def _put(self, message: _Message | UUID) -> None:
        # While Redis is away hints are dropped and not queued: the database rows show the pending work.
        if self._away.is_set():
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(message)

    def _run(self) -> None:
        while True:
            try:
                message = self._waiting.get(timeout=self._timeout())
            except queue.Empty:
                if self._away.is_set():
                    self._check_if_back()
            else:
                if message is None:
                    self._try(self._publish_callbacks)
                    return
                self._try(lambda message=message: self._publish_or_batch(message))  # type: ignore[misc]
            while self._callbacks.wait_s(monotonic()) == 0:
                self._try(self._publish_batch)

    def _timeout(self) -> float | None:
        wait_s = self._callbacks.wait_s(monotonic())
        return _RETRY_AFTER_S if wait_s is None and self._away.is_set() else wait_s

    def _try(self, publish: Callable[[], None]) -> None:
        try:
            publish()
        except Exception as error:  # noqa: BLE001 - kombu wraps what went wrong in many kinds
            if not isinstance(error, _ERRORS):
                _log.warning("hint_lost: a hint could not be published; the clock sends it again", exc_info=error)
            self._went_away()

    def _publish_or_batch(self, message: _Message | UUID) -> None:
        if isinstance(message, _Message) and message.task == HEAR:
            self._callbacks.add(message.ids, monotonic())
        else:
            self._publish(message)

    def _publish_batch(self) -> None:
        self._publish(_Message(task=HEAR, ids=self._callbacks.take(monotonic())))

    def _publish_callbacks(self) -> None:
        while self._callbacks.wait_s(monotonic()) is not None:
            self._publish_batch()

    def _publish(self, message: _Message | UUID) -> None:
        if isinstance(message, UUID):
            self._redis.publish(ANSWERED_CHANNEL, str(message))
            return
        due_at = message.due_at
        self._app.send_task(
            message.task,
            args=[[str(each) for each in message.ids]],
            # A header, because a worker of the previous release does not accept another argument.
            headers={DUE_AT: {str(each): at.isoformat() for each, at in due_at.items()}} if due_at else None,
            queue=QUEUES[message.task],
            connection=self._connection,
            retry=False,
            ignore_result=True,
        )

    def _went_away(self) -> None:
        if not self._away.is_set():
            _log.warning("redis_away: Redis could not be reached; the clock sends the hints again")
        self._away.set()
        self._callbacks.clear()
        with contextlib.suppress(Exception):
            self._connection.close()

    def _check_if_back(self) -> None:
        with contextlib.suppress(*_ERRORS):
            self._redis.ping()
            self._away.clear()
            _log.info("redis_back: Redis answered again")
