"""Hear: what the carrier says is stored, believed when it is genuine, and changes the attempt by its rank."""

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from scheduler.carriers.interface import CarrierCallbacks, NotACallback
from scheduler.clock import Now
from scheduler.failpoints import failpoint
from scheduler.hashing import fingerprint
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import AskTheCarrier
from scheduler.logs import log
from scheduler.persistence.carrier_events import CarrierEvent
from scheduler.persistence.commits import Commit
from scheduler.persistence.database import Database, DatabaseAway, Stores
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.effects import Effects, InvariantViolated
from scheduler.use_cases.shared.hints import Hints

_log = log(__name__)


class Hear:
    def __init__(
        self, database: Database, hints: Hints, callbacks: CarrierCallbacks, effects: Effects, now: Now
    ) -> None:
        self._database = database
        self._hints = hints
        self._callbacks = callbacks
        self._effects = effects
        self._now = now

    def callback(
        self,
        token: str,
        path: str,
        form: Sequence[tuple[str, str]],
        signature: str,
        *,
        commit: Commit | None = None,
    ) -> None:
        """Store a callback as it came, once, and ring for it. `path` is the request's own, with its query.

        Raises NotACallback for one that is not genuine or not readable, and stores nothing; DatabaseAway;
        CommitInDoubt.
        """
        fields = dict(form)
        if (
            len(fields) != len(form)
            # It is the only key that a carrier has.
            or not self._callbacks.is_genuine(path, form, signature)  # guard: signature
        ):
            raise NotACallback
        self._callbacks.read(token, fields)
        seen = fingerprint(token.encode(), json.dumps(fields, sort_keys=True).encode())
        with self._database.transaction(commit=commit) as stores:
            if not stores.carrier_events.is_known(token):
                return  # nobody's: answered, so that the carrier stops, and kept nowhere
            event = CarrierEvent(id=uuid4(), token=token, raw=fields, received_at=stores.instant(self._now))
            is_new = stores.carrier_events.add(event, seen)
            if not is_new:  # guard: stored_once
                return
            failpoint("hear.storing")
        failpoint("hear.stored")
        self._hints.send(tasks.HEAR, [event.id])
        failpoint("hear.rung")

    def event(self, event_id: UUID) -> None:
        """Hear a stored callback, if nobody has yet. Raises DatabaseAway, and whatever kept it from being heard.

        One that fails five times is set aside: what it would have told is asked for, as if it had never come.
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
            # In this order of locks: the company before all others.
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                self._effects.sound_in(stores, alarmed, now)
                stores.carrier_events.heard(event_id, now)
            return
        failpoint("hear.heard")
        if asks:
            self._hints.send(tasks.SETTLE)

    def _count_failure(self, event_id: UUID) -> None:
        with self._database.transaction() as stores:
            if stores.carrier_events.count_failure(event_id, stores.instant(self._now)):
                _log.error("a carrier event is in quarantine", alarm="QUARANTINE", event_id=str(event_id))

    def _hear(self, stores: Stores, event: CarrierEvent, now: datetime) -> bool:
        """Let it change its attempt. True: it proves nothing by itself, and the carrier is to be asked."""
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
        stores.attempts.look_again(attempt.id, attempt.epoch, now)
        return True
