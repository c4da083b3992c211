"""Hear: store a genuine carrier callback, then apply it to its attempt in the order of call progress."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID, uuid4

from scheduler.carriers.interface import CarrierCallbacks, NotACallback
from scheduler.domain.call import CallNews
from scheduler.failpoints import failpoint
from scheduler.hashing import fingerprint
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import AskTheCarrier
from scheduler.logs import log
from scheduler.persistence.carrier_events import CarrierEvent, NewCarrierEvent
from scheduler.persistence.errors import DatabaseAway, LockTaken
from scheduler.persistence.stores import Stores
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.effects import InvariantViolated
from scheduler.use_cases.shared.hints import Hints

_log = log(__name__)
_MOST_TAKEN_OUT = 5
"""If more events of a batch fail, all that are left are applied alone."""


class Hear:
    def __init__(self, context: Context, hints: Hints, callbacks: CarrierCallbacks) -> None:
        self._database = context.database
        self._hints = hints
        self._callbacks = callbacks
        self._effects = context.effects
        self._now = context.now

    def genuine(self, token: str, path: str, form: Sequence[tuple[str, str]], signature: str) -> NewCarrierEvent:
        """Return the callback of a request, unchanged. `path` is the request path with its query.

        Raises NotACallback for a forged or unreadable request.
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
        return NewCarrierEvent(id=uuid4(), token=token, raw=fields, fingerprint=content_hash)

    def store(self, callbacks: Sequence[NewCarrierEvent]) -> None:
        """Store each callback once, all in one transaction, and send one hint. Raises DatabaseAway, CommitInDoubt.

        A callback with an unknown token is not stored. It is no error, so that the carrier stops repeating it.
        """
        events = list({each.fingerprint: each for each in callbacks}.values())
        with self._database.transaction() as stores:
            added = stores.carrier_events.add(events, stores.instant(self._now))
            if not added:  # guard: stored_once
                return
            failpoint("hear.storing")
        failpoint("hear.stored")
        # The API role cannot read which of them are new. The id of an event that was not added matches no row.
        self._hints.send(tasks.HEAR, [each.id for each in events])
        failpoint("hear.rung")

    def batch(self, event_ids: Sequence[UUID]) -> list[UUID]:
        """Apply stored callbacks in one transaction. Return those that are to be applied alone, by `event`.

        One that fails is taken out, and the others are applied without it. If another transaction holds one of their
        rows, or if nothing tells which one fails, none was applied, and all are returned. Raises DatabaseAway.
        """
        rest, alone = list(event_ids), list[UUID]()
        while len(rest) > 1 and len(alone) < _MOST_TAKEN_OUT:
            try:
                self._apply(rest)
            except _EventFailed as failed:
                rest.remove(failed.event_id)
                alone.append(failed.event_id)
            except LockTaken:
                break
            except DatabaseAway:
                raise
            except Exception:  # noqa: BLE001 - the same error ends `event`, which counts and logs it
                break
            else:
                return alone
        _log.info("callbacks_taken_out: callbacks of a batch are applied alone", count=len(alone) + len(rest))
        return alone + rest

    def event(self, event_id: UUID) -> None:
        """Apply a stored callback unless it was applied already. Raises DatabaseAway and any unexpected error.

        After five failures it is put in quarantine, and the carrier is polled as if the callback had never come.
        """
        try:
            self._apply([event_id])
        except InvariantViolated as alarmed:
            # A new transaction, because the company must be locked first.
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                self._effects.pause_for_alarm_in(stores, alarmed, now)
                stores.carrier_events.heard([event_id], now)
        except DatabaseAway:
            raise
        except Exception:
            self._count_failure(event_id)
            raise

    def _apply(self, event_ids: Sequence[UUID]) -> None:
        with self._database.transaction() as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            events = stores.carrier_events.lock_unheard(event_ids)
            if not events:
                return
            asks = self._hear(stores, events, now)
            stores.carrier_events.heard([event.id for event in events], now)
            failpoint("hear.hearing")
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

    def _hear(self, stores: Stores, events: Sequence[CarrierEvent], now: datetime) -> bool:
        """Apply them to their attempts. Return True if one proves nothing by itself and the carrier must be polled.

        Raises the error of a single event. Of several, the one that fails is named by _EventFailed.
        """
        claims = stores.carrier_events.claims_of([event.token for event in events])
        news: list[tuple[CallNews, CarrierEvent, UUID]] = []
        for event in events:
            with _naming(event, events):
                each, claim = self._callbacks.read(event.token, event.raw), claims.get(event.token)
            if claim is not None and not decisions.is_old_news(claim.closed_sid, each):
                news.append((each, event, claim.attempt_id))
        # In the order of call progress, so that the history has each step, however the callbacks arrived.
        news.sort(key=lambda one: (one[0].rank, one[1].received_at))
        batch = Batch.locked(stores, {claim.attempt_id: claim.interview_id for claim in claims.values()})
        asks: set[UUID] = set()
        for each, event, attempt_id in news:
            with _naming(event, events):
                heard = self._effects.hear(batch, batch.attempt(attempt_id), each, "carrier", now)
            if isinstance(heard, AskTheCarrier):
                asks.add(attempt_id)
        for attempt_id in asks:
            stores.attempt_polls.reschedule_poll(attempt_id, batch.attempt(attempt_id).epoch, now)
        return bool(asks)


class _EventFailed(Exception):
    """One event of several failed."""

    def __init__(self, event_id: UUID) -> None:
        super().__init__(str(event_id))
        self.event_id = event_id


@contextmanager
def _naming(event: CarrierEvent, events: Sequence[CarrierEvent]) -> Iterator[None]:
    try:
        yield
    except DatabaseAway:
        raise
    except Exception as error:
        if len(events) == 1:
            raise
        raise _EventFailed(event.id) from error
