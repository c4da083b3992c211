"""Entry point of the `duecall` command. Until the command line module is imported, Ctrl-C exits without a traceback."""

import os
import signal
from typing import NoReturn

_STOPPED = 130


def main() -> NoReturn:
    """Run the command. Importing it takes a second, in which an interrupt would print a traceback."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(_STOPPED))
    from scheduler.cli.main import main as run  # noqa: PLC0415 - the line above comes first

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
