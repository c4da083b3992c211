"""How the demo's calls look while they happen: whose clock, what it shows there, what each waits for."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scheduler.demo.client import Row
from scheduler.domain.schedule import CalleeClock, TimezoneSource
from scheduler.timing import call_windows

WIDE = 118
"""From this many columns on it is also shown what was asked for, and why that clock decides; else the table fits 80."""

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
    "COMPANY_PAUSED": "waits: paused",
    "ACCOUNT_PAUSED": "waits: all paused",
    "CARRIER_DOWN": "waits: carrier down",
    "COMMAND_WAITING": "waits: a command",
    "NUMBER_BUSY": "waits: number busy",
    "COMPANY_LIMIT": "waits: a place",
    "ACCOUNT_LIMIT": "waits: a place",
}
_CALLING = {
    "the carrier's answer": "dialling",
    "the call's end": "calling",
    "proof of what became of it": "asking the carrier",
}


def terminal() -> Console:
    """As wide as the terminal; where there is none, as wide as the table likes."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def table(console: Console, rows: Sequence[Row], now: datetime, *, over: bool = False) -> Table:
    """One line a call, so that a terminal of 80 by 24 shows them all."""
    wide = console.width >= WIDE
    countries = len({row.call.country for row in rows})
    made = Table(
        title=f"Duecall: {len(rows)} calls in {countries} countries, each on its own clock",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="dim",
    )
    for heading in (
        "call",
        *(["asked for"] if wide else []),
        "whose clock",
        *([""] if wide else []),
        "there",
        "stands",
    ):
        made.add_column(heading, no_wrap=True)
    made.add_column("", no_wrap=True)
    for row in rows:
        clock, source, there = _clock(row, now)
        made.add_row(
            row.call.who,
            *([Text(_asked(row), "dim")] if wide else []),
            clock,
            *([Text(source, "dim")] if wide else []),
            there,
            _stands(row, now),
            _mark(console, row, over=over),
        )
    return made


def _mark(console: Console, row: Row, *, over: bool) -> Text:
    fits = console.encoding.startswith("utf")
    if row.is_as_expected:
        return Text("✓" if fits else "ok", "bold green")
    wrong = over or row.problem is not None
    return Text(("✗" if fits else "NO") if wrong else "", "bold red")


def _asked(row: Row) -> str:
    if row.asked is None:
        return "as soon as allowed"
    return row.asked[11:] if row.moved_to is None else f"{row.asked[11:]}, {row.moved_to[11:]}"


def _clock(row: Row, now: datetime) -> tuple[str, str, str]:
    """Whose clock decided, why, and what it shows now."""
    decided: dict[str, Any] = row.newest.get("schedule") or (row.refusal or {}).get("details") or {}
    name = decided.get("timezone") or decided.get("utcOffset")
    if not name:
        return "", "", ""
    zones = tuple(name.split(", "))
    shown = f"{len(zones)} zones" if len(zones) > 1 else name
    return shown, _SOURCES.get(decided.get("timezoneSource", ""), ""), _there(zones, now)


def _there(zones: tuple[str, ...], now: datetime) -> str:
    if zones[0][0] in "+-":
        offset = datetime.fromisoformat(f"2000-01-01T00:00{zones[0]}").utcoffset()
        clock = CalleeClock(source=TimezoneSource.OFFSET, offset=offset)
    else:
        clock = CalleeClock(source=TimezoneSource.PHONE_NUMBER, zones=zones)
    local = sorted(call_windows.local_times(clock, now))
    if local[0] == local[-1]:
        return f"{local[0]:%H:%M:%S}"
    return f"{local[0]:%H:%M}..{local[-1]:%H:%M}"


def _stands(row: Row, now: datetime) -> Text:
    """Its state, and what it waits for or how it ended, in twenty-two characters."""
    if row.refusal is not None:
        return Text("REFUSED: shut then", _STYLES["REFUSED"])
    if row.deleted:
        return Text("DELETED, silent", _STYLES["DELETED"])
    newest = row.newest
    return Text(_told(row, newest, now), _STYLES.get(newest["status"], "")) if newest else Text("")


def _told(row: Row, newest: dict[str, Any], now: datetime) -> str:
    status: str = newest["status"]
    if status == "IN_PROGRESS":
        return _CALLING.get(newest["waitingFor"] or "", "calling")
    if status == "PENDING":
        if len(row.attempts) > 1:
            return f"{row.attempts[-2]['reasonCode']}, then {_due(newest, now)}"
        return _WAITS.get(row.block or "", f"waits until {_due(newest, now)}" if row.block else "waits for its turn")
    if status == "COMPLETED":
        return "COMPLETED" if len(row.attempts) == 1 else f"COMPLETED, call {len(row.attempts)}"
    return f"{status} {newest['reasonCode'] or ''}".strip()


def _due(attempt: dict[str, Any], now: datetime) -> str:
    """On its one clock; with several, in UTC. To the second when that is soon."""
    due_at = datetime.fromisoformat(attempt["scheduledAt"])
    local: str = attempt["schedule"]["localTime"]
    if ", " in local:
        return f"{due_at.astimezone(UTC):%H:%M}Z"
    return local[11:19] if due_at - now < _SOON else local[11:16]
