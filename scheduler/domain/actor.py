"""Actors: the person or program behind an act, as text `kind:id`. An actor is an id and never a person's name."""

from uuid import UUID

SYSTEM = "system:duecall"
"""An act of the installation itself, for example the keys that `duecall up` creates."""


OPERATOR = "operator"
"""An operator, as companies see one. Logins and machines of operators are not theirs to know."""
_LINK = "link:"
_KEY = "key:"
_OPERATORS = ("cli:", _LINK, "oidc:")


def seen_by_companies(actor: str) -> str:
    return OPERATOR if actor.startswith(_OPERATORS) else actor


def is_audited(actor: str) -> bool:
    """Return True for operators and API keys. The audit contains no acts of the carrier or of workers."""
    return actor.startswith((*_OPERATORS, _KEY))


def of_key(key_id: UUID) -> str:
    """Return the actor of a request with this API key."""
    return f"{_KEY}{key_id}"


def of_link(link_id: UUID) -> str:
    """Return the actor of an operator who signed in to the console with this link."""
    return f"{_LINK}{link_id}"


def link_of(actor: str) -> UUID | None:
    """Return the id of the sign-in link that an actor is known by, or None."""
    try:
        return UUID(actor.removeprefix(_LINK)) if actor.startswith(_LINK) else None
    except ValueError:
        return None


def of_cli(user: str, host: str) -> str:
    """Return the actor of a command of `duecall`: the user of the operating system, and the machine's name."""
    return f"cli:{user}@{host}"
