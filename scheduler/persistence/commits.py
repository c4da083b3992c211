"""The commit of a write that a client waits for: given up in time, or looked up when its answer was lost."""

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """The end of a transaction whose commit was in doubt."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"
    """The database cannot be reached, or the transaction is still in progress."""


class GivenUp(Exception):
    """The client has already received the answer that nothing was changed."""


@dataclass(kw_only=True)
class Commit:
    """One write of one request, shared by the thread that writes and the request that waits for it.

    The first one decides: the thread sends COMMIT, or the request gives up. So the answer "nothing was changed" stays
    true, however late the thread reaches its commit.
    """

    transaction_id: str | None = None
    """PostgreSQL's id of the transaction, with which any connection can look up how it ended."""
    result: Any = None
    """The value that the write returns once committed. Stored before the commit."""
    _is_sent: bool = False
    _is_given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self) -> None:
        """Announce that COMMIT is sent next. Raises GivenUp."""
        with self._lock:
            if self._is_given_up:
                raise GivenUp
            self._is_sent = True

    def give_up(self) -> bool:
        """Forbid the commit. False: it was sent already, and only the database knows if it took effect."""
        with self._lock:
            self._is_given_up = not self._is_sent
            return self._is_given_up
