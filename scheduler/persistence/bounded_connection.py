"""The driver's connection, with a deadline on our side for everything that waits for the server.

The server's `statement_timeout` and TCP's limits do not apply when a proxy confirms bytes and never answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect

from scheduler.deadline import remaining_s
from scheduler.watchdog import made_progress

RV = TypeVar("RV")

STATEMENT_S = 5.0
"""The usual limit of a statement, by the server. Less when a request's deadline comes first."""
ALLOWANCE_S = 2.0
"""Time for the server's own error to arrive, before our side closes the connection."""
_INTERVAL_S = 0.1


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose statements, COMMIT and ROLLBACK end: at the statement's limit, plus `ALLOWANCE_S`.

    After that the connection is closed, which waits for nothing, and psycopg.OperationalError is raised.
    """

    statement_s = STATEMENT_S

    def wait(self, gen: PQGen[RV], interval: float = _INTERVAL_S, timeout: float | None = None) -> RV:
        if timeout is not None:  # a wait for notifications: it may end without one
            return super().wait(gen, interval, timeout)
        made_progress()
        within_s: float | None = None
        within_s = self._limit_s() + ALLOWANCE_S  # guard: statement_deadline
        try:
            return super().wait(gen, interval, within_s)
        except _WaitTimeout:
            # Its answer may still come, so no other statement may use this connection.
            self.pgconn.finish()  # guard: late_connection
            raise psycopg.OperationalError(_NO_ANSWER) from None

    def _limit_s(self) -> float:
        left = remaining_s()
        return self.statement_s if left is None or left > self.statement_s else max(0.0, left)


_NO_ANSWER = "the database did not answer in time; the connection is closed"


def _connect(
    _dialect: Dialect, _record: object, arguments: Sequence[Any], options: Mapping[str, Any]
) -> DBAPIConnection:
    """Open a connection. `connect_timeout` limits all of it, with the answers to its authentication."""
    return BoundedConnection.connect(*arguments, **options)  # type: ignore[return-value]


def make_engine(url: str, **options: Any) -> Engine:  # noqa: ANN401 - as SQLAlchemy takes them
    """Return an engine whose connections have a deadline on our side."""
    engine = create_engine(url, hide_parameters=True, **options)
    event.listen(engine, "do_connect", _connect)
    return engine
