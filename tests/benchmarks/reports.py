"""Reports of conversations over HTTP at a steady rate, next to calls that are placed."""

import asyncio
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import aiohttp
import psycopg

from scheduler.domain.principal import VOICE

_AT_ONCE = 64
_REPORT = {"outcome": "FINISHED"}
_TOKENS = """
    SELECT attempt_tokens.token FROM attempt_tokens JOIN attempts ON attempts.id = attempt_id
    WHERE reason = 'ANSWERED' AND outcome_until IS NOT NULL ORDER BY ended_at
"""
"""Answered calls of which no outcome was reported."""


def let_key_report(connection: psycopg.Connection) -> None:
    """Give the scope of voice servers to every key. From now on each answered call waits for its report."""
    connection.execute("UPDATE api_keys SET scopes = scopes || ARRAY[%s]", [VOICE])


def tokens_of(connection: psycopg.Connection) -> list[str]:
    return [str(token) for (token,) in connection.execute(_TOKENS.encode())]


class Reports:
    """Reports one call after another, `rate` a second, in a thread until the end of the block. It may be used again."""

    def __init__(self, api: str, headers: dict[str, str], tokens: Iterator[str], rate: float) -> None:
        self._url = f"{api}/call-attempts/by-token"
        self._headers, self._tokens, self._rate = headers, tokens, rate
        self._over = threading.Event()
        self.taken_s: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._over.clear()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_all()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.seconds += time.monotonic() - self._began

    async def _send_all(self) -> None:
        numbered = enumerate(self._tokens)
        async with aiohttp.ClientSession(headers=self._headers) as session:
            await asyncio.gather(*(self._send(session, numbered) for _ in range(_AT_ONCE)))

    async def _send(self, session: aiohttp.ClientSession, numbered: Iterator[tuple[int, str]]) -> None:
        while not self._over.is_set() and (following := next(numbered, None)):
            place, token = following
            await asyncio.sleep(max(0.0, self._began + place / self._rate - time.monotonic()))
            began = time.monotonic()
            async with session.post(f"{self._url}/{token}/outcome", json=_REPORT) as answer:
                await answer.read()
            self.taken_s.append(time.monotonic() - began)
            self.statuses[answer.status] += 1

    def figures(self) -> dict[str, Any]:
        taken = sorted(self.taken_s)
        return {
            "reports": len(taken),
            "reports/s": len(taken) / self.seconds,
            "report p50 ms": 1000 * statistics.median(taken),
            "report p99 ms": 1000 * taken[int(0.99 * (len(taken) - 1))],
            "answers by status": dict(self.statuses),
        }
