"""Hints: published over Redis in the background, batched, and gathered while earlier ones are processed."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TypeAlias, TypeGuard
from uuid import UUID

import redis
from celery import Celery
from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from scheduler.clock import monotonic
from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, COMMANDS_A_TRANSACTION
from scheduler.logs import log
from scheduler.process import made_progress, watching
from scheduler.use_cases.shared.hints import APPLY, HEAR, QUEUES
from workers.app import ANSWERED_CHANNEL, DUE_AT, KEY_PREFIX

# --- Ids of hints that arrive while earlier ones are being processed. They are processed together


_MOST_BATCHES_WAITING = 4
_LOOKS_AGAIN_S = 1.0
_HELD_UP_S = 0.1
"""A batch that takes longer may wait for a lock. Usual ones take a tenth of it."""


class GatheredIds:
    """Gathers the ids of all threads of a process.

    A thread whose ids another thread will take returns at once. So batches grow only while the process is busy, and no
    id waits for a batch to fill. Ids are lost with the process, like hints: the clock sends them again.

    `at_a_time`: how many threads may call `process`, with at most `largest` ids each. A further one begins only when no
    batch has begun for `held_up_s`: two small batches cost twice as much as one. While four batches wait, a thread with
    further ids waits too, so that other processes receive the next messages.
    """

    def __init__(
        self, process: Callable[[list[UUID]], None], *, at_a_time: int, largest: int, held_up_s: float = _HELD_UP_S
    ) -> None:
        self._process = process
        self._at_a_time = at_a_time
        self._largest = largest
        self._held_up_s = held_up_s
        self._changed = threading.Condition()
        self._waiting: dict[UUID, None] = {}
        self._running = 0
        self._begun = 0
        """The number of batches so far."""
        self._is_one_patient = False
        """True while a thread waits to learn if the running ones are held up."""

    def take(self, ids: Iterable[UUID]) -> None:
        """Process these ids and all others that wait, or leave them to another thread. Raises errors of `process`."""
        with self._changed:
            while not self._changed.wait_for(self._has_room, _LOOKS_AGAIN_S):
                made_progress()  # the threads for which this one waits are watched themselves
            self._waiting.update(dict.fromkeys(ids))
            if self._running == self._at_a_time or self._is_one_patient:
                return
            self._be_patient()
            if not self._waiting:
                return
            self._running += 1
        while batch := self._next():
            try:
                self._process(batch)
            except BaseException:
                self._end()
                raise

    def _has_room(self) -> bool:
        is_one_needed = self._running + self._is_one_patient < self._at_a_time
        return is_one_needed or len(self._waiting) < _MOST_BATCHES_WAITING * self._largest

    def _be_patient(self) -> None:
        """Wait until all ids are taken, no thread runs, or the running ones are held up."""
        self._is_one_patient, is_held_up = True, False
        try:
            while self._waiting and self._running and not is_held_up:
                begun = self._begun
                is_held_up = not self._changed.wait_for(partial(self._has_gone_on, begun), self._held_up_s)
        finally:
            self._is_one_patient = False

    def _has_gone_on(self, begun: int) -> bool:
        return self._begun != begun or not self._running

    def _next(self) -> list[UUID]:
        """Take the next batch. The thread that finds none has ended: a later id starts another one."""
        with self._changed:
            batch = list(islice(self._waiting, self._largest))
            for each in batch:
                del self._waiting[each]
            if batch:
                self._begun += 1
                self._changed.notify_all()
            else:
                self._end()
            return batch

    def _end(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()


# --- Hints that share a message: while they wait to be sent, or for further callbacks of the carrier


BATCH_S = 0.05
"""How long the first hint after a pause waits for others."""
INTERVAL_S = 0.2
"""The time between two messages under load."""
LARGEST = AT_MOST_A_TRANSACTION
"""A batch of this size does not wait."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """Hints for one task."""

    task: str
    ids: tuple[UUID, ...]
    due_at: Mapping[UUID, datetime] | None = None


@dataclass(frozen=True, kw_only=True)
class Notification:
    """Tells waiting requests that these commands were answered. It is no task, and reaches every API process."""

    ids: tuple[UUID, ...]


Published: TypeAlias = Message | Notification


@dataclass(frozen=True, kw_only=True)
class Later:
    """Hints for one task that are sent at an instant of the monotonic clock."""

    task: str
    ids: tuple[UUID, ...]
    due_at: float


def joined(published: Iterable[Published]) -> list[Published]:
    """Join neighbours of the same kind that may share a message or a notification. All ids keep their order."""
    found: list[Published] = []
    for each in published:
        last = found[-1] if found else None
        if last is not None and len(last.ids) + len(each.ids) <= _largest_of(last, each):
            found[-1] = replace(last, ids=last.ids + each.ids)
        else:
            found.append(each)
    return found


def _largest_of(last: Published, following: Published) -> int:
    """Find the largest number of ids that these two may share. 0 if they are of different kinds, or share none."""
    if isinstance(last, Notification) and isinstance(following, Notification):
        return AT_MOST_A_TRANSACTION
    if isinstance(last, Message) and isinstance(following, Message) and last.task == following.task == APPLY:
        return COMMANDS_A_TRANSACTION
    return 0


class LaterHints:
    """Hints that wait for their instants. An id that waits already is not added again."""

    def __init__(self) -> None:
        self._due: dict[tuple[str, UUID], float] = {}

    def add(self, later: Later) -> None:
        for each in later.ids:
            self._due.setdefault((later.task, each), later.due_at)

    def wait_s(self, now: float) -> float | None:
        """Compute the seconds until a hint is due. None without hints."""
        return max(0.0, min(self._due.values()) - now) if self._due else None

    def take(self, now: float) -> list[Message]:
        """Take the messages for all hints that are due."""
        due = [key for key, at in self._due.items() if at <= now]
        by_task: dict[str, list[UUID]] = {}
        for key in due:
            del self._due[key]
            by_task.setdefault(key[0], []).append(key[1])
        return [
            Message(task=task, ids=tuple(ids[start : start + COMMANDS_A_TRANSACTION]))
            for task, ids in by_task.items()
            for start in range(0, len(ids), COMMANDS_A_TRANSACTION)
        ]

    def clear(self) -> None:
        self._due.clear()


class HintBatch:
    """Gathers ids, and returns them when their message is due.

    Five messages a second are enough under load: a message and its transaction cost as much as forty callbacks.
    No client waits for a callback to be processed. Instants are those of the monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self._ids: list[UUID] = []
        self._due_at = 0.0

    def add(self, ids: Iterable[UUID], now: float) -> None:
        if not self._ids:
            self._due_at = max(self._due_at, now + BATCH_S)
        self._ids.extend(ids)

    def wait_s(self, now: float) -> float | None:
        """Compute the seconds until a message is due. None without ids."""
        if not self._ids:
            return None
        return 0.0 if len(self._ids) >= LARGEST else max(0.0, self._due_at - now)

    def take(self, now: float) -> tuple[UUID, ...]:
        """Take the ids of the next message, due or not. Empty without ids."""
        ids, self._ids = tuple(self._ids[:LARGEST]), self._ids[LARGEST:]
        self._due_at = now + INTERVAL_S
        return ids

    def clear(self) -> None:
        self._ids.clear()


# --- A background publisher of hints over Redis. It never blocks a caller, and detects when Redis is away


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
        """Send a worker a hint with these ids. `due_at`: due times of attempts that are not due yet. Never raises."""
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
