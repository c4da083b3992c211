"""The failed start of a process, in one line without secrets or stored values."""

from scheduler.logs import place_of
from scheduler.persistence.errors import ClockWrong, DatabaseAway, WrongDatabase
from scheduler.redis_health import RedisRefuses
from scheduler.settings import WrongSettings

_PLAIN = (ClockWrong, RedisRefuses, WrongDatabase, WrongSettings)
"""Errors whose texts name the fault and the remedy."""


def failure_line(error: BaseException) -> str:
    """Describe the reason why this process cannot start. An unexpected error shows only its type and place."""
    if isinstance(error, _PLAIN):
        return str(error)
    if isinstance(error, DatabaseAway):
        return f"the database cannot be reached: {error}"
    return f"this process cannot start because of an unexpected error: {place_of(error)}"
