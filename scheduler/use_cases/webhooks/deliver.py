"""Deliver: claim deliveries that are due, send them outside of any transaction, and record the results.

A process that dies in between leaves a claim. After its lease another process sends the message again, with its id.
"""

import json
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.webhook import (
    ClaimedDelivery,
    Delivery,
    DeliveryState,
    NotSent,
    Outcome,
    WebhookAnswer,
    WebhookRequest,
)
from scheduler.failpoints import failpoint
from scheduler.ids import new_id
from scheduler.logs import log
from scheduler.persistence.database import BATCH_LOCK_S, Database
from scheduler.persistence.stores import Stores
from scheduler.persistence.webhook_deliveries import LEASE, ClaimingEndpoint, Sendable, ServedEndpoint
from scheduler.rules import tallies
from scheduler.rules.webhooks import (
    SLOW_AFTER,
    EndpointSecrets,
    Room,
    WaitingEndpoint,
    circuit_after,
    delivery_after,
    not_sent,
    places,
    signing,
    while_probed,
)
from scheduler.use_cases.shared.conflicts import together
from scheduler.webhooks.sending import Encryption, NotDecrypted, body_of, headers_place, secret_place

_log = log(__name__)


class Sender(Protocol):
    def post(self, request: WebhookRequest) -> WebhookAnswer:
        """Send a message once. Never raises for what the receiver or the network does."""
        ...


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one try. Without an answer, the message was not sent, for a cause in this installation."""

    claimed: ClaimedDelivery
    answer: WebhookAnswer | None


class Deliver:
    """Any number of processes may do this at once. Each method raises DatabaseAway."""

    def __init__(self, database: Database, sender: Sender, encryption: Encryption, now: Now) -> None:
        self._database = database
        self._sender = sender
        self._encryption = encryption
        self._now = now

    def claim(self, room: Room, *, on_backlog: Callable[[], None] = lambda: None) -> Sequence[ClaimedDelivery]:
        """Claim as many deliveries as there is room for. Raises ClockWrong.

        Four statements in a transaction, whatever their number, and up to two more while some have to be held.
        `on_backlog` is called after the commit if the next look must follow at once.
        """
        claims, is_behind = self._claim(room)
        if is_behind:
            on_backlog()
        return claims

    def _claim(self, room: Room) -> tuple[Sequence[ClaimedDelivery], bool]:
        """Claim deliveries. Return them, and True if further ones have to be held before others are found."""
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            deliveries = stores.webhook_deliveries
            endpoints = {each.id: each for each in deliveries.lock_to_claim(now, room)}
            if not endpoints:
                return (), False
            blocked = [each.id for each in endpoints.values() if each.has_blocked]
            is_behind = bool(blocked) and deliveries.hold_blocked(blocked, now)
            found = deliveries.sendable_of(list(endpoints), now)
            claims = _chosen(endpoints, found, room, now)
            if not claims:
                return (), is_behind
            stored = deliveries.claim(claims, _probes(endpoints, claims, now), now)
            failpoint("webhooks.claiming")
        failpoint("webhooks.claimed")
        return [each for each in claims if each.claim in stored], is_behind

    def send(self, claimed: ClaimedDelivery) -> Result:
        """Send a claimed delivery once. Secrets and headers are decrypted only now."""
        try:
            answer = self._sender.post(self._request(claimed))
        except NotSent:
            return Result(claimed=claimed, answer=None)
        except NotDecrypted:
            # Without a company: one wrong setting is one alarm, however many companies have webhooks.
            _log.error(
                "webhook_not_decrypted: no key of WEBHOOK_KEY decrypts the secret of a webhook; its delivery waits",
                alarm="WEBHOOK_KEY",
            )
            return Result(claimed=claimed, answer=None)
        except Exception:  # noqa: BLE001 - one message that cannot be built must not stop the others
            _log.exception("webhook_not_sent: a message could not be built; it is tried again in 5 min")
            return Result(claimed=claimed, answer=None)
        failpoint("webhooks.sent")
        return Result(claimed=claimed, answer=answer)

    def _request(self, claimed: ClaimedDelivery) -> WebhookRequest:
        delivery, message = claimed.delivery, claimed.message
        secrets = EndpointSecrets(
            secret=message.secret, old_secret=message.old_secret, old_secret_until=message.old_secret_until
        )
        place = secret_place(delivery.endpoint_id)
        ids = {
            "companyId": message.company_id,
            "interviewId": message.interview_id,
            "callAttemptId": message.attempt_id,
        }
        data = {**message.data, **{name: str(each) for name, each in ids.items() if each is not None}}
        return WebhookRequest(
            url=message.url,
            message_id=str(delivery.event_id),
            body=body_of(delivery.type.value, str(delivery.event_id), message.occurred_at, message.sequence, data),
            secrets=tuple(self._encryption.decrypt(each, place) for each in signing(secrets, self._now())),
            headers=self._headers(delivery.endpoint_id, message.headers),
        )

    def _headers(self, endpoint_id: UUID, encrypted: bytes | None) -> dict[str, str]:
        if encrypted is None:
            return {}
        headers: dict[str, str] = json.loads(self._encryption.decrypt(encrypted, headers_place(endpoint_id)))
        return headers

    def record(self, results: Sequence[Result]) -> Sequence[Result]:
        """Record results in one transaction. Return the results that must be recorded again, alone.

        These are also the ones of endpoints that another transaction has locked, which nothing waits for.

        A result writes nothing if its claim is over: another process has sent the message again since, a replay has
        reset it, or its endpoint is deleted.
        """
        by_claim = {each.claimed.claim: each for each in results}

        recorded: set[UUID] = set()

        def write(claims: Collection[UUID]) -> Collection[UUID]:
            recorded.update(self._record([by_claim[each] for each in claims]))
            return ()

        def endpoints_of(claims: Collection[UUID]) -> Mapping[UUID, UUID]:
            return {each: by_claim[each].claimed.delivery.endpoint_id for each in claims}

        if len(results) == 1:
            write(by_claim.keys())
        else:
            together(by_claim, write, endpoints_of)
        return [result for claim, result in by_claim.items() if claim not in recorded]

    def _record(self, results: Sequence[Result]) -> list[UUID]:
        """Record results in one transaction. Return the claims whose endpoints are not locked elsewhere."""
        # Only the holder of a claim can record its result, so a wrong clock is corrected.
        with self._database.transaction(corrected=True, lock_s=BATCH_LOCK_S) as stores:
            now = stores.instant(self._now)
            found = stores.webhook_deliveries.lock_free_endpoints(
                [each.claimed.delivery.endpoint_id for each in results]
            )
            endpoints = {each.id: each for each in found.rows}
            results = [each for each in results if each.claimed.delivery.endpoint_id not in found.held]
            current = stores.webhook_deliveries.lock_claimed([each.claimed for each in results])
            with stores.connection.gathering():
                after = dict(endpoints)
                for each in results:
                    delivery = current.get(each.claimed.claim)
                    if delivery is not None and delivery.endpoint_id in after:
                        endpoint = after[delivery.endpoint_id]
                        after[endpoint.id] = self._write(stores, endpoint, delivery, each.answer, now)
                    elif (late := after.get(each.claimed.delivery.endpoint_id)) is not None:
                        after[late.id] = _after_a_late_result(late, each, now)
                for before, endpoint in ((endpoints[each], after[each]) for each in endpoints):
                    self._write_endpoint(stores, before, endpoint, now)
            failpoint("webhooks.recording")
        failpoint("webhooks.recorded")
        return [each.claimed.claim for each in results]

    def _write(
        self, stores: Stores, endpoint: ServedEndpoint, delivery: Delivery, answer: WebhookAnswer | None, now: datetime
    ) -> ServedEndpoint:
        """Write one result. Return its endpoint after it."""
        if answer is None:
            stores.webhook_deliveries.put_back(not_sent(delivery, now))
            return endpoint
        after = delivery_after(delivery, answer, now, jitter=random.uniform(-1, 1))  # noqa: S311 - it spreads load
        stores.webhook_deliveries.save(after, answer, now)
        outcome = "RETRIED" if after.state is DeliveryState.WAITING else after.state.value
        stores.tallies.add({tallies.key_of(tallies.WEBHOOK_DELIVERIES, outcome): tallies.ONE})
        return replace(
            endpoint,
            circuit=circuit_after(endpoint.circuit, delivery, answer, now),
            is_slow=timedelta(milliseconds=answer.milliseconds) > SLOW_AFTER,
        )

    def _write_endpoint(self, stores: Stores, before: ServedEndpoint, after: ServedEndpoint, now: datetime) -> None:
        if after == before:
            return
        is_disabled = before.circuit.disabled_at is None and after.circuit.disabled_at is not None
        stores.webhook_deliveries.save_endpoint(after, notice_at=now if is_disabled else None)
        if is_disabled:
            stores.webhook_deliveries.note_disabled(after, now)


def _after_a_late_result(endpoint: ServedEndpoint, result: Result, now: datetime) -> ServedEndpoint:
    """Count the failure of a try that took longer than its lease, such as a lookup of a name that is never answered.

    Otherwise, an endpoint of which each try does would never count as failing, and be tried without end.
    """
    answer = result.answer
    if answer is None or answer.outcome is not Outcome.FAILED or timedelta(milliseconds=answer.milliseconds) < LEASE:
        return endpoint
    circuit = circuit_after(endpoint.circuit, result.claimed.delivery, answer, now)
    return replace(endpoint, circuit=circuit, is_slow=True)


def _chosen(
    endpoints: dict[UUID, ClaimingEndpoint], found: Sequence[Sendable], room: Room, now: datetime
) -> list[ClaimedDelivery]:
    """Choose the deliveries that are claimed, by the turns of their endpoints."""
    queues: dict[UUID, list[Sendable]] = {each: [] for each in endpoints}
    for each in found:
        endpoint = endpoints[each.delivery.endpoint_id]
        if each.delivery.is_replay or endpoint.circuit.may_send(now):
            queues[endpoint.id].append(each)
    waiting = [
        WaitingEndpoint(
            id=each.id,
            owner=each.owner,
            in_flight=queues[each.id][0].in_flight,
            sendable=len(queues[each.id]),
            is_failing=each.circuit.consecutive_failures > 0,
            is_slow=each.is_slow,
        )
        for each in endpoints.values()
        if queues[each.id]
    ]
    return [
        ClaimedDelivery(
            claim=new_id(now),
            delivery=each.delivery,
            message=each.message,
            owner=endpoints[endpoint_id].owner,
            is_slow=endpoints[endpoint_id].is_slow,
        )
        for endpoint_id, count in places(waiting, room).items()
        for each in queues[endpoint_id][:count]
    ]


def _probes(
    endpoints: dict[UUID, ClaimingEndpoint], claims: Sequence[ClaimedDelivery], now: datetime
) -> dict[UUID, datetime | None]:
    """Compute the next probe of each endpoint of these claims. Only a probe moves it, and a replay is not one."""
    probes = {each.delivery.endpoint_id: endpoints[each.delivery.endpoint_id].circuit.probe_at for each in claims}
    for each in claims:
        if not each.delivery.is_replay:
            circuit = endpoints[each.delivery.endpoint_id].circuit
            probes[each.delivery.endpoint_id] = while_probed(circuit, now).probe_at
    return probes
