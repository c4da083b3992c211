"""Access: the company of a request, what it may see, locks of interviews, repeated keys, external ids, operators."""

from typing import TypeVar
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, AttemptState
from scheduler.domain.command import Command
from scheduler.domain.interview import Interview
from scheduler.domain.principal import SYSTEM, KeyKind, Principal
from scheduler.domain.refusals import AccessDenied, CompanyIdRequired, ExternalIdReused, IdempotencyKeyReused, NotFound
from scheduler.domain.resource import ExternalId, ExternalKind, Identified
from scheduler.hashing import fingerprint
from scheduler.persistence.database import Database
from scheduler.persistence.inbox import FoundOrError
from scheduler.persistence.json_columns import Content, content_as_json
from scheduler.persistence.stores import Stores
from scheduler.wire.json_values import canonical

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
    """Find the company of a request: a regular key's own company. An ATS key has to name a company.

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
    """Require the resource. Raises NotFound for None."""
    if resource is None:
        raise not_found(kind, resource_id)
    return resource


def not_found(kind: str, resource_id: UUID) -> NotFound:
    """Build NotFound for a missing resource. A resource of another company gives the same error."""
    name = _NAMES.get(kind, kind)
    found_by = f" {_LISTS[kind]} lists the ids; details.resourceId is not one of them." if kind in _LISTS else ""
    seen_by = " A webhook is visible only to the key that created it, and its rotations." if kind == "webhook" else ""
    return NotFound(f"There is no such {name}.{found_by}{seen_by}", resourceType=kind, resourceId=str(resource_id))


# --- Locks of an interview, under which its attempts are created, claimed and ended


def lock_interview(stores: Stores, company_id: UUID, interview_id: UUID, *, with_deleted: bool = False) -> Interview:
    """Lock the company's interview, so that no other transaction creates or ends its attempts.

    Raises NotFound, unless `with_deleted` also for a deleted interview.
    """
    if stores.interviews.get(company_id, interview_id, with_deleted=with_deleted) is not None:
        interview = stores.interviews.lock(interview_id)
        if with_deleted or interview.deleted_at is None:
            return interview
    raise not_found("interview", interview_id)


def lock_busy(stores: Stores, interview_id: UUID) -> Attempt | None:
    """Find the interview's attempt whose phone may be ringing, or whose conversation may still report an outcome.

    A pending attempt is locked against a claim.
    """
    attempt = stores.attempts.lock_open(interview_id)
    if attempt is not None and attempt.state is AttemptState.IN_PROGRESS:
        return attempt
    return stores.attempts.lock_unfinished(interview_id)


# --- Idempotency: the first command with a key, for every request that repeats it


def first_with_its_key(stores: Stores, command: Command) -> Command:
    """Find the first command with this idempotency key. Raises IdempotencyKeyReused if its request differs."""
    assert command.idempotency_key is not None
    first = stores.inbox.by_key(command.principal_id, command.idempotency_key)
    assert first is not None
    if not first.is_of_request(command.request_hash, command.former_hash):  # guard: same_request
        raise IdempotencyKeyReused
    return first


# --- External ids: a resource is created once for the client's own id, and no other of its kind gets that id


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


# --- Operators: they see all companies, and the audit names who acts


class OperatorUseCase:
    """A use case of one operator, whom the audit names as `actor`."""

    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor
