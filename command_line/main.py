"""The entry point of the command `duecall`."""

import sys
from typing import Any, NoReturn

import typer
from typer.exceptions import TyperException

from command_line import run  # noqa: F401

# isort: split
# The modules above and below add their commands when they are imported, in the order in which --help shows them.
from command_line import database, imports, incidents, keys, operate, records, webhooks  # noqa: F401
from command_line.app import app, join_help_lines
from command_line.output import WRONG_USAGE, print_error, print_stopped
from standalone.run_file import Stopped

__all__ = ["app", "main"]

_STOPPED = 130

join_help_lines(app)


def main() -> NoReturn:
    """Run the command. An expected error is one line on standard error.

    Exit status 2: wrong arguments or settings. 1: the command failed. 130: stopped by Ctrl-C.
    """
    try:
        code = app(prog_name="duecall", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_STOPPED)
    except TyperException as error:
        print_error(_usage_line(error))
        sys.exit(error.exit_code)
    except Stopped:
        print_stopped()
        sys.exit(_STOPPED)
    except Exception as error:
        if (failure := _failure_of(error)) is None:
            raise
        line, status = failure
        print_error(line)
        sys.exit(status)
    sys.exit(code if isinstance(code, int) else 0)


def _failure_of(error: Exception) -> tuple[str, int] | None:
    """Choose the line and the exit status of an expected error, or None for an unexpected one."""
    from scheduler.domain.refusals import InvalidRequest, Refused
    from scheduler.persistence.errors import DatabaseAway, NoLogin, SchemaDrift, SchemaNotMade, WrongDatabase
    from scheduler.settings import MissingSetting, WrongSettings
    from standalone.run_file import CannotRun, ServerUnavailable

    match error:
        case DatabaseAway():
            return f"The database cannot be reached: {error}", 1
        case SchemaNotMade():
            return f"The database cannot be upgraded to this version's schema: {error}", 1
        case WrongDatabase() | MissingSetting() | ServerUnavailable() | CannotRun() | SchemaDrift() | NoLogin():
            return str(error), 1
        case WrongSettings():
            return str(error), WRONG_USAGE
        case Refused():
            return error.message, WRONG_USAGE if isinstance(error, InvalidRequest) else 1
        case _:
            return None


def _usage_line(error: TyperException) -> str:
    """Build the line of an error of arguments. It names every missing argument: the parser names only the first."""
    context: Any = getattr(error, "ctx", None)
    line = error.format_message()
    if context is None or not line:  # a group without a command has printed its help
        return line
    if not error.message:
        required = [each for each in context.command.get_params(context) if each.required]
        missing = [each for each in required if each.name not in context.params]
        line = f"Missing {' and '.join(_name_of(each) for each in missing)}"
        line += "".join(f". Set the variable {each.envvar}" for each in missing if each.envvar)
    line = line.removesuffix(".")  # the parser ends a suggestion with "?."
    return f"{line}{'' if line.endswith('?') else '.'} See: {context.command_path} --help"


def _name_of(parameter: Any) -> str:  # noqa: ANN401 - of the parser
    """Write an option or argument as users do, without its variable."""
    hint: str = parameter.get_error_hint()
    return hint.partition(" (env var")[0].strip("'")
