"""What the README says of arrows and commands is what there is."""

import re
from pathlib import Path

import typer.main

from scheduler import cli
from scheduler.lifecycle.state_machine import ARROWS

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
Drawn = set[tuple[str, str, str]]


def _drawn() -> Drawn:
    """Source, target and event of each arrow of the diagram; `[*]` is a making."""
    drawn: Drawn = set()
    for source, target, events in re.findall(r"^ {4}(\S+) --> (\S+): (.+)$", README, re.MULTILINE):
        drawn |= {(source, target, event.replace(" ", "_")) for event in events.split(", ")}
    return drawn


def test_the_diagram_has_every_arrow_and_no_other() -> None:
    assert _drawn() == {
        ("[*]" if arrow.source is None else arrow.source.value, arrow.target.value, arrow.event) for arrow in ARROWS
    }


def test_every_event_is_explained_or_says_itself() -> None:
    explained = {
        event.replace(" ", "_")
        for cell in re.findall(r"^\| ([a-z ,]+) \| .+ \|$", README, re.MULTILINE)
        for event in cell.split(", ")
    }
    itself = {"created", "created_as_test", "deleted", "expiry_moved", "hang_up_wanted"}
    assert {arrow.event for arrow in ARROWS} - explained == itself


def test_every_command_that_is_named_exists() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    assert set(re.findall(r"duecall ([a-z]+)\b(?!-)", README)) <= set(commands)
