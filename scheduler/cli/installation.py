"""Finds the installation that a command works with, and opens it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from scheduler import assembly
from scheduler.cli.options import HOME
from scheduler.cli.output import fail, print_error, print_note
from scheduler.clock import Now
from scheduler.domain.refusals import NotFound
from scheduler.local.errors import CannotRun
from scheduler.local.run_file import RunningSystem, running_in
from scheduler.persistence.database import Database
from scheduler.persistence.errors import DatabaseAway
from scheduler.settings import Settings, as_kept, place_of, settings
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.backlog import Backlog
from scheduler.use_cases.operations.carrier_waits import CarrierWaits
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.resources.keys import Keys
from workers.presence import TimesUnknown, times_of


class NothingRuns(CannotRun):
    """No running system was found, and DATABASE_URL names no installation."""


def chosen_settings() -> Settings:
    """Return the settings of the environment, with --home in place of DUECALL_HOME."""
    home = HOME.get()
    return settings() if home is None else settings().model_copy(update={"duecall_home": home})


@dataclass(frozen=True, kw_only=True)
class OperatorSession:
    """Use cases for operators, on one installation."""

    database: Database
    keys: Keys
    explain: Explain
    backlog: Backlog
    quarantine: Quarantine
    pauses: Pauses
    carrier_waits: CarrierWaits
    now: Now
    system: str
    """Name of the installation, for messages."""

    def report(self, result: str) -> None:
        """Print what was done, and in which installation."""
        print_note(f"{self.system[0].upper()}{self.system[1:]}: {result}")


@contextmanager
def operator_session(*, computes: bool = False) -> Iterator[OperatorSession]:
    """Open the installation's database. `computes`: the result depends on the workers' times, e.g. RING_TIMEOUT_S."""
    chosen, system = installation()
    if computes and HOME.get() is None and chosen_settings().database_url is not None:
        chosen = _with_announced_times(chosen)
    database = Database(chosen.database("worker"), pool_size=1, bound=False)
    context = assembly.context_of(chosen, database)
    now = context.now
    try:
        if database.schema_revision() is None:
            fail("The database has no schema yet. Create it with: duecall db upgrade")
        yield OperatorSession(
            database=database,
            keys=Keys(database, context.hasher, now),
            explain=Explain(context),
            backlog=Backlog(database, now),
            quarantine=Quarantine(database, now),
            pauses=Pauses(database, now),
            carrier_waits=CarrierWaits(database, now),
            now=now,
            system=system,
        )
    except NotFound as missing:
        raise NotFound(f"{missing.message} Searched in {system}.", **missing.details) from None
    except DatabaseAway as away:
        raise DatabaseAway(f"{away} ({system})") from away
    finally:
        database.close()


def installation() -> tuple[Settings, str]:
    """Return the settings of the installation to use, and its name. Raises NothingRuns.

    It is the first of these: the system in --home, the database of DATABASE_URL, the running `duecall up` of this
    folder, the running demo.
    """
    chosen = chosen_settings()
    if HOME.get() is None and chosen.database_url is not None:
        variable = "DATABASE_URL" if chosen.database_worker_url is None else "DATABASE_WORKER_URL"
        return chosen, f"the system of {variable}, database {place_of(chosen.database('worker'))}"
    if (found := running_system(chosen)) is not None:
        running, name = found
        of_this_run = {
            "database_url": SecretStr(running.database_url),
            "database_worker_url": None,
            "duecall_clock_offset_s": running.clock_offset_s,
        }
        used = as_kept(chosen, running.settings).model_copy(update=of_this_run)
        return used, f"{name}, database {place_of(running.database_url)}"
    if (home := HOME.get()) is not None:
        raise NothingRuns(f"Nothing runs in {home}. Start a system there, or leave out --home.")
    raise NothingRuns(
        f"Nothing runs in {' or '.join(map(str, homes_of(chosen)))}, and DATABASE_URL is not set. Start `duecall up` or"
        " `duecall demo`, give the folder of a running system with --home, or set DATABASE_URL."
    )


def homes_of(chosen: Settings) -> dict[Path, str]:
    """Return the folders in which a system may run, with their names for messages."""
    own = {chosen.duecall_home: "the system"}
    return own if HOME.get() is not None else own | {demo_home(chosen): "the demo"}


def demo_home(chosen: Settings) -> Path:
    return chosen.duecall_home / "demo"


def running_system(chosen: Settings) -> tuple[RunningSystem, str] | None:
    """Return the first running system, with a name for messages."""
    for home, name in homes_of(chosen).items():
        if (running := running_in(home, print_note)) is not None:
            return running, f"{name} in {home}"
    return None


def _with_announced_times(chosen: Settings) -> Settings:
    """Return the settings with the times that live processes announce in Redis, or warn that the shell's are used."""
    try:
        times = None if chosen.redis_url is None else times_of(chosen.redis)
        problem = "REDIS_URL is not set"
    except TimesUnknown as unknown:
        times, problem = None, str(unknown)
    if times is None:
        print_error(f"WARNING: {problem}; times such as RING_TIMEOUT_S are those of this shell.")
        return chosen
    differing = [name for name, seconds in times.items() if seconds != chosen.times.get(name, seconds)]
    if differing:
        print_error(
            f"WARNING: this shell sets {', '.join(differing)} differently; the times of the processes are used."
        )
    return as_kept(chosen, times)
