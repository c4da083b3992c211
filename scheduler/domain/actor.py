"""Actors: the person or program behind an act, as text `kind:id`. An actor is an id and never a person's name."""

from uuid import UUID

SYSTEM = "system:duecall"
"""An act of the installation itself, for example the keys that `duecall up` creates."""


def of_key(key_id: UUID) -> str:
    """Return the actor of a request with this API key."""
    return f"key:{key_id}"


def of_cli(user: str, host: str) -> str:
    """Return the actor of a command of `duecall`: the user of the operating system, and the machine's name."""
    return f"cli:{user}@{host}"
