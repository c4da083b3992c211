"""Last looks: the facts and verdicts about calls, the limit on looks at once, and the permit of one call."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.clock import Now, monotonic
from scheduler.domain.attempt import Attempt, Event
from scheduler.hashing import Hasher
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import GoAhead, NotMine
from scheduler.lifecycle.policy import LOOK_TO_END, LOOK_TO_SEND, Policy
from scheduler.logs import log
from scheduler.persistence.errors import DatabaseAway
from scheduler.persistence.last_looks import LastLookRow, last_look_of
from scheduler.persistence.rows import AnyRow
from scheduler.rules import operators
from scheduler.use_cases.dialling.hand import PermittedOrder, ToSend
from scheduler.use_cases.dialling.watch import LeaseAlarm
from scheduler.use_cases.shared.situations import situation_from

# --- Last looks: the facts that one query read for several calls, and the verdict on each call


_TALK_MARGIN = timedelta(minutes=2)


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
        return _order(row, facts, decided.leave_by, situation.line.free_at, policy)
    return PutBack(events=decided)


def _order(
    row: LastLookRow, facts: LookFacts, leave_by: datetime, line_free_at: datetime | None, policy: Policy
) -> PermittedOrder:
    assert row.phone_number is not None
    assert row.attempt.token is not None
    return PermittedOrder(
        to=row.phone_number,
        caller=row.caller_number,
        token=row.attempt.token,
        ring_timeout=policy.ring_timeout,
        time_limit=min(row.interview_duration + _TALK_MARGIN, policy.max_call),
        machine_detection=row.settings.machine_detection,
        looked_at=facts.looked_at,
        looked=facts.looked,
        leave_by=leave_by,
        could_ring_at=max(row.attempt.due_at, line_free_at or row.attempt.due_at),
    )


# --- The limit on calls that are between the start of their last look and their first byte
# Looks share the processor with the event loop that sends. Without a limit, on a busy processor, looks are made
# faster than calls are sent, and each look is too old before its call is sent.


AT_LEAST = 6
"""The limit at the start and on a slow machine. A lower limit sends less if the database is far away."""
AT_MOST = 50
"""Calls that look together share a query, whose cost per call is negligible at this size.

A higher limit would only make each look older: the last of 50 calls waits until the other 49 are sent.
"""


class LookLimit:
    """Lets some calls at a time look and be sent: as many as leave well before their looks are too old.

    The limit grows by one with each call that is sent in half of the validity of its look, and is halved by each later
    one. So looks are not made faster than calls are sent. Belongs to one event loop.
    """

    def __init__(self, good_for: timedelta = LOOK_TO_SEND) -> None:
        self._good_for = good_for
        self._at_once = AT_LEAST
        self._waiting: deque[tuple[UUID, asyncio.Future[None]]] = deque()
        self._begun: dict[UUID, asyncio.TimerHandle] = {}

    async def begin(self, attempt_id: UUID) -> None:
        """Wait until this call may look. It counts until `end`, but no longer than a look is valid."""
        self.end(attempt_id)
        if not self._waiting and len(self._begun) < self._at_once:
            self._begin(attempt_id)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((attempt_id, turn))
        self._give_places()
        try:
            await turn
        except asyncio.CancelledError:
            self.end(attempt_id)
            raise

    def sent(self, attempt_id: UUID, age: timedelta) -> None:
        """Free the place of a call that was sent, and fit the limit to the age of its look."""
        if age > self._good_for / 2:
            self._lower()
        else:
            self._at_once = min(self._at_once + 1, AT_MOST)
        self.end(attempt_id)

    def end(self, attempt_id: UUID) -> None:
        """Free the place of a call that was sent or will not be sent."""
        end_at = self._begun.pop(attempt_id, None)
        if end_at is not None:
            end_at.cancel()
            self._give_places()

    def _give_places(self) -> None:
        while self._waiting and len(self._begun) < self._at_once:
            attempt_id, turn = self._waiting.popleft()
            if not turn.done():  # it is done if its call has given up
                self._begin(attempt_id)
                turn.set_result(None)

    def _begin(self, attempt_id: UUID) -> None:
        # A slow connection must not delay other calls: its look is repeated once it is connected.
        after_s = self._good_for.total_seconds()
        self._begun[attempt_id] = asyncio.get_running_loop().call_later(after_s, self._expire, attempt_id)

    def _expire(self, attempt_id: UUID) -> None:
        self._lower()
        self.end(attempt_id)

    def _lower(self) -> None:
        self._at_once = max(AT_LEAST, self._at_once // 2)


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


# --- The permit of one call: a last look that is fresh enough until the bytes of its POST are sent
# Connecting may take seconds, and the process may be suspended at any time. So the permit is checked twice between
# look and POST: once connected, when an old look is repeated, and right before the first byte.


_log = log(__name__)
LOOKS_PER_CALL = 3
Look = Callable[[], Awaitable[PermittedOrder | None]]


class Permit:
    """The gate (`carriers.interface.Gate`) of one call. `look` gives back an attempt that may not be called.

    `on_left` receives the age of the look when the call is sent, and since when the call could ring.
    """

    def __init__(
        self,
        claim: ToSend,
        look: Look,
        alarm: LeaseAlarm,
        now: Now,
        on_left: Callable[[timedelta, datetime], None] = lambda *_: None,
    ) -> None:
        self._claim = claim
        self._look = look
        self._alarm = alarm
        self._now = now
        self._on_left = on_left
        self._looks_left = LOOKS_PER_CALL
        self._order: PermittedOrder | None = None
        self.is_given_back = False
        """A look gave the attempt back, or found that it belongs to another worker. Nothing is left to do."""
        self.is_too_late = False
        """The claim's time for sending is over. The attempt must be given back while its lease lasts."""
        self.has_refused = False
        """True if the most recent POST was stopped before its first byte."""
        self.look_failed = False
        """A look raised an error. Nothing was sent, and the attempt must be given back."""

    async def order(self) -> PermittedOrder | None:
        """Obtain the order to send now. None: it was given back, a look failed, or no look was fresh enough."""
        self.has_refused = False
        if self.is_given_back or self.look_failed or self.is_too_late:
            return None
        while self._order is None or not self.is_fresh():
            if self._looks_left == 0:
                return None
            self._looks_left -= 1
            if not await self._looks_again():
                return None
        return self._order

    async def _looks_again(self) -> bool:
        left_s = self._claim.send_by - monotonic()
        if left_s <= 0:
            self.is_too_late = True
            return False
        try:
            # Limited, because a look that hangs until the lease ends would end the process.
            async with asyncio.timeout(left_s):
                self._order = await self._look()
        except TimeoutError:
            self.is_too_late = True
        except DatabaseAway:
            self.look_failed = True
        except Exception:  # noqa: BLE001 - logged; nothing was sent, and the loop goes on for the other calls
            _log.exception(
                "last_look_failed: an unexpected error stopped a last look, and the attempt goes back to PENDING",
                attempt_id=str(self._claim.attempt.id),
            )
            self.look_failed = True
        else:
            self.is_given_back = self._order is None
        return not (self.look_failed or self.is_given_back or self.is_too_late)

    async def connected(self) -> bool:
        """Look again if connecting took too long. An order that has changed since is not sent."""
        before = self._order
        may_go_on = before is not None and await self.order() == before
        self.has_refused = not may_go_on
        return may_go_on

    def may_leave(self) -> bool:
        """Check once more with the kernel's timer running, so that a freeze after the check ends the process."""
        order = self._order
        if order is None:
            return False
        good_for = min(LOOK_TO_END, order.leave_by - order.looked_at).total_seconds()
        ends = min(self._claim.lease_ends, order.looked + good_for)
        self._alarm.hold(self._claim.attempt.id, ends)  # guard: frozen_unsent
        self.has_refused = not self.is_fresh()
        if self.has_refused:
            self._alarm.hold(self._claim.attempt.id, self._claim.lease_ends)
        return not self.has_refused

    def left(self) -> None:
        """Set the timer back to the lease: it must not end the process while the answer is on its way."""
        self._alarm.hold(self._claim.attempt.id, self._claim.lease_ends)
        assert self._order is not None
        self._on_left(timedelta(seconds=monotonic() - self._order.looked), self._order.could_ring_at)

    def is_fresh(self) -> bool:
        """Check both clocks: in a paused virtual machine the monotonic clock stops, and later the wall clock jumps."""
        order = self._order
        assert order is not None
        good_for = (
            LOOK_TO_SEND,
            order.leave_by - order.looked_at,  # guard: leave_by
        )
        ages = (
            timedelta(seconds=monotonic() - order.looked),  # guard: look_age
            self._now() - order.looked_at,  # guard: look_age_by_wall
        )
        return max(ages) <= min(good_for)
