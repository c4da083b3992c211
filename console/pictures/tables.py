"""Tables: the data of a picture as rows, for readers who do not see it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from scheduler.domain.schedule import CalleeClock
from scheduler.lifecycle.scheduling import offset_text
from scheduler.timing import call_windows

UTC_NAME = "UTC"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """An instant as the attribute `datetime` of `<time>`, and on a named clock."""

    at: datetime
    local: str
    """ISO 8601 with the offset."""
    zone: str

    @property
    def utc(self) -> str:
        return self.at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


Cell = str | Moment


@dataclass(frozen=True, kw_only=True)
class TableRows:
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def moment(at: datetime, clock: CalleeClock | None) -> Moment:
    """Return an instant on the first zone of `clock`, or in UTC without a clock."""
    if clock is None:
        return Moment(at=at, local=at.astimezone(UTC).isoformat(timespec="seconds"), zone=UTC_NAME)
    offset = call_windows.utc_offsets(clock, at)[0]
    local = call_windows.local_times(clock, at)[0].isoformat(timespec="seconds")
    text = offset_text(offset)
    return Moment(at=at, local=local + text, zone=clock.zones[0] if clock.zones else text)
