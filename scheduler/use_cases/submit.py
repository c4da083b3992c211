"""Submit: a command becomes durable, and only then is it accepted."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from scheduler.clock import Now, monotonic
from scheduler.domain.command import KIND_OF, Command, CreateInterview, Request
from scheduler.domain.principal import KeyKind, Principal
from scheduler.domain.refusals import AccessDenied, CompanyIdRequired, IdempotencyKeyReused, NotFound
from scheduler.persistence.database import Database, DatabaseAway, Stores
from scheduler.persistence.json_forms import CREATE_INTERVIEW
from scheduler.use_cases import bell as tasks
from scheduler.use_cases.bell import Bell

_ACCEPTS_WITHIN_S = 5.0
"""Less than the intake waits for a database that hangs."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The command is in the inbox; from now on it is never lost."""

    command: Command
    replayed: bool
    """It was there already: the same key and request had been sent before."""


class Submit:
    def __init__(self, database: Database, bell: Bell, now: Now) -> None:
        self._database = database
        self._bell = bell
        self._now = now

    def command(
        self,
        principal: Principal,
        company_id: UUID | None,
        request: Request,
        *,
        idempotency_key: str | None,
        request_hash: bytes,
    ) -> Accepted:
        """Accept what is asked for.

        Raises CompanyIdRequired, AccessDenied, IdempotencyKeyReused, DatabaseAway; after any of them nothing was
        accepted.
        """
        if not isinstance(request, CreateInterview):
            raise NotImplementedError
        started = monotonic()
        with self._database.transaction() as stores:
            company = reached_company(stores, principal, company_id)
            command = Command(
                id=uuid4(),
                kind=KIND_OF[type(request)],
                principal_id=principal.id,
                company_id=company,
                idempotency_key=idempotency_key,
                request_hash=request_hash,
                received_at=self._now(),
                body=CREATE_INTERVIEW.dump_python(request, mode="json"),
            )
            accepted = _accept(stores, command)
            if monotonic() - started > _ACCEPTS_WITHIN_S:
                # Whoever asked has been told 503 by now; what nobody knows of must not be done later.
                raise DatabaseAway("TOO_SLOW")
        if accepted.command.applied_at is None:
            self._bell.ring(tasks.APPLY, [accepted.command.id])
        return accepted

    def find(self, principal: Principal, reference: str) -> Command:
        """A command of this principal, by its id or its idempotency key. Raises NotFound, DatabaseAway."""
        with self._database.transaction() as stores:
            command_id = _as_uuid(reference)
            found = stores.inbox.get(principal.id, command_id) if command_id else None
            found = found or stores.inbox.by_key(principal.id, reference)
        if found is None:
            raise NotFound("There is no such command.", resourceType="command", resourceId=reference[:64])
        return found


def reached_company(stores: Stores, principal: Principal, asked: UUID | None) -> UUID:
    """The company that a request is about. A regular key's own, whatever it asks; an ATS key must name one.

    Raises AccessDenied alike for a company that is not there and for one that is somebody else's.
    """
    if principal.kind is KeyKind.REGULAR:
        company_id = principal.company_id
        assert company_id is not None
    elif asked is None:
        raise CompanyIdRequired
    else:
        company_id = asked
    if not stores.keys.reach(principal, [company_id]):
        raise AccessDenied
    return company_id


def _accept(stores: Stores, command: Command) -> Accepted:
    if stores.inbox.add(command):
        return Accepted(command=command, replayed=False)
    assert command.idempotency_key is not None
    earlier = stores.inbox.by_key(command.principal_id, command.idempotency_key)
    assert earlier is not None
    if earlier.request_hash != command.request_hash:
        raise IdempotencyKeyReused
    return Accepted(command=earlier, replayed=True)


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
