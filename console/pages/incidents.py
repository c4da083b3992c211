"""The pages Alarms and Quarantine: what went wrong, and its acknowledgement, retry or drop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.acts import SHOWN, Act, act_routes, address_of, id_in
from console.assembly import ConsoleContext, ConsoleUseCases, console_context
from console.lists import COMPANY, ROWS, Asked, Filter, ListPage, Part
from console.operators import viewer
from console.rendering import number, number_of, page, utc_text
from console.stores.sessions import ConsoleSession
from scheduler.domain.alarm import OPERATIONS, KeptAlarm, anchor_of, meaning_of
from scheduler.domain.principal import OperatorRole
from scheduler.domain.refusals import InvalidFields, NotFound
from scheduler.persistence.alarms import AlarmPlace
from scheduler.persistence.quarantine import Quarantined, QuarantineKind

# --- The page Alarms: alarms that are open, or were acknowledged within a year, and their acknowledgement


router = APIRouter()
_PATH = "/alarms"
_OPEN, _ACKNOWLEDGED, _ALL = "open", "acknowledged", "all"
_STATES = {_OPEN: "Open", _ACKNOWLEDGED: "Acknowledged", _ALL: "All"}
_BY_KIND = Filter(name="kind", label="Kind", longest=80)
_FILTERS = (Filter(name="state", label="Show", options=_STATES, default=_OPEN), _BY_KIND, COMPANY)
_OTHERS = ListPage(path=_PATH, filters=_FILTERS, place=(UUID,), show_all="Show open alarms")
_OPEN_ONES = replace(_OTHERS, place=(datetime, UUID))


@router.get(_PATH)
async def alarms(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, query = console_context(request), request.query_params
    asked = (_OPEN_ONES if query.get("state", _OPEN) in {"", _OPEN} else _OTHERS).asked(query)
    counts: Mapping[str, int] = {}
    creators: Mapping[str, str] = {}
    listed = None
    if asked.problem is None:
        listed = await _part(context, asked)
        counts = await context.run(context.use_cases.alarms().count_open)
        actors = [each.acknowledged_by for each in listed.rows if each.acknowledged_by is not None]
        creators = await context.run(context.use_cases.audit.link_creators, actors)
    return page(
        request,
        "alarms.html",
        asked.status,
        asked=asked,
        listed=listed,
        counts=counts,
        creators=creators,
        meaning_of=meaning_of,
        section_of=lambda kind: f"{OPERATIONS}#{anchor_of(kind)}",
        docs_url=context.docs_url,
        acknowledge=lambda **subject: address_of(ACKNOWLEDGE, **subject),
    )


async def _part(context: ConsoleContext, asked: Asked) -> Part[KeptAlarm]:
    """Read open alarms by their last occurrence, and others by their first. Raises DatabaseAway."""
    of_all, kind, company_id = context.use_cases.alarms(), asked.text("kind"), asked.id("company")
    kind = None if kind is None else kind.upper()
    if asked.of is _OPEN_ONES:
        found = await context.run(of_all.open, kind, asked.place, ROWS + 1, company_id)
        return asked.part(found, lambda each: (each.last_seen_at, each.id))
    is_acknowledged = asked.text("state") == _ACKNOWLEDGED
    [before] = asked.place or (None,)
    found = await context.run(of_all.all, kind, before, ROWS + 1, company_id, acknowledged=is_acknowledged)
    return asked.part(found, lambda each: (each.id,))


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """One alarm, or all open alarms of a kind."""

    alarm_id: UUID | None
    kind: str | None
    until: AlarmPlace | None = None
    """The last occurrence and the newest alarm that the form showed. None before there is a form."""


def _read(fields: Mapping[str, str]) -> _Subject:
    if "kind" not in fields:
        return _Subject(alarm_id=id_in(fields, "alarm", "alarm"), kind=None)
    if not fields["kind"].isprintable():
        raise NotFound("No alarm has this kind. Open the form from the page Alarms.", resourceType="alarm")
    return _Subject(alarm_id=None, kind=fields["kind"].upper(), until=_until(fields.get(SHOWN, "")))


def _until(text: str) -> AlarmPlace | None:
    at_text, _, alarm_id = text.partition(" ")
    try:
        at, newest = datetime.fromisoformat(at_text), UUID(alarm_id)
    except ValueError:
        return None
    return None if at.tzinfo is None else (at, newest)


def _shown(use_cases: ConsoleUseCases, subject: _Subject) -> str:
    found = use_cases.alarms().to_acknowledge(subject.alarm_id, subject.kind)
    return f"{max(each.last_seen_at for each in found).isoformat()} {max(each.id for each in found)}"


def _preview(use_cases: ConsoleUseCases, subject: _Subject) -> Sequence[str]:
    found = use_cases.alarms().to_acknowledge(subject.alarm_id, subject.kind)
    kind, count = found[0].kind, sum(each.count for each in found)
    times = "once" if count == 1 else f"{number(count)} times"
    last = utc_text(max(each.last_seen_at for each in found))
    if subject.kind is None:
        first = f"The alarm {kind} is acknowledged. It occurred {times}, last at {last}."
    else:
        alarms = number_of(len(found), "open alarm", "open alarms")
        first = f"{alarms} of the kind {kind} are acknowledged. They occurred {times}, last at {last}."
    stays = [] if subject.kind is None else ["An alarm that occurs again before you send this form stays open."]
    return [
        first,
        *stays,
        "The next occurrence opens another alarm. An acknowledgement fixes nothing: follow the runbook first.",
        "The reason is kept as the note of the alarm.",
    ]


def _run(use_cases: ConsoleUseCases, actor: str, reason: str, subject: _Subject) -> object:
    if subject.kind is not None and subject.until is None:
        raise InvalidFields("This form is incomplete. Read the effects again before you send it.")
    acknowledged = use_cases.alarms(actor).acknowledge
    return acknowledged(subject.alarm_id, kind=subject.kind, note=reason, until=subject.until)


ACKNOWLEDGE = Act(
    name="acknowledge-alarms",
    title="Acknowledge alarms",
    verb="Acknowledge",
    fields=("alarm", "kind"),
    read=_read,
    shown=_shown,
    preview=_preview,
    run=_run,
    back=lambda _: _PATH,
)
router.routes.extend(act_routes(ACKNOWLEDGE).routes)


# --- The page Quarantine: commands and callbacks that failed five times, to be retried or dropped


_QUARANTINE_PATH = "/quarantine"
_QUARANTINED_KINDS = {"": "All", "command": "Commands", "callback": "Callbacks"}
_QUARANTINED = ListPage(
    path=_QUARANTINE_PATH,
    filters=(Filter(name="kind", label="Show", options=_QUARANTINED_KINDS), COMPANY),
    place=(datetime, UUID),
    pager=("Oldest", "Newer"),
)


@router.get(_QUARANTINE_PATH)
async def quarantine(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _QUARANTINED.asked(request.query_params)
    listed = None
    if asked.problem is None:
        kind = asked.text("kind")
        wanted = QuarantineKind(kind) if kind else None
        find = context.use_cases.quarantine().page
        found = await context.run(find, wanted, asked.place, ROWS + 1, asked.id("company"))
        listed = asked.part(found, lambda each: (each.received_at, each.id))
    acts = {"retry": _address_of(RETRY), "drop": _address_of(DROP)}
    return page(request, "quarantine.html", asked.status, acts, asked=asked, listed=listed)


def _read_id(fields: Mapping[str, str]) -> UUID:
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
        next_poll_at = use_cases.quarantine().next_poll(found)
        lines.append("It has no effect, as if the carrier had never sent it.")
        if next_poll_at is None:
            lines.append("No attempt waits for its news.")
        else:
            lines.append(f"The carrier is asked about attempt {found.attempt_id}, next at {utc_text(next_poll_at)}.")
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
    read=_read_id,
    preview=_retry_preview,
    run=lambda use_cases, actor, reason, found: use_cases.quarantine(actor).requeue(found, reason),
    back=lambda _: _QUARANTINE_PATH,
)
DROP = Act(
    name="drop-quarantined",
    title="Drop a command or a callback",
    verb="Drop",
    fields=("id",),
    read=_read_id,
    preview=_drop_preview,
    run=lambda use_cases, actor, reason, found: use_cases.quarantine(actor).drop(found, reason),
    back=lambda _: _QUARANTINE_PATH,
    role=OperatorRole.ADMIN,
    is_danger=True,
)


def _address_of(act: Act[UUID]) -> object:
    return lambda quarantined_id: address_of(act, id=quarantined_id)


router.routes.extend(act_routes(RETRY, DROP).routes)
