"""Last looks: the facts about calls right before they are sent, the verdict on each, and the limit on looks at once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from scheduler.clock import monotonic
from scheduler.domain.attempt import Attempt, Event
from scheduler.domain.call import CallOrder, MachineDetection, least_detection
from scheduler.hashing import Hasher
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import GoAhead, NotMine
from scheduler.lifecycle.policy import LOOK_TO_SEND, Policy
from scheduler.persistence.last_looks import LastLookRow, last_look_of
from scheduler.persistence.rows import AnyRow
from scheduler.rules import operators
from scheduler.rules.operators import Comparison
from scheduler.use_cases.dialling.record import Records
from scheduler.use_cases.shared.batch import situation_from
from scheduler.use_cases.shared.context import Context

# --- Last looks: the facts that one query read for several calls, and the verdict on each call


_TALK_MARGIN = timedelta(minutes=2)


@dataclass(frozen=True, kw_only=True)
class PermittedOrder(CallOrder):
    """An order that a last look permits, with its period of validity."""

    looked_at: datetime = field(compare=False)
    """The time at which the query of the look was sent, on this machine's clock."""
    looked: float = field(compare=False)
    """The same instant on the monotonic clock."""
    leave_by: datetime = field(compare=False)
    """Latest time for sending, for example the end of calling hours, however fresh the look is."""
    could_ring_at: datetime = field(compare=False)
    """The time from which the call was due and its number was free. Only measured, and decides nothing."""
    look: Mapping[str, Any] = field(compare=False, repr=False)
    """The record of the look, for the evidence of the call."""


@dataclass(frozen=True, kw_only=True)
class LookFacts:
    """The result of one query for the last looks of several attempts."""

    rows: Mapping[UUID, AnyRow] = field(repr=False)
    """By attempt. With personal data. Read one by one, so that an unreadable row fails only its own call."""
    looked_at: datetime
    """The time at which the query was sent, on this machine's clock."""
    looked: float
    """The same instant on the monotonic clock."""
    ahead: timedelta
    """The time by which this machine's clock was ahead of the database's. Read once for all rows."""
    took: timedelta
    """Duration of the query."""


@dataclass(frozen=True, kw_only=True)
class PutBack:
    """The call may not be placed. The events return its attempt to PENDING, or end it."""

    events: tuple[Event, ...]


def verdict(
    attempt: Attempt, facts: LookFacts, hasher: Hasher, now: datetime, policy: Policy
) -> PermittedOrder | PutBack | None:
    """Decide on the order to send now, or the reason against it. None: the attempt belongs to another worker.

    `now` is this machine's time, not earlier than the answer to the query.
    """
    found = facts.rows.get(attempt.id)
    if found is None:
        return None
    row = last_look_of(found)
    if operators.is_wrong(facts.ahead):
        now -= facts.ahead  # the call is not placed; its new due time must come from the database's clock
    situation = situation_from(row, hasher, -facts.ahead)
    decided = decisions.on_last_look(situation, attempt.epoch, now, policy)
    if isinstance(decided, NotMine):
        return None
    if isinstance(decided, GoAhead):
        return _order(row, facts, decided, situation.line.free_at, policy)
    return PutBack(events=decided)


def _order(
    row: LastLookRow, facts: LookFacts, decided: GoAhead, line_free_at: datetime | None, policy: Policy
) -> PermittedOrder:
    assert row.phone_number is not None
    assert row.attempt.token is not None
    return PermittedOrder(
        to=row.phone_number,
        caller=row.caller_number,
        token=row.attempt.token,
        ring_timeout=policy.ring_timeout,
        time_limit=min(row.interview_duration + _TALK_MARGIN, policy.max_call),
        # The attempt says whether a verdict is owed, so an order asks for none after a claim under another setting.
        machine_detection=least_detection(
            row.attempt.machine_detection or MachineDetection.SYNC, row.settings.machine_detection
        ),
        detection_tuning=row.settings.detection_tuning,
        looked_at=facts.looked_at,
        looked=facts.looked,
        leave_by=decided.leave_by,
        could_ring_at=max(row.attempt.due_at, line_free_at or row.attempt.due_at),
        look=decided.look,
    )


# --- The database step


class Looks:
    """Reads whether claimed attempts may ring now."""

    def __init__(self, context: Context, records: Records) -> None:
        self._records = records
        self._database = context.database
        self._hasher = context.hasher
        self._policy = context.policy
        self._now = context.now

    def try_look(self, attempt_id: UUID) -> timedelta:
        """Measure the statement of a last look. The attempt need not be claimed. Raises DatabaseAway."""
        with self._database.statement() as stores:
            looked = monotonic()
            stores.attempt_claims.look(attempt_id)
            return timedelta(seconds=monotonic() - looked)

    def look_all(self, attempts: Sequence[Attempt]) -> LookFacts:
        """Read the facts for the last looks of several calls that are sent next, in one query.

        Raises DatabaseAway: nothing may be sent.
        """
        # One round trip: with a slow network the result of a transaction of four would be too old.
        with self._database.statement() as stores:
            looked, looked_at = monotonic(), self._now()
            rows = stores.attempt_claims.look_all([each.id for each in attempts])
            answered_at = monotonic()
        ahead = timedelta()
        if rows:
            database_clock = next(iter(rows.values())).database_clock
            comparison = Comparison(database_clock=database_clock, asked_at=looked, answered_at=answered_at)
            ahead = self._database.ahead(comparison)
        took = timedelta(seconds=answered_at - looked)
        return LookFacts(rows=rows, looked_at=looked_at, looked=looked, ahead=ahead, took=took)

    def verdict(self, attempt: Attempt, facts: LookFacts) -> PermittedOrder | PutBack | None:
        """Decide on the order to send now, or the events for `put_back`. None: it belongs to another worker."""
        return verdict(attempt, facts, self._hasher, self._now(), self._policy)

    def put_back(self, attempt: Attempt, put_back: PutBack) -> None:
        """Put back an attempt whose call may not be placed. Raises DatabaseAway."""
        self._records.put_back(attempt, lambda _: put_back.events)

    def last_look(self, attempt: Attempt) -> PermittedOrder | None:
        """Look a last time at an attempt. None: its call may not be placed, and the attempt was put back."""
        found = self.verdict(attempt, self.look_all([attempt]))
        if not isinstance(found, PutBack):
            return found
        self.put_back(attempt, found)
        return None


# --- The limit on calls that are between the start of their last look and their first byte
# Looks share the processor with the event loop that sends. Without a limit, on a busy processor, looks are made
# faster than calls are sent, and each look is too old before its call is sent.


AT_ONCE = 50
"""Calls that look together share a query, whose cost per call is negligible at this size.

A higher limit would only make each look older: the last of 50 calls waits until the other 49 are sent.
"""


class LookLimit:
    """Lets `AT_ONCE` calls look and be sent at a time. Belongs to one event loop."""

    def __init__(self, good_for: timedelta = LOOK_TO_SEND) -> None:
        self._good_for = good_for
        self._places = asyncio.Semaphore(AT_ONCE)
        self._begun: dict[UUID, asyncio.TimerHandle] = {}

    async def begin(self, attempt_id: UUID) -> None:
        """Wait until this call may look. It counts until `end`, but no longer than a look is valid."""
        self.end(attempt_id)
        await self._places.acquire()
        # A slow connection must not delay other calls: its look is repeated once it is connected.
        after_s = self._good_for.total_seconds()
        self._begun[attempt_id] = asyncio.get_running_loop().call_later(after_s, self.end, attempt_id)

    def end(self, attempt_id: UUID) -> None:
        """Free the place of a call that was sent or will not be sent."""
        end_at = self._begun.pop(attempt_id, None)
        if end_at is not None:
            end_at.cancel()
            self._places.release()


# --- Queries of last looks: calls that look at about the same time share one query
# A query for each call would cost a round trip a call, which is most of the cost of a look.


_WAIT_S = 0.02
"""The longest wait for a running query. A hanging query must not delay the looks of other calls."""
Query = Callable[[Sequence[Attempt]], Awaitable[LookFacts]]


class LookQueries:
    """Collects the calls that look while a query is running, and looks for all of them in the next one.

    A single call waits for no other. `LookLimit` bounds the size of a query. Belongs to one event loop.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        self._attempts: list[Attempt] = []
        self._next: asyncio.Task[LookFacts] | None = None
        """The query for `_attempts`, not yet sent. None without attempts."""
        self._running: set[asyncio.Task[LookFacts]] = set()

    async def of(self, attempt: Attempt) -> LookFacts:
        """Await facts that are read after this call. Raises the error of the query, which all its calls receive."""
        self._attempts.append(attempt)
        if self._next is None:
            self._next = asyncio.create_task(self._run())
        # A call that gives up must not cancel the query of the others.
        return await asyncio.shield(self._next)

    async def _run(self) -> LookFacts:
        if self._running:
            await asyncio.wait(self._running, timeout=_WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        query, attempts = self._next, self._attempts
        assert query is not None
        self._next, self._attempts = None, []
        self._running.add(query)
        try:
            return await self._query(attempts)
        finally:
            self._running.discard(query)
