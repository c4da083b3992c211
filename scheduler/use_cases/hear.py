"""Hear: store a genuine carrier callback, then apply it to its attempt in the order of call progress."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.carriers.interface import CarrierCallbacks, NotACallback
from scheduler.domain.call import CallNews
from scheduler.failpoints import failpoint
from scheduler.hashing import fingerprint
from scheduler.ids import new_id
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import AskTheCarrier
from scheduler.logs import log, place_of
from scheduler.persistence.carrier_events import CarrierEvent, NewCarrierEvent
from scheduler.persistence.database import BATCH_LOCK_S, LOCK_S
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.stores import Stores
from scheduler.use_cases.shared import hints as tasks
from scheduler.use_cases.shared.alarms import raise_in
from scheduler.use_cases.shared.batch import Batch
from scheduler.use_cases.shared.conflicts import blaming, put_off, together
from scheduler.use_cases.shared.context import Context
from scheduler.use_cases.shared.effects import InvariantViolated
from scheduler.use_cases.shared.hints import Hints
from scheduler.use_cases.shared.report_order import ReportFirst
from scheduler.use_cases.shared.voice_server import VoiceServerJudge

_log = log(__name__)
_FALLBACK = "duecall-fallback"
"""Marks the stored form of a request for other instructions. No field of a carrier has this name."""
_WAITS_IN_TURN = timedelta(seconds=30)
"""The longest time for which a callback waits for an earlier one before it raises an alarm."""


class Hear:
    """Stores and applies callbacks of the carrier. A callback that arrives twice is applied once."""

    def __init__(
        self, context: Context, hints: Hints, callbacks: CarrierCallbacks, voice: VoiceServerJudge | None = None
    ) -> None:
        """Build it. Only workers have a judge of the voice server: the API applies no callback."""
        self._database = context.database
        self._hints = hints
        self._callbacks = callbacks
        self._voice = voice
        self._hasher = context.hasher
        self._effects = context.effects
        self._now = context.now

    def genuine(
        self, token: str, path: str, form: Sequence[tuple[str, str]], signature: str, *, is_fallback: bool = False
    ) -> NewCarrierEvent:
        """Make an event of a callback. `path` is the request path with its query.

        `is_fallback`: a request for other instructions, because the voice server gave none.
        Only NUL is replaced, because PostgreSQL cannot store it. A token that contains one remains unknown.
        Raises NotACallback for a forged or unreadable request.
        """
        fields = dict(form)
        if (
            len(fields) != len(form)
            or _FALLBACK in fields
            # The signature is the carrier's only credential.
            or not self._callbacks.is_genuine(path, form, signature)  # guard: signature
        ):
            raise NotACallback
        token = _without_nul(token)
        # After the check: the signature covers the original.
        fields = {_without_nul(name): _without_nul(value) for name, value in form}
        fields |= {_FALLBACK: "true"} if is_fallback else {}
        self._read(token, fields)
        content_hash = self._hasher.callback(fingerprint(token.encode(), json.dumps(fields, sort_keys=True).encode()))
        return NewCarrierEvent(id=new_id(self._now()), token=token, raw=fields, fingerprint=content_hash)

    def _read(self, token: str, fields: Mapping[str, str]) -> CallNews:
        read = self._callbacks.read_fallback if _FALLBACK in fields else self._callbacks.read
        return read(token, fields)

    def store(self, callbacks: Sequence[NewCarrierEvent]) -> None:
        """Store each callback once, all in one transaction, and send one hint. Raises DatabaseAway, CommitInDoubt.

        A callback with an unknown token is not stored. The request succeeds, so that the carrier stops repeating it.
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
        """Apply stored callbacks in one transaction. Return the ids to apply one by one. Raises DatabaseAway."""
        return together(event_ids, self._apply, self._companies_of)

    def _companies_of(self, event_ids: Sequence[UUID]) -> Mapping[UUID, UUID]:
        with self._database.reading() as stores:
            return stores.carrier_events.companies_of(event_ids)

    def event(self, event_id: UUID, *, lock_s: float = LOCK_S) -> None:
        """Apply a stored callback unless it was applied already. Raises DatabaseAway and any unexpected error.

        After five failures it is put in quarantine, and the carrier is polled as if the callback had never come. If it
        seems to be a second call to a number, it waits for earlier callbacks of the first one.
        """
        try:
            self._apply([event_id], lock_s=lock_s)
        except InvariantViolated as alarmed:
            # A new transaction, because the company must be locked first.
            with self._database.transaction() as stores:
                now = stores.instant(self._now)
                if _may_be_early(stores, alarmed, event_id, now):  # guard: in_turn
                    _log.info("callback_waits: a callback waits for an earlier one of a call to the same number")
                    return
                self._effects.pause_for_alarm_in(stores, alarmed, now)
                stores.carrier_events.heard([event_id], now)
        except DatabaseAway:
            raise
        except Exception as error:
            self._count_failure(event_id, place_of(error))
            raise

    def _apply(self, event_ids: Sequence[UUID], *, lock_s: float = BATCH_LOCK_S) -> Collection[UUID]:
        """Apply the callbacks. Return the ids to apply one by one.

        Those whose attempts or interviews are locked wait for another hint, and so do those of a call whose end
        comes after an accepted report. Those of an attempt that this release cannot read stay for a worker that can.
        """
        with self._database.transaction(lock_s=lock_s) as stores, stores.connection.gathering():
            now = stores.instant(self._now)
            found = stores.carrier_events.lock_unheard(event_ids)
            events, alone = _without_failed(found) if len(event_ids) > 1 else (found, ())
            if not events:
                return alone
            place = {event_id: place for place, event_id in enumerate(event_ids)}
            events.sort(key=lambda event: (event.received_at, place[event.id]))
            by_attempt = {each.claim.attempt_id: each.claim.interview_id for each in events if each.claim is not None}
            batch, held = Batch.free(stores, by_attempt)
            waiting = [each for each in events if each.claim is not None and not batch.has(each.claim.attempt_id)]
            events = [each for each in events if each not in waiting]
            asks, early = self._hear(batch, events, now)
            waiting += [each for each in events if each.claim is not None and each.claim.attempt_id in early]
            events = [each for each in events if each not in waiting]
            if events:
                stores.carrier_events.heard([event.id for event in events], now)
            failpoint("hear.hearing")
        failpoint("hear.heard")
        soon = held | early
        again = {each.id: each.received_at for each in waiting if each.claim and each.claim.attempt_id in soon}
        put_off(self._hints, tasks.HEAR, again, now)
        if asks:
            self._hints.send(tasks.SETTLE)
        if self._voice is not None:
            self._voice.hear(batch.without_instructions)
        return alone

    def _count_failure(self, event_id: UUID, failed_with: str) -> None:
        with self._database.transaction() as stores:
            now = stores.instant(self._now)
            if stores.carrier_events.count_failure(event_id, failed_with, now):
                raise_in(stores, "QUARANTINE", now, event_id=event_id)
                _log.error(
                    "callback_quarantined: a callback failed five times and was put in quarantine",
                    alarm="QUARANTINE",
                    is_stored=True,
                    event_id=str(event_id),
                )

    def _hear(self, batch: Batch, events: Sequence[CarrierEvent], now: datetime) -> tuple[bool, set[UUID]]:
        """Apply the callbacks. Return True if a callback proves nothing and the carrier must be polled.

        Return also the attempts whose calls end after an accepted report. Their callbacks are applied again later.
        If one of several fails, all events of its attempt are taken out, so that they keep their order.
        """
        claimed = [(event, event.claim) for event in events if event.claim is not None]
        by_attempt: defaultdict[UUID, set[UUID]] = defaultdict(set)
        for event, claim in claimed:
            by_attempt[claim.attempt_id].add(event.id)
        heard: list[tuple[UUID, CallNews]] = []
        for event, claim in claimed:
            with blaming(by_attempt[claim.attempt_id], of=len(events)):
                news = self._read(event.token, event.raw)
            if not decisions.is_old_news(claim.closed_sid, news):
                heard.append((claim.attempt_id, news))
        asks: set[UUID] = set()
        early: set[UUID] = set()
        for attempt_id, news in _in_order(heard):
            with blaming(by_attempt[attempt_id], of=len(events)):
                found = self._effects.hear(batch, batch.attempt(attempt_id), news, "carrier", now)
            if isinstance(found, AskTheCarrier):
                asks.add(attempt_id)
            elif isinstance(found, ReportFirst):
                early.add(attempt_id)
        for attempt_id in asks:
            batch.stores.attempt_polls.reschedule_poll(attempt_id, batch.attempt(attempt_id).epoch, now)
        return bool(asks) or any(batch.attempt(attempt_id).sip_code is not None for attempt_id, _ in heard), early


def _without_nul(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _may_be_early(stores: Stores, alarmed: InvariantViolated, event_id: UUID, now: datetime) -> bool:
    """Return True if the call that seems to be live at the same number may have ended: an earlier event waits.

    False half a minute after the event was received, because the earlier one may never be processed.
    """
    if alarmed.alarm.cause != "TWO_CALLS_TO_ONE_NUMBER":
        return False
    return stores.carrier_events.is_after_unheard(event_id, alarmed.attempt.number_hash, now - _WAITS_IN_TURN)


def _without_failed(events: Sequence[CarrierEvent]) -> tuple[list[CarrierEvent], Collection[UUID]]:
    """Take out the events of each claim with an event that has failed before: it would fail the batch each time."""
    failed = {event.token for event in events if event.failures}
    return [event for event in events if event.token not in failed], [
        event.id for event in events if event.token in failed
    ]


def _in_order(heard: Sequence[tuple[UUID, CallNews]]) -> list[tuple[UUID, CallNews]]:
    """Sort the news of each call by its progress, so that the history has each step. The order between calls stays.

    Between two calls the order of arrival matters: the end of one may free the line of the other.
    """
    by_call: defaultdict[tuple[UUID, str], list[CallNews]] = defaultdict(list)
    for attempt_id, news in heard:
        by_call[attempt_id, news.call_sid].append(news)
    in_progress = {call: iter(sorted(all_news, key=lambda news: news.rank)) for call, all_news in by_call.items()}
    return [(attempt_id, next(in_progress[attempt_id, news.call_sid])) for attempt_id, news in heard]
