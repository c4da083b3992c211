"""Sessions of operators, the links with which they sign in, and the limit of their searches."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.domain.principal import OperatorRole
from scheduler.logs import log

SESSION_LASTS = timedelta(hours=8)
LINK_LASTS = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class ConsoleSession:
    """A signed-in operator. The cookie's secret is not known here."""

    id: UUID
    actor: str
    """The operator, as `kind:id`: `link:…` of a sign-in link, `oidc:…` of an identity provider."""
    role: OperatorRole
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    """Accurate to the minute."""
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, kw_only=True)
class SignInLink:
    """A link that signs one operator in, once. Its secret is not known here."""

    id: UUID
    role: OperatorRole
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.used_at is None and now < self.expires_at


# --- The limit of searches: without one, an operator could try all phone numbers and learn whose they are


_log = log(__name__)
MOST_SEARCHES = 30
"""Searches of one operator within `SEARCHES_WITHIN_S`."""
SEARCHES_WITHIN_S = 60.0


class SearchLimit:
    """Counts in this process. Used by its event loop only."""

    def __init__(self, *, monotonic: Callable[[], float] = monotonic) -> None:
        self._monotonic = monotonic
        self._times: dict[str, deque[float]] = {}

    def take(self, session: ConsoleSession) -> bool:
        """Count a search. False: the operator, also in other sessions, has made too many."""
        now = self._monotonic()
        self._times = {each: times for each, times in self._times.items() if now - times[-1] < SEARCHES_WITHIN_S}
        times = self._times.setdefault(session.actor, deque(maxlen=MOST_SEARCHES))
        if len(times) == MOST_SEARCHES and now - times[0] < SEARCHES_WITHIN_S:
            _log.warning("console_searches_limited: An operator searched too often.", session_id=str(session.id))
            return False
        times.append(now)
        return True
