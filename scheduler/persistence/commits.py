"""The commit of a write that a client waits for: given up in time, or asked about when its answer was lost."""

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a transaction ended whose commit was in doubt."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"
    """The database cannot be asked, or is still at it."""


class GivenUp(Exception):
    """The client has already received an answer that says that nothing was changed."""


@dataclass(kw_only=True)
class Commit:
    """One write of one request. The thread that writes and the request that waits for it share it.

    Whichever comes first decides: the thread sends COMMIT, or the request gives up. So an answer "nothing was changed"
    stays true, however late the thread comes to its commit.
    """

    transaction_id: str | None = None
    """PostgreSQL's id of the transaction, by which any connection can ask how it ended."""
    result: Any = None
    """The value that the write returns once it is committed, kept before the commit."""
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
        """Forbid the commit. False: it was sent before, and only the database knows whether it took effect."""
        with self._lock:
            self._is_given_up = not self._is_sent
            return self._is_given_up
