"""Options and arguments that several commands share."""

from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from scheduler.cli.output import refuse
from scheduler.clock import machine_now
from scheduler.settings import Settings
from scheduler.timing import call_windows, callee_zones, requested_time

_ANY_ZONE = "Europe/London"
"""Stands in where a text names its own instant, and no zone decides."""

LAST_PORT = 65_535
Port = Annotated[int | None, typer.Option(help="The API's port; else 8000, or a free one when that is taken.")]
At = Annotated[
    str | None,
    typer.Option(
        help="Start the clock at this instant, e.g. 2026-04-02T07:59+10:30, on a database of its own that is forgotten"
        " at the end: rows of another time would all be late, or early. Not in production."
    ),
]

Ephemeral = Annotated[bool, typer.Option("--ephemeral", help="Begin with no data, and forget all data at the end.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]
WhichCompany = Annotated[UUID | None, typer.Argument(metavar="COMPANY_ID", show_default=False)]
WhichFile = Annotated[Path, typer.Argument(metavar="FILE", help="Where the document is kept.")]
WhichKey = Annotated[UUID, typer.Argument(metavar="KEY_ID", help="As `duecall keys list` says.")]
Everything = Annotated[bool, typer.Option("--all", help="Everything, for every company.")]


def clock_offset(at: str | None, chosen: Settings) -> float:
    """Seconds to add to the machine's clock so that it shows `at` now."""
    if at is None:
        return chosen.duecall_clock_offset_s
    if chosen.duecall_env == "production":
        refuse("--at moves the clock, and production does not let it be moved")
    return (instant_of(at, "--at") - machine_now()).total_seconds()


def instant_of(text: str, option: str) -> datetime:
    """The instant that an option names. Raises InvalidDateFormat."""
    requested = requested_time.read(text, field=option)
    if requested.offset is None and not requested.is_instant and requested.zone is None:
        refuse(f"{option} needs an offset, Z or a zone, e.g. 2026-04-02T07:59+10:30")
    clock_of_text = callee_zones.deciding_clock(requested, candidate_zone=None, number=None, company_zone=_ANY_ZONE)
    return call_windows.resolve(requested, clock_of_text)
