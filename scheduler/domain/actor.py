"""Actors: the person or program behind an act, as text `kind:id`. An actor is an id and never a person's name."""

from uuid import UUID

SYSTEM = "system:duecall"
"""An act of the installation itself, for example the keys that `duecall up` creates."""


OPERATOR = "operator"
"""An operator, as companies see one. Logins and machines of operators are not theirs to know."""
_OPERATORS = ("cli:", "link:", "oidc:")


def seen_by_companies(actor: str) -> str:
    return OPERATOR if actor.startswith(_OPERATORS) else actor


def of_key(key_id: UUID) -> str:
    """Return the actor of a request with this API key."""
    return f"key:{key_id}"


def of_cli(user: str, host: str) -> str:
    """Return the actor of a command of `duecall`: the user of the operating system, and the machine's name."""
    return f"cli:{user}@{host}"
