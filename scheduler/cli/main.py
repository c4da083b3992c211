"""The entry point of the command `duecall`."""

import sys
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from scheduler.cli import run  # noqa: F401

# isort: split
# The modules above and below add their commands when they are imported, in the order in which --help shows them.
from scheduler.cli import billing, carrier, database, document, keys, operate, quarantine  # noqa: F401
from scheduler.cli.app import app
from scheduler.cli.output import print_error, print_stopped
from scheduler.local.errors import Stopped

__all__ = ["app", "main"]

_STOPPED = 130


def main() -> NoReturn:
    """Run the command. An expected error is one line on standard error.

    Exit status 2: wrong arguments or settings. 1: the command failed. 130: stopped by Ctrl-C.
    """
    try:
        code = app(prog_name="duecall", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_STOPPED)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        help_hint = f" See: {context.command_path} --help" if context and error.message else ""
        print_error(error.format_message() + help_hint)
        sys.exit(error.exit_code)
    except Stopped:
        print_stopped()
        sys.exit(_STOPPED)
    except Exception as error:
        from scheduler.cli.failures import failure_of

        if (failure := failure_of(error)) is None:
            raise
        print_error(failure.line)
        sys.exit(failure.code)
    sys.exit(code if isinstance(code, int) else 0)
