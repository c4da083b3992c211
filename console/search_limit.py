"""The limit of searches: without one, an operator could try all phone numbers and learn whose they are."""

from collections import deque
from collections.abc import Callable

from console.operator_session import ConsoleSession
from scheduler.clock import monotonic
from scheduler.logs import log

_log = log(__name__)
MOST = 30
"""Searches of one operator within `WITHIN_S`."""
WITHIN_S = 60.0


class SearchLimit:
    """Counts in this process. Used by its event loop only."""

    def __init__(self, *, monotonic: Callable[[], float] = monotonic) -> None:
        self._monotonic = monotonic
        self._times: dict[str, deque[float]] = {}

    def take(self, session: ConsoleSession) -> bool:
        """Count a search. False: the operator, also in other sessions, has made too many."""
        now = self._monotonic()
        self._times = {each: times for each, times in self._times.items() if now - times[-1] < WITHIN_S}
        times = self._times.setdefault(session.actor, deque(maxlen=MOST))
        if len(times) == MOST and now - times[0] < WITHIN_S:
            _log.warning("console_searches_limited: An operator searched too often.", session_id=str(session.id))
            return False
        times.append(now)
        return True
