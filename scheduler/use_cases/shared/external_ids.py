"""External ids: a resource is created once for the client's own id, and no other resource of its kind gets that id."""

from uuid import UUID

from scheduler.domain.refusals import ExternalIdReused
from scheduler.domain.resource import ExternalId, ExternalKind, Identified
from scheduler.hashing import fingerprint
from scheduler.persistence.json_columns import Content, content_as_json
from scheduler.persistence.stores import Stores
from scheduler.wire.json_values import canonical


def content_hash(new: Content) -> bytes | None:
    """Compute the hash to store with a new resource, or None for a resource without an external id."""
    return None if new.external_id is None else fingerprint(canonical(content_as_json(new)))


def lock(stores: Stores, kind: ExternalKind, company_id: UUID, text: str | None) -> ExternalId | None:
    """Lock an external id until we commit. Called before any resource is locked. None: no id was sent."""
    if text is None:
        return None
    external_id = ExternalId(kind=kind, company_id=company_id, text=text)
    stores.external_ids.lock_all([external_id])
    return external_id


def find_same(stores: Stores, external_id: ExternalId | None, new: Content) -> UUID | None:
    """Find the resource that an earlier request with this locked id and the same content created. None: create it.

    Raises ExternalIdReused.
    """
    found = _find(stores, external_id)
    if external_id is None or found is None:
        return None
    return same(external_id.kind, found, new)


def same(kind: ExternalKind, found: Identified, new: Content, field: str = "externalId") -> UUID:
    """Find the id of the resource that has the external id. Raises ExternalIdReused if its content is another one."""
    if found.content_hash != content_hash(new):  # guard: external_content
        raise _reused(kind, found, field)
    return found.id


def must_be_free(stores: Stores, external_id: ExternalId | None, resource_id: UUID) -> None:
    """Raise ExternalIdReused if another resource than this one has the locked id."""
    found = _find(stores, external_id)
    if external_id is not None and found is not None and found.id != resource_id:
        raise _reused(external_id.kind, found, "externalId")


def _find(stores: Stores, external_id: ExternalId | None) -> Identified | None:
    return None if external_id is None else stores.external_ids.find_all([external_id]).get(external_id)


def _reused(kind: ExternalKind, found: Identified, field: str) -> ExternalIdReused:
    # Without the external id: a refusal is stored, and the id may be personal data.
    return ExternalIdReused(field=field, resourceType=kind.value, resourceId=str(found.id))
