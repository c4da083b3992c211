"""Acts: the audit of operators and API keys, for reading."""

from collections.abc import Iterable, Mapping, Sequence

from scheduler.domain.actor import link_of
from scheduler.domain.audit import AuditEntry
from scheduler.persistence.audit import AuditFilter
from scheduler.persistence.database import Database


class Acts:
    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, wanted: AuditFilter, before: int | None, limit: int) -> Sequence[AuditEntry]:
        """Return entries, newest first. `before`: only those older than this entry. Raises DatabaseAway."""
        with self._database.reading() as stores:
            return stores.audit.newest(wanted, before, limit)

    def link_creators(self, actors: Iterable[str]) -> Mapping[str, str]:
        """Return the actors who created the sign-in links of these actors, by the latter. Raises DatabaseAway.

        Actors of another kind are left out.
        """
        links = {link_id: actor for actor in actors if (link_id := link_of(actor)) is not None}
        if not links:
            return {}
        with self._database.reading() as stores:
            found = stores.audit.link_creators(list(links))
        return {links[link_id]: creator for link_id, creator in found.items()}
