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
db = typer.Typer(help="Manage the database schema and its logins.", no_args_is_help=True)
keys = typer.Typer(help="Manage API keys.", no_args_is_help=True)
alarms = typer.Typer(help="List and acknowledge alarms.", no_args_is_help=True)
unknown = typer.Typer(help="List calls of unknown outcome, and decide about them.", no_args_is_help=True)
quarantine = typer.Typer(
    help="List, retry or drop commands and callbacks in quarantine (failed five times).", no_args_is_help=True
)
carrier = typer.Typer(
    help="List and end back-offs (calls that wait for the carrier), and list stray calls.", no_args_is_help=True
)
locks = typer.Typer(help="List open transactions of the database, and end one.", no_args_is_help=True)
webhooks = typer.Typer(
    help="List, disable, enable and replay webhooks of partners, and forward events to your own machine.",
    no_args_is_help=True,
)
erasures = typer.Typer(help="Show the certificates of deleted companies.", no_args_is_help=True)
numbers = typer.Typer(help="Manage the caller numbers of a company.", no_args_is_help=True)
companies = typer.Typer(help="Limit the companies.", no_args_is_help=True)
billing = typer.Typer(help="Set how a company is billed.", no_args_is_help=True)
openapi = typer.Typer(help="Write or check the OpenAPI document.", no_args_is_help=True)
console = typer.Typer(help="Sign in to the operators' console, and manage its sessions.", no_args_is_help=True)
console_sessions = typer.Typer(
    help="List and revoke sessions of the console.",
    epilog=examples("duecall console sessions list"),
    no_args_is_help=True,
)
console.add_typer(console_sessions, name="sessions")
app.add_typer(db, name="db")
app.add_typer(keys, name="keys")
app.add_typer(alarms, name="alarms")
app.add_typer(unknown, name="unknown")
app.add_typer(quarantine, name="quarantine")
app.add_typer(carrier, name="carrier")
app.add_typer(locks, name="locks")
app.add_typer(webhooks, name="webhooks")
app.add_typer(erasures, name="erasures")
app.add_typer(console, name="console")
app.add_typer(numbers, name="numbers")
app.add_typer(companies, name="companies")
app.add_typer(billing, name="billing")
app.add_typer(openapi, name="openapi")


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
