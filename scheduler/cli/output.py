"""Prints lines, errors and JSON to the terminal."""

from typing import NoReturn

import typer
from rich.console import Console
from rich.text import Text

from scheduler.clock import machine_now
from scheduler.local.run_file import Running
from scheduler.settings import Settings

console = Console(stderr=True)
WRONG_USAGE = 2
"""Exit status where what was typed or set is wrong; 1 where it is right and could not be done."""


def say(line: str) -> None:
    console.print(Text.assemble((f"{machine_now():%H:%M:%S}", "dim"), f" {line}"), highlight=False, soft_wrap=True)


def say_plainly(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def fail(line: str) -> NoReturn:
    """It could not be done."""
    complain(line)
    raise typer.Exit(1)


def refuse(line: str) -> NoReturn:
    """What was typed is wrong."""
    complain(line)
    raise typer.Exit(WRONG_USAGE)


def complain(line: str) -> None:
    console.print(line, style="red", highlight=False, markup=False, soft_wrap=True)


def print_running(running: Running, chosen: Settings, mail: str) -> None:
    user = chosen.flower_basic_auth.get_secret_value()
    for name, value in (
        ("API", running.apiUrl),
        ("its documentation", f"{running.apiUrl}/docs"),
        ("Flower", f"{running.flowerUrl}   ({user.partition(':')[0]} / {user.partition(':')[2]})"),
        ("carrier", running.simulatorUrl or "Twilio"),
        ("mail", mail),
        ("key", running.companyKey),
        ("agent", running.agentId),
    ):
        # Never in a table: a key that was cut off cannot be pasted.
        console.print(f"  {name:18} {value}", highlight=False, markup=False, soft_wrap=True)
    console.print("[dim]Ctrl-C stops everything.[/dim]")
