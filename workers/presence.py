"""Announcements of live processes in Redis, from which `/readyz` sees which queues are served.

every worker and clock, each 20 s ─► one sorted set, by Redis's own clock ─► /readyz

Asking the workers instead would be a broadcast, which takes as long as the slowest of them may take to answer.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Literal, cast

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from scheduler.timing.callee_zones import TZDATA_VERSION
from scheduler.use_cases.shared.hints import QUEUES

ANNOUNCE_EVERY_S = 20.0
LIVE_FOR_S = 50.0
"""A process counts as live for this time after its announcement: one may be lost, and the next may be slow."""
KEY = "duecall:processes"
Degraded = Literal["redis", "workers", "tzdata", "clock"]
"""The values that `/readyz` reports as degraded."""
_TIMEOUT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Announcement:
    """A live process: its queues, the version of its tz database, and the times that it dials with. No secrets."""

    queues: frozenset[str] = frozenset()
    tzdata: str = TZDATA_VERSION
    times: Mapping[str, float] = field(default_factory=dict)
    """Those of the dial protocol, in seconds, by the names of their environment variables."""
    token: str = field(default_factory=lambda: token_hex(8))
    """Different for each process, so that processes of one kind are counted apart."""

    def as_text(self) -> str:
        form = {"token": self.token, "queues": sorted(self.queues), "tzdata": self.tzdata, "times": dict(self.times)}
        return json.dumps(form)

    @classmethod
    def of_text(cls, text: bytes) -> "Announcement":
        """Parse a stored announcement. A foreign entry raises ValueError, LookupError, TypeError or AttributeError."""
        form = json.loads(text)
        return cls(
            token=form["token"],
            queues=frozenset(form["queues"]),
            tzdata=str(form["tzdata"]),
            times={name: float(seconds) for name, seconds in form.get("times", {}).items()},
        )


class Presence:
    """The announcements in one Redis. Each method raises RedisError or OSError, within a second or so."""

    def __init__(self, redis_url: str) -> None:
        self._redis = Redis.from_url(
            redis_url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )

    def announce(self, process: Announcement) -> None:
        """Make the process count as live from now on, for LIVE_FOR_S."""
        now = self._now_s()
        with self._redis.pipeline() as pipeline:
            pipeline.zadd(KEY, {process.as_text(): now})
            pipeline.zremrangebyscore(KEY, "-inf", now - LIVE_FOR_S)
            pipeline.expire(KEY, int(LIVE_FOR_S))
            pipeline.execute()

    def withdraw(self, process: Announcement) -> None:
        """Make the process count as gone at once, for example while it drains."""
        self._redis.zrem(KEY, process.as_text())

    def live(self) -> Sequence[Announcement]:
        """Return the live processes. Malformed entries are skipped."""
        now = self._now_s()
        # Bounded above, too: after a backward step of Redis's clock a dead process would count as live for too long.
        entries = self._redis.zrangebyscore(KEY, now - LIVE_FOR_S, now + LIVE_FOR_S)
        return [each for each in (_read(text) for text in entries) if each is not None]

    def close(self) -> None:
        self._redis.close()

    def _now_s(self) -> float:
        # Redis's clock for all: to a process with a wrong clock, every other process would seem dead.
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1_000_000


class TimesUnknown(Exception):
    """The times that the live processes dial with are not known. The message gives the reason."""


def times_of(redis_url: str) -> Mapping[str, float]:
    """Return the times that the live processes dial with. Raises TimesUnknown."""
    presence = Presence(redis_url)
    try:
        announced = [each.times for each in presence.live() if each.times]
    except (OSError, RedisError) as error:
        raise TimesUnknown("Redis does not answer") from error
    finally:
        presence.close()
    if not announced:
        raise TimesUnknown("no live process has announced its times")
    if any(each != announced[0] for each in announced):
        raise TimesUnknown("the live processes have different times")
    return announced[0]


def degraded_by(live: Collection[Announcement], own_tzdata: str = TZDATA_VERSION) -> list[Degraded]:
    """Return what `/readyz` reports of these live processes: `workers`, `tzdata`, both or nothing.

    `own_tzdata` is the version of the calling process.
    """
    served = {queue for each in live for queue in each.queues}
    versions = {own_tzdata, *(each.tzdata for each in live)}
    is_degraded: dict[Degraded, bool] = {"workers": not served.issuperset(QUEUES.values()), "tzdata": len(versions) > 1}
    return [name for name, applies in is_degraded.items() if applies]


def _read(text: object) -> Announcement | None:
    try:
        return Announcement.of_text(cast("bytes", text))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
