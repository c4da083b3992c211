"""Webhooks of partners, their deliveries and replays, and the events that partners read."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

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
from scheduler.domain.principal import Act, KeyKind, Principal, TargetKind, Verb, of_key
from scheduler.domain.refusals import AccessDenied, Forbidden, TooManyWebhooks, WebhookNotActive
from scheduler.domain.resource import Changes, Listed, Slice
from scheduler.domain.webhook import (
    MOST_OF_A_KEY,
    EndpointTest,
    EventFilter,
    EventPage,
    EventType,
    NewEndpoint,
    PartnerEvent,
    TestProgress,
    WebhookEndpoint,
)
from scheduler.hashing import Hasher
from scheduler.ids import new_id
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import webhooks
from scheduler.use_cases.resources.idempotent_writes import IdempotentWrites, WriteRequest, WriteResult
from scheduler.use_cases.shared import access
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.hints import Hints
from scheduler.webhooks.sending import Encryption, headers_place, new_secret, secret_place

# --- Events: what partners read about their interviews, calls and companies


class Events:
    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, principal: Principal, event_id: UUID) -> PartnerEvent:
        """Find an event that `after` would return. Raises NotFound, DatabaseAway."""
        own = principal.company_id if principal.kind is KeyKind.REGULAR else None
        with self._database.reading(principal) as stores:
            return access.require(stores.events.find(event_id, own, principal.id), "event", event_id)

    def after(
        self,
        principal: Principal,
        company_id: UUID | None,
        types: frozenset[EventType] | None = None,
        period: tuple[datetime | None, datetime | None] = (None, None),
        *,
        delivery_success: bool | None = None,
        after: int,
        limit: int,
    ) -> EventPage:
        """List the events that follow a place, of one company or of all that an ATS key has created.

        The end of `period` is exclusive. Without `company_id`, an ATS key reads also that a
        company was deleted. Raises InvalidDateFormat, AccessDenied, DatabaseAway.
        """
        since, until = period
        wanted = EventFilter(types=types, since=since, until=until, delivery_success=delivery_success)
        with self._database.reading(principal) as stores:
            own = principal.company_id if principal.kind is KeyKind.REGULAR else company_id
            if own is not None and not stores.keys.reach(principal, own):  # guard: event_reach
                raise AccessDenied
            return stores.events.page(own, wanted, after, limit, principal.id)


# --- Deliveries to webhooks: their history, and replays
# Only the process that delivers connects to partners.


class WebhookDeliveries:
    """Every method raises DatabaseAway. Writes also raise the errors of `IdempotentWrites.once`."""

    def __init__(self, database: Database, writes: IdempotentWrites, hints: Hints) -> None:
        self._database = database
        self._writes = writes
        self._hints = hints

    def page(
        self, principal: Principal, endpoint_id: UUID, wanted: DeliveryFilter, *, before: int | None, limit: int
    ) -> DeliveryPage:
        """List deliveries to a webhook of the principal, newest first. Raises NotFound."""
        with self._database.reading(principal) as stores:
            endpoint = _endpoint(stores, principal, endpoint_id)
            return stores.webhook_history.page(endpoint.id, wanted, before, limit)

    def get(self, principal: Principal, endpoint_id: UUID, event_id: UUID) -> DeliveryHistory:
        """Find a delivery to a webhook of the principal. Raises NotFound for the webhook or the delivery."""
        with self._database.reading(principal) as stores:
            endpoint = _endpoint(stores, principal, endpoint_id)
            return access.require(stores.webhook_history.delivery(endpoint.id, event_id), "delivery", event_id)

    def replay_one(self, sent: WriteRequest, endpoint_id: UUID, event_id: UUID) -> WriteResult:
        """Send a delivery again. Refused: NotFound for the webhook or the delivery."""

        def write(stores: Stores, _: UUID | None, now: datetime) -> None:
            endpoint = _endpoint(stores, sent.principal, endpoint_id)
            if not stores.webhook_history.is_delivery(endpoint_id, event_id):
                raise access.not_found("delivery", event_id)
            stores.webhook_history.replay_one(endpoint_id, event_id, now)
            replayed = {"count": 1, "filter": {"deliveryId": event_id}}
            _audit(stores, sent, Verb.REPLAY_DELIVERIES, endpoint, now, after=replayed)

        return _hinting(self._hints, self._writes.once(sent, _company_of(sent.principal, endpoint_id), write))

    def replay(self, sent: WriteRequest, endpoint_id: UUID, wanted: ReplayFilter, after: int) -> WriteResult:
        """Send the deliveries of a range again, as many as one transaction may. Refused: NotFound."""

        def write(stores: Stores, _: UUID | None, now: datetime) -> Replay:
            endpoint = _endpoint(stores, sent.principal, endpoint_id)
            done = replay_range(stores, endpoint, wanted, after, now)
            replayed = {"count": done.replayed, "filter": described(wanted)}
            _audit(stores, sent, Verb.REPLAY_DELIVERIES, endpoint, now, after=replayed)
            return done

        return _hinting(self._hints, self._writes.once(sent, _company_of(sent.principal, endpoint_id), write))


def _hinting(hints: Hints, written: WriteResult) -> WriteResult:
    """Send a hint for deliveries that may be sent now."""
    if written.refusal is None and not written.replayed:
        hints.send(tasks.DELIVER)
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
    """Describe the filter for the audit."""
    return {
        "from": wanted.since,
        "to": wanted.until,
        "types": None if wanted.types is None else sorted(wanted.types),
        "onlyFailed": wanted.only_failed,
    }


def _endpoint(stores: Stores, principal: Principal, endpoint_id: UUID) -> EventReceiver:
    return access.require(stores.webhook_history.receiver(endpoint_id, principal.id), "webhook", endpoint_id)


def _company_of(principal: Principal, endpoint_id: UUID) -> Callable[[Stores], UUID | None]:
    """For `once`: the company of an endpoint, which cannot be deleted while its deliveries are replayed."""

    def found(stores: Stores) -> UUID | None:
        if principal.kind is KeyKind.REGULAR:
            return principal.company_id
        endpoint = stores.webhook_history.receiver(endpoint_id, principal.id)
        return None if endpoint is None else endpoint.company_id

    return found


# --- Webhooks of partners. They belong to the principal of the key that creates them
# Keys of the same company, and its ATS, may see and delete them.


_KIND = "webhook"


class Webhooks:
    """Every method raises DatabaseAway. Writes also raise the errors of `IdempotentWrites.once`.

    The secrets and headers of a webhook are encrypted here, and decrypted only where they are sent.
    """

    def __init__(
        self,
        database: Database,
        writes: IdempotentWrites,
        hints: Hints,
        encryption: Encryption,
        hasher: Hasher,
        *,
        https_only: bool,
    ) -> None:
        self._database = database
        self._writes = writes
        self._hints = hints
        self._encryption = encryption
        self._hasher = hasher
        self.https_only = https_only
        """True in production: the URL of a webhook must begin with https."""

    def comparable(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Prepare a request's valid body for the hash that identifies it, with keyed hashes in place of secret texts.

        The hash of a request is stored and not keyed, so passwords could be guessed from it.
        """
        hidden: dict[str, Any] = dict(body)
        if isinstance(url := hidden.get("url"), str):
            hidden["url"] = self._hasher.webhook_text(url).hex()
        if "headers" in hidden:
            hash_of = self._hasher.webhook_text
            hidden["headers"] = [{**each, "value": hash_of(each["value"]).hex()} for each in hidden["headers"]]
        return hidden

    def get(self, principal: Principal, endpoint_id: UUID) -> WebhookEndpoint:
        """Find a webhook of the principal, or of another key of its company. Raises NotFound."""
        with self._database.reading(principal) as stores:
            return access.require(stores.webhook_endpoints.find(principal, endpoint_id), _KIND, endpoint_id)

    def page(self, principal: Principal, company_id: UUID | None, requested: Slice) -> Listed[WebhookEndpoint]:
        """List the webhooks that `get` returns, or only those for one company. Raises AccessDenied for the company."""
        with self._database.reading(principal) as stores:
            if company_id is not None and not stores.keys.reach(principal, company_id):
                raise AccessDenied
            return stores.webhook_endpoints.page(principal, company_id, requested)

    def create(self, sent: WriteRequest, new: NewEndpoint) -> WriteResult:
        """Create an endpoint. Only this result contains its secret. Refused: TooManyWebhooks."""
        principal = sent.principal

        def write(stores: Stores, company_id: UUID | None, now: datetime) -> WebhookEndpoint:
            stores.webhook_endpoints.lock_principal(principal.id)
            if stores.webhook_endpoints.count(principal.id) >= MOST_OF_A_KEY:
                raise TooManyWebhooks(limit=MOST_OF_A_KEY)
            endpoint = WebhookEndpoint(
                id=new_id(now),
                principal_id=principal.id,
                api_key_id=principal.key_id,
                company_id=company_id,
                url=new.url,
                name=new.name,
                description=new.description,
                header_names=tuple(new.headers),
                events=new.events,
                is_active=new.is_active,
                max_retries=webhooks.MOST_TRIES - 1,
                timeout_ms=int(webhooks.DEADLINE_S * 1000),
                created_at=now,
                updated_at=now,
            )
            secret = new_secret()
            encrypted = self._encryption.encrypt(secret, secret_place(endpoint.id))
            stores.webhook_endpoints.add(endpoint, encrypted, self._headers(endpoint.id, new.headers))
            _audit(stores, sent, Verb.CREATE_WEBHOOK, endpoint, now, after={"events": [*endpoint.events]})
            return replace(endpoint, signing_secret=secret)

        return self._writes.once(sent, _company_of_new(principal, new.company_id), write)

    def change(self, sent: WriteRequest, endpoint_id: UUID, changes: Changes) -> WriteResult:
        """Change an endpoint. Activating a disabled one also closes its circuit. Refused: NotFound.

        Activating an inactive endpoint also sends its waiting deliveries now.
        """

        def write(stores: Stores, _: UUID | None, now: datetime) -> WebhookEndpoint:
            before = _locked(stores, sent.principal, endpoint_id)
            values = {name: value for name, value in changes.items() if name != "headers"}
            encrypted = {}
            if "headers" in changes:
                values["header_names"] = tuple(changes["headers"])
                encrypted["headers"] = self._headers(endpoint_id, changes["headers"])
            if values.get("is_active") and before.disabled_at is not None:
                values |= vars(webhooks.reset())
            endpoint = replace(before, **values, updated_at=now)
            stores.webhook_endpoints.save(endpoint, **encrypted)
            # Not for an active endpoint: a client that writes back what it has read would use up its tries.
            if values.get("is_active") and (not before.is_active or before.disabled_at is not None):
                stores.webhook_history.send_waiting(endpoint_id, now)
            # Only the names: an address and a header may contain a password.
            _audit(stores, sent, Verb.CHANGE_WEBHOOK, endpoint, now, after={"fields": sorted(changes)})
            return endpoint

        return _hinting(self._hints, self._writes.once(sent, _company_of_webhook(sent.principal, endpoint_id), write))

    def reset_circuit(self, sent: WriteRequest, endpoint_id: UUID) -> WriteResult:
        """Close the circuit, activate the endpoint, and send the waiting deliveries. Refused: NotFound."""

        def write(stores: Stores, _: UUID | None, now: datetime) -> WebhookEndpoint:
            before = _locked(stores, sent.principal, endpoint_id)
            endpoint = replace(before, **vars(webhooks.reset()), is_active=True, updated_at=now)
            stores.webhook_endpoints.save(endpoint)
            stores.webhook_history.send_waiting(endpoint_id, now)
            _audit(stores, sent, Verb.RESET_WEBHOOK, endpoint, now)
            return endpoint

        return _hinting(self._hints, self._writes.once(sent, _company_of_webhook(sent.principal, endpoint_id), write))

    def rotate_secret(self, sent: WriteRequest, endpoint_id: UUID) -> WriteResult:
        """Replace the secret. Only this result contains the new one. For a day the old one also signs.

        Refused: NotFound.
        """

        def write(stores: Stores, _: UUID | None, now: datetime) -> WebhookEndpoint:
            endpoint = replace(_locked(stores, sent.principal, endpoint_id), updated_at=now)
            secret = new_secret()
            encrypted = self._encryption.encrypt(secret, secret_place(endpoint_id))
            before = stores.webhook_endpoints.secrets_of(endpoint_id)
            stores.webhook_endpoints.save_secrets(endpoint_id, webhooks.rotated(before, encrypted, now), now)
            _audit(stores, sent, Verb.ROTATE_WEBHOOK, endpoint, now)
            return replace(endpoint, signing_secret=secret)

        return self._writes.once(sent, _company_of_webhook(sent.principal, endpoint_id), write)

    def delete(self, sent: WriteRequest, endpoint_id: UUID) -> WriteResult:
        """Delete an endpoint, also of another key. Nothing is sent to it any longer, except for a request in flight.

        Refused: NotFound.
        """

        def write(stores: Stores, _: UUID | None, now: datetime) -> None:
            endpoint = stores.webhook_endpoints.lock_shared(sent.principal, endpoint_id)
            if endpoint is None:
                raise access.not_found(_KIND, endpoint_id)
            stores.webhook_endpoints.remove(endpoint_id, now)
            _audit(stores, sent, Verb.DELETE_WEBHOOK, endpoint, now)

        return self._writes.once(sent, _company_of_webhook(sent.principal, endpoint_id), write)

    def test(self, sent: WriteRequest, endpoint_id: UUID) -> WriteResult:
        """Write a ping to the endpoint. The process that delivers sends it. Refused: NotFound, WebhookNotActive."""

        def write(stores: Stores, _: UUID | None, now: datetime) -> EndpointTest:
            endpoint = _locked(stores, sent.principal, endpoint_id)
            if not endpoint.gets_deliveries:
                raise WebhookNotActive
            return stores.webhook_endpoints.add_test(endpoint, sent.principal, now)

        return _hinting(self._hints, self._writes.once(sent, _company_of_webhook(sent.principal, endpoint_id), write))

    def progress(self, principal: Principal, test: EndpointTest) -> TestProgress:
        """Read the progress of a test. Raises NotFound if its webhook was deleted."""
        with self._database.reading(principal) as stores:
            return access.require(stores.webhook_endpoints.progress(principal.id, test), _KIND, test.endpoint_id)

    def _headers(self, endpoint_id: UUID, headers: Mapping[str, str]) -> bytes | None:
        return self._encryption.encrypt(json.dumps(headers), headers_place(endpoint_id)) if headers else None


def _company_of_new(principal: Principal, requested: UUID | None) -> Callable[[Stores], UUID | None]:
    """For `once`: the company of a new endpoint. None: all companies of an ATS key. Raises AccessDenied."""

    def reached(stores: Stores) -> UUID | None:
        company_id = principal.company_id if requested is None else requested
        if company_id is not None and not stores.keys.reach(principal, company_id):  # guard: hook_reach
            raise AccessDenied
        return company_id

    return reached


def _company_of_webhook(principal: Principal, endpoint_id: UUID) -> Callable[[Stores], UUID | None]:
    """For `once`: the company of an endpoint, which cannot be deleted while the endpoint is written."""

    def found(stores: Stores) -> UUID | None:
        if principal.kind is KeyKind.REGULAR:
            return principal.company_id
        endpoint = stores.webhook_endpoints.find(principal, endpoint_id)
        return None if endpoint is None else endpoint.company_id

    return found


def _locked(stores: Stores, principal: Principal, endpoint_id: UUID) -> WebhookEndpoint:
    endpoint = stores.webhook_endpoints.lock(principal.id, endpoint_id)
    if endpoint is None and stores.webhook_endpoints.find(principal, endpoint_id) is not None:
        raise Forbidden
    if endpoint is None:
        raise access.not_found(_KIND, endpoint_id)
    return endpoint


def _audit(
    stores: Stores,
    sent: WriteRequest,
    verb: Verb,
    endpoint: WebhookEndpoint | EventReceiver,
    now: datetime,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add an act of the request's key upon an endpoint: it decides to where events are sent, and which."""
    act = Act(
        verb=verb,
        target_kind=TargetKind.WEBHOOK,
        target_id=endpoint.id,
        company_id=endpoint.company_id,
        after=after or {},
    )
    stores.audit.add(of_key(sent.principal.key_id), [act], now, trace_id=sent.trace_id)
