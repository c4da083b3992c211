"""Roles of operators, in sessions of the console and in the claims of an identity provider."""

from enum import StrEnum


class OperatorRole(StrEnum):
    VIEWER = "viewer"
    """Sees every page and changes nothing."""
    OPERATOR = "operator"
    """Also pauses, resumes, retries and decides."""
    ADMIN = "admin"
    """Also revokes keys and drops commands."""

    def may(self, needed: "OperatorRole") -> bool:
        """Return True if this role includes the needed one."""
        return _RANKS.index(self) >= _RANKS.index(needed)


_RANKS = tuple(OperatorRole)
