"""Opens an installation, its settings and its pages, imported when a command runs: `duecall --help` imports none."""

import signal
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from command_line.session import OperatorSession
    from scheduler.settings import Settings


def chosen_settings() -> "Settings":
    """Read the settings of the environment, with --home in place of DUECALL_HOME."""
    from command_line import installation

    _cancel_on_interrupt()
    return installation.chosen_settings()


def api_url(url: str | None) -> str | None:
    """Choose the value of --url, or the address of the API of the running system. See `installation.api_url`."""
    from command_line import installation

    return installation.api_url(url)


def operator_session(*, computes: bool = False, accepts: bool = False) -> AbstractContextManager["OperatorSession"]:
    """Open the installation's database. See `session.operator_session`."""
    from command_line import session

    _cancel_on_interrupt()
    return session.operator_session(computes=computes, accepts=accepts)


def _cancel_on_interrupt() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt: the driver then cancels a running statement, with its locks."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def print_pages(*pages: "RenderableType") -> None:
    """Print pages for people to standard output."""
    from command_line.terminal import terminal

    for page in pages:
        terminal().print(page)
