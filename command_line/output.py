"""Output of commands: lines, errors and JSON."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn
from uuid import UUID

import typer
from rich.console import Console
from rich.text import Text

from scheduler.clock import machine_now

if TYPE_CHECKING:
    from scheduler.settings import Settings
    from standalone.run_file import Running

_console = Console(stderr=True)

WRONG_USAGE = 2
"""Exit status for wrong arguments or settings. A failed command ends with 1."""


def print_json(value: object) -> None:
    """Print a command's result to standard output, for scripts. It may contain ids and instants."""
    print(json.dumps(value, default=plain), flush=True)  # noqa: T201 - the result itself


def plain(value: object) -> object:
    """Convert a value of a row to what JSON shows."""
    return value.isoformat() if isinstance(value, datetime) else str(value) if isinstance(value, UUID) else value


def print_result(text: str) -> None:
    """Print a command's result to standard output at once: a pipe would else wait for 8 KB, or for the end."""
    print(text, flush=True)  # noqa: T201 - the result itself


def print_rows(rows: Iterable[Iterable[object]]) -> None:
    """Print a command's result to standard output, one line per row of cells."""
    for row in rows:
        print_result("  ".join(str(plain(cell) or "-") for cell in row))


def print_progress(line: str) -> None:
    """Print a line with the time of day to standard error."""
    _console.print(Text.assemble((f"{machine_now():%H:%M:%S}", "dim"), f" {line}"), highlight=False, soft_wrap=True)


def print_stopped() -> None:
    """Print the last line after Ctrl-C."""
    print_progress("stopped: all processes and private servers have ended")


def print_note(line: str) -> None:
    """Print a line to standard error."""
    _console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_error(line: str) -> None:
    _console.print(line, style="red", highlight=False, markup=False, soft_wrap=True)


def fail(line: str) -> NoReturn:
    """End a command that could not be executed."""
    print_error(line)
    raise typer.Exit(1)


def refuse(line: str) -> NoReturn:
    """End a command with wrong arguments."""
    print_error(line)
    raise typer.Exit(WRONG_USAGE)


def print_running(running: "Running", chosen: "Settings", mail: str, *, duecall: str = "duecall") -> None:
    """Print the addresses and keys of a system. `duecall` is the command that finds it."""
    user, _, password = chosen.flower_basic_auth.get_secret_value().partition(":")
    for name, value in (
        ("console", f"{running.consoleUrl}   (sign in: {duecall} console login)"),
        ("API", running.apiUrl),
        ("documentation", f"{running.apiUrl}/docs"),
        ("Flower", f"{running.flowerUrl}   ({user} / {password})"),
        ("carrier", running.simulatorUrl or "Twilio"),
        ("mail", mail),
        ("key", running.companyKey),
        ("agent", running.agentId),
    ):
        # Not in a table: a table could cut off the key.
        _console.print(f"  {name:18} {value}", highlight=False, markup=False, soft_wrap=True)
    _console.print("[dim]Press Ctrl-C to stop everything.[/dim]")
