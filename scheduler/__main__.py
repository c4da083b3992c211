"""What starts when somebody types `duecall`: the command, and until it has been read a Ctrl-C that says nothing."""

import os
import signal
from typing import NoReturn

_STOPPED = 130


def main() -> NoReturn:
    """Run the command. Reading it takes a second, and an interrupt meanwhile would show where, line by line."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(_STOPPED))
    from scheduler import cli  # noqa: PLC0415 - the line above comes first

    signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
