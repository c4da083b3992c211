"""Encrypt webhooks: encrypt their secrets again with the first key, so that the second can be removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from scheduler.persistence.database import Database
from scheduler.webhooks.encryption import Encryption, NotDecrypted, headers_place, secret_place

_BATCH_SIZE = 100


@dataclass(frozen=True, kw_only=True)
class Encrypted:
    """Counts of webhooks."""

    changed: int
    """Some of their texts had been encrypted with the second key."""
    current: int
    unreadable: tuple[UUID, ...]
    """None of the keys has encrypted them. Only their partners can repair them, by a new secret and new headers."""


class EncryptWebhooks:
    def __init__(self, database: Database, encryption: Encryption) -> None:
        self._database = database
        self._encryption = encryption

    def all(self) -> Encrypted:
        """Encrypt all webhooks, in batches. It may be repeated and interrupted. Raises DatabaseAway."""
        changed, current = 0, 0
        unreadable: list[UUID] = []
        after: UUID | None = None
        while True:
            with self._database.transaction() as stores:
                rows = stores.webhook_endpoints.lock_encrypted(after, _BATCH_SIZE)
                for row in rows:
                    try:
                        texts = self._again(row)
                    except NotDecrypted:
                        unreadable.append(row["id"])
                        continue
                    if texts:
                        stores.webhook_endpoints.save_encrypted(row["id"], texts)
                        changed += 1
                    else:
                        current += 1
            if len(rows) < _BATCH_SIZE:
                return Encrypted(changed=changed, current=current, unreadable=tuple(unreadable))
            after = rows[-1]["id"]

    def _again(self, row: Mapping[str, Any]) -> dict[str, bytes | None]:
        """Return the texts of a webhook that the first key has not encrypted, encrypted with it."""
        secret, headers = secret_place(row["id"]), headers_place(row["id"])
        return {
            name: self._encryption.encrypt(self._encryption.decrypt(row[name], place), place)
            for name, place in (("secret", secret), ("old_secret", secret), ("headers", headers))
            if row[name] is not None and not self._encryption.is_current(row[name])
        }
