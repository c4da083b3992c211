"""Deliveries to webhooks: their history, and replays. Only the process that delivers connects to partners."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from scheduler.domain.actor import of_key
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.delivery_history import (
    BATCHES_A_REPLAY,
    REPLAYED_A_BATCH,
    DeliveryFilter,
    DeliveryHistory,
    DeliveryPage,
    EventReceiver,
    Replay,
    ReplayFilter,
)
from scheduler.domain.principal import KeyKind, Principal
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.access import not_found, require
from scheduler.use_cases.shared.hints import Hints


class WebhookDeliveries:
    """Every method raises DatabaseAway. Writes also raise the errors of `IdempotentWrites.once`."""

    def __init__(self, database: Database, writes: IdempotentWrites, hints: Hints) -> None:
        self._database = database
        self._writes = writes
        self._hints = hints

    def page(
        self, principal: Principal, endpoint_id: UUID, wanted: DeliveryFilter, *, before: int | None, limit: int
    ) -> DeliveryPage:
        """Return deliveries to a webhook of the principal, newest first. Raises NotFound."""
        with self._database.reading(principal) as stores:
            endpoint = _endpoint(stores, principal, endpoint_id)
            return stores.webhook_history.page(endpoint.id, wanted, before, limit)

    def get(self, principal: Principal, endpoint_id: UUID, event_id: UUID) -> DeliveryHistory:
        """Return a delivery to a webhook of the principal. Raises NotFound for the webhook or the delivery."""
        with self._database.reading(principal) as stores:
            endpoint = _endpoint(stores, principal, endpoint_id)
            return require(stores.webhook_history.delivery(endpoint.id, event_id), "delivery", event_id)

    def replay_one(self, sent: WriteRequest, endpoint_id: UUID, event_id: UUID) -> WriteResult:
        """Send a delivery again. Refused: NotFound for the webhook or the delivery."""

        def write(stores: Stores, _: UUID | None, now: datetime) -> None:
            endpoint = _endpoint(stores, sent.principal, endpoint_id)
            if not stores.webhook_history.is_delivery(endpoint_id, event_id):
                raise not_found("delivery", event_id)
            stores.webhook_history.replay_one(endpoint_id, event_id, now)
            act = act_of_replay(endpoint, 1, {"deliveryId": event_id})
            stores.audit.add(of_key(sent.principal.key_id), [act], now, trace_id=sent.trace_id)

        return self._hinting(self._writes.once(sent, _company_of(sent.principal, endpoint_id), write))

    def replay(self, sent: WriteRequest, endpoint_id: UUID, wanted: ReplayFilter, after: int) -> WriteResult:
        """Send the deliveries of a range again, as many as one transaction may. Refused: NotFound."""

        def write(stores: Stores, _: UUID | None, now: datetime) -> Replay:
            endpoint = _endpoint(stores, sent.principal, endpoint_id)
            done = replay_range(stores, endpoint, wanted, after, now)
            act = act_of_replay(endpoint, done.replayed, described(wanted))
            stores.audit.add(of_key(sent.principal.key_id), [act], now, trace_id=sent.trace_id)
            return done

        return self._hinting(self._writes.once(sent, _company_of(sent.principal, endpoint_id), write))

    def _hinting(self, written: WriteResult) -> WriteResult:
        """Send a hint for deliveries that are sent now."""
        if written.refusal is None and not written.replayed:
            self._hints.send(tasks.DELIVER)
        return written


def replay_range(stores: Stores, endpoint: EventReceiver, wanted: ReplayFilter, after: int, now: datetime) -> Replay:
    """Replay deliveries of a range after a place, in at most `BATCHES_A_REPLAY` statements."""
    replayed, has_more = 0, True
    for _ in range(BATCHES_A_REPLAY):
        batch = stores.webhook_history.replay(endpoint, wanted, after, REPLAYED_A_BATCH, now)
        replayed, after, has_more = replayed + batch.replayed, batch.after, batch.has_more
        if not has_more:
            break
    return Replay(id=endpoint.id, replayed=replayed, after=after, has_more=has_more)


def described(wanted: ReplayFilter) -> Mapping[str, Any]:
    """Return the filter for the audit."""
    return {
        "from": wanted.since,
        "to": wanted.until,
        "types": None if wanted.types is None else sorted(wanted.types),
        "onlyFailed": wanted.only_failed,
    }


def act_of_replay(endpoint: EventReceiver, count: int, replayed: Mapping[str, Any], reason: str | None = None) -> Act:
    return Act(
        verb=Verb.REPLAY_DELIVERIES,
        target_kind=TargetKind.WEBHOOK,
        target_id=endpoint.id,
        company_id=endpoint.company_id,
        reason=reason,
        after={"count": count, "filter": replayed},
    )


def _endpoint(stores: Stores, principal: Principal, endpoint_id: UUID) -> EventReceiver:
    return require(stores.webhook_history.receiver(endpoint_id, principal.id), "webhook", endpoint_id)


def _company_of(principal: Principal, endpoint_id: UUID) -> Callable[[Stores], UUID | None]:
    """For `once`: the company of an endpoint, which cannot be deleted while its deliveries are replayed."""

    def found(stores: Stores) -> UUID | None:
        if principal.kind is KeyKind.REGULAR:
            return principal.company_id
        endpoint = stores.webhook_history.receiver(endpoint_id, principal.id)
        return None if endpoint is None else endpoint.company_id

    return found
