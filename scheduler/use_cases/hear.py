"""Hear: what the carrier says is stored, believed when it is genuine, and changes the attempt by its rank."""

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID, uuid4

from scheduler.carriers.interface import CarrierCallbacks, NotACallback
from scheduler.clock import Now
from scheduler.domain.attempt import Attempt, Event, Reason
from scheduler.domain.call import CallNews
from scheduler.domain.interview import Interview
from scheduler.hashing import fingerprint
from scheduler.lifecycle import decisions, interviews
from scheduler.lifecycle.decisions import Alarm
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.state_machine import is_busy, is_over
from scheduler.logs import log
from scheduler.persistence.carrier_events import CarrierEvent
from scheduler.persistence.database import Database, Stores
from scheduler.use_cases import bell as tasks
from scheduler.use_cases.bell import Bell

_log = log(__name__)


class Hear:
    def __init__(self, database: Database, bell: Bell, callbacks: CarrierCallbacks, policy: Policy, now: Now) -> None:
        self._database = database
        self._bell = bell
        self._callbacks = callbacks
        self._policy = policy
        self._now = now

    def callback(self, token: str, path: str, form: Sequence[tuple[str, str]], signature: str) -> None:
        """Store a callback as it came, once, and ring for it. `path` is the request's own, with its query.

        Raises NotACallback for one that is not genuine or not readable, and stores nothing; DatabaseAway.
        """
        fields = dict(form)
        if len(fields) != len(form) or not self._callbacks.is_genuine(path, form, signature):
            raise NotACallback
        self._callbacks.read(token, fields)
        event = CarrierEvent(id=uuid4(), token=token, raw=fields, received_at=self._now())
        seen = fingerprint(token.encode(), json.dumps(fields, sort_keys=True).encode())
        with self._database.transaction() as stores:
            if stores.carrier_events.attempt_of(token) is None:
                return  # nobody's: answered, so that the carrier stops, and kept nowhere
            if not stores.carrier_events.add(event, seen):
                return
        self._bell.ring(tasks.HEAR, [event.id])

    def event(self, event_id: UUID) -> None:
        """Hear a stored callback, if nobody has yet. Raises DatabaseAway."""
        now = self._now()
        with self._database.transaction() as stores:
            event = stores.carrier_events.lock_unheard(event_id)
            if event is None:
                return
            attempt = stores.carrier_events.attempt_of(event.token)
            if attempt is not None:
                attempt_id, interview_id = attempt
                interview = stores.interviews.lock(interview_id)
                news = self._callbacks.read(event.token, event.raw)
                take_in_news(stores, interview, stores.attempts.lock(attempt_id), news, "carrier", now, self._policy)
            stores.carrier_events.heard(event_id, now)


def take_in_news(
    stores: Stores,
    interview: Interview,
    attempt: Attempt,
    news: CallNews,
    actor: str,
    now: datetime,
    policy: Policy,
) -> None:
    """Let the carrier's news change the attempt. Interview and attempt are locked by the caller."""
    heard = decisions.on_news(attempt, news, now, policy)
    if isinstance(heard, Alarm):
        raise_alarm(stores, attempt, heard, now)
    else:
        take_in(stores, interview, attempt, heard, actor, now, policy)


def take_in(
    stores: Stores,
    interview: Interview,
    attempt: Attempt,
    events: Sequence[Event],
    actor: str,
    now: datetime,
    policy: Policy,
) -> Attempt:
    """The attempt after `events`, saved with what follows: its line, its interview. One transaction, the caller's.

    Interview and attempt are locked by the caller, in this order.
    """
    was_busy = is_busy(attempt)
    for event in events:
        attempt = stores.attempts.save(attempt, event, actor, now)
    if was_busy and not is_busy(attempt):
        _free_line(stores, attempt, now, policy)
    if is_over(attempt):
        status = interviews.status_after(interview.status, attempt)
        if status is not interview.status:
            stores.interviews.set_status(interview.id, status, now)
    return attempt


def _free_line(stores: Stores, attempt: Attempt, now: datetime, policy: Policy) -> None:
    if not is_over(attempt) or (attempt.call_sid is None and attempt.reason is not Reason.OUTCOME_UNKNOWN):
        stores.lines.give_back(attempt.id)
        return
    # After an unknown outcome the same interview waits too: nobody knows whether that phone is ringing.
    same = None if attempt.reason is Reason.OUTCOME_UNKNOWN else attempt.interview_id
    stores.lines.rest(attempt.id, same, now + policy.line_gap)


def raise_alarm(stores: Stores, attempt: Attempt, alarm: Alarm, now: datetime) -> None:
    """Something happened that must never: no call of this company is claimed until a person has looked."""
    stores.companies.pause(attempt.company_id, f"ALARM: {alarm.cause}", now)
    _log.error(
        "the company is paused until somebody has looked",
        alarm=alarm.cause,
        attempt_id=str(attempt.id),
        company_id=str(attempt.company_id),
    )
