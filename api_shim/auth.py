"""Authentication and authorization. The API key is checked before anything else of a request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from api_shim.assembly import ApiUseCases, AppContext, app_context
from api_shim.errors import too_often
from api_shim.openapi import IfSent
from api_shim.request_input import check_query
from api_shim.thread_pools import MAX_S, run_in_thread, set_share
from scheduler.clock import deadline_in
from scheduler.domain import webhook
from scheduler.domain.principal import VOICE, Key, KeyKind, Principal
from scheduler.domain.refusals import InvalidApiKey
from scheduler.logs import log
from scheduler.use_cases.resources.keys import must_have
from scheduler.wire.named_fields import FieldError, invalid_fields

P = ParamSpec("P")
T = TypeVar("T")

READ_INTERVIEWS = "read:interviews"
WRITE_INTERVIEWS = "write:interviews"
DELETE_INTERVIEWS = "delete:interviews"
READ_COMPANIES = "read:companies"
WRITE_COMPANIES = "write:companies"
DELETE_COMPANIES = "delete:companies"
READ_JOBS = "read:jobs"
WRITE_JOBS = "write:jobs"
DELETE_JOBS = "delete:jobs"
READ_CANDIDATES = "read:candidates"
WRITE_CANDIDATES = "write:candidates"
DELETE_CANDIDATES = "delete:candidates"
READ_AGENTS = "read:agents"
WRITE_AGENTS = "write:agents"
DELETE_AGENTS = "delete:agents"
READ_PHONE_NUMBERS = "read:phone-numbers"
READ_BILLING = "read:billing"
READ_WEBHOOKS = webhook.READ_WEBHOOKS
WRITE_WEBHOOKS = "write:webhooks"

_log = log(__name__)
_COMPANY_ID = "companyId"
MOST_KNOWN_REACHES = 10_000
"""Companies of ATS principals that a process keeps in memory, before it asks the database again."""

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="apiKey",
    bearerFormat="sk_live_...",
    description="`Authorization: Bearer sk_live_...`. Created by `duecall keys create`, which shows it once.",
)


async def principal(
    request: Request,
    scopes: SecurityScopes,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Principal:
    """Authenticate the API key and check its rate limits, its scopes and the query.

    Every response to an authenticated request has the rate limit headers. Raises InvalidApiKey, ApiKeySuspended,
    RateLimitExceeded, InsufficientPermissions, InvalidFields for the query, DatabaseAway.
    """
    if credentials is None:
        raise InvalidApiKey
    context = app_context(request)
    key = await run_in_thread(context.threads.keys, context.use_cases.keys.authenticate, credentials.credentials)
    _note_use(context, key)
    request.state.key = key
    request.state.rate_limit = rate_limit = await context.rate_limits.count_request(key)
    if rate_limit.exceeded is not None:
        raise too_often(rate_limit.exceeded, context.use_cases.now())
    set_share(key.principal.company_id or key.principal.id)
    must_have(key.principal, scopes.scopes)
    check_query(request, ignored=_ignored(request, key.principal))
    await _share_of_named_company(request, context, key.principal)
    return key.principal


def _note_use(context: AppContext, key: Key) -> None:
    """Store in the background that the key was used, if the stored time is too old."""
    key_id = key.principal.key_id
    if key_id not in context.notes and context.use_cases.keys.must_record_use(key):
        context.notes[key_id] = asyncio.create_task(_write_use(context, key), name="note")


async def _write_use(context: AppContext, key: Key) -> None:
    try:
        with deadline_in(MAX_S):
            await run_in_thread(context.threads.keys, context.use_cases.keys.used, key.principal)
    except Exception as error:  # noqa: BLE001 - no request waits for it, and the next use tries again
        _log.warning("key_use_not_stored: The last use of an API key could not be stored.", exc_info=error)
    finally:
        del context.notes[key.principal.key_id]


async def _share_of_named_company(request: Request, context: AppContext, principal: Principal) -> None:
    """Count the threads of a request with an ATS key as those of the company that it names, if it reaches that one.

    The keys of the company and all its ATS keys have one share. A request that names a foreign company uses the share
    of its own principal: otherwise a client could use up that of a company that it does not reach.
    """
    named = request.path_params.get(_COMPANY_ID) or request.query_params.get(_COMPANY_ID)
    if principal.kind is not KeyKind.ATS or named is None:
        return
    try:
        reach = principal.id, UUID(named)
    except ValueError:
        return  # refused by the route
    if reach not in context.reached:
        if not await run_in_thread(context.threads.keys, context.use_cases.keys.reaches, principal, reach[1]):
            return
        if len(context.reached) >= MOST_KNOWN_REACHES:
            context.reached.clear()
        context.reached.add(reach)
    set_share(reach[1])


def _ignored(request: Request, principal: Principal) -> frozenset[str]:
    """Ignore `companyId` if it has no effect: for a regular key, or if the path has the same id."""
    in_path = request.path_params.get(_COMPANY_ID, "")
    repeats = request.query_params.get(_COMPANY_ID, "").lower() == in_path.lower() != ""
    return frozenset({_COMPANY_ID}) if repeats or principal.kind is KeyKind.REGULAR else frozenset()


@dataclass(frozen=True, kw_only=True)
class Client:
    """The client and the company of a request."""

    context: AppContext
    principal: Principal
    company_id: UUID | None
    """None: the company of a regular key."""

    @property
    def use_cases(self) -> ApiUseCases:
        return self.context.use_cases

    async def ask(
        self, verb: Callable[Concatenate[Principal, UUID | None, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a use case that changes nothing for this client and company. See `AppContext.ask`."""
        return await self.context.ask(verb, self.principal, self.company_id, *args, **kwargs)


async def authenticated_client(
    request: Request,
    principal: Annotated[Principal, Depends(principal)],
    company_id: Annotated[
        IfSent[str],
        Query(
            alias=_COMPANY_ID,
            description="The company to use. Required for ATS keys, ignored for regular keys.",
            json_schema_extra={"format": "uuid"},
        ),
    ] = None,
) -> Client:
    company = named_company(principal, company_id)
    return Client(context=app_context(request), principal=principal, company_id=company)


InterviewReader = Annotated[Client, Security(authenticated_client, scopes=[READ_INTERVIEWS])]


VoiceServer = Annotated[Principal, Security(principal, scopes=[VOICE])]
"""The client of a route whose token names the company, so that an ATS key names none."""


def named_company(principal: Principal, company_id: str | None) -> UUID | None:
    """Parse `companyId` of the query. None for a regular key, which has one company. Raises InvalidFields."""
    if company_id is None or principal.kind is KeyKind.REGULAR:
        return None
    try:
        return UUID(company_id)
    except ValueError:
        error = FieldError(field=_COMPANY_ID, code="INVALID_UUID", message="companyId must be the UUID of a company.")
        raise invalid_fields([error]) from None
