"""The line and the exit status of each expected error. Imported when a command has failed."""

from dataclasses import dataclass

from command_line.output import WRONG_USAGE
from scheduler.domain.refusals import InvalidRequest, Refused
from scheduler.persistence.errors import DatabaseAway, NoLogin, SchemaDrift, SchemaNotMade, WrongDatabase
from scheduler.settings import MissingSetting, WrongSettings
from standalone.errors import CannotRun, ServerUnavailable


@dataclass(frozen=True, kw_only=True)
class Failure:
    line: str
    code: int = 1


def failure_of(error: Exception) -> Failure | None:
    """Return what to print for an expected error, and None for an unexpected one."""
    match error:
        case DatabaseAway():
            return Failure(line=f"The database cannot be reached: {error}")
        case SchemaNotMade():
            return Failure(line=f"The database cannot be upgraded to this version's schema: {error}")
        case WrongDatabase() | MissingSetting() | ServerUnavailable() | CannotRun() | SchemaDrift() | NoLogin():
            return Failure(line=str(error))
        case WrongSettings():
            return Failure(line=str(error), code=WRONG_USAGE)
        case Refused():
            return Failure(line=error.message, code=WRONG_USAGE if isinstance(error, InvalidRequest) else 1)
        case _:
            return None
