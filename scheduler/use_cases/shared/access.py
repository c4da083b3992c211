"""Access: the company of a request, and the refusals for what is missing or another company's."""

from typing import TypeVar
from uuid import UUID

from scheduler.domain.command import Command
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import AccessDenied, CompanyIdRequired, NotFound
from scheduler.persistence.inbox import FoundOrError
from scheduler.persistence.stores import Stores

T = TypeVar("T")
_NAMES = {"callAttempt": "call attempt", "phoneNumber": "phone number"}
_LISTS = {
    "agent": "GET /agents",
    "batch": "GET /batches",
    "callAttempt": "GET /interviews/{id}/call-attempts",
    "candidate": "GET /candidates",
    "delivery": "GET /webhooks/{id}/deliveries",
    "interview": "GET /interviews",
    "job": "GET /jobs",
    "phoneNumber": "GET /phone-numbers",
    "webhook": "GET /webhooks",
}
"""The request that lists the resources of each kind."""


def found_command(found: FoundOrError | None, reference: str) -> Command:
    """Raises NotFound; AccessDenied if the command's company has been deleted; the error of reading the command."""
    if found is None:
        raise NotFound("There is no such command.", resourceType="command", resourceId=reference[:64])
    if isinstance(found, ValueError):
        raise found
    if found.company_deleted:
        raise AccessDenied
    return found.command


def authorized_company(stores: Stores, principal: Principal, requested: UUID | None, *, is_held: bool = False) -> UUID:
    """Return the company of a request: a regular key's own company. An ATS key has to name a company.

    `is_held`: block its deletion until we commit. Raises CompanyIdRequired. Raises AccessDenied for a missing company
    and for a company that the key may not reach.
    """
    if principal.kind is KeyKind.REGULAR:
        company_id = principal.company_id
        assert company_id is not None
    elif requested is None:
        raise CompanyIdRequired(field="companyId")
    else:
        company_id = requested
    if not stores.keys.reach(principal, company_id, is_held=is_held):  # guard: reach
        raise AccessDenied
    return company_id


def require(resource: T | None, kind: str, resource_id: UUID) -> T:
    """Return the resource. Raises NotFound for None."""
    if resource is None:
        raise not_found(kind, resource_id)
    return resource


def not_found(kind: str, resource_id: UUID) -> NotFound:
    """Build NotFound for a missing resource. A resource of another company gives the same error."""
    name = _NAMES.get(kind, kind)
    found_by = f" {_LISTS[kind]} lists the ids; details.resourceId is not one of them." if kind in _LISTS else ""
    seen_by = " A webhook is visible only to the key that created it, and its rotations." if kind == "webhook" else ""
    return NotFound(f"There is no such {name}.{found_by}{seen_by}", resourceType=kind, resourceId=str(resource_id))
