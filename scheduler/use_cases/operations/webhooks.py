"""Webhooks of all partners, for operators: their state, acts upon them, and their encryption with a new key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from scheduler.domain.delivery_history import (
    DeliveryFilter,
    DeliveryPage,
    EndpointFilter,
    EndpointState,
    EventReceiver,
    Replay,
    ReplayFilter,
)
from scheduler.domain.principal import Act, TargetKind, Verb
from scheduler.domain.refusals import Conflict
from scheduler.domain.webhook import DisabledCause
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.persistence.webhook_deliveries import ServedEndpoint
from scheduler.rules import operators, webhooks
from scheduler.use_cases.resources.webhooks import described, replay_range
from scheduler.use_cases.shared.access import OperatorUseCase, not_found, require
from scheduler.webhooks.sending import Encryption, NotDecrypted, headers_place, secret_place

MAX_LISTED = 1000
_KIND = "webhook"


class WebhookOperations(OperatorUseCase):
    """Reads webhooks with their deliveries, disables, enables and replays. Every method raises DatabaseAway."""

    def all(self) -> Sequence[EndpointState]:
        """List the webhooks, oldest first, at most `MAX_LISTED`."""
        with self._database.reading() as stores:
            return stores.webhook_overview.states(MAX_LISTED)

    def page(self, wanted: EndpointFilter, after: UUID | None, limit: int) -> Sequence[EndpointState]:
        """List webhooks, oldest first. `after`: only those younger than this one."""
        with self._database.reading() as stores:
            return stores.webhook_overview.states(limit, wanted, after)

    def one(self, endpoint_id: UUID) -> EndpointState:
        """Raises NotFound."""
        with self._database.reading() as stores:
            return _state_of(stores, endpoint_id)

    def with_deliveries(
        self, endpoint_id: UUID, wanted: DeliveryFilter, before: int | None, limit: int
    ) -> tuple[EndpointState, DeliveryPage]:
        """Read an endpoint, and deliveries to it before a place, newest first. Raises NotFound."""
        with self._database.reading() as stores:
            endpoint = _state_of(stores, endpoint_id)
            return endpoint, stores.webhook_history.page(endpoint_id, wanted, before, limit)

    def count_failed(self, endpoint_id: UUID, wanted: ReplayFilter) -> int:
        """Count the failed deliveries of a range, up to one more than `COUNTED_UP_TO`."""
        with self._database.reading() as stores:
            return stores.webhook_overview.count_failed(endpoint_id, wanted)

    def disable(self, endpoint_id: UUID, reason: str) -> bool:
        """Send nothing to a webhook until it is enabled. Return False if it was disabled before.

        No deliveries are made for new events, and waiting ones wait. Raises InvalidPauseReason, NotFound.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            before = _locked(stores, endpoint_id)
            if before.circuit.disabled_at is not None:
                return False
            now = stores.instant(self._now)
            circuit = replace(before.circuit, disabled_at=now, disabled_cause=DisabledCause.OPERATOR)
            after = replace(before, circuit=circuit)
            stores.webhook_deliveries.save_endpoint(after, notice_at=None)
            stores.webhook_deliveries.note_disabled(after, now)
            stores.audit.add(self._actor, [_act(Verb.DISABLE_WEBHOOK, before, after, reason)], now)
            return True

    def to_enable(self, endpoint_id: UUID) -> EndpointState:
        """Find an endpoint that `enable` would enable now. Raises NotFound, and Conflict if no key could stop it."""
        with self._database.reading() as stores:
            return _with_a_key(_state_of(stores, endpoint_id))

    def enable(self, endpoint_id: UUID, reason: str) -> EndpointState:
        """Enable an endpoint, close its circuit, and let its waiting deliveries be sent now.

        Return its state: its partner may have paused it.

        Raises InvalidPauseReason, NotFound, and Conflict if the last key of its principal was revoked.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            # Before the lock: the console's role cannot lock an endpoint without a key.
            _with_a_key(_state_of(stores, endpoint_id))
            before = _locked(stores, endpoint_id)
            _with_a_key(_state_of(stores, endpoint_id))
            self._reset(stores, before, Verb.ENABLE_WEBHOOK, reason)
            return _state_of(stores, endpoint_id)

    def to_close(self, endpoint_id: UUID) -> EndpointState:
        """Find an endpoint of which `close_circuit` would close the circuit now. Raises NotFound, Conflict."""
        with self._database.reading() as stores:
            found = _state_of(stores, endpoint_id)
            _must_be_enabled(found.disabled_at)
            return found

    def close_circuit(self, endpoint_id: UUID, reason: str) -> None:
        """Close the circuit of an endpoint, and let its waiting deliveries be sent now.

        Raises InvalidPauseReason, NotFound, and Conflict if it is disabled.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            before = _locked(stores, endpoint_id)
            _must_be_enabled(before.circuit.disabled_at)
            self._reset(stores, before, Verb.RESET_WEBHOOK, reason)

    def _reset(self, stores: Stores, before: ServedEndpoint, verb: Verb, reason: str) -> None:
        after, now = replace(before, circuit=webhooks.reset()), stores.instant(self._now)
        sent = stores.webhook_history.send_waiting(before.id, now)
        if before != after:
            stores.webhook_deliveries.save_endpoint(after, notice_at=None)
        if before != after or sent:
            stores.audit.add(self._actor, [_act(verb, before, after, reason)], now)

    def replay(self, endpoint_id: UUID, wanted: ReplayFilter, after: int, reason: str) -> Replay:
        """Replay the deliveries of a range after a place, as many as one transaction may.

        Raises InvalidPauseReason, NotFound.
        """
        reason = operators.checked(reason)
        with self._database.transaction() as stores:
            endpoint = require(stores.webhook_history.receiver(endpoint_id, None), _KIND, endpoint_id)
            now = stores.instant(self._now)
            done = replay_range(stores, endpoint, wanted, after, now)
            after_it = {"count": done.replayed, "filter": described(wanted)}
            stores.audit.add(self._actor, [_act_upon(endpoint, Verb.REPLAY_DELIVERIES, reason, after=after_it)], now)
            return done


def _state_of(stores: Stores, endpoint_id: UUID) -> EndpointState:
    found = stores.webhook_overview.states(1, EndpointFilter(id=endpoint_id))
    return require(next(iter(found), None), _KIND, endpoint_id)


def _with_a_key(endpoint: EndpointState) -> EndpointState:
    """Require that the endpoint has a key. Raises Conflict without one: no partner could stop its deliveries."""
    if endpoint.disabled_cause == DisabledCause.KEY_REVOKED.value:
        raise Conflict(
            "The last key of its principal was revoked. Rotate that key (`duecall keys create --rotate KEY_ID`). Its"
            " partner then enables the webhook with the new key."
        )
    return endpoint


def _must_be_enabled(disabled_at: datetime | None) -> None:
    if disabled_at is not None:
        raise Conflict("This webhook is disabled, so its circuit does not matter. Enable it.")


def _locked(stores: Stores, endpoint_id: UUID) -> ServedEndpoint:
    found = stores.webhook_deliveries.lock_endpoints([endpoint_id]).get(endpoint_id)
    if found is None or found.circuit.disabled_cause is DisabledCause.DELETED:
        raise not_found(_KIND, endpoint_id)
    return found


def _act(verb: Verb, before: ServedEndpoint, after: ServedEndpoint, reason: str) -> Act:
    former = {"state": _state(before), "count": before.circuit.consecutive_failures}
    return _act_upon(before, verb, reason, before=former, after={"state": _state(after)})


def _act_upon(endpoint: ServedEndpoint | EventReceiver, verb: Verb, reason: str, **changes: Mapping[str, Any]) -> Act:
    return Act(
        verb=verb,
        target_kind=TargetKind.WEBHOOK,
        target_id=endpoint.id,
        company_id=endpoint.company_id,
        reason=reason,
        **changes,
    )


def _state(endpoint: ServedEndpoint) -> str:
    cause = endpoint.circuit.disabled_cause
    return "ENABLED" if cause is None else cause.value


# --- Encrypt webhooks: encrypt their secrets again with the first key, so that the second can be removed


_BATCH_SIZE = 100


@dataclass(frozen=True, kw_only=True)
class Encrypted:
    """Counts of webhooks."""

    changed: int
    """Some of their texts had been encrypted with the second key."""
    current: int
    unreadable: tuple[UUID, ...]
    """None of the keys has encrypted them. Only their partners can repair them, by a new secret and new headers."""


class EncryptWebhooks:
    def __init__(self, database: Database, encryption: Encryption) -> None:
        self._database = database
        self._encryption = encryption

    def all(self) -> Encrypted:
        """Encrypt all webhooks, in batches. It may be repeated and interrupted. Raises DatabaseAway."""
        changed, current = 0, 0
        unreadable: list[UUID] = []
        after: UUID | None = None
        while True:
            with self._database.transaction() as stores:
                rows = stores.webhook_endpoints.lock_encrypted(after, _BATCH_SIZE)
                for row in rows:
                    try:
                        texts = self._again(row)
                    except NotDecrypted:
                        unreadable.append(row["id"])
                        continue
                    if texts:
                        stores.webhook_endpoints.save_encrypted(row["id"], texts)
                        changed += 1
                    else:
                        current += 1
            if len(rows) < _BATCH_SIZE:
                return Encrypted(changed=changed, current=current, unreadable=tuple(unreadable))
            after = rows[-1]["id"]

    def _again(self, row: Mapping[str, Any]) -> dict[str, bytes | None]:
        """Encrypt the texts of a webhook with the first key, unless it has encrypted them."""
        secret, headers = secret_place(row["id"]), headers_place(row["id"])
        return {
            name: self._encryption.encrypt(self._encryption.decrypt(row[name], place), place)
            for name, place in (("secret", secret), ("old_secret", secret), ("headers", headers))
            if row[name] is not None and not self._encryption.is_current(row[name])
        }
