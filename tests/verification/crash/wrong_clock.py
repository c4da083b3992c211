"""A process whose machine has a wrong clock, or a clock that is set while the process works."""

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
"""By how much the clock differs from the database's, then."""

REFUSED = 3
"""The exit code of a process that was told that its clock is wrong."""


@dataclass(frozen=True, kw_only=True)
class WrongClock:
    kind: str
    is_wrong: Event
    """Set as soon as the clock is wrong."""

    def failpoint(self, named: str) -> str:
        """The failpoint at which the clock is set; none when it is wrong from the beginning."""
        return "" if self.kind in FROM_THE_BEGINNING else named

    def begin(self) -> None:
        """To be called before anything of the process reads the time."""
        if self.kind in FROM_THE_BEGINNING:
            self._set()
        else:
            failpoints.do_instead(self._set)

    def _set(self) -> None:
        _set_machine(_ahead_by(SPANS[self.kind]))
        self.is_wrong.set()


@contextmanager
def set_wrong(span: timedelta) -> Iterator[None]:
    """The clock of this machine is `span` ahead meanwhile, as the product sees it in this process."""
    _set_machine(_ahead_by(span))
    try:
        yield
    finally:
        _set_machine(datetime)


def _set_machine(answering: type[datetime]) -> None:
    # The one place where the product asks the machine; what is replaced is the machine's answer.
    vars(clock)["datetime"] = answering


def _ahead_by(span: timedelta) -> type[datetime]:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = UTC) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + span

    return Wrong
