"""Options and arguments that several commands share."""

from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import typer
from typer.models import OptionInfo

from scheduler.cli.output import refuse
from scheduler.clock import machine_now

if TYPE_CHECKING:
    from scheduler.settings import Settings

HOME: ContextVar[Path | None] = ContextVar("HOME", default=None)
"""The value of the option --home."""

LAST_PORT = 65_535
_ANY_ZONE = "Europe/London"
"""Required by the parser, but never used: an option's text must name its own offset or zone."""


def id_of(text: str) -> UUID:
    """Parse an id. Raises BadParameter, which does not quote the text: it may be a phone number."""
    try:
        return UUID(text.strip())
    except ValueError:
        raise typer.BadParameter("this is not an id. Write it like 6f1f3a52-0c8e-4f0a-9d4e-0b7a1f1f9c11.") from None


def id_argument(name: str, help_text: str) -> Any:  # noqa: ANN401 - of typer
    """Return an argument for an id."""
    return typer.Argument(metavar=name, parser=id_of, help=help_text)


def id_option(name: str, help_text: str) -> Any:  # noqa: ANN401 - of typer
    """Return an option for an id."""
    return typer.Option(metavar=name, parser=id_of, help=help_text)


NO_PERSON = "It must not contain a phone number or an e-mail address, and should not name a person."
"""About every text that is stored and shown to operators."""

Port = Annotated[int | None, typer.Option(help="Port of the API. Default: 8000, or a free port if 8000 is taken.")]
At = Annotated[
    str | None,
    typer.Option(
        help="Start time of the system's clock, e.g. 2026-04-02T07:59+10:30. Implies --ephemeral, because stored calls"
        " would be early or late. Not allowed in production."
    ),
]
Ephemeral = Annotated[
    bool, typer.Option("--ephemeral", help="An empty database that is deleted when the system stops.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Output as JSON, for scripts.")]
ActReason = Annotated[
    str | None, typer.Option(metavar="TEXT (required)", help=f"Reason, in one line. Required. {NO_PERSON}")
]
Reason = Annotated[str | None, typer.Option(help=f"Reason, in one line, for `duecall audit`. {NO_PERSON}")]
CompanyId = Annotated[UUID, id_argument("COMPANY_ID", "Id from `duecall status`.")]
OneCompanyId = Annotated[
    UUID | None, id_argument("COMPANY_ID", "Id from `duecall status`. Either COMPANY_ID or --all is required.")
]
AllCompanies = Annotated[bool, typer.Option("--all", help="All companies, in place of COMPANY_ID.")]
KeyId = Annotated[UUID, id_argument("KEY_ID", "Id from `duecall keys list`.")]
DocumentFile = Annotated[Path, typer.Argument(metavar="FILE", help="Path of the document.")]
ApiUrl = Annotated[
    str | None,
    typer.Option(
        envvar="DUECALL_API_URL",
        help="URL of the API. Default: the running system of this folder, or http://127.0.0.1:8000.",
    ),
]


def api_key(scopes: str) -> OptionInfo:
    """Return the option --key of a command that uses the API. Its help names the required scopes."""
    option: OptionInfo = typer.Option(
        envvar="DUECALL_API_KEY",
        help=f"API key with {scopes}. Other users of the machine can see options, but not variables.",
    )
    return option


def must_be_url(option: str, text: str) -> None:
    """End the command unless the value of an option is a URL of a server."""
    try:
        parts = urlsplit(text)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        refuse(f"{option} must be a URL such as http://127.0.0.1:3000.")


def clock_offset(at: str | None, chosen: "Settings") -> float:
    """Return the seconds to add to the machine's clock so that it shows `at` now."""
    if at is None:
        return chosen.duecall_clock_offset_s
    if chosen.duecall_env == "production":
        refuse("--at is not allowed in production, because it moves the clock.")
    return (instant_of(at, "--at") - machine_now()).total_seconds()


def instant_of(text: str, option: str) -> datetime:
    """Return the instant that an option names. Raises InvalidDateFormat."""
    from scheduler.domain.refusals import InvalidDateFormat
    from scheduler.timing import call_windows, callee_zones, requested_time

    try:
        requested = requested_time.read(text, field=option)
    except InvalidDateFormat as refused:
        message = refused.message.replace(requested_time.EXAMPLES, requested_time.INSTANT_EXAMPLES)
        raise InvalidDateFormat(message, **refused.details) from None
    if requested.offset is None and not requested.is_instant and requested.zone is None:
        refuse(f"{option} needs a UTC offset, Z or a time zone, for example 2026-04-02T07:59+10:30.")
    callee_clock = callee_zones.deciding_clock(requested, candidate_zone=None, number=None, company_zone=_ANY_ZONE)
    return call_windows.resolve(requested, callee_clock)
