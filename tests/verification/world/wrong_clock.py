"""Wrong machine clocks: wrong from the start of a process, or changed while it works."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from multiprocessing.synchronize import Event

from scheduler import clock, failpoints

AHEAD, BEHIND = "clock ahead", "clock behind"
SET_AHEAD, SET_BACK = "clock set ahead", "clock set back"
FROM_THE_BEGINNING = frozenset({AHEAD, BEHIND})
_HOUR = timedelta(hours=1)
SPANS = {AHEAD: _HOUR, BEHIND: -_HOUR, SET_AHEAD: _HOUR, SET_BACK: -_HOUR}
"""Difference from the database's clock."""

REFUSED = 3
"""Exit code of a process that stopped because its clock is wrong."""


@dataclass(frozen=True, kw_only=True)
class WrongClock:
    kind: str
    is_wrong: Event
    """Set as soon as the clock is wrong."""

    def begin(self) -> None:
        """Install the clock. Call this before any code in the process reads the time."""
        if self.kind in FROM_THE_BEGINNING:
            self._set()
        else:
            failpoints.do_instead(self._set)

    def _set(self) -> None:
        _set_machine(_ahead_by(SPANS[self.kind]))
        self.is_wrong.set()


@contextmanager
def set_wrong(span: timedelta) -> Iterator[None]:
    """Inside the block, the product in this process sees a machine clock that is `span` ahead."""
    _set_machine(_ahead_by(span))
    try:
        yield
    finally:
        _set_machine(datetime)


def _set_machine(answering: type[datetime]) -> None:
    # Replace `datetime` in the only module of the product that reads the machine's clock.
    vars(clock)["datetime"] = answering


def _ahead_by(span: timedelta) -> type[datetime]:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = UTC) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + span

    return Wrong
