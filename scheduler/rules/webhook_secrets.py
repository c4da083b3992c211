"""Rotation of a webhook's secret: the old one signs beside the new one for a day."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

OVERLAP = timedelta(hours=24)
"""Time in which a partner replaces the secret in its receiver. Both signatures are sent meanwhile."""


@dataclass(frozen=True, kw_only=True)
class EndpointSecrets:
    """The secrets of an endpoint, as they are stored (encrypted)."""

    secret: bytes = field(repr=False)
    old_secret: bytes | None = field(default=None, repr=False)
    old_secret_until: datetime | None = None


def rotated(secrets: EndpointSecrets, new: bytes, now: datetime) -> EndpointSecrets:
    """Return the secrets after a rotation. A secret that was old before ends at once, because two sign at most."""
    return EndpointSecrets(secret=new, old_secret=secrets.secret, old_secret_until=now + OVERLAP)


def signing(secrets: EndpointSecrets, now: datetime) -> tuple[bytes, ...]:
    """Return the secrets that sign now, the current one first."""
    if secrets.old_secret is None or secrets.old_secret_until is None or now >= secrets.old_secret_until:
        return (secrets.secret,)
    return (secrets.secret, secrets.old_secret)
