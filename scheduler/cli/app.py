"""The command `duecall` and its groups. The other modules of this package add the commands."""

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from scheduler.cli.installation import Given


def examples(*lines: str) -> str:
    """The end of a --help: commands that can be pasted."""
    return "\n".join(("Examples:", "", *(f"$ {line}" for line in lines)))


app = typer.Typer(
    name="duecall",
    help="Places every scheduled phone call when it is due, inside the hours in which that person may be called,"
    " and never twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
db = typer.Typer(help="The database's schema.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
commands = typer.Typer(help="Commands in quarantine: those that failed five times.", no_args_is_help=True)
carrier = typer.Typer(
    help="Orders that wait because the carrier refuses or fails them, and no others.", no_args_is_help=True
)
numbers = typer.Typer(help="The numbers that a company calls from.", no_args_is_help=True)
billing = typer.Typer(help="What a company's calls cost.", no_args_is_help=True)
openapi = typer.Typer(help="The document of the public API.", no_args_is_help=True)
app.add_typer(db, name="db")
app.add_typer(keys, name="keys")
app.add_typer(commands, name="commands")
app.add_typer(carrier, name="carrier")
app.add_typer(numbers, name="numbers")
app.add_typer(billing, name="billing")
app.add_typer(openapi, name="openapi")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"duecall {metadata.version('duecall')}")  # noqa: T201 - the answer itself
        raise typer.Exit


@app.callback()
def _before_the_command(
    home: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the system that is meant, whatever DUECALL_HOME says, and for what asks a system that"
            " runs, DATABASE_URL; the demo's is .duecall/demo."
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback has answered and ended
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Which release this is.")
    ] = False,
) -> None:
    Given.home = home
