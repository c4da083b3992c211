"""The command `duecall`, its groups, and the options that several commands share. Other modules add the commands."""

import inspect
from contextvars import ContextVar
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import typer
from typer.models import OptionInfo

from command_line.output import print_result, refuse
from scheduler.clock import machine_now

if TYPE_CHECKING:
    from scheduler.settings import Settings

import signal
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from command_line.session import OperatorSession
    from scheduler.settings import Settings


# --- Options and arguments that several commands share


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
    """Build an argument for an id."""
    return typer.Argument(metavar=name, parser=id_of, help=help_text)


def id_option(name: str, help_text: str) -> Any:  # noqa: ANN401 - of typer
    """Build an option for an id."""
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


def _required(context: typer.Context, reason: str | None) -> str | None:
    if reason is None or not reason.strip():
        refuse(f"Missing --reason. See: {context.command_path} --help")
    return reason


ActReason = Annotated[
    str,
    typer.Option(metavar="TEXT (required)", help=f"Reason, in one line. Required. {NO_PERSON}", callback=_required),
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
    """Build the option --key of a command that uses the API. Its help names the required scopes."""
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
    """Compute the seconds to add to the machine's clock so that it shows `at` now."""
    if at is None:
        return chosen.duecall_clock_offset_s
    if chosen.duecall_env == "production":
        refuse("--at is not allowed in production, because it moves the clock.")
    return (instant_of(at, "--at") - machine_now()).total_seconds()


def instant_of(text: str, option: str) -> datetime:
    """Read the instant that an option names. Raises InvalidDateFormat."""
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


# --- The command `duecall` and its groups. The other modules of this package add the commands


def examples(*lines: str) -> str:
    """Build the end of a --help page: commands to paste."""
    return "\n".join(("Examples:", "", *(f"$ {line}" for line in lines)))


def join_help_lines(group: typer.Typer) -> None:
    """Join the lines of each paragraph in the help of every command, so that it wraps at the terminal's width."""
    for command in group.registered_commands:
        paragraphs = (inspect.getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(each.split("\n")) for each in paragraphs)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            join_help_lines(inner.typer_instance)


app = typer.Typer(
    name="duecall",
    help="Places each scheduled phone call when it is due, within the callee's calling hours, and never twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _group(name: str, help_text: str, parent: typer.Typer = app, epilog: str | None = None) -> typer.Typer:
    """Add a group of commands. Groups are listed in the order in which they are added."""
    group = typer.Typer(help=help_text, epilog=epilog, no_args_is_help=True)
    parent.add_typer(group, name=name)
    return group


db = _group("db", "Manage the database schema and its logins.")
keys = _group("keys", "Manage API keys.")
alarms = _group("alarms", "List and acknowledge alarms.")
unknown = _group("unknown", "List calls of unknown outcome, and decide about them.")
quarantine = _group("quarantine", "List, retry or drop commands and callbacks in quarantine (failed five times).")
carrier = _group("carrier", "List and end back-offs (calls that wait for the carrier), and list stray calls.")
locks = _group("locks", "List open transactions of the database, and end one.")
webhooks = _group(
    "webhooks", "List, disable, enable and replay webhooks of partners, and forward events to your own machine."
)
erasures = _group("erasures", "Show the certificates of deleted companies.")
console = _group("console", "Sign in to the operators' console, and manage its sessions.")
console_sessions = _group(
    "sessions", "List and revoke sessions of the console.", console, examples("duecall console sessions list")
)
numbers = _group("numbers", "Manage the caller numbers of a company.")
companies = _group("companies", "Limit the companies.")
billing = _group("billing", "Set how a company is billed.")
openapi = _group("openapi", "Write or check the OpenAPI document.")


def _print_version(is_given: bool) -> None:
    if is_given:
        print_result(f"duecall {metadata.version('duecall')}")
        raise typer.Exit


@app.callback()
def _root(
    home: Annotated[
        Path | None,
        typer.Option(
            help="Data folder of the installation. Overrides DUECALL_HOME, and DATABASE_URL for commands that query a"
            " running system. The demo's is .duecall/demo."
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback has printed it and ended the command
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Version of Duecall.")
    ] = False,
) -> None:
    HOME.set(home)


# --- An installation, its settings and pages, imported when a command runs: `duecall --help` imports none


def chosen_settings() -> "Settings":
    """Read the settings of the environment, with --home in place of DUECALL_HOME."""
    from command_line import installation

    _cancel_on_interrupt()
    return installation.chosen_settings()


def api_url(url: str | None) -> str | None:
    """Choose the value of --url, or the address of the API of the running system. See `installation.api_url`."""
    from command_line import installation

    return installation.api_url(url)


def operator_session(*, computes: bool = False, accepts: bool = False) -> AbstractContextManager["OperatorSession"]:
    """Open the installation's database. See `session.operator_session`."""
    from command_line import session

    _cancel_on_interrupt()
    return session.operator_session(computes=computes, accepts=accepts)


def _cancel_on_interrupt() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt: the driver then cancels a running statement, with its locks."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def print_pages(*pages: "RenderableType") -> None:
    """Print pages for people to standard output."""
    from command_line.terminal import terminal

    for page in pages:
        terminal().print(page)
