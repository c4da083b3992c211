"""Finds the installation that a command works with, and opens it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from scheduler.cli.output import complain, fail, say_plainly
from scheduler.clock import Now, clock
from scheduler.domain.refusals import NotFound
from scheduler.hashing import Hasher
from scheduler.local.errors import CannotRun
from scheduler.local.run_file import Found, running_in
from scheduler.persistence.database import Database, DatabaseAway
from scheduler.settings import Settings, as_kept, place_of, settings
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.backlog import Backlog
from scheduler.use_cases.operations.carrier_waits import CarrierWaits
from scheduler.use_cases.operations.pauses import Pauses
from scheduler.use_cases.operations.quarantine import Quarantine
from scheduler.use_cases.resources.keys import Keys
from workers.presence import TimesUnknown, times_of


class Given:
    """What was said before the command's name."""

    home: Path | None = None


def chosen_settings() -> Settings:
    """The environment's, with what was said on the command line in its place."""
    return settings() if Given.home is None else settings().model_copy(update={"duecall_home": Given.home})


@dataclass(frozen=True, kw_only=True)
class OperatorSession:
    """What an operator works with: the installation that the environment names, or that runs in this folder."""

    database: Database
    keys: Keys
    explain: Explain
    backlog: Backlog
    quarantine: Quarantine
    pauses: Pauses
    carrier_waits: CarrierWaits
    now: Now
    system: str
    """Which installation that is."""

    def tell(self, what: str) -> None:
        """What was done, and where: an operator may have several installations."""
        say_plainly(f"In {self.system}: {what}")


@contextmanager
def operator_session(*, computes: bool = False) -> Iterator[OperatorSession]:
    """`computes`: the command's answer depends on the times that the processes dial with."""
    chosen, system = installation()
    if computes and Given.home is None and chosen_settings().database_url is not None:
        chosen = _as_announced(chosen)
    database = Database(chosen.database("worker"), pool_size=1, bound=False)
    now = clock(chosen.duecall_clock_offset_s)
    hasher = Hasher(chosen.key_pepper.get_secret_value())
    try:
        if database.schema_revision() is None:
            fail("the database has no schema yet; `duecall db upgrade` makes it")
        yield OperatorSession(
            database=database,
            keys=Keys(database, hasher, now),
            explain=Explain(database, hasher, chosen.policy, now),
            backlog=Backlog(database, now),
            quarantine=Quarantine(database, now),
            pauses=Pauses(database, now),
            carrier_waits=CarrierWaits(database, now),
            now=now,
            system=system,
        )
    except NotFound as missing:
        raise NotFound(f"{missing.message} Asked in {system}.", **missing.details) from None
    except DatabaseAway as away:
        raise DatabaseAway(f"{away} ({system})") from away
    finally:
        database.close()


def installation() -> tuple[Settings, str]:
    """The settings of the installation that is meant, and which that is.

    The one of `--home`; else of the named database; else the `duecall up` that runs in this folder; else the demo.
    """
    chosen = chosen_settings()
    if Given.home is None and chosen.database_url is not None:
        name = "DATABASE_URL" if chosen.database_worker_url is None else "DATABASE_WORKER_URL"
        return chosen, f"the system of {name}, database {place_of(chosen.database('worker'))}"
    if (found := running_system(chosen)) is not None:
        running, name = found
        of_this_run = {
            "database_url": SecretStr(running.database_url),
            "database_worker_url": None,
            "duecall_clock_offset_s": running.clock_offset_s,
        }
        used = as_kept(chosen, running.settings).model_copy(update=of_this_run)
        return used, f"{name}, database {place_of(running.database_url)}"
    if Given.home is not None:
        raise NothingRuns(f"Nothing runs in {Given.home}. Start it there, or leave --home out.")
    raise NothingRuns(
        f"Nothing runs in {' or '.join(map(str, homes_of(chosen)))}, and DATABASE_URL is not set: start `duecall up` or"
        " `duecall demo`, name the folder of one that runs with --home, or set DATABASE_URL."
    )


def homes_of(chosen: Settings) -> dict[Path, str]:
    """Folders in which a system may run, with what each is called."""
    own = {chosen.duecall_home: "the system"}
    return own if Given.home is not None else own | {demo_home(chosen): "the demo"}


def running_system(chosen: Settings) -> tuple[Found, str] | None:
    """Return the first running system, with a name for messages."""
    for home, what in homes_of(chosen).items():
        if (running := running_in(home, say_plainly)) is not None:
            return running, f"{what} in {home}"
    return None


def _as_announced(chosen: Settings) -> Settings:
    """Return the settings with the times that the live processes announce; else warn that the shell's are used.

    Without REDIS_URL no worker can be asked.
    """
    if chosen.redis_url is None:
        return chosen
    try:
        times = times_of(chosen.redis)
    except TimesUnknown as unknown:
        complain(f"WARNING: {unknown}; times such as RING_TIMEOUT_S are those of this shell.")
        return chosen
    differing = [name for name, seconds in times.items() if seconds != chosen.times.get(name, seconds)]
    if differing:
        complain(f"WARNING: this shell sets {', '.join(differing)} differently; the times of the processes are used.")
    return as_kept(chosen, times)


class NothingRuns(CannotRun):
    """There is no installation to ask."""


def demo_home(chosen: Settings) -> Path:
    return chosen.duecall_home / "demo"
