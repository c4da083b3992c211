"""A background publisher of hints over Redis. It never blocks a caller, and detects when Redis is away."""

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TypeGuard
from uuid import UUID

import redis
from celery import Celery
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from scheduler.clock import monotonic
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION
from scheduler.logs import log
from scheduler.use_cases.shared.hints import HEAR, QUEUES
from scheduler.watchdog import watching
from workers.app import ANSWERED_CHANNEL, DUE_AT, KEY_PREFIX
from workers.hint_batch import HintBatch, Later, LaterHints, Message, Notification, Published, joined

_log = log(__name__)
_SOCKET_TIMEOUT = 0.5
_RETRY_AFTER_S = 1.0
_MAX_WAITING = 10_000
_LARGEST_REPR = 1024
_WRITABLE = f"{KEY_PREFIX}writable"
_ERRORS = (OSError, redis.RedisError, OperationalError)


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


def _is_for_callbacks(published: Published | Later | None) -> TypeGuard[Message]:
    return isinstance(published, Message) and published.task == HEAR


class RedisHintPublisher:
    """Publishes hints in the background, without retries: the clock sends a lost hint again.

    Hints are published in order, except those for carrier callbacks: a HintBatch gathers them. Hints for commands that
    wait behind each other share a message. Start it in the process that uses it, after any fork.
    """

    def __init__(self, app: Celery, redis_url: str) -> None:
        self._app = app
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=_SOCKET_TIMEOUT, socket_connect_timeout=_SOCKET_TIMEOUT
        )
        self._connection = quick_connection(redis_url)
        self._producer: Producer | None = None
        """Kept until Redis is away, because opening one takes a quarter of the time that a message takes."""
        self._waiting: queue.Queue[Published | Later | None] = queue.Queue(_MAX_WAITING)
        self._callbacks = HintBatch()
        self._later = LaterHints()
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
        self._put(Message(task=task, ids=tuple(ids), due_at=due_at))

    def send_again(self, task: str, ids: Sequence[UUID], after_s: float) -> None:
        """Send the hint for these ids after some time. Never raises."""
        self._put(Later(task=task, ids=tuple(ids), due_at=monotonic() + after_s))

    def answered(self, command_id: UUID) -> None:
        """Tell waiting requests that this command was answered. Never raises."""
        self._put(Notification(ids=(command_id,)))

    def _put(self, message: Published | Later) -> None:
        # While Redis is away hints are dropped and not queued: the database rows show the pending work.
        if self._away.is_set():
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(message)

    def _run(self) -> None:
        while True:
            taken = self._take()
            if not taken and self._away.is_set():
                self._check_if_back()
            self._callbacks.add((hint for each in taken if _is_for_callbacks(each) for hint in each.ids), monotonic())
            for each in taken:
                if isinstance(each, Later):
                    self._later.add(each)
            at_once = [
                each for each in taken if isinstance(each, Message | Notification) and not _is_for_callbacks(each)
            ]
            for message in joined([*at_once, *self._later.take(monotonic())]):
                self._try(partial(self._publish, message))
            if None in taken:
                self._try(self._publish_callbacks)
                return
            while self._callbacks.wait_s(monotonic()) == 0:
                self._try(self._publish_batch)

    def _take(self) -> list[Published | Later | None]:
        """Wait for a message and return all that wait, up to a limit or None. Empty when something else is due."""
        taken: list[Published | Later | None] = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._waiting.get(timeout=self._timeout()))
            while taken[-1] is not None and len(taken) < AT_MOST_A_TRANSACTION:
                taken.append(self._waiting.get_nowait())
        return taken

    def _timeout(self) -> float | None:
        waits = [self._callbacks.wait_s(monotonic()), self._later.wait_s(monotonic())]
        if self._away.is_set():
            waits.append(_RETRY_AFTER_S)
        return min((each for each in waits if each is not None), default=None)

    def _try(self, publish: Callable[[], None]) -> None:
        try:
            with watching("hints"):
                publish()
        except Exception as error:  # noqa: BLE001 - kombu wraps what went wrong in many kinds
            if not isinstance(error, _ERRORS):
                _log.warning("hint_lost: a hint could not be published; the clock sends it again", exc_info=error)
            self._went_away()

    def _publish_batch(self) -> None:
        self._publish(Message(task=HEAR, ids=self._callbacks.take(monotonic())))

    def _publish_callbacks(self) -> None:
        while self._callbacks.wait_s(monotonic()) is not None:
            self._publish_batch()

    def _publish(self, message: Published) -> None:
        if isinstance(message, Notification):
            self._notify(message.ids)
            return
        if self._producer is None:
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        due_at, args = message.due_at, [[str(each) for each in message.ids]]
        self._app.send_task(
            message.task,
            args=args,
            # Celery's own function takes an eighth of the time of a message with twenty ids.
            argsrepr=repr(args)[:_LARGEST_REPR],
            kwargsrepr="{}",
            # A header, because a worker of the previous release does not accept another argument.
            headers={DUE_AT: {str(each): at.isoformat() for each, at in due_at.items()}} if due_at else None,
            queue=QUEUES[message.task],
            producer=self._producer,
            # A queue is a list of Redis, which its first message creates.
            declare=[],
            retry=False,
            ignore_result=True,
        )

    def _notify(self, command_ids: Sequence[UUID]) -> None:
        # A notification each, because an API process of the previous release expects one id.
        with self._redis.pipeline(transaction=False) as notifications:
            for each in command_ids:
                notifications.publish(ANSWERED_CHANNEL, str(each))
            notifications.execute()

    def _went_away(self) -> None:
        if not self._away.is_set():
            _log.warning("redis_away: Redis could not be reached; the clock sends the hints again")
        self._away.set()
        self._callbacks.clear()
        self._later.clear()
        self._producer = None
        with contextlib.suppress(Exception):
            self._connection.close()

    def _check_if_back(self) -> None:
        with contextlib.suppress(*_ERRORS):
            # A write: a demoted or full server answers a ping and takes no hint.
            self._redis.set(_WRITABLE, "", px=1)
            self._away.clear()
            _log.info("redis_back: Redis answered again")
