"""The hints for carrier callbacks that share the next message."""

from collections.abc import Iterable
from uuid import UUID

from scheduler.lifecycle.policy import AT_MOST_A_TRANSACTION

BATCH_S = 0.05
"""How long the first hint after a pause waits for others."""
INTERVAL_S = 0.2
"""The time between two messages under load."""
LARGEST = AT_MOST_A_TRANSACTION
"""A batch of this size does not wait."""


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
