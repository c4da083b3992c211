"""Words for times, zones and spans on the pages of the terminal, and JSON for scripts."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.text import Text

from scheduler.domain.call import CalleeClock
from scheduler.domain.refusals import TimezoneUnknown
from scheduler.lifecycle.scheduling import offset_text
from scheduler.timing import call_windows
from scheduler.timing.time_texts import span_text

# --- JSON for scripts: names as on the wire, instants in UTC, spans in seconds


_SPANS = ("late", "oldest")


def as_json(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - of any row
    converted = {}
    for name, value in values.items():
        if name in _SPANS:
            converted[f"{name}Seconds"] = None if value is None else value.total_seconds()
        elif isinstance(value, datetime):
            converted[to_camel(name)] = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        else:
            converted[to_camel(name)] = str(value) if isinstance(value, UUID) else value
    return converted


# --- Words for times, zones and spans on the pages of the terminal


_MAX_NAMED_ZONES = 3
"""Up to this many zones are named. For more, only their count is shown."""


def terminal() -> Console:
    """Return the console for pages. Without a terminal it is 120 columns wide."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=120)


def system_line(system: str) -> Text:
    """Return the first line of a page: the name of the installation."""
    return Text(f"System    {system}", "dim")


def add_facts(heading: Text, facts: Iterable[tuple[str, str]]) -> Text:
    """Add a line with the name and the value of each fact below a heading."""
    for name, value in facts:
        heading.append(f"\n  {name:<13} ", "dim").append(value)
    return heading


def utc(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def local_time(clock: CalleeClock, instant: datetime) -> str:
    """Return the callee's local time, or for several zones the earliest and the latest."""
    try:
        local = call_windows.local_times(clock, instant)
    except TimezoneUnknown:
        return "local time unknown"
    if clock.offset is not None:
        return f"{local[0]:%a %d %b %H:%M:%S} at {offset_text(clock.offset)}"
    shown = sorted(zip(local, clock.zones, strict=True))
    if len({each for each, _ in shown}) == 1:
        return f"{shown[0][0]:%a %d %b %H:%M:%S} in {clock_name(clock)}"
    (first, where_first), (last, where_last) = shown[0], shown[-1]
    return f"{first:%a %d %b %H:%M:%S} in {where_first} to {last:%a %d %b %H:%M:%S} in {where_last}"


def clock_name(clock: CalleeClock) -> str:
    if clock.offset is not None:
        return offset_text(clock.offset)
    return ", ".join(clock.zones) if len(clock.zones) <= _MAX_NAMED_ZONES else f"{len(clock.zones)} time zones"


def from_now(instant: datetime, now: datetime) -> str:
    if instant <= now:
        return "now" if now - instant < timedelta(seconds=1) else f"since {span_text(now - instant)}"
    return f"in {span_text(instant - now)}"
