"""Entry point of the `duecall` command. Ctrl-C exits without a traceback, also while modules are imported."""

import os
import signal
from typing import NoReturn

_STOPPED = 130


def main() -> NoReturn:
    """Run the command.

    Each command imports what it needs, and an interrupted import may print a traceback or lose the interrupt. So Ctrl-C
    ends the process, except in commands that have servers or processes to stop: they set a handler of their own.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(_STOPPED))
    from command_line.main import main as run  # noqa: PLC0415 - the line above comes first

    run()


if __name__ == "__main__":
    main()
