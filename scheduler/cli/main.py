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
from scheduler.cli.output import WRONG_USAGE, complain, say
from scheduler.domain.refusals import InvalidRequest, Refused
from scheduler.local.errors import CannotRun, ServerUnavailable, Stopped
from scheduler.persistence.database import DatabaseAway, WrongRole
from scheduler.persistence.schema import NoLogin, SchemaDrift, SchemaNotMade
from scheduler.settings import MissingSetting, WrongSettings

__all__ = ["app", "main"]


def main() -> NoReturn:
    """The command `duecall`: what goes wrong for a known reason is one line on standard error.

    Exit status 2: what was typed or set is wrong. 1: it could not be done. 130: stopped by Ctrl-C.
    """
    try:
        code = app(prog_name="duecall", standalone_mode=False)
    except Stopped:
        say("stopped")
        sys.exit(130)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except TyperException as error:
        where = getattr(error, "ctx", None)
        complain(error.format_message() + (f" See: {where.command_path} --help" if where and error.message else ""))
        sys.exit(error.exit_code)
    except DatabaseAway as error:
        complain(f"the database cannot be reached: {error}")
        sys.exit(1)
    except SchemaNotMade as error:
        complain(f"the database cannot be brought to this release's schema: {error}")
        sys.exit(1)
    except (WrongRole, MissingSetting, ServerUnavailable, CannotRun, SchemaDrift, NoLogin) as error:
        complain(str(error))
        sys.exit(1)
    except WrongSettings as error:
        complain(str(error))
        sys.exit(WRONG_USAGE)
    except Refused as refused:
        complain(refused.message)
        sys.exit(WRONG_USAGE if isinstance(refused, InvalidRequest) else 1)
    sys.exit(code if isinstance(code, int) else 0)
