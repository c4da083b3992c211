"""Reads for the console's pages about API keys: all of them, and one with what depends on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.key import Key, KeyState
from scheduler.domain.principal import KeyKind
from scheduler.persistence.database import Database
from scheduler.persistence.keys import ListedKey
from scheduler.use_cases.shared.access import not_found


@dataclass(frozen=True, kw_only=True)
class KeyParts:
    """A key with what depends on it."""

    listed: ListedKey
    state: KeyState
    rotations: Sequence[Key]
    """Other keys of its principal, oldest first."""
    active_rotations: int
    companies: int
    """Companies that the principal of an ATS key has created, or 1."""

    @property
    def key(self) -> Key:
        return self.listed.key


class KeyPages:
    def __init__(self, database: Database, now: Now) -> None:
        self._database = database
        self._now = now

    def newest(self, company_id: UUID | None, before: UUID | None, limit: int) -> Sequence[ListedKey]:
        """Return up to `limit` keys of one company, or of all, newest first. Raises DatabaseAway.

        `before`: only those older than this key.
        """
        with self._database.reading() as stores:
            return stores.keys.newest(company_id, before, limit)

    def one(self, key_id: UUID) -> KeyParts:
        """Raises NotFound, DatabaseAway."""
        now = self._now()
        with self._database.reading() as stores:
            listed = stores.keys.listed(key_id)
            if listed is None:
                raise not_found("key", key_id)
            principal = listed.key.principal
            rotations = [
                each for each in stores.keys.of_principal(principal.id) if each.principal.key_id != principal.key_id
            ]
            is_ats = principal.kind is KeyKind.ATS
            companies = stores.companies.count_of_ats(principal.id) if is_ats else 1
        return KeyParts(
            listed=listed,
            state=listed.key.state(now),
            rotations=rotations,
            active_rotations=sum(each.state(now) is KeyState.ACTIVE for each in rotations),
            companies=companies,
        )
