"""How long a step of a call lasts: in real time, and no longer than the carrier's clock says."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

_LOOK_EVERY_S = 0.02
_JUMP = timedelta(milliseconds=200)
"""A clock that is so far ahead of where real time would have brought it was moved."""


class Pace:
    """Waits on a clock that runs, stands or is moved.

    On a clock that runs a step ends when it should. One that stands lets every step pass in real time, with the same
    instant stamped on each. One that is moved back makes no step longer than it was to be. One that is moved ahead
    changes the steps that begin later; when calls follow the clock, it also ends at once what would have ended by then.
    """

    def __init__(self, now: Callable[[], datetime], *, follows_clock: bool) -> None:
        self._now = now
        self._follows_clock = follows_clock
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, since: datetime, span: timedelta) -> None:
        """Until `span` is over on the carrier's clock, counted from `since`, or has passed from now in real time."""
        loop = asyncio.get_running_loop()
        over = loop.time() + span.total_seconds()
        while (left := min(over - loop.time(), (since + span - self._now()).total_seconds())) > 0:
            woken = loop.create_future()
            timer = loop.call_later(left, _wake, woken)
            self._waiting.add(woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._waiting.discard(woken)

    async def watch(self) -> None:
        """Wakes whoever waits when the clock was moved ahead; runs until cancelled, if calls follow the clock."""
        loop = asyncio.get_running_loop()
        while self._follows_clock:
            looked_at, looked_s = self._now(), loop.time()
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._now() - looked_at > timedelta(seconds=loop.time() - looked_s) + _JUMP:
                for woken in list(self._waiting):
                    _wake(woken)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
