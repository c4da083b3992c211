"""Duration of the steps of a call: in real time, but no longer than by the carrier's clock."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

_CHECK_EVERY_S = 0.02
_JUMP = timedelta(milliseconds=200)
"""A clock that is this far ahead of real time was moved."""


class Pace:
    """Waits on a clock that runs, is stopped or is moved.

    On a running clock a step ends on time. On a stopped clock every step takes real time and has the same instant. If
    the clock is moved back, no step takes longer than planned. If it is moved ahead, later steps change, and steps that
    would have ended by then end at once when calls follow the clock.
    """

    def __init__(self, now: Callable[[], datetime], *, follows_clock: bool) -> None:
        self._now = now
        self._follows_clock = follows_clock
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, since: datetime, span: timedelta) -> None:
        """Wait until `span` has passed since `since` on the carrier's clock, or from now on in real time."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + span.total_seconds()
        while (left := min(end_s - loop.time(), (since + span - self._now()).total_seconds())) > 0:
            woken = loop.create_future()
            timer = loop.call_later(left, _wake, woken)
            self._waiting.add(woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._waiting.discard(woken)

    async def watch(self) -> None:
        """Wake all waits when the clock is moved ahead. Runs until cancelled, if calls follow the clock."""
        loop = asyncio.get_running_loop()
        while self._follows_clock:
            checked_at, checked_s = self._now(), loop.time()
            await asyncio.sleep(_CHECK_EVERY_S)
            if self._now() - checked_at > timedelta(seconds=loop.time() - checked_s) + _JUMP:
                for woken in list(self._waiting):
                    _wake(woken)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
