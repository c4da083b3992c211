"""The command `duecall` and its groups. The other modules of this package add the commands."""

import inspect
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.options import HOME
from scheduler.cli.output import print_result


def examples(*lines: str) -> str:
    """Return the end of a --help page: commands to paste."""
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
