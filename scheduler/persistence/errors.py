"""Errors of the database, its outages as a pool sees them, and commits given up or in doubt. None quotes a value."""

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Any

from sqlalchemy import make_url

from scheduler.clock import monotonic
from scheduler.logs import log


class DatabaseAway(Exception):
    """The database cannot be reached, or the connection broke. Nothing was committed."""


class ClockWrong(DatabaseAway):
    """This machine's clock differs from the database's by more than 2 s, or was set during the transaction.

    Nothing was written. Callers handle it like a database that is away: they try again later. The database logs each
    change once, so no other code needs to.
    """

    def __init__(self) -> None:
        super().__init__("this machine's clock differs from the database's; set it, for example by NTP")


class LockTaken(DatabaseAway):
    """Another transaction holds a row that this one needs. Nothing was written. Try again at once.

    A kind of DatabaseAway only so that a caller that does not try again treats it as a transaction that did not happen.
    """


class StatementFailed(DatabaseAway):
    """The server did not complete a statement: it took too long, exceeded another limit, or met a damaged row.

    Nothing was written. The cause may be the whole database, or only what one item of several needs.
    """


class CommitInDoubt(DatabaseAway):
    """COMMIT was sent and its answer was lost: the transaction was committed, will be, or was not.

    `Database.outcome_of` can tell, for a transaction that was given a `Commit`.
    """


class WrongDatabase(Exception):
    """The database, its settings or the way to it do not fit this release. The message names the remedy."""


class WrongRole(WrongDatabase):
    """The database role does not fit this process. No statement was sent with it."""


class SchemaNotReady(WrongDatabase):
    """The database has no schema, or that of an older version."""

    def __init__(self, revision: str | None) -> None:
        found = "no tables" if revision is None else f"the schema {revision} of an older version"
        super().__init__(f"the database has {found}; run `duecall db upgrade` as its owner, then start this process")


class SchemaDrift(Exception):
    """The tables in the code differ from the schema that the migrations make."""


class SchemaNotMade(Exception):
    """The database could not be upgraded to this version's schema. Nothing in it was changed."""


class NoLogin(Exception):
    """A login cannot be set: user or password is missing, or this role may not create roles. Nothing was changed."""


# --- Outage of the database, as one pool of connections sees it: the cause is logged once per change, without secrets


_log = log(__name__)
_AGAIN_AFTER_S = 60.0
"""The same cause is not logged again within this time, so that a database that comes and goes fills no log."""


class Outage:
    def __init__(self, url: str, *, is_logged: bool = True) -> None:
        self._is_logged = is_logged
        self._password = make_url(url).password
        self._cause: str | None = None
        """None: the database was reached last."""
        self._logged: dict[str, float] = {}
        self._lock = Lock()

    def saw(self, cause: str) -> None:
        """Note that the database could not be reached."""
        if not self._is_logged:
            return
        if self._password:
            cause = cause.replace(self._password, "***")
        instant = monotonic()
        with self._lock:
            if cause == self._cause:
                return
            self._cause = cause
            self._logged = {each: at for each, at in self._logged.items() if instant - at < _AGAIN_AFTER_S}
            if cause in self._logged:
                return
            self._logged[cause] = instant
        _log.error("database_unreachable: the database could not be reached, or did not answer", cause=cause)

    def ended(self) -> None:
        """Note that the database was reached. Costs nothing while there is no outage."""
        if self._cause is not None:
            with self._lock:
                is_over, self._cause = self._cause is not None, None
            if is_over:
                _log.info("database_reached: the database answers again")


# --- The commit of a write that a client waits for: given up in time, or looked up when its answer was lost


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
