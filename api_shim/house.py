"""What one API process holds while it runs, and how a route asks the use cases without stopping the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar, cast

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.requests import HTTPConnection

from api_shim.waiting import Waiter
from scheduler.assembly import Doors
from scheduler.persistence.database import DatabaseAway

P = ParamSpec("P")
T = TypeVar("T")

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
    instance: str | None = None
    """Which `duecall up` runs it, if one does."""

    async def ask(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a use case answers, asked in a thread. Raises what it raises; DatabaseAway after 6 s of silence."""
        try:
            with anyio.fail_after(_LONGEST_S):
                return await to_thread.run_sync(
                    lambda: verb(*args, **kwargs), abandon_on_cancel=True, limiter=self.places
                )
        except TimeoutError as silence:
            raise DatabaseAway("silence") from silence


def places() -> CapacityLimiter:
    return CapacityLimiter(_ASKED_AT_ONCE)


def house(connection: HTTPConnection) -> House:
    """The house that this request came into."""
    return cast("House", connection.app.state.house)
