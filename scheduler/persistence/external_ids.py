"""External ids: locks on them, and the resources that have them."""

from collections.abc import Collection, Mapping

from sqlalchemy import text

from scheduler.domain.resource import ExternalId, ExternalKind, Identified
from scheduler.persistence.store import Store

# In the order of the keys, as every transaction must. Two ids with the same key only wait for each other.
_LOCK_ALL = text("""
    SELECT pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT hashtextextended(given.kind || ' ' || given.company_id || ' ' || given.external_id, 0) AS key
        FROM unnest(CAST(:kinds AS text[]), CAST(:companies AS uuid[]), CAST(:texts AS text[]))
            AS given (kind, company_id, external_id)
        ORDER BY key
    ) AS keys
""")
# Without the order of the keys, because it waits for none.
_LOCK_FREE = text("""
    SELECT keys.kind, keys.company_id, keys.external_id FROM (
        SELECT given.*, hashtextextended(given.kind || ' ' || given.company_id || ' ' || given.external_id, 0) AS key
        FROM unnest(CAST(:kinds AS text[]), CAST(:companies AS uuid[]), CAST(:texts AS text[]))
            AS given (kind, company_id, external_id)
    ) AS keys
    WHERE NOT pg_try_advisory_xact_lock(keys.key)
""")
_FIND_ALL = text("""
    WITH given AS (
        SELECT * FROM unnest(CAST(:kinds AS text[]), CAST(:companies AS uuid[]), CAST(:texts AS text[]))
            AS given (kind, company_id, external_id)
    )
    SELECT g.kind, g.company_id, g.external_id, i.id, i.content_hash FROM given g
    JOIN interviews i ON i.company_id = g.company_id AND i.external_id = g.external_id AND i.deleted_at IS NULL
    WHERE g.kind = 'interview'
    UNION ALL
    SELECT g.kind, g.company_id, g.external_id, c.id, c.content_hash FROM given g
    JOIN candidates c ON c.company_id = g.company_id AND c.external_id = g.external_id AND c.erased_at IS NULL
    WHERE g.kind = 'candidate'
    UNION ALL
    SELECT g.kind, g.company_id, g.external_id, j.id, j.content_hash FROM given g
    JOIN jobs j ON j.company_id = g.company_id AND j.external_id = g.external_id AND j.deleted_at IS NULL
    WHERE g.kind = 'job'
""")


class ExternalIds(Store):
    def lock_all(self, named: Collection[ExternalId]) -> None:
        """Lock external ids until we commit: no other transaction gives one of them to a resource.

        Called before any resource is locked, and before the resources with these ids are looked up. A statement that
        waits for a lock would return the rows as of before the wait.
        """
        self._connection.execute(_LOCK_ALL, _values(named))  # guard: external_lock

    def lock_free(self, named: Collection[ExternalId]) -> set[ExternalId]:
        """Lock external ids like `lock_all`, without waiting. Return the ids that another transaction has locked."""
        rows = self._connection.execute(_LOCK_FREE, _values(named))
        return {
            ExternalId(kind=ExternalKind(row.kind), company_id=row.company_id, text=row.external_id) for row in rows
        }

    def find_all(self, named: Collection[ExternalId]) -> Mapping[ExternalId, Identified]:
        """Find the present resources with these external ids."""
        rows = self._connection.execute(_FIND_ALL, _values(named))
        return {
            ExternalId(kind=ExternalKind(row.kind), company_id=row.company_id, text=row.external_id): Identified(
                id=row.id, content_hash=None if row.content_hash is None else bytes(row.content_hash)
            )
            for row in rows
        }


def _values(named: Collection[ExternalId]) -> Mapping[str, object]:
    return {
        "kinds": [each.kind.value for each in named],
        "companies": [each.company_id for each in named],
        "texts": [each.text for each in named],
    }
