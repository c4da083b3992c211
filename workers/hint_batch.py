"""Hints that share a message: those that wait to be sent, and those for carrier callbacks, which wait for others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION, COMMANDS_A_TRANSACTION
from scheduler.use_cases.shared.hints import APPLY

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
    """Return the largest number of ids that these two may share. 0 if they are of different kinds, or share none."""
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
        """Return the seconds until a hint is due. None without hints."""
        return max(0.0, min(self._due.values()) - now) if self._due else None

    def take(self, now: float) -> list[Message]:
        """Return the messages for all hints that are due."""
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
