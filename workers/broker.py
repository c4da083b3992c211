"""Redis as Celery's broker, but that neither what is no message nor a full memory ends a worker."""

import threading
from queue import Empty
from typing import Any

from kombu.transport import redis
from redis.exceptions import OutOfMemoryError, RedisError

from scheduler.clock import monotonic
from scheduler.logs import log

_log = log(__name__)
_TOLD_EVERY_S = 60.0


class Tally:
    """Counts what would be told a thousand times: the first one is told at once, the others once a minute."""

    def __init__(self, every_s: float = _TOLD_EVERY_S) -> None:
        self._every_s = every_s
        self._untold = 0
        self._told_at: float | None = None
        self._lock = threading.Lock()

    def count_of(self, instant: float, *, new: int = 1) -> int:
        """Count `new` more at this monotonic instant; how many are to be told now, 0 for none."""
        with self._lock:
            self._untold += new
            if not self._untold or (self._told_at is not None and instant - self._told_at < self._every_s):
                return 0
            count, self._untold, self._told_at = self._untold, 0, instant
            return count


_no_messages = Tally()


def _tell(kind: str | None, *, new: int) -> None:
    count = _no_messages.count_of(monotonic(), new=new)
    if count:
        # Its text may quote what somebody has put there.
        _log.error(
            "message_dropped: malformed messages were dropped from a queue", alarm="NO_MESSAGE", kind=kind, count=count
        )


class Channel(redis.Channel):  # type: ignore[misc]  # kombu ships no types
    """Takes what is no message off the queue, and says so.

    kombu lets the error out into the worker's loop, which ends it: each such item costs a worker and its back-off, and
    some hundred of them keep a queue from being worked at for an hour. A message of a kind that is none is not meant:
    that Celery drops by itself.
    """

    def _brpop_read(self, **options: Any) -> Any:  # noqa: ANN401 - as kombu has it
        # The last ones of a flood are reported when its minute is over, although no others come.
        _tell(None, new=0)
        try:
            return super()._brpop_read(**options)
        except (OSError, RedisError, Empty):
            # Not kombu's `connection_errors`: a KeyError is one of them, and it connects anew over each such message.
            raise
        except Exception as error:  # noqa: BLE001 - whatever the text makes of kombu
            _tell(type(error).__name__, new=1)
            raise Empty from None


class Transport(redis.Transport):  # type: ignore[misc]  # likewise
    """What the scheme of REDIS_URL leads to, once `workers.app` has been imported."""

    Channel = Channel
    # A Redis at its memory limit refuses what a consumer writes when it connects. Like one that is away it is waited
    # for: to Celery any other error of a command is the end of the worker.
    connection_errors = (*redis.Transport.connection_errors, OutOfMemoryError)


class WatchingChannel(Channel):
    """Subscribes to broadcasts and writes nothing, so that its Redis user needs no right to write.

    kombu lists each queue in a set, also those of broadcasts, which are published to a channel of Redis and never look
    into that set.
    """

    def _new_queue(self, queue: str, **_: object) -> None:
        """Create nothing: a subscription ends with its connection."""

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:  # noqa: ARG002 - kombu's
        self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))

    def _delete(self, queue: str, *_: object, **__: object) -> None:
        """Delete nothing, because nothing was created."""

    def _put_fanout(self, *_: object, **__: object) -> None:
        """Broadcast nothing. Flower wakes the workers when it connects; their next heartbeat comes within seconds."""

    def _put(self, *_: object, **__: object) -> None:
        raise PermissionError("this process only receives events; it sends no message")


class WatchingTransport(Transport):
    """What the scheme of Flower's Redis URL leads to."""

    Channel = WatchingChannel
