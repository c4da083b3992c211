"""API keys: created here, shown once, recognised by a keyed hash of the secret."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from secrets import choice
from typing import Any
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.principal import (
    MAX_NAME,
    PER_HOUR,
    PER_MINUTE,
    SYSTEM,
    VOICE,
    VOICE_PER_HOUR,
    VOICE_PER_MINUTE,
    Act,
    Key,
    KeyKind,
    KeyState,
    Principal,
    TargetKind,
    Verb,
)
from scheduler.domain.refusals import (
    ApiKeySuspended,
    ExpiryInPast,
    InsufficientPermissions,
    InvalidApiKey,
    InvalidKeyName,
    KeyRevoked,
    KeySuspended,
    NotFound,
    TooManyLiveKeys,
    UnknownScopes,
)
from scheduler.domain.webhook import READ_WEBHOOKS, DisabledCause
from scheduler.hashing import Hasher
from scheduler.ids import new_id
from scheduler.persistence.database import Database
from scheduler.persistence.keys import USED_EVERY, Found
from scheduler.persistence.stores import Stores
from scheduler.rules import operators
from scheduler.rules.resources import is_printable
from scheduler.use_cases.shared.access import require

PREFIX = "sk_live_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 43
"""Characters out of 62: 256 bits."""
_CHECKSUM = 6

ALL_SCOPES = frozenset(
    f"{verb}:{resource}"
    for resource in ("companies", "jobs", "candidates", "agents", "interviews")
    for verb in ("read", "write", "delete")
) | {"read:billing", "read:phone-numbers", READ_WEBHOOKS, "write:webhooks", VOICE}

DEFAULT_SCOPES = ALL_SCOPES - {READ_WEBHOOKS, "write:webhooks", VOICE}
"""The scopes of a key that is created without naming any.

Without `read:webhooks`: while a company has a key with it, each of its calls writes events, read or not. A webhook does
the same, so `write:webhooks` is also named. `voice` is for voice servers, which need nothing else.
"""

_LIVE_AT_ONCE = 2


class Keys:
    """All keys are visible here: operators and the setup of an installation use this class without a principal."""

    def __init__(self, database: Database, hasher: Hasher, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._hasher = hasher
        self._now = now
        self._actor = actor

    def authenticate(self, secret: str) -> Key:
        """Find the active key of this secret. Raises InvalidApiKey, ApiKeySuspended, DatabaseAway.

        A secret with a wrong checksum is rejected without a query.
        """
        if not is_well_formed(secret):
            raise InvalidApiKey
        with self._database.lookup() as stores:
            return self._usable(stores.keys.by_hash(self._hasher.key(secret)))

    def reaches(self, principal: Principal, company_id: UUID) -> bool:
        """Return True if the principal can access the company. Raises DatabaseAway."""
        with self._database.reading(principal) as stores:
            return stores.keys.reach(principal, company_id)

    def of_id(self, key_id: UUID) -> Key:
        """Find the active key of this id, for trusted callers that have no secret.

        Raises InvalidApiKey, ApiKeySuspended, DatabaseAway.
        """
        with self._database.reading() as stores:
            return self._usable(stores.keys.by_id(key_id))

    def _usable(self, row: Found | None) -> Key:
        if row is None or row.company_deleted:
            raise InvalidApiKey
        key = row.key
        match key.state(self._now()):
            case KeyState.ACTIVE:
                return key
            case KeyState.SUSPENDED:
                assert key.suspended_at is not None
                suspended_at = key.suspended_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
                raise ApiKeySuspended(suspendedAt=suspended_at, reason=key.suspend_reason)
        raise InvalidApiKey

    def must_record_use(self, key: Key) -> bool:
        """Return True if `last_used_at` should be updated."""
        now, last = self._now(), key.last_used_at
        return last is None or not now - USED_EVERY < last <= now

    def used(self, principal: Principal) -> None:
        """Update `last_used_at` of the principal's key, without waiting for a lock. Raises DatabaseAway."""
        with self._database.transaction(principal) as stores:
            stores.keys.used(principal.key_id, stores.instant(self._now))

    def create(
        self,
        *,
        kind: KeyKind,
        name: str,
        company_id: UUID | None = None,
        principal_id: UUID | None = None,
        scopes: frozenset[str] = DEFAULT_SCOPES,
        per_minute: int | None = None,
        per_hour: int | None = None,
        expires_at: datetime | None = None,
        reason: str | None = None,
    ) -> tuple[Principal, str]:
        """Create a key. Return it with its secret, which is not stored. `principal_id` makes it a rotation.

        A rate limit of None is the default, which is higher for a key that has only the scope of voice servers.
        `reason` is for the audit. Raises NotFound for an unknown company, InvalidKeyName, UnknownScopes, ExpiryInPast,
        InvalidPauseReason, DatabaseAway.
        """
        reason = operators.optional(reason)
        usual_per_minute, usual_per_hour = _usual_limits(scopes)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            key_id = new_id(now)
            principal = Principal(
                id=principal_id or key_id, kind=kind, key_id=key_id, scopes=scopes, company_id=company_id
            )
            key = Key(
                principal=principal,
                name=name,
                per_minute=usual_per_minute if per_minute is None else per_minute,
                per_hour=usual_per_hour if per_hour is None else per_hour,
                created_at=now,
                expires_at=expires_at,
            )
            secret = self._add(stores, key)
            stores.audit.add(self._actor, [_act(Verb.CREATE_KEY, key, reason, after=_fields(key))], now)
            return principal, secret

    def rotate(self, key_id: UUID, changes: Mapping[str, Any], reason: str | None = None) -> tuple[Principal, str]:
        """Create a second key of a principal: a copy of the first except for `changes`. Return it with its secret.

        `changes` may contain name, scopes, per_minute, per_hour, expires_at. Both keys work until one is revoked. A
        third is refused. A revoked or expired key can be rotated too: the principal keeps its idempotency keys. Raises
        NotFound, KeySuspended while a key of the principal is suspended, TooManyLiveKeys, InvalidKeyName,
        UnknownScopes, ExpiryInPast, InvalidPauseReason, DatabaseAway. `reason` is for the audit.
        """
        reason = operators.optional(reason)
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            first = _locked(stores, key_id)
            keys = stores.keys.lock_of_principal(first.principal.id)
            _refuse_suspended(keys)
            live = [str(each.principal.key_id) for each in keys if each.state(now) is KeyState.ACTIVE]
            if len(live) >= _LIVE_AT_ONCE:
                raise TooManyLiveKeys(f"Revoke one of its keys first: {', '.join(live)}.", keyIds=live)
            scopes = changes.get("scopes", first.principal.scopes)
            principal = replace(first.principal, key_id=new_id(now), scopes=scopes)
            others = {name: value for name, value in changes.items() if name != "scopes"}
            key = Key(
                principal=principal,
                created_at=now,
                **{"name": first.name, "per_minute": first.per_minute, "per_hour": first.per_hour, **others},
            )
            secret, after = self._add(stores, key), {**_fields(key), "rotatedFrom": key_id}
            stores.audit.add(self._actor, [_act(Verb.ROTATE_KEY, key, reason, after=after)], now)
            return principal, secret

    def all(self, company_id: UUID | None) -> Sequence[Key]:
        """List all keys, or the keys of one company, oldest first. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.keys.all(company_id)

    def suspend(self, key_id: UUID, reason: str | None) -> bool:
        """Suspend a key until it is resumed. False: it was suspended already, and an existing reason is kept.

        Clients that use the key receive the reason. Raises InvalidPauseReason, NotFound, KeyRevoked, DatabaseAway.
        """
        if reason is not None:
            reason = operators.checked(reason)
        with self._database.transaction() as stores:
            key = _not_revoked(stores, key_id)
            if key.suspended_at is not None and (key.suspend_reason is not None or reason is None):
                return False
            now = stores.instant(self._now)
            stores.keys.suspend(key_id, reason, now)
            stores.audit.add(self._actor, [_moved(Verb.SUSPEND_KEY, key, reason, KeyState.SUSPENDED)], now)
            return True

    def resume(self, key_id: UUID, reason: str | None = None) -> bool:
        """Resume a suspended key. False: it was not suspended. `reason` is for the audit.

        Raises InvalidPauseReason, NotFound, KeyRevoked, DatabaseAway.
        """
        reason = operators.optional(reason)
        with self._database.transaction() as stores:
            key = _not_revoked(stores, key_id)
            if key.suspended_at is None:
                return False
            now = stores.instant(self._now)
            stores.keys.resume(key_id, now)
            after = replace(key, suspended_at=None).state(now)
            stores.audit.add(self._actor, [_moved(Verb.RESUME_KEY, key, reason, after)], now)
            return True

    def revoke(self, key_id: UUID, reason: str | None = None) -> bool:
        """Revoke a key permanently. False: it was revoked already. `reason` is for the audit.

        The webhooks of its principal are disabled if no usable key is left: no key could stop their deliveries any
        longer. Raises InvalidPauseReason, NotFound, DatabaseAway.
        """
        reason = operators.optional(reason)
        with self._database.transaction() as stores:
            key = _locked_with_others(stores, key_id)
            if key.revoked_at is not None:
                return False
            now = stores.instant(self._now)
            stores.keys.revoke(key_id, now)
            act = revocation(key, reason)
            # Read after the wait for the locks: a rotation may have added a key meanwhile.
            if not any(_may_be_used(each, now) for each in stores.keys.of_principal(key.principal.id)):
                webhooks = stores.webhook_endpoints.disable_of_principal(
                    key.principal.id, DisabledCause.KEY_REVOKED, now
                )
                act = replace(act, after={**act.after, "webhooks": webhooks}) if webhooks else act
            stores.audit.add(self._actor, [act], now)
            return True

    def _add(self, stores: Stores, key: Key) -> str:
        if not 0 < len(key.name) <= MAX_NAME or not is_printable(key.name):
            raise InvalidKeyName
        unknown = sorted(key.principal.scopes - ALL_SCOPES)
        if unknown:
            known = ", ".join(sorted(ALL_SCOPES))
            raise UnknownScopes(f"There is no scope {', '.join(unknown)}. There are: {known}.", scopes=unknown)
        if key.expires_at is not None and key.expires_at <= key.created_at:
            raise ExpiryInPast
        company_id = key.principal.company_id
        if company_id is not None:
            require(stores.companies.get(company_id), "company", company_id)
        secret = new_secret()
        stores.keys.add(key, self._hasher.key(secret))
        return secret


def _usual_limits(scopes: frozenset[str]) -> tuple[int, int]:
    """Find the requests a minute and an hour of a key with these scopes."""
    if scopes == {VOICE}:  # guard: voice_limits
        return VOICE_PER_MINUTE, VOICE_PER_HOUR
    return PER_MINUTE, PER_HOUR


def must_have(principal: Principal, scopes: Iterable[str]) -> None:
    """Raise InsufficientPermissions with the scopes that the key lacks."""
    missing = sorted(frozenset(scopes) - principal.scopes)
    if missing:
        company_id, key_id = principal.company_id, principal.key_id
        # Another ATS key would not have the companies of this one.
        owner = f"--rotate {key_id}" if company_id is None else f"--company {company_id}"
        raise InsufficientPermissions(
            f"The API key lacks the scope {', '.join(missing)}. An operator creates a key with it by"
            f" `duecall keys create {owner} --scopes {','.join(missing)}`. It has only the scopes named there.",
            missingScopes=missing,
        )


def revocation(key: Key, reason: str | None) -> Act:
    """Build the audit's entry of a key that is revoked."""
    return _moved(Verb.REVOKE_KEY, key, reason, KeyState.REVOKED)


def _moved(verb: Verb, key: Key, reason: str | None, state: KeyState) -> Act:
    suspended = {"state": KeyState.SUSPENDED, "reason": key.suspend_reason}
    before = {"state": KeyState.ACTIVE} if key.suspended_at is None else suspended
    return _act(verb, key, reason, before=before, after={"state": state})


def _act(
    verb: Verb, key: Key, reason: str | None, *, before: Mapping[str, object] | None = None, after: Mapping[str, object]
) -> Act:
    return Act(
        verb=verb,
        target_kind=TargetKind.KEY,
        target_id=key.principal.key_id,
        company_id=key.principal.company_id,
        reason=reason,
        before=before or {},
        after=after,
    )


def _fields(key: Key) -> dict[str, object]:
    """Collect what the audit keeps of a new key. Its name may be a person's."""
    return {
        "keyKind": key.principal.kind,
        "principalId": key.principal.id,
        "scopes": key.principal.scopes,
        "perMinute": key.per_minute,
        "perHour": key.per_hour,
        "expiresAt": key.expires_at,
    }


def _locked(stores: Stores, key_id: UUID) -> Key:
    key = stores.keys.lock(key_id)
    if key is None:
        raise NotFound("There is no such key; `duecall keys list` has their ids.", resourceType="key")
    return key


def _locked_with_others(stores: Stores, key_id: UUID) -> Key:
    """Lock all keys of a key's principal, oldest first. A revoked key may be returned without a lock."""
    found = stores.keys.listed(key_id)
    if found is None:
        raise NotFound("There is no such key; `duecall keys list` has their ids.", resourceType="key")
    keys = stores.keys.lock_of_principal(found.key.principal.id)
    return next((each for each in keys if each.principal.key_id == key_id), found.key)


def _may_be_used(key: Key, now: datetime) -> bool:
    """Return True for an active key, and for a suspended one, which may be resumed."""
    return key.state(now) in {KeyState.ACTIVE, KeyState.SUSPENDED}


def _refuse_suspended(keys: Iterable[Key]) -> None:
    """Raise KeySuspended for a key that an operator may still resume."""
    for key in keys:
        if key.suspended_at is not None and key.revoked_at is None:
            key_id = key.principal.key_id
            raise KeySuspended(
                f"Key {key_id} is suspended, and a rotation would be active. Resume it first: duecall keys resume"
                f" {key_id}",
                keyId=str(key_id),
            )


def _not_revoked(stores: Stores, key_id: UUID) -> Key:
    key = _locked(stores, key_id)
    if key.revoked_at is not None:
        raise KeyRevoked
    return key


def new_secret() -> str:
    """Make a secret: `sk_live_`, 43 random characters and 6 of checksum."""
    body = "".join(choice(_ALPHABET) for _ in range(_RANDOM))
    return PREFIX + body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Return True if `new_secret` can have created this. A checksum rejects typing errors."""
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
