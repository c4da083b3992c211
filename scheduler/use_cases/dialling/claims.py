"""The results of a claim, and an order that may be sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from scheduler.domain.attempt import Attempt
from scheduler.domain.call import CallOrder
from scheduler.lifecycle.capacity import Pace
from scheduler.lifecycle.policy import SEND_SPAN
from scheduler.persistence.errors import DatabaseAway

PLACES_COME_TOGETHER = SEND_SPAN / 2
"""The next claim waits for the places of half a second, because each claim costs a transaction.

Claims reach a second ahead, so no call starts later.
"""


@dataclass(frozen=True, kw_only=True)
class ToSend:
    """A claimed attempt. Only the claiming worker knows its epoch, and only that epoch may send and record."""

    attempt: Attempt
    send_at: datetime
    lease_ends: float
    """Monotonic, counted from before the claim, so never later than the row's `lease_until`."""
    send_by: float
    """Monotonic. A call that is not sent by then returns to PENDING while its lease lasts."""


@dataclass(frozen=True, kw_only=True)
class Hinted:
    """A pending attempt named by a hint, with the fields that decide its turn."""

    id: UUID
    company_id: UUID
    manual: bool
    due_at: datetime


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


@dataclass(frozen=True, kw_only=True)
class Claims:
    claimed: tuple[ToSend, ...] = ()
    waiting: frozenset[UUID] = frozenset()
    """Attempts without a place yet, or locked by another transaction. They wait in the worker's memory, unclaimed."""
    early: Mapping[UUID, datetime] = field(default_factory=dict)
    """Attempts that become due during their release, with their due times. Their hints came early, by this clock."""
    unplaced: frozenset[UUID] = frozenset()
    """The part of `waiting` that lacks only a place."""
    try_again_at: datetime | None = None
    full: frozenset[UUID] = frozenset()
    """Companies at their own limit: none of their attempts can be claimed until `try_again_at` or the end of a call."""
    locked: frozenset[UUID] = frozenset()
    """Companies whose row another transaction has locked."""
    unlocked: frozenset[UUID] = frozenset()
    """Companies whose row this claim has locked."""
    account_free_at: datetime | None = None
    """The account is at its limit: nothing is to be claimed earlier, for any company."""
    account: Pace | None = None
    """The pace of the account after this claim. None if the claim has not come so far."""
    companies: Mapping[UUID, Pace] = field(default_factory=dict)
    """The paces of the locked companies after this claim."""
    is_stopped: bool = False
    """The account is paused, the carrier is down, or the database was replaced.

    All hints are dropped, except early ones.
    """


class SomeHeld(Exception):
    """Other transactions have locked the rows of some answers. These were not recorded, and all others were."""

    def __init__(self, attempt_ids: frozenset[UUID], to_cancel: Sequence[str]) -> None:
        super().__init__()
        self.attempt_ids = attempt_ids
        self.to_cancel = to_cancel
        """The calls to cancel in the carrier's queue, of the recorded answers."""


class ClaimInDoubt(DatabaseAway):
    """The commit of a claim was not confirmed. The attempts may or may not be claimed, and none may be sent."""

    def __init__(self, claimed: Sequence[ToSend]) -> None:
        super().__init__("the answer to a commit")
        self.claimed = tuple(claimed)


class ClaimTooSlow(Exception):
    """The claim was rolled back, because its calls could no longer be sent within their leases."""
