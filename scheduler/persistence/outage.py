"""Outage of the database, as one pool of connections sees it: the cause is logged once per change, without secrets."""

from threading import Lock

from sqlalchemy import make_url

from scheduler.clock import monotonic
from scheduler.logs import log

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
