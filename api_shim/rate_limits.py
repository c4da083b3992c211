"""Rate limits of API keys, counted in Redis by key id, per minute and per hour, and of batches at a time."""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from scheduler.clock import Now, monotonic
from scheduler.domain.principal import Key
from scheduler.domain.refusals import RateLimitExceeded
from scheduler.logs import log
from scheduler.wire.batches import LARGEST_BATCH

_log = log(__name__)
_PREFIX = "duecall:limits"
_PATIENCE_S = 0.2
ITEMS_A_REQUEST = 10
"""A key may send this many items of batches an hour for each request that it may send in that time."""
BYTES_AN_ITEM = 2048
"""A key may send this many bytes of batches for each item that it may send. A full batch has 1,678 bytes an item."""
_TRY_AGAIN_AFTER_S = 1.0
_MINUTE_S, _HOUR_S = 60, 3600


@dataclass(frozen=True, kw_only=True)
class Window:
    """The state of one of a key's two limits at the time of a request."""

    name: str
    """Spelled as in the headers."""
    limit: int
    remaining: int
    resets_at: int
    """Unix seconds at which the next window begins."""


@dataclass(frozen=True, kw_only=True)
class RateLimitState:
    """The rate limits of a key after a request was counted."""

    windows: tuple[Window, ...]
    exceeded: Window | None = None
    """The limit that this request exceeded."""

    def headers(self) -> Iterator[tuple[str, str]]:
        for window in self.windows:
            yield f"X-RateLimit-Limit-{window.name}", str(window.limit)
            yield f"X-RateLimit-Remaining-{window.name}", str(window.remaining)
            yield f"X-RateLimit-Reset-{window.name}", str(window.resets_at)


@dataclass(frozen=True, kw_only=True)
class ExceededBatchLimit:
    """The limit of a key that a batch would exceed."""

    window: Window
    unit: Literal["items", "bytes"]


class RateLimits:
    """Counts requests by key. Belongs to one event loop. While Redis is unavailable, no request is limited or delayed.

    Windows are fixed, from one full minute or hour to the next. So the headers contain the exact reset time, and a key
    needs only two counters. The price: around the turn of a minute, twice its limit may pass within 60 s. The hourly
    limit bounds this.

    `redis_is_away`: whether this process already knows that Redis is unavailable.
    """

    def __init__(self, redis_url: str, now: Now, redis_is_away: Callable[[], bool]) -> None:
        self._pool = ConnectionPool.from_url(
            redis_url, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S, retry=Retry(NoBackoff(), 0)
        )
        self._redis = Redis(connection_pool=self._pool)
        self._now = now
        self._redis_is_away = redis_is_away
        self._is_away = False
        self._try_again_at = 0.0

    @contextlib.asynccontextmanager
    async def counting(self) -> AsyncIterator["RateLimits"]:
        try:
            yield self
        finally:
            await self._pool.disconnect()

    async def count_request(self, key: Key) -> RateLimitState:
        """Count one request of this key. A request above the minute limit does not count for the hour."""
        now = self._now()
        minute = _Tier("Minute", key.per_minute, _MINUTE_S, str(key.principal.key_id), now)
        hour = _Tier("Hour", key.per_hour, _HOUR_S, str(key.principal.key_id), now)
        if self._redis_is_away() or monotonic() < self._try_again_at:
            return _untouched(minute, hour)
        if self._is_away:
            # Only this request tries Redis. The others do not wait.
            self._try_again_at = monotonic() + _TRY_AGAIN_AFTER_S
        try:
            async with asyncio.timeout(_PATIENCE_S):
                this_minute = await self._add(minute, 1)
                within = this_minute <= key.per_minute
                this_hour = await (self._add(hour, 1) if within else self._counted(hour))
        except (RedisError, OSError, TimeoutError) as error:
            self._went_away(error)
            return _untouched(minute, hour)
        self._is_away, self._try_again_at = False, 0.0
        windows = (minute.window(this_minute), hour.window(this_hour))
        if not within:
            return RateLimitState(windows=windows, exceeded=windows[0])
        return RateLimitState(windows=windows, exceeded=windows[1] if this_hour > key.per_hour else None)

    async def count_batch(self, key: Key, size: int) -> ExceededBatchLimit | None:
        """Count the bytes of a batch that is not parsed yet, or return the limit that it exceeds.

        They count whatever becomes of the batch, because parsing is what costs. Nothing is counted if all items of the
        hour are used up, or if the bytes would exceed their limit.
        """
        return await self._unless_away(self._count_batch(key, size))

    async def _count_batch(self, key: Key, size: int) -> ExceededBatchLimit | None:
        items, of_bytes = self._items_of(key), self._bytes_of(key)
        sent = await self._counted(items)
        if sent >= items.limit:
            return ExceededBatchLimit(window=items.window(sent), unit="items")
        counted = await self._counted(of_bytes)
        if counted + size > of_bytes.limit:
            return ExceededBatchLimit(window=of_bytes.window(counted), unit="bytes")
        await self._add(of_bytes, size)
        return None

    async def count_items(self, key: Key, count: int) -> ExceededBatchLimit | None:
        """Count items of a batch, or return the limit that they would exceed: then none is counted."""
        return await self._unless_away(self._count_items(self._items_of(key), count))

    async def _count_items(self, hour: "_Tier", count: int) -> ExceededBatchLimit | None:
        counted = await self._counted(hour)
        if counted + count > hour.limit:
            return ExceededBatchLimit(window=hour.window(counted), unit="items")
        await self._add(hour, count)
        return None

    async def _unless_away(self, counting: Coroutine[Any, Any, ExceededBatchLimit | None]) -> ExceededBatchLimit | None:
        """Return the result, or None while Redis is unavailable."""
        if self._redis_is_away() or monotonic() < self._try_again_at:
            counting.close()
            return None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await counting
        except (RedisError, OSError, TimeoutError) as error:
            self._went_away(error)
        return None

    def _items_of(self, key: Key) -> "_Tier":
        return _Tier("Hour", key.per_hour * ITEMS_A_REQUEST, _HOUR_S, f"items:{key.principal.key_id}", self._now())

    def _bytes_of(self, key: Key) -> "_Tier":
        # At least one batch, however few requests the key may send.
        limit = max(key.per_hour * ITEMS_A_REQUEST * BYTES_AN_ITEM, LARGEST_BATCH)
        return _Tier("Hour", limit, _HOUR_S, f"bytes:{key.principal.key_id}", self._now())

    async def _add(self, tier: "_Tier", count: int) -> int:
        """Count in this window, and return its new count. Its key outlives it by at most its length."""
        async with self._redis.pipeline(transaction=True) as both:
            both.incrby(tier.key, count)
            both.expire(tier.key, tier.seconds)
            counted, _ = await both.execute()
        return int(counted)

    async def _counted(self, tier: "_Tier") -> int:
        return int(await self._redis.get(tier.key) or 0)

    def _went_away(self, error: Exception) -> None:
        if not self._is_away:
            _log.warning("rate_limits_off: Redis was unavailable, so requests are not rate limited.", exc_info=error)
        self._is_away = True
        self._try_again_at = monotonic() + _TRY_AGAIN_AFTER_S


class _Tier:
    """A limit and its current window."""

    def __init__(self, name: str, limit: int, seconds: int, counted: str, now: datetime) -> None:
        self._name = name
        self.limit = limit
        self.seconds = seconds
        turn = math.floor(now.timestamp() / self.seconds)
        self._resets_at = (turn + 1) * self.seconds
        self.key = f"{_PREFIX}:{counted}:{self.seconds}:{turn}"

    def window(self, counted: int) -> Window:
        remaining = max(0, self.limit - counted)
        return Window(name=self._name, limit=self.limit, remaining=remaining, resets_at=self._resets_at)


def _untouched(*tiers: _Tier) -> RateLimitState:
    """Report full limits: the request was not counted."""
    return RateLimitState(windows=tuple(tier.window(0) for tier in tiers))


# --- Batches of one company at a time


MOST_AT_A_TIME = 4
"""Batches that one process receives and stores at the same time for one company."""


class Uploads:
    """Bodies of batches in this process: few of one company at a time, because each takes up to 16 MiB of memory.

    A client may send a body as slowly as it likes.
    """

    def __init__(self, most: int = MOST_AT_A_TIME) -> None:
        self._most = most
        self._of_companies: Counter[Hashable] = Counter()

    @contextmanager
    def one_of(self, company: Hashable) -> Iterator[None]:
        """Count one body of the company during this block. Raises RateLimitExceeded."""
        if self._of_companies[company] >= self._most:
            message = f"This company is sending {self._most} batches. Send this one when one of them is answered."
            raise RateLimitExceeded(message, limit=self._most, unit="batches at a time", retryAfter=1)
        self._of_companies[company] += 1
        try:
            yield
        finally:
            self._of_companies[company] -= 1
            if not self._of_companies[company]:
                del self._of_companies[company]
