"""The actor of an operator's command, for the history and the audit."""

import os
import pwd


def cli_actor() -> str:
    """Return `cli:USER@HOST`: the operating system's user, or its number if it has no name, and the machine."""
    number = os.getuid()
    try:
        user = pwd.getpwuid(number).pw_name
    except KeyError:  # usual in containers
        user = str(number)
    return f"cli:{user}@{os.uname().nodename}"
