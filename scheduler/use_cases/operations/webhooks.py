"""Webhooks of all partners, for operators: their state, and the acts upon them."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from scheduler.clock import Now
from scheduler.domain.actor import SYSTEM
from scheduler.domain.audit import Act, TargetKind, Verb
from scheduler.domain.delivery_history import EndpointState, Replay, ReplayFilter
from scheduler.domain.webhook import DisabledCause
from scheduler.persistence.database import Database
from scheduler.persistence.stores import Stores
from scheduler.rules import pause_reasons, webhook_circuit
from scheduler.rules.webhook_circuit import Circuit
from scheduler.use_cases.resources.webhook_deliveries import act_of_replay, described, replay_range
from scheduler.use_cases.submit import not_found, require

MAX_LISTED = 1000
_KIND = "webhook"


class WebhookOperations:
    """Lists endpoints, and disables, enables and replays them. Every method raises DatabaseAway."""

    def __init__(self, database: Database, now: Now, actor: str = SYSTEM) -> None:
        self._database = database
        self._now = now
        self._actor = actor

    def all(self) -> Sequence[EndpointState]:
        """Return the endpoints, oldest first, at most `MAX_LISTED`."""
        with self._database.reading() as stores:
            return stores.webhook_overview.states(MAX_LISTED)

    def disable(self, endpoint_id: UUID, reason: str) -> bool:
        """Send nothing to an endpoint until it is enabled. Return False if it was disabled before.

        No deliveries are made for new events, and waiting ones wait. Raises InvalidPauseReason, NotFound.
        """
        reason = pause_reasons.checked(reason)
        with self._database.transaction() as stores:
            company_id, before = _locked(stores, endpoint_id)
            if before.disabled_at is not None:
                return False
            now = stores.instant(self._now)
            after = replace(before, disabled_at=now, disabled_cause=DisabledCause.OPERATOR)
            stores.webhook_overview.save(endpoint_id, after, now)
            act = _act(Verb.DISABLE_WEBHOOK, endpoint_id, company_id, reason, before, after)
            stores.audit.add(self._actor, [act], now)
            return True

    def enable(self, endpoint_id: UUID, reason: str) -> EndpointState:
        """Enable an endpoint, and close its circuit. Return its state: its partner may have paused it.

        Raises InvalidPauseReason, NotFound.
        """
        reason = pause_reasons.checked(reason)
        with self._database.transaction() as stores:
            company_id, before = _locked(stores, endpoint_id)
            after = webhook_circuit.reset()
            if before != after:
                now = stores.instant(self._now)
                stores.webhook_overview.save(endpoint_id, after, now)
                act = _act(Verb.ENABLE_WEBHOOK, endpoint_id, company_id, reason, before, after)
                stores.audit.add(self._actor, [act], now)
            [state] = stores.webhook_overview.states(1, endpoint_id)
            return state

    def replay(self, endpoint_id: UUID, wanted: ReplayFilter, after: int, reason: str) -> Replay:
        """Replay the deliveries of a range after a place, as many as one transaction may.

        Raises InvalidPauseReason, NotFound.
        """
        reason = pause_reasons.checked(reason)
        with self._database.transaction() as stores:
            endpoint = require(stores.webhook_history.receiver(endpoint_id, None), _KIND, endpoint_id)
            now = stores.instant(self._now)
            done = replay_range(stores, endpoint, wanted, after, now)
            act = act_of_replay(endpoint, done.replayed, described(wanted), reason)
            stores.audit.add(self._actor, [act], now)
            return done


def _locked(stores: Stores, endpoint_id: UUID) -> tuple[UUID | None, Circuit]:
    found = stores.webhook_overview.lock(endpoint_id)
    if found is None:
        raise not_found(_KIND, endpoint_id)
    return found


def _act(verb: Verb, endpoint_id: UUID, company_id: UUID | None, reason: str, before: Circuit, after: Circuit) -> Act:
    return Act(
        verb=verb,
        target_kind=TargetKind.WEBHOOK,
        target_id=endpoint_id,
        company_id=company_id,
        reason=reason,
        before={"state": _cause(before), "count": before.consecutive_failures},
        after={"state": _cause(after)},
    )


def _cause(circuit: Circuit) -> str:
    return "ENABLED" if circuit.disabled_cause is None else circuit.disabled_cause.value
