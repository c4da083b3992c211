"""What one API process holds while it runs, and how a route asks the use cases without stopping the others."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar, cast
from uuid import UUID

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.requests import HTTPConnection

from api_shim.rate_limits import RateLimits
from api_shim.waiting import Waiter
from scheduler.assembly import Doors
from scheduler.domain.key import Key
from scheduler.logs import log
from scheduler.persistence.database import DatabaseAway

P = ParamSpec("P")
T = TypeVar("T")

_log = log(__name__)
_ASKED_AT_ONCE = 8
"""As many as the database keeps connections: more would only wait for one, and be told that it is away."""
_LONGEST_S = 6.0
"""A statement ends after 5 s; who has heard nothing by then speaks to a database that is frozen."""


@dataclass(frozen=True, kw_only=True)
class House:
    """Made once, inside the event loop that serves."""

    doors: Doors
    waiter: Waiter
    schema_head: str | None
    """The migration that this release was made for."""
    places: CapacityLimiter
    rate_limits: RateLimits
    instance: str | None = None
    """Which `duecall up` runs it, if one does."""
    notes: dict[UUID, asyncio.Task[None]] = field(default_factory=dict)
    """What is being written down of each key, while nobody waits for it."""

    async def ask(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a use case answers, asked in a thread. Raises what it raises; DatabaseAway after 6 s of silence."""
        try:
            with anyio.fail_after(_LONGEST_S):
                return await to_thread.run_sync(
                    lambda: verb(*args, **kwargs), abandon_on_cancel=True, limiter=self.places
                )
        except TimeoutError as silence:
            raise DatabaseAway("silence") from silence

    def note_use(self, key: Key) -> None:
        """Write down that the key is used, if that is news; off the request's path."""
        key_id = key.principal.key_id
        if key_id not in self.notes and self.doors.keys.is_news(key):
            self.notes[key_id] = asyncio.create_task(self._write_use(key), name="note")

    async def _write_use(self, key: Key) -> None:
        try:
            await self.ask(self.doors.keys.used, key.principal)
        except Exception as error:  # noqa: BLE001 - nobody asked for it, and the next use writes it again
            _log.warning("that a key was used could not be written", exc_info=error)
        finally:
            del self.notes[key.principal.key_id]


def places() -> CapacityLimiter:
    return CapacityLimiter(_ASKED_AT_ONCE)


def house(connection: HTTPConnection) -> House:
    """The house that this request came into."""
    return cast("House", connection.app.state.house)
