"""Redis transport for Celery. No malformed message, full Redis or slow Redis ends a worker or blocks its queue."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

from kombu.transport import redis, virtual
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from scheduler.clock import monotonic
from scheduler.logs import log
from workers.app import note_work

_log = log(__name__)
_LOG_INTERVAL_S = 60.0


class Tally:
    """Limits repeated log lines: the first event is reported at once, later ones are summed up once a minute."""

    def __init__(self, every_s: float = _LOG_INTERVAL_S) -> None:
        self._every_s = every_s
        self._unreported = 0
        self._reported_at: float | None = None
        self._lock = threading.Lock()

    def count_of(self, instant: float, *, new: int = 1) -> int:
        """Count `new` events at this monotonic instant, and return the number to report now, or 0."""
        with self._lock:
            self._unreported += new
            if not self._unreported or (self._reported_at is not None and instant - self._reported_at < self._every_s):
                return 0
            count, self._unreported, self._reported_at = self._unreported, 0, instant
            return count


_malformed = Tally()
_NOT_MALFORMED = (OSError, RedisError, Empty)
"""Not kombu's `connection_errors`: they contain KeyError, for which it would reconnect after each message."""

_UNBLOCKED = "UNBLOCKED"
"""The error that a waiting consumer receives at the moment at which its server is demoted."""

_OF_THE_WORKER = (MemoryError, RuntimeError)
"""Errors of a worker that has no memory, or cannot start a thread."""


def _report_dropped(kind: str | None, *, new: int) -> None:
    count = _malformed.count_of(monotonic(), new=new)
    if count:
        # Only the error's kind: its text may quote the message.
        _log.error(
            "message_dropped: malformed messages were dropped from a queue", alarm="NO_MESSAGE", kind=kind, count=count
        )


class Channel(redis.Channel):  # type: ignore[misc]  # kombu ships no types
    """Drops malformed messages from a queue and reports them.

    kombu raises the error into the worker's loop, which ends the worker. A hundred malformed messages would stop a
    queue for an hour, because each one costs a worker and its back-off. Messages of an unknown kind reach Celery, which
    drops them.

    A message occupies one of the worker's places until it is acknowledged. If an acknowledgement fails, kombu keeps the
    place occupied and Celery only logs the error, so the worker receives nothing once all its places are lost. This
    channel frees the place. Redis delivers the message again after the visibility timeout if it never got the
    acknowledgement.
    """

    _kept_client: Redis | None = None

    @contextmanager
    def conn_or_acquire(self, client: Redis | None = None) -> Iterator[Redis]:
        """Yield a client for a few commands.

        kombu builds one each time, three for a message, which takes as long as the commands themselves.
        """
        if client is None:
            if self._kept_client is None or self._kept_client.connection_pool is not self.pool:
                self._kept_client = self._create_client()
            client = self._kept_client
        yield client

    def basic_consume(
        self, queue: str, *, no_ack: bool, callback: Callable[[virtual.Message], object], **options: object
    ) -> object:
        """Consume a queue. A message that `callback` cannot read is acknowledged, so that it does not come back.

        Without memory or threads the worker fails, and not the message: it comes back after the visibility timeout.
        """

        def take(message: virtual.Message) -> object:
            try:
                return callback(message)
            except _NOT_MALFORMED:
                raise
            except Exception as error:
                if no_ack:
                    raise
                if isinstance(error, _OF_THE_WORKER) and not isinstance(error, RecursionError):
                    virtual.QoS.ack(self.qos, message.delivery_tag)  # only its place: the message comes back
                else:
                    # Not `message.ack`: Celery may acknowledge it too, and a second `ack` of a message ends the worker.
                    self.basic_ack(message.delivery_tag)
                raise

        return super().basic_consume(queue, no_ack=no_ack, callback=take, **options)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        with self._freeing_the_place(delivery_tag):
            super().basic_ack(delivery_tag, multiple)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        with self._freeing_the_place(delivery_tag):
            super().basic_reject(delivery_tag, requeue)

    @contextmanager
    def _freeing_the_place(self, delivery_tag: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            virtual.QoS.ack(self.qos, delivery_tag)  # within this process only
            raise

    def _brpop_read(self, **options: Any) -> Any:  # noqa: ANN401 - as kombu has it
        # Report the end of a flood when its minute has passed, even if no malformed message follows.
        _report_dropped(None, new=0)
        try:
            return super()._brpop_read(**options)
        except ResponseError as error:
            if str(error).startswith(_UNBLOCKED):
                raise RedisConnectionError(_UNBLOCKED) from error
            raise
        except _NOT_MALFORMED:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the text makes of kombu
            _report_dropped(type(error).__name__, new=1)
            raise Empty from None


class Transport(redis.Transport):  # type: ignore[misc]  # kombu ships no types
    """The transport for REDIS_URL once `workers.app` has been imported."""

    Channel = Channel
    # Wait for these servers as for a Redis that is away, because another error of a command would end the worker: a
    # server at its memory limit, one that was demoted to a replica, and a cluster or replica that cannot serve yet.
    connection_errors = (
        *redis.Transport.connection_errors,
        OutOfMemoryError,
        ReadOnlyError,
        ClusterDownError,
        MasterDownError,
        TryAgainError,
    )


class WatchingChannel(Channel):
    """Subscribes to broadcasts and writes nothing, so that its Redis user needs no right to write.

    kombu lists each queue in a set, also for broadcasts, which use a channel of Redis and do not need the set.
    """

    def _new_queue(self, queue: str, **_: object) -> None:
        """Create nothing: a subscription ends with its connection."""

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:  # noqa: ARG002 - kombu's
        self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))

    def _delete(self, queue: str, *_: object, **__: object) -> None:
        """Delete nothing, because nothing was created."""

    def _put_fanout(self, *_: object, **__: object) -> None:
        """Broadcast nothing. Flower wakes the workers when it connects. Their next heartbeat comes within seconds."""

    def _put(self, *_: object, **__: object) -> None:
        raise PermissionError("this process only receives events and sends no messages")


class WatchingTransport(Transport):
    """The transport for Flower's Redis URL."""

    Channel = WatchingChannel

    def drain_events(self, connection: object, timeout: float | None = None) -> None:
        """Wait for events. The process works while its subscription can be read, even if no event comes."""
        try:
            super().drain_events(connection, timeout=timeout)
        except TimeoutError:
            note_work()
            raise
        note_work()
