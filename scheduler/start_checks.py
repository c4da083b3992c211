"""Checks at the start: whether Redis answers and keeps its keys, and why a process could not start, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduler.logs import place_of
from scheduler.persistence.errors import ClockWrong, DatabaseAway, WrongDatabase
from scheduler.settings import WrongSettings

_ANSWERS_WITHIN_S = 2.0
_KEEPS_ALL = "noeviction"


def why_away(url: str) -> str | None:
    """Return the error if the server does not answer within 2 s, otherwise None."""
    try:
        with _client(url) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return str(error).rstrip(".")
    return None


def check_login(url: str) -> None:
    """Raise RedisRefuses if the server refuses user or password. A server that is away raises nothing."""
    try:
        with _client(url) as client:
            client.ping()
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise RedisRefuses from error
    except (redis.RedisError, OSError):
        return


class RedisRefuses(Exception):
    """The server refuses user or password."""

    def __init__(self) -> None:
        super().__init__(
            "Redis refuses the user or the password of its URL; set REDIS_URL, for Flower FLOWER_REDIS_URL"
        )


def evicts_by(url: str) -> str | None:
    """Read the server's eviction policy, or None if it never evicts keys or cannot be queried.

    Read by INFO, because a user without access to the configuration may still have INFO.
    """
    try:
        with _client(url) as client:
            memory: dict[str, Any] = client.info("memory")
    except (redis.RedisError, OSError):
        return None
    policy = str(memory.get("maxmemory_policy", _KEEPS_ALL))
    return None if policy == _KEEPS_ALL else policy


@contextmanager
def _client(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(
        url,
        socket_timeout=_ANSWERS_WITHIN_S,
        socket_connect_timeout=_ANSWERS_WITHIN_S,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        yield client


# --- The failed start of a process, in one line without secrets or stored values


_PLAIN = (ClockWrong, RedisRefuses, WrongDatabase, WrongSettings)
"""Errors whose texts name the fault and the remedy."""


def failure_line(error: BaseException) -> str:
    """Describe the reason why this process cannot start. An unexpected error shows only its type and place."""
    if isinstance(error, _PLAIN):
        return str(error)
    if isinstance(error, DatabaseAway):
        return f"the database cannot be reached: {error}"
    return f"this process cannot start because of an unexpected error: {place_of(error)}"
