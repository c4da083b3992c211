"""Last looks: the facts that one query read for several calls, and the verdict on each call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from scheduler.domain.attempt import Attempt, Event
from scheduler.hashing import Hasher
from scheduler.lifecycle import decisions
from scheduler.lifecycle.decisions import GoAhead, NotMine
from scheduler.lifecycle.policy import Policy
from scheduler.persistence.last_looks import LastLookRow, last_look_of
from scheduler.persistence.rows import AnyRow
from scheduler.rules import clock_comparison
from scheduler.use_cases.dialling.claims import PermittedOrder
from scheduler.use_cases.shared.situations import situation_from

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
    """Return the order to send now, or the reason against it. None: the attempt belongs to another worker.

    `now` is this machine's time, not earlier than the answer to the query.
    """
    found = facts.rows.get(attempt.id)
    if found is None:
        return None
    row = last_look_of(found)
    if clock_comparison.is_wrong(facts.ahead):
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
