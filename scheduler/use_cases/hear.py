"""Hear: store a genuine carrier callback, then apply it to its attempt in the order of call progress."""

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from scheduler.carriers.interface import CarrierCallbacks, NotACallback
from scheduler.failpoints import failpoint
from scheduler.hashing import fingerprint
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import AskTheCarrier
from scheduler.logs import log
from scheduler.persistence.carrier_events import CarrierEvent
from scheduler.persistence.commits import Commit
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.stores import Stores
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.effects import InvariantViolated
from scheduler.use_cases.shared.hints import Hints

_log = log(__name__)


class Hear:
    def __init__(self, context: Context, hints: Hints, callbacks: CarrierCallbacks) -> None:
        self._database = context.database
        self._hints = hints
        self._callbacks = callbacks
        self._effects = context.effects
        self._now = context.now

    def callback(
        self,
        token: str,
        path: str,
        form: Sequence[tuple[str, str]],
        signature: str,
        *,
        commit: Commit | None = None,
    ) -> None:
        """Store a callback unchanged, once, and send a hint. `path` is the request path with its query.

        Raises NotACallback for a forged or unreadable request, and stores nothing. Raises DatabaseAway, CommitInDoubt.
        """
        fields = dict(form)
        if (
            len(fields) != len(form)
            # The signature is the carrier's only credential.
            or not self._callbacks.is_genuine(path, form, signature)  # guard: signature
        ):
            raise NotACallback
        self._callbacks.read(token, fields)
        content_hash = fingerprint(token.encode(), json.dumps(fields, sort_keys=True).encode())
        with self._database.transaction(commit=commit) as stores:
            if not stores.carrier_events.is_known(token):
                return  # no attempt has this token: answered, so that the carrier stops, but not stored
            event = CarrierEvent(id=uuid4(), token=token, raw=fields, received_at=stores.instant(self._now))
            is_new = stores.carrier_events.add(event, content_hash)
            if not is_new:  # guard: stored_once
                return
            failpoint("hear.storing")
        failpoint("hear.stored")
        self._hints.send(tasks.HEAR, [event.id])
        failpoint("hear.rung")

    def event(self, event_id: UUID) -> None:
        """Apply a stored callback unless it was applied already. Raises DatabaseAway and any unexpected error.

        After five failures it is put in quarantine, and the carrier is polled as if the callback had never come.
        """
        try:
            self._event(event_id)
        except DatabaseAway:
            raise
        except Exception:
            self._count_failure(event_id)
            raise

    def _event(self, event_id: UUID) -> None:
        try:
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                event = stores.carrier_events.lock_unheard(event_id)
                if event is None:
                    return
                asks = self._hear(stores, event, now)
                stores.carrier_events.heard(event_id, now)
                failpoint("hear.hearing")
        except InvariantViolated as alarmed:
            # A new transaction, because the company must be locked first.
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                self._effects.pause_for_alarm_in(stores, alarmed, now)
                stores.carrier_events.heard(event_id, now)
            return
        failpoint("hear.heard")
        if asks:
            self._hints.send(tasks.SETTLE)

    def _count_failure(self, event_id: UUID) -> None:
        with self._database.transaction() as stores:
            if stores.carrier_events.count_failure(event_id, stores.instant(self._now)):
                _log.error(
                    "callback_quarantined: a callback failed five times and was put in quarantine",
                    alarm="QUARANTINE",
                    event_id=str(event_id),
                )

    def _hear(self, stores: Stores, event: CarrierEvent, now: datetime) -> bool:
        """Apply it to its attempt. Return True if it proves nothing by itself and the carrier must be polled."""
        claim = stores.carrier_events.claim_of(event.token)
        if claim is None:
            return False
        news = self._callbacks.read(event.token, event.raw)
        if decisions.is_old_news(claim.closed_sid, news):
            return False
        interview = stores.interviews.lock(claim.interview_id)
        attempt = stores.attempts.lock(claim.attempt_id)
        heard = self._effects.hear(stores, interview, attempt, news, "carrier", now)
        if not isinstance(heard, AskTheCarrier):
            return False
        stores.attempt_polls.reschedule_poll(attempt.id, attempt.epoch, now)
        return True
