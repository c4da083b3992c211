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
from scheduler.cli.output import WRONG_USAGE, print_error, print_stopped
from scheduler.domain.refusals import InvalidRequest, Refused
from scheduler.local.errors import CannotRun, ServerUnavailable, Stopped
from scheduler.persistence.errors import DatabaseAway, WrongRole
from scheduler.persistence.schema import NoLogin, SchemaDrift, SchemaNotMade
from scheduler.settings import MissingSetting, WrongSettings

__all__ = ["app", "main"]

_STOPPED = 130


def main() -> NoReturn:
    """Run the command. An expected error is one line on standard error.

    Exit status 2: wrong arguments or settings. 1: the command failed. 130: stopped by Ctrl-C.
    """
    try:
        code = app(prog_name="duecall", standalone_mode=False)
    except Stopped:
        print_stopped()
        sys.exit(_STOPPED)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_STOPPED)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        help_hint = f" See: {context.command_path} --help" if context and error.message else ""
        print_error(error.format_message() + help_hint)
        sys.exit(error.exit_code)
    except DatabaseAway as error:
        print_error(f"The database cannot be reached: {error}")
        sys.exit(1)
    except SchemaNotMade as error:
        print_error(f"The database cannot be upgraded to this version's schema: {error}")
        sys.exit(1)
    except (WrongRole, MissingSetting, ServerUnavailable, CannotRun, SchemaDrift, NoLogin) as error:
        print_error(str(error))
        sys.exit(1)
    except WrongSettings as error:
        print_error(str(error))
        sys.exit(WRONG_USAGE)
    except Refused as refused:
        print_error(refused.message)
        sys.exit(WRONG_USAGE if isinstance(refused, InvalidRequest) else 1)
    sys.exit(code if isinstance(code, int) else 0)
