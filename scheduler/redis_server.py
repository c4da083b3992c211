"""What a Redis says of itself: whether it answers, and whether it would throw messages away."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_ANSWERS_WITHIN_S = 2.0
_KEEPS_ALL = "noeviction"


def why_away(url: str) -> str | None:
    """Why it does not answer within 2 s; None when it does."""
    try:
        with _asked(url) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        return str(error).rstrip(".")
    return None


def evicts_by(url: str) -> str | None:
    """The policy by which it throws keys away when its memory is full; None when it keeps all, or cannot be asked.

    Asked by INFO, which a user may have who may not read its configuration.
    """
    try:
        with _asked(url) as client:
            said: dict[str, Any] = client.info("memory")
    except (redis.RedisError, OSError):
        return None
    policy = str(said.get("maxmemory_policy", _KEEPS_ALL))
    return None if policy == _KEEPS_ALL else policy


@contextmanager
def _asked(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(
        url,
        socket_timeout=_ANSWERS_WITHIN_S,
        socket_connect_timeout=_ANSWERS_WITHIN_S,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        yield client
