"""Keys: who may ask for what. Made here, shown once, recognised by a keyed hash."""

import zlib
from collections.abc import Iterable
from secrets import choice
from uuid import UUID, uuid4

from scheduler.clock import Now
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import ApiKeySuspended, InsufficientPermissions, InvalidApiKey, NotFound
from scheduler.hashing import Hasher
from scheduler.persistence.database import Database

PREFIX = "sk_live_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 43
"""Characters of 62 kinds: 256 bits."""
_CHECKSUM = 6

ALL_SCOPES = frozenset(
    f"{verb}:{resource}"
    for resource in ("companies", "jobs", "candidates", "agents", "interviews")
    for verb in ("read", "write", "delete")
) | {"read:billing", "read:phone-numbers"}

PER_MINUTE = 60
PER_HOUR = 2000


class Keys:
    def __init__(self, database: Database, hasher: Hasher, now: Now) -> None:
        self._database = database
        self._hasher = hasher
        self._now = now

    def authenticate(self, secret: str, scopes: Iterable[str] = ()) -> Principal:
        """Who asks. Raises InvalidApiKey, ApiKeySuspended, InsufficientPermissions, DatabaseAway.

        A secret whose checksum is wrong costs no query.
        """
        if not is_well_formed(secret):
            raise InvalidApiKey
        now = self._now()
        with self._database.transaction() as stores:
            key = stores.keys.by_hash(self._hasher.key(secret))
        if key is None or key.revoked_at is not None or key.company_deleted:
            raise InvalidApiKey
        if key.expires_at is not None and key.expires_at <= now:
            raise InvalidApiKey
        if key.suspended_at is not None:
            raise ApiKeySuspended(suspendedAt=key.suspended_at.isoformat())
        missing = sorted(frozenset(scopes) - key.principal.scopes)
        if missing:
            raise InsufficientPermissions(f"The API key lacks the scope {', '.join(missing)}.", missingScopes=missing)
        return key.principal

    def create(
        self,
        *,
        kind: KeyKind,
        name: str,
        company_id: UUID | None = None,
        principal_id: UUID | None = None,
        scopes: frozenset[str] = ALL_SCOPES,
        per_minute: int = PER_MINUTE,
        per_hour: int = PER_HOUR,
    ) -> tuple[Principal, str]:
        """A new key and its secret, which nothing can show again. `principal_id` makes it a rotation of that one."""
        key_id = uuid4()
        principal = Principal(id=principal_id or key_id, kind=kind, key_id=key_id, scopes=scopes, company_id=company_id)
        secret = new_secret()
        with self._database.transaction() as stores:
            if company_id is not None and stores.companies.get(company_id) is None:
                raise NotFound("There is no such company.", resourceType="company", resourceId=str(company_id))
            stores.keys.add(principal, self._hasher.key(secret), name, per_minute, per_hour, self._now())
        return principal, secret


def new_secret() -> str:
    """`sk_live_`, 43 random characters, 6 of checksum."""
    body = "".join(choice(_ALPHABET) for _ in range(_RANDOM))
    return PREFIX + body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Can this have been made by `new_secret`? A typing error cannot."""
    body = secret.removeprefix(PREFIX)
    if body == secret or len(body) != _RANDOM + _CHECKSUM or not set(body) <= set(_ALPHABET):
        return False
    return _checksum(body[:_RANDOM]) == body[_RANDOM:]


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECKSUM):
        value, digit = divmod(value, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
