"""The live table of the demo's calls: the deciding clock, its current time, and each call's state."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scheduler.domain.call import CalleeClock, TimezoneSource
from scheduler.domain.explanation import Rule
from scheduler.timing import call_windows
from standalone.demo.client import DemoCall

WIDE = 118
"""From this width on, the requested time and the source of the clock are shown too. Narrower tables fit 80 columns."""

_SOON = timedelta(minutes=2)
_SOURCES = {
    "OFFSET": "request's offset",
    "ZONE": "request's zone",
    "CANDIDATE": "candidate's zone",
    "PHONE_NUMBER": "phone number",
    "COMPANY": "company's zone",
}
_STYLES = {
    "COMPLETED": "green",
    "FAILED": "yellow",
    "IN_PROGRESS": "cyan",
    "PENDING": "blue",
    "REFUSED": "magenta",
    "DELETED": "magenta",
}
_WAITS = {
    Rule.ACCOUNT_PAUSED: "waits: all paused",
    Rule.CARRIER_DOWN: "waits: carrier down",
    Rule.VOICE_SERVER_DOWN: "waits: voice server",
    Rule.CARRIER_REFUSES_COUNTRY: "waits: carrier refuses",
    Rule.CARRIER_REFUSES_CALLER: "waits: carrier refuses",
    Rule.CARRIER_FAILS_CALLER: "waits: carrier fails",
    Rule.COMPANY_PAUSED: "waits: paused",
    Rule.COMPANY_DELETED: "company deleted",
    Rule.INTERVIEW_OVER: "interview over",
    Rule.COMMAND_WAITING: "waits: a command",
    Rule.EXPIRED: "expired",
    Rule.NUMBER_MISSING: "waits: no number",
    Rule.NUMBER_NOT_ALLOWED: "waits: not allowed",
    Rule.WRONG_NUMBER: "wrong number",
    Rule.OPTED_OUT: "opted out",
    Rule.TIMEZONE_UNKNOWN: "waits: no time zone",
    Rule.CONSENT_EXPIRED: "consent is over",
    Rule.NUMBER_BUSY: "waits: number busy",
    Rule.COMPANY_LIMIT: "waits: a place",
    Rule.ACCOUNT_LIMIT: "waits: a place",
}
"""Texts of the blocks. For the others, NOT_DUE and WINDOW_CLOSED, the due time is shown."""
_CALLING = {
    "the carrier's answer": "dialling",
    "the call's end": "calling",
    "proof of what became of it": "asking the carrier",
}
_COLUMNS = (("call", 0), ("requested", WIDE), ("clock", 0), ("", WIDE), ("clock now", 0), ("state", 0), ("", 0))
"""Headings, and the width from which on each column is shown."""


def terminal() -> Console:
    """Open a console as wide as the terminal. Without a terminal, wide enough for all columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def table(console: Console, calls: Sequence[DemoCall], now: datetime, *, over: bool = False) -> Table:
    """Draw a table with one line per call, so that all fit a terminal of 80 by 24."""
    shown = [console.width >= width for _, width in _COLUMNS]
    countries = len({call.sample.country for call in calls})
    grid = Table(
        title=f"Duecall: {len(calls)} calls in {countries} countries, each on its own clock",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="dim",
    )
    for heading, _ in compress(_COLUMNS, shown):
        grid.add_column(heading, no_wrap=True)
    for call in calls:
        clock, source, local = _clock(call, now)
        cells: tuple[str | Text, ...] = (
            call.sample.label,
            Text(_requested(call), "dim"),
            clock,
            Text(source, "dim"),
            local,
            _state(call, now),
            _mark(console, call, over=over),
        )
        grid.add_row(*compress(cells, shown))
    return grid


def _mark(console: Console, call: DemoCall, *, over: bool) -> Text:
    fits = console.encoding.startswith("utf")
    if call.is_as_expected:
        return Text("✓" if fits else "ok", "bold green")
    wrong = over or call.problem is not None
    return Text(("✗" if fits else "NO") if wrong else "", "bold red")


def _requested(call: DemoCall) -> str:
    if call.scheduled_at is None:
        return "as soon as allowed"
    return call.scheduled_at[11:] if call.moved_to is None else f"{call.scheduled_at[11:]}, {call.moved_to[11:]}"


def _clock(call: DemoCall, now: datetime) -> tuple[str, str, str]:
    """Name the deciding clock, its source, and its local time now."""
    decided: dict[str, Any] = call.newest.get("schedule") or (call.refusal or {}).get("details") or {}
    name = decided.get("timezone") or decided.get("utcOffset")
    if not name:
        return "", "", ""
    zones = tuple(name.split(", "))
    label = f"{len(zones)} zones" if len(zones) > 1 else name
    return label, _SOURCES.get(decided.get("timezoneSource", ""), ""), _local_time(zones, now)


def _local_time(zones: tuple[str, ...], now: datetime) -> str:
    if zones[0][0] in "+-":
        offset = datetime.fromisoformat(f"2000-01-01T00:00{zones[0]}").utcoffset()
        clock = CalleeClock(source=TimezoneSource.OFFSET, offset=offset)
    else:
        clock = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=zones)
    local = sorted(call_windows.local_times(clock, now))
    if local[0] == local[-1]:
        return f"{local[0]:%H:%M:%S}"
    return f"{local[0]:%H:%M}..{local[-1]:%H:%M}"


def _state(call: DemoCall, now: datetime) -> Text:
    """Describe its state, and what it waits for or how it ended, in at most 22 characters."""
    if call.refusal is not None:
        return Text("REFUSED: out of hours", _STYLES["REFUSED"])
    if call.deleted:
        return Text("DELETED, silent", _STYLES["DELETED"])
    newest = call.newest
    return Text(_attempt_state(call, newest, now), _STYLES.get(newest["status"], "")) if newest else Text("")


def _attempt_state(call: DemoCall, newest: dict[str, Any], now: datetime) -> str:
    status: str = newest["status"]
    if status == "IN_PROGRESS":
        return _CALLING.get(newest["waitingFor"] or "", "calling")
    if status == "PENDING":
        if call.asked_for is not None:
            return f"asked for {_due(newest, now)}"
        if len(call.attempts) > 1:
            return f"{call.attempts[-2]['reasonCode']}, then {_due(newest, now)}"
        if call.block is None:
            return "waits for its turn"
        return _WAITS.get(call.block, f"waits until {_due(newest, now)}")
    if status == "COMPLETED" and call.asked_for is not None and len(call.attempts) > 1:
        return f"called back {newest['schedule']['localTime'][11:19]}"
    if status == "COMPLETED":
        return "COMPLETED" if len(call.attempts) == 1 else f"COMPLETED, call {len(call.attempts)}"
    return f"{status} {newest['reasonCode'] or ''}".strip()


def _due(attempt: dict[str, Any], now: datetime) -> str:
    """Format its due time on its clock, or in UTC with several zones. With seconds if it is soon."""
    due_at = datetime.fromisoformat(attempt["scheduledAt"])
    local: str = attempt["schedule"]["localTime"]
    if ", " in local:
        return f"{due_at.astimezone(UTC):%H:%M}Z"
    return local[11:19] if due_at - now < _SOON else local[11:16]
