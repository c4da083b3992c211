"""The page Quarantine: commands and callbacks that failed five times, to be retried or dropped."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.acts import Act, act_routes, address_of, id_in
from console.assembly import ConsoleUseCases
from console.context import console_context
from console.lists import COMPANY, ROWS, Filter, ListPage
from console.operator_session import ConsoleSession
from console.operators import viewer
from console.rendering import number_of, page, utc_text
from scheduler.domain.principal import OperatorRole
from scheduler.persistence.quarantine import Quarantined, QuarantineKind

router = APIRouter()
_PATH = "/quarantine"
_KINDS = {"": "All", "command": "Commands", "callback": "Callbacks"}
_LIST = ListPage(
    path=_PATH,
    filters=(Filter(name="kind", label="Show", options=_KINDS), COMPANY),
    place=(datetime, UUID),
    pager=("Oldest", "Newer"),
)


@router.get(_PATH)
async def quarantine(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _LIST.asked(request.query_params)
    listed = None
    if asked.problem is None:
        kind = asked.text("kind")
        wanted = QuarantineKind(kind) if kind else None
        find = context.use_cases.quarantine().page
        found = await context.run(find, wanted, asked.place, ROWS + 1, asked.id("company"))
        listed = asked.part(found, lambda each: (each.received_at, each.id))
    acts = {"retry": _address_of(RETRY), "drop": _address_of(DROP)}
    return page(request, "quarantine.html", asked.status, acts, asked=asked, listed=listed)


def _read(fields: Mapping[str, str]) -> UUID:
    return id_in(fields, "id", "command or callback")


def _heading(found: Quarantined) -> str:
    what = f"The command {found.command}" if found.command is not None else "The callback of the carrier"
    failed = f" It failed {found.failures} times, last at {utc_text(found.quarantined_at)}"
    return f"{what} {found.id}.{failed}, with {found.failed_with or 'an error that was not recorded'}."


def _retry_preview(use_cases: ConsoleUseCases, quarantined_id: UUID) -> Sequence[str]:
    found = use_cases.quarantine().find(quarantined_id)
    lines = [_heading(found)]
    if found.kind is QuarantineKind.COMMAND:
        lines.append("It is retried within seconds and judged as of when it was received.")
        lines += _blocked(found, "If it succeeds, they are applied after it.")
    else:
        lines.append("It is retried within seconds.")
    return [*lines, "Retry it after the cause is fixed. If it fails five more times, it is in quarantine again."]


def _drop_preview(use_cases: ConsoleUseCases, quarantined_id: UUID) -> Sequence[str]:
    found = use_cases.quarantine().find(quarantined_id)
    lines = [_heading(found)]
    if found.kind is QuarantineKind.COMMAND:
        lines.append("It has no effect, and its client receives 409 COMMAND_DROPPED.")
        lines += _blocked(found, "They are applied next.")
    else:
        look_at = use_cases.quarantine().next_look(found)
        lines.append("It has no effect, as if the carrier had never sent it.")
        if look_at is None:
            lines.append("No attempt waits for its news.")
        else:
            lines.append(f"The carrier is asked about attempt {found.attempt_id}, next at {utc_text(look_at)}.")
    return [*lines, "Its body is deleted. This cannot be taken back."]


def _blocked(found: Quarantined, then: str) -> Sequence[str]:
    if not found.blocked:
        return []
    waiting = number_of(found.blocked, "later command", "later commands")
    return [f"{waiting} of interview {found.interview_id} waited for it. {then}"]


RETRY = Act(
    name="retry-quarantined",
    title="Retry a command or a callback",
    verb="Retry",
    fields=("id",),
    read=_read,
    preview=_retry_preview,
    run=lambda use_cases, actor, reason, found: use_cases.quarantine(actor).requeue(found, reason),
    back=lambda _: _PATH,
)
DROP = Act(
    name="drop-quarantined",
    title="Drop a command or a callback",
    verb="Drop",
    fields=("id",),
    read=_read,
    preview=_drop_preview,
    run=lambda use_cases, actor, reason, found: use_cases.quarantine(actor).drop(found, reason),
    back=lambda _: _PATH,
    role=OperatorRole.ADMIN,
    is_danger=True,
)


def _address_of(act: Act[UUID]) -> object:
    return lambda quarantined_id: address_of(act, id=quarantined_id)


router.routes.extend(act_routes(RETRY, DROP).routes)
