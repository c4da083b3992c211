"""`duecall webhooks`: webhooks of partners for operators, and events on the machine of a developer."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from command_line.app import (
    ActReason,
    ApiUrl,
    AsJson,
    api_key,
    api_url,
    examples,
    id_argument,
    instant_of,
    must_be_url,
    operator_session,
    webhooks,
)
from command_line.output import fail, plain, print_json, print_note, print_result, refuse
from scheduler.domain.delivery_history import EndpointState, EndpointStatus, ReplayFilter
from scheduler.domain.resource import COUNTED_UP_TO
from scheduler.domain.webhook import EventType

if TYPE_CHECKING:
    from standalone.api_client import Forwarded

_RUNBOOK = "docs/operations.md#webhooks-of-partners"
_EndpointId = Annotated[UUID, id_argument("WEBHOOK_ID", "Id from `duecall webhooks list`.")]
_Types = Annotated[str | None, typer.Option(help="Types of events, separated by commas. Default: all.")]


@webhooks.command("list", epilog=examples("duecall webhooks list", "duecall webhooks list --json"))
def webhooks_list(as_json: AsJson = False) -> None:
    """List the webhooks of all partners, oldest first, with what waits for them and the cause of the last failure.

    Only scheme, host and port of each URL are shown: the rest may contain a password.
    """
    with operator_session() as session:
        found = session.webhooks.all()
    session.print_list(
        found,
        lambda each: {
            "webhookId": each.id,
            "principalId": each.principal_id,
            "companyId": each.company_id,
            "origin": each.origin,
            "state": _state(each),
            "consecutiveFailures": each.consecutive_failures,
            "failingSince": each.failing_since,
            "circuitOpenedAt": each.circuit_opened_at,
            "disabledAt": each.disabled_at,
            "waiting": min(each.waiting, COUNTED_UP_TO),
            "waitingIsEstimate": each.waiting > COUNTED_UP_TO,
            "oldestWaitingAt": each.oldest_waiting_at,
            "lastFailedAt": each.last_failed_at,
            "lastStatus": each.last_status,
            "lastErrorKind": each.last_error_kind,
        },
        _cells,
        as_json=as_json,
        empty="there are no webhooks",
    )
    if found and not as_json:
        print_note(f"See {_RUNBOOK}.")


def _cells(each: EndpointState) -> Iterator[object]:
    yield from (each.id, each.company_id or "all companies of its ATS", each.origin, _state(each))
    yield f"{min(each.waiting, COUNTED_UP_TO)}{'+' if each.waiting > COUNTED_UP_TO else ''} waiting"
    yield f"oldest {plain(each.oldest_waiting_at) or '-'}"
    yield f"last failure {each.last_error_kind or '-'}"


def _state(endpoint: EndpointState) -> str:
    match endpoint.status:
        case EndpointStatus.DISABLED:
            return f"disabled: {endpoint.disabled_cause}"
        case EndpointStatus.PAUSED:
            return "paused by its partner"
        case EndpointStatus.CIRCUIT_OPEN:
            return "circuit open"
        case EndpointStatus.ACTIVE:
            return "active"


@webhooks.command("disable", epilog=examples("duecall webhooks disable WEBHOOK_ID --reason 'the partner asked for it'"))
def webhooks_disable(endpoint_id: _EndpointId, reason: ActReason = "") -> None:
    """Send nothing to a webhook until it is enabled. Waiting deliveries wait, and new events are not delivered."""
    with operator_session() as session:
        is_new = session.webhooks.disable(endpoint_id, reason)
    was = "is disabled" if is_new else "was disabled before; nothing changed"
    session.report(f"webhook {endpoint_id} {was}")


@webhooks.command("enable", epilog=examples("duecall webhooks enable WEBHOOK_ID --reason 'the receiver is back'"))
def webhooks_enable(endpoint_id: _EndpointId, reason: ActReason = "") -> None:
    """Enable a webhook that was disabled, and close its circuit. Up to 1,000 waiting deliveries are sent at once.

    Events that occurred while it was disabled are delivered by `duecall webhooks replay`.
    """
    with operator_session() as session:
        state = session.webhooks.enable(endpoint_id, reason)
    still = "" if state.is_active else ", but its partner has paused it, so nothing is sent"
    session.report(f"webhook {endpoint_id} is enabled{still}")


@webhooks.command(
    "replay",
    epilog=examples(
        "duecall webhooks replay WEBHOOK_ID --from 2026-04-02T07:00Z --to 2026-04-02T09:00Z --reason 'its outage'",
        "duecall webhooks replay WEBHOOK_ID --from 2026-04-02T07:00Z --only-failed --reason 'its outage'",
    ),
)
def webhooks_replay(
    endpoint_id: _EndpointId,
    *,
    since: Annotated[str, typer.Option("--from", help="Time of the first event, e.g. 2026-04-02T07:00Z.")],
    until: Annotated[
        str | None,
        typer.Option("--to", help="Time after the last event, excluded. Default: none."),
    ] = None,
    types: _Types = None,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="Only deliveries of which all ten tries have failed.")
    ] = False,
    reason: ActReason = "",
    as_json: AsJson = False,
) -> None:
    """Send the deliveries of a range of time again, with the same ids, and events that were never sent.

    Deliveries that wait for their next try are left alone: `duecall webhooks enable` sends them at once. The command
    works in transactions of at most 2,000 deliveries. If it is stopped, start it again.
    """
    wanted = ReplayFilter(
        since=instant_of(since, "--from"),
        until=None if until is None else instant_of(until, "--to"),
        types=_types_in(types),
        only_failed=only_failed,
    )
    if wanted.until is not None and wanted.until <= wanted.since:
        refuse("--to must be later than --from.")
    replayed, after, has_more = 0, 0, True
    with operator_session() as session:
        while has_more:
            done = session.webhooks.replay(endpoint_id, wanted, after, reason)
            replayed, after, has_more = replayed + done.replayed, done.after, done.has_more
    if as_json:
        print_json({"webhookId": endpoint_id, "replayed": replayed})
        return
    session.report(f"{replayed} deliveries to webhook {endpoint_id} are sent again")


def _types_in(text: str | None) -> frozenset[EventType] | None:
    if text is None:
        return None
    names = {name.strip() for name in text.split(",")}
    if unknown := names - {each.value for each in EventType}:
        refuse(f"There is no type {', '.join(sorted(unknown))}. See docs/reference/events.md.")
    return frozenset(map(EventType, names))


@webhooks.command("encrypt", epilog=examples("duecall webhooks encrypt", "duecall webhooks encrypt --json"))
def webhooks_encrypt(as_json: AsJson = False) -> None:
    """Encrypt the secrets of all webhooks with the first key of WEBHOOK_KEY, so that the second can be removed.

    Exit status 1: some secrets were encrypted with neither key. Their partners must rotate them and set headers again.
    """
    with operator_session() as session:
        done = session.encrypt_webhooks.all()
    if as_json:
        print_json({"encrypted": done.changed, "current": done.current, "unreadable": list(done.unreadable)})
    else:
        print_result(f"{done.changed} webhooks encrypted again, {done.current} were encrypted with the first key")
    if done.unreadable:
        unreadable = ", ".join(map(str, done.unreadable))
        fail(f"Neither key decrypts the secrets of {unreadable}. Set the key that encrypted them, too.")


@webhooks.command(
    "listen",
    epilog=examples(
        "duecall webhooks listen --forward-to http://127.0.0.1:3000/events",
        "duecall webhooks listen --forward-to http://127.0.0.1:3000 --url https://api.example.com --types ping",
    ),
)
def webhooks_listen(
    *,
    forward_to: Annotated[str, typer.Option(help="URL on your machine that receives the events.")],
    url: ApiUrl = None,
    key: Annotated[str, api_key("the scope read:webhooks")],
    types: _Types = None,
    given_secret: Annotated[
        str | None,
        typer.Option(
            "--secret",
            help="Secret that signs, as a former session has printed it. Default: a new one.",
        ),
    ] = None,
    after: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Place after which to begin. Default: new events only, and with --once all events of 30 days.",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Forward the events that exist now, then stop.")] = False,
) -> None:
    """Forward events to your machine, signed like deliveries to a webhook. For developers; needs no database.

    Prints the secret of this session first, then a line for each event: its type and id, the status of the answer and
    its milliseconds. Each event is sent once, whatever the answer is. Press Ctrl-C to stop.
    """
    from scheduler.clock import machine_now
    from scheduler.webhooks.sender import WebhookSender
    from scheduler.webhooks.sending import new_secret, signed_headers
    from standalone.api_client import ApiAway, ApiClient, ApiRefused, Forwarding

    _types_in(types)
    must_be_url("--forward-to", forward_to)
    url = api_url(url)
    secret = given_secret or new_secret()
    try:
        signed_headers("check", "", (secret,), machine_now())
    except ValueError:
        refuse("--secret must be whsec_ and base64, as `duecall webhooks listen` prints it.")
    wait, sender = threading.Event().wait, WebhookSender(to_partners=False, in_development=True)
    api = ApiClient(url, key)
    forwarding = Forwarding(api, sender, forward_to, secret, types=types, wait=wait, tell=print_note)
    print_note(f"Secret of this session: {secret}")
    try:
        for forwarded in forwarding.once(after or 0) if once else forwarding.follow(after):
            print_result(_line(forwarded))
    except (ApiAway, ApiRefused) as error:
        fail(f"{error}")


def _line(forwarded: "Forwarded") -> str:
    answer = forwarded.answer
    kind = "" if answer.error_kind is None else answer.error_kind.value
    status = kind if answer.status is None else str(answer.status)
    return f"{forwarded.type}  {forwarded.id}  {status}  {answer.milliseconds} ms"
