"""Finds the installation that a command works with. Imports no database, so that `duecall env` needs none."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from command_line.app import HOME, must_be_url
from command_line.output import print_note
from scheduler.settings import Settings, settings
from standalone.run_file import CannotRun, RunningSystem, as_kept, running_in


class NothingRuns(CannotRun):
    """No running system was found, and DATABASE_URL names no installation."""


def chosen_settings() -> Settings:
    """Read the settings of the environment, with --home in place of DUECALL_HOME."""
    home = HOME.get()
    return settings() if home is None else settings().model_copy(update={"duecall_home": home})


def installation() -> tuple[Settings, str]:
    """Find the settings of the installation to use, and its name. Raises NothingRuns.

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
            "console_url": running.run_file.get("consoleUrl", chosen.console_url),
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


def api_url(url: str | None) -> str | None:
    """Choose the value of --url, or the address of the API of the running system. None: the usual address.

    DATABASE_URL does not count: it names no API.
    """
    if url is not None:
        must_be_url("--url", url)
        return url
    found = running_system(chosen_settings())
    return None if found is None else found[0].run_file["apiUrl"]


def homes_of(chosen: Settings) -> dict[Path, str]:
    """List the folders in which a system may run, with their names for messages."""
    own = {chosen.duecall_home: "the system"}
    return own if HOME.get() is not None else own | {demo_home(chosen): "the demo"}


def demo_home(chosen: Settings) -> Path:
    return chosen.duecall_home / "demo"


def running_system(chosen: Settings) -> tuple[RunningSystem, str] | None:
    """Find the first running system, with a name for messages."""
    for home, name in homes_of(chosen).items():
        if (running := running_in(home, print_note)) is not None:
            return running, f"{name} in {home}"
    return None


def place_of(database_url: str) -> str:
    """Describe the database for display, without user and password."""
    parts = urlsplit(database_url)
    host = "a local socket" if parts.hostname is None else f"{parts.hostname}:{parts.port or 5432}"
    return f"{parts.path.strip('/') or 'the default one'} at {host}"
