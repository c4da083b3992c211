"""The pages Webhooks and Webhook: webhooks of partners, the deliveries to one, and the acts on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from console.acts import Act, act_routes, address_of, id_in
from console.assembly import ConsoleUseCases, console_context
from console.lists import COMPANY, ROWS, Asked, Filter, ListPage
from console.operators import viewer
from console.rendering import name as shown_name
from console.rendering import not_found, number, number_of, page, utc_text
from console.security import id_in_path
from console.stores.sessions import ConsoleSession
from scheduler.domain.delivery_history import (
    DeliveryFilter,
    EndpointFilter,
    EndpointState,
    EndpointStatus,
    ReplayFilter,
)
from scheduler.domain.refusals import InvalidFields, NotFound
from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.domain.webhook import DeliveryState, DisabledCause, EventType

router = APIRouter()
_PATH = "/webhooks"
_STATUSES = {
    "": "All",
    EndpointStatus.ACTIVE.value: "Active",
    EndpointStatus.CIRCUIT_OPEN.value: "Circuit open",
    EndpointStatus.PAUSED.value: "Paused by its partner",
    EndpointStatus.DISABLED.value: "Disabled",
}
_LIST = ListPage(
    path=_PATH,
    filters=(Filter(name="state", label="Show", options=_STATUSES), COMPANY),
    place=(UUID,),
    pager=("Oldest", "Newer"),
)
_CAUSES: Mapping[str, str] = {
    DisabledCause.GONE.value: "its receiver answered 410",
    DisabledCause.FAILING.value: "it only failed for five days",
    DisabledCause.OPERATOR.value: "by an operator",
    DisabledCause.KEY_REVOKED.value: "the last key of its principal was revoked",
}
_DELIVERY_STATES = {
    "": "All",
    "waiting": "Waiting",
    "delivered": "Delivered",
    "failed": "Failed",
}
_TYPES = {"": "All", **{each.value: each.value for each in EventType}}
_OF_DELIVERIES = (
    Filter(name="state", label="Show", options=_DELIVERY_STATES),
    Filter(name="type", label="Event", options=_TYPES),
)
_RECENT = timedelta(days=1)
"""The range that a replay begins with."""
_MOST_TRANSACTIONS = 5
_LASTS_S = 60.0
"""The most time for a replay."""


@router.get(_PATH)
async def webhooks(request: Request, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context, asked = console_context(request), _LIST.asked(request.query_params)
    listed = None
    if asked.problem is None:
        status, [after] = asked.text("state"), asked.place or (None,)
        wanted = EndpointFilter(company_id=asked.id("company"), status=EndpointStatus(status) if status else None)
        found = await context.run(context.use_cases.webhooks().page, wanted, after, ROWS + 1)
        listed = asked.part(found, lambda each: (each.id,))
    return page(request, "webhooks.html", asked.status, asked=asked, listed=listed, causes=_CAUSES, most=COUNTED_UP_TO)


@router.get(_PATH + "/{webhook_id}")
async def webhook(request: Request, webhook_id: str, _: Annotated[ConsoleSession, Depends(viewer)]) -> Response:
    context = console_context(request)
    of = ListPage(path=f"{_PATH}/{webhook_id}", filters=_OF_DELIVERIES, place=(int,))
    asked = of.asked(request.query_params)
    [before] = asked.place or (None,)
    try:
        found, deliveries = await context.run(
            context.use_cases.webhooks().with_deliveries, id_in_path(webhook_id), _wanted(asked), before, ROWS
        )
    except NotFound:
        text = "The address is wrong, or its partner has deleted it. The page Webhooks lists all."
        return not_found(request, "There is no such webhook.", text)
    following = None if deliveries.before is None else (deliveries.before,)
    now = context.use_cases.now()
    since, until = _written(now - _RECENT), _written(now)
    return page(
        request,
        "webhook.html",
        asked.status,
        asked=asked,
        listed=asked.part_before(deliveries.deliveries, following),
        webhook=found,
        cause=_CAUSES.get(found.disabled_cause or ""),
        most=COUNTED_UP_TO,
        acts=_acts_of(found),
        replay=address_of(REPLAY_FAILED, webhook=found.id, since=since, until=until),
        since=since,
        until=until,
    )


def _wanted(asked: Asked) -> DeliveryFilter:
    """Read the filter of the address. A wrong one is a filter of all deliveries."""
    state, type_ = asked.values.get("state"), asked.values.get("type")
    return DeliveryFilter(
        state=DeliveryState(str(state).upper()) if state else None,
        types=frozenset({EventType(str(type_))}) if type_ else None,
    )


# ---- acts


@dataclass(frozen=True, kw_only=True)
class _Range:
    """The failed deliveries of one webhook that a replay sends again."""

    webhook_id: UUID
    wanted: ReplayFilter


def _acts_of(found: EndpointState) -> Sequence[tuple[str, str, bool]]:
    """List the acts that would change the webhook now: labels, addresses, and whether each is a danger."""
    if found.disabled_cause == DisabledCause.KEY_REVOKED.value:
        return []
    if found.disabled_at is not None:
        return [(ENABLE_WEBHOOK.verb, address_of(ENABLE_WEBHOOK, webhook=found.id), False)]
    acts = [(DISABLE_WEBHOOK.verb, address_of(DISABLE_WEBHOOK, webhook=found.id), True)]
    if found.consecutive_failures:
        acts.append((CLOSE_CIRCUIT.verb, address_of(CLOSE_CIRCUIT, webhook=found.id), False))
    return acts


def _webhook(fields: Mapping[str, str]) -> UUID:
    return id_in(fields, "webhook", "webhook")


def _address(webhook_id: UUID) -> str:
    return f"{_PATH}/{webhook_id}"


def _subject(found: EndpointState) -> str:
    reach = "all companies of its ATS" if found.company_id is None else f"the company {shown_name(found.company_name)}"
    return f"The webhook {found.id} at {found.origin or 'an address that cannot be shown'} receives events of {reach}."


def _waiting(found: EndpointState) -> str:
    if found.waiting > COUNTED_UP_TO:
        return f"{number(COUNTED_UP_TO)}+ deliveries wait"
    return number_of(found.waiting, "delivery waits", "deliveries wait")


def _sends(found: EndpointState) -> str:
    if not found.is_active:
        return f"{_waiting(found)}. Its partner has paused it, so nothing is sent until the partner ends that."
    return f"{_waiting(found)} for it, and are sent."


def _disable_preview(use_cases: ConsoleUseCases, webhook_id: UUID) -> Sequence[str]:
    found = use_cases.webhooks().one(webhook_id)
    if found.disabled_at is not None:
        return ["The webhook is disabled already. Disabling again changes nothing."]
    return [
        _subject(found),
        f"Nothing is sent to it until it is enabled. {_waiting(found)} for it until then.",
        "No deliveries are made for events that occur in the meantime. Its partner can replay them afterwards.",
        "Its partner can enable it again at any time, and sees that an operator has disabled it.",
    ]


def _enable_preview(use_cases: ConsoleUseCases, webhook_id: UUID) -> Sequence[str]:
    found = use_cases.webhooks().to_enable(webhook_id)
    if found.disabled_at is None:
        return ["The webhook is not disabled. Enabling closes its circuit."]
    return [
        _subject(found),
        f"It has been disabled since {utc_text(found.disabled_at)}: {_CAUSES.get(found.disabled_cause or '', '')}.",
        _sends(found),
        "Events that occurred while it was disabled are not delivered. Its partner can replay them.",
    ]


def _close_preview(use_cases: ConsoleUseCases, webhook_id: UUID) -> Sequence[str]:
    found = use_cases.webhooks().to_close(webhook_id)
    if not found.consecutive_failures:
        return ["Its circuit is closed, and no failure is counted. Nothing changes."]
    failed = number_of(found.consecutive_failures, "failure in a row is", "failures in a row are")
    return [_subject(found), f"{failed} forgotten, and its circuit is closed.", _sends(found)]


def _range(fields: Mapping[str, str]) -> _Range:
    since, until = _instant(fields, "since"), _instant(fields, "until")
    if until <= since:
        raise InvalidFields("The range of the replay ends before it begins. Exchange its two times.")
    return _Range(webhook_id=_webhook(fields), wanted=ReplayFilter(since=since, until=until, only_failed=True))


def _instant(fields: Mapping[str, str], name: str) -> datetime:
    try:
        at = datetime.fromisoformat(fields.get(name, ""))
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidFields("Write both times of a replay in UTC like 2030-01-31T09:00.") from None


def _written(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _replay_preview(use_cases: ConsoleUseCases, chosen: _Range) -> Sequence[str]:
    operations, wanted = use_cases.webhooks(), chosen.wanted
    found = operations.one(chosen.webhook_id)
    count = operations.count_failed(chosen.webhook_id, wanted)
    shown = (
        f"{number(COUNTED_UP_TO)}+ deliveries" if count > COUNTED_UP_TO else number_of(count, "delivery", "deliveries")
    )
    assert wanted.until is not None
    lines = [
        _subject(found),
        f"{shown} of events from {utc_text(wanted.since)} until before {utc_text(wanted.until)} failed.",
    ]
    if not count:
        return [*lines, "Nothing is sent again."]
    if found.status in (EndpointStatus.DISABLED, EndpointStatus.PAUSED):
        lines.append("Nothing is sent to this webhook now, so they wait until it is enabled.")
    return [
        *lines,
        "They are sent again with the same ids, so that a receiver can ignore those that it has.",
        f"At most {number(COUNTED_UP_TO)} are sent again at once. Repeat it for the others.",
    ]


def _replay(use_cases: ConsoleUseCases, actor: str, reason: str, chosen: _Range) -> None:
    operations, after = use_cases.webhooks(actor), 0
    for _ in range(_MOST_TRANSACTIONS):
        done = operations.replay(chosen.webhook_id, chosen.wanted, after, reason)
        after = done.after
        if not done.has_more:
            return


DISABLE_WEBHOOK = Act(
    name="disable-webhook",
    title="Disable a webhook",
    verb="Disable this webhook",
    fields=("webhook",),
    read=_webhook,
    preview=_disable_preview,
    run=lambda use_cases, actor, reason, webhook_id: use_cases.webhooks(actor).disable(webhook_id, reason),
    back=_address,
    is_danger=True,
)
ENABLE_WEBHOOK = Act(
    name="enable-webhook",
    title="Enable a webhook",
    verb="Enable this webhook",
    fields=("webhook",),
    read=_webhook,
    preview=_enable_preview,
    run=lambda use_cases, actor, reason, webhook_id: use_cases.webhooks(actor).enable(webhook_id, reason),
    back=_address,
)
CLOSE_CIRCUIT = Act(
    name="close-circuit",
    title="Close the circuit of a webhook",
    verb="Close its circuit",
    fields=("webhook",),
    read=_webhook,
    preview=_close_preview,
    run=lambda use_cases, actor, reason, webhook_id: use_cases.webhooks(actor).close_circuit(webhook_id, reason),
    back=_address,
)
REPLAY_FAILED = Act(
    name="replay-failed",
    title="Replay failed deliveries",
    verb="Replay",
    fields=("webhook", "since", "until"),
    read=_range,
    preview=_replay_preview,
    run=_replay,
    back=lambda chosen: _address(chosen.webhook_id),
    lasts_s=_LASTS_S,
)
router.routes.extend(act_routes(DISABLE_WEBHOOK, ENABLE_WEBHOOK, CLOSE_CIRCUIT, REPLAY_FAILED).routes)
