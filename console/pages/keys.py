"""The pages Keys and Key, and the suspension, resumption and revocation of a key."""

from collections.abc import Mapping, Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.acts import Act, act_routes, address_of, id_in
from console.assembly import ConsoleUseCases, console_context
from console.lists import COMPANY, ROWS, ListPage
from console.operators import viewer
from console.reads.installation import KeyParts
from console.rendering import name as shown_name
from console.rendering import not_found, number, number_of, page
from console.security import id_in_path
from console.stores.sessions import ConsoleSession
from scheduler.domain.principal import Key, KeyKind, KeyState, OperatorRole
from scheduler.domain.refusals import KeyRevoked, NotFound

router = APIRouter()
_PATH = "/keys"
_LIST = ListPage(path=_PATH, filters=(COMPANY,), place=(UUID,))


@router.get(_PATH)
async def keys(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _LIST.asked(request.query_params)
    listed, states = None, {}
    if asked.problem is None:
        [before] = asked.place or (None,)
        found = await context.read(lambda stores: stores.keys.newest(asked.id("company"), before, ROWS + 1))
        listed, now = asked.part(found, lambda each: (each.key.principal.key_id,)), context.use_cases.now()
        states = {each.key.principal.key_id: each.key.state(now) for each in listed.rows}
    return page(request, "keys.html", asked.status, asked=asked, listed=listed, state_of=states, acts_of=_acts_of)


@router.get(_PATH + "/{key_id}")
async def key(request: Request, key_id: str, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context = console_context(request)
    try:
        parts = await context.run(context.use_cases.key_pages.one, id_in_path(key_id))
    except NotFound:
        text = "The address is wrong, or the company of the key was deleted and erased. The page Keys lists all."
        return not_found(request, "There is no such key.", text)
    return page(request, "key.html", parts=parts, key=parts.key, state=parts.state, acts=_acts_of(parts.key))


def _acts_of(key: Key) -> Mapping[str, str]:
    """List the addresses of the acts that would change the key now, by their names on the page."""
    if key.revoked_at is not None:
        return {}
    act = {"Suspend": SUSPEND_KEY} if key.suspended_at is None else {"Resume": RESUME_KEY}
    return {name: address_of(each, key=key.principal.key_id) for name, each in (act | {"Revoke": REVOKE_KEY}).items()}


def _key(fields: Mapping[str, str]) -> UUID:
    return id_in(fields, "key", "key")


def _address(key_id: UUID) -> str:
    return f"{_PATH}/{key_id}"


def _subject(parts: KeyParts) -> str:
    """Write a sentence about the key, its reach and its last use."""
    key, listed = parts.key, parts.listed
    named = f"{shown_name(key.name)} ({key.principal.key_id})"
    used = "It was never used." if key.last_used_at is None else f"It was last used at {_utc(parts)}."
    if key.principal.kind is KeyKind.ATS:
        companies = number_of(parts.companies, "company", "companies")
        return f"The ATS key {named} reaches {companies}. {used}"
    return f"The key {named} reaches the company {shown_name(listed.company_name)}. {used}"


def _utc(parts: KeyParts) -> str:
    return f"{parts.key.last_used_at:%Y-%m-%d %H:%M} UTC"


def _rotations(parts: KeyParts) -> str:
    count = parts.active_rotations
    if not count:
        return "Its principal has no other active key, so its client can no longer use the API."
    if count == 1:
        return "1 other active key of its principal stays valid."
    return f"{number(count)} other active keys of its principal stay valid."


_CALLS = "Calls that are already scheduled are still placed. To stop them, pause the company."


def _suspend_preview(use_cases: ConsoleUseCases, key_id: UUID) -> Sequence[str]:
    parts = use_cases.key_pages.one(key_id)
    if parts.key.revoked_at is not None:
        raise KeyRevoked
    if parts.key.suspended_at is not None and parts.key.suspend_reason is not None:
        return [f"The key is suspended already: {parts.key.suspend_reason}. Suspending again changes nothing."]
    return [
        _subject(parts),
        "Requests with it receive 401 API_KEY_SUSPENDED and your reason, until an admin resumes it.",
        _rotations(parts),
        "No key of its principal can be rotated in the meantime.",
        _CALLS,
    ]


def _resume_preview(use_cases: ConsoleUseCases, key_id: UUID) -> Sequence[str]:
    parts = use_cases.key_pages.one(key_id)
    if parts.key.revoked_at is not None:
        raise KeyRevoked
    if parts.key.suspended_at is None:
        return ["The key is not suspended. Resuming changes nothing."]
    reason = parts.key.suspend_reason or "none was given"
    lines = [_subject(parts), f"Its suspension ends. The reason was: {reason}"]
    return [*lines, "It has expired, so it stays invalid."] if parts.state is KeyState.EXPIRED else lines


def _revoke_preview(use_cases: ConsoleUseCases, key_id: UUID) -> Sequence[str]:
    parts = use_cases.key_pages.one(key_id)
    if parts.key.revoked_at is not None:
        return ["The key is revoked already. Revoking again changes nothing."]
    return [
        _subject(parts),
        "Requests with it receive 401 INVALID_API_KEY from now on. This is final: a revoked key cannot be restored.",
        _rotations(parts),
        _CALLS,
        "To replace it without an interruption, rotate it first, and revoke it when its client uses the new key.",
    ]


SUSPEND_KEY = Act(
    name="suspend-key",
    title="Suspend an API key",
    verb="Suspend this key",
    fields=("key",),
    read=_key,
    preview=_suspend_preview,
    run=lambda use_cases, actor, reason, key_id: use_cases.keys(actor).suspend(key_id, reason),
    back=_address,
    role=OperatorRole.ADMIN,
    is_danger=True,
)
RESUME_KEY = Act(
    name="resume-key",
    title="Resume an API key",
    verb="Resume this key",
    fields=("key",),
    read=_key,
    preview=_resume_preview,
    run=lambda use_cases, actor, reason, key_id: use_cases.keys(actor).resume(key_id, reason),
    back=_address,
    role=OperatorRole.ADMIN,
)
REVOKE_KEY = Act(
    name="revoke-key",
    title="Revoke an API key",
    verb="Revoke this key",
    fields=("key",),
    read=_key,
    preview=_revoke_preview,
    run=lambda use_cases, actor, reason, key_id: use_cases.keys(actor).revoke(key_id, reason),
    back=_address,
    role=OperatorRole.ADMIN,
    is_danger=True,
)
router.routes.extend(act_routes(SUSPEND_KEY, RESUME_KEY, REVOKE_KEY).routes)
