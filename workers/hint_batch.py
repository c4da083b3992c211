"""Hints that share a message: those that wait to be sent, and those for carrier callbacks, which wait for others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, COMMANDS_A_TRANSACTION
from scheduler.use_cases.shared.hints import APPLY

BATCH_S = 0.05
"""How long the first hint after a pause waits for others."""
INTERVAL_S = 0.2
"""The time between two messages under load."""
LARGEST = AT_MOST_A_TRANSACTION
"""A batch of this size does not wait."""


ANSWERED = "commands.answered"
"""Stands for the notifications of waiting requests in place of a task."""
_SHARED_BY = {APPLY: COMMANDS_A_TRANSACTION, ANSWERED: AT_MOST_A_TRANSACTION}
"""The largest number of ids in a message of waiting hints, by task. Hints of other tasks share none."""


@dataclass(frozen=True, kw_only=True)
class Message:
    task: str
    ids: tuple[UUID, ...]
    due_at: Mapping[UUID, datetime] | None = None


def joined(messages: Iterable[Message]) -> list[Message]:
    """Join neighbouring messages of the same task, if hints of that task may share one. All ids keep their order."""
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        if last is not None and last.task == message.task and _have_room(last, message):
            found[-1] = replace(last, ids=last.ids + message.ids)
        else:
            found.append(message)
    return found


def _have_room(last: Message, message: Message) -> bool:
    return len(last.ids) + len(message.ids) <= _SHARED_BY.get(message.task, 0)


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
        """Return the seconds until a message is due. None without ids."""
        if not self._ids:
            return None
        return 0.0 if len(self._ids) >= LARGEST else max(0.0, self._due_at - now)

    def take(self, now: float) -> tuple[UUID, ...]:
        """Return the ids of the next message, due or not. Empty without ids."""
        ids, self._ids = tuple(self._ids[:LARGEST]), self._ids[LARGEST:]
        self._due_at = now + INTERVAL_S
        return ids

    def clear(self) -> None:
        self._ids.clear()
