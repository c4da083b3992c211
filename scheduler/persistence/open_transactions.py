"""Open transactions of the database, also of other programs, for an operator who looks for a lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from scheduler.persistence.errors import WrongRole
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Store


@dataclass(frozen=True, kw_only=True)
class OpenTransaction:
    """A session with an open transaction. Its statement is left out, because it may contain personal data."""

    pid: int
    login: str | None
    program: str
    """The name that the program gave when it connected: Duecall's processes give theirs."""
    state: str | None
    waits_for: str | None
    """PostgreSQL's kind of wait, for example Lock or Client."""
    since: datetime
    """By the database's clock."""
    blocks: int
    """Number of sessions that wait for a lock of this one."""


class OpenTransactions(Store):
    def all(self) -> Sequence[OpenTransaction]:
        """List the open transactions except this one, oldest first."""
        return self._all(partial(from_row, OpenTransaction), _ALL)

    def end(self, pid: int) -> bool:
        """End a session of this database, and with it its transaction. False: there is no such session.

        Raises WrongRole.
        """
        try:
            return bool(self._connection.execute(_END, {"pid": pid}).scalar_one_or_none())
        except ProgrammingError as error:
            if isinstance(error.orig, InsufficientPrivilege):
                raise WrongRole(
                    f"Session {pid} belongs to a login that this one may not end. Run the command with"
                    " DATABASE_WORKER_URL set to the owner's login, or end the program itself."
                ) from error
            raise


_ALL = text("SELECT * FROM open_transactions()")
_END = text("SELECT pg_terminate_backend(pid) FROM open_transactions() WHERE pid = :pid")
