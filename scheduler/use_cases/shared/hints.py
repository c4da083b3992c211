"""Hints, and the turns of the workers that get them.

A hint is a queue message that makes a worker query the database. It decides nothing, and a lost one costs seconds.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from scheduler.clock import monotonic

APPLY = "commands.apply"
SUBMIT = "commands.submit"
"""The one message that is more than a hint: a command itself. Only clients send it."""
DIAL = "attempts.dial"
SETTLE = "attempts.settle"
HEAR = "carrier.hear"
RECOMPUTE = "records.reresolve"
INVITE = "invitations.send"
PURGE = "records.purge"
POST_ALARMS = "alarms.post"
ERASE = "companies.erase"
ERASE_PEOPLE = "candidates.erase"
NUMBER_EVENTS = "events.number"
DELIVER = "webhooks.deliver"
NOTIFY_OWNERS = "webhooks.notify"
BATCHES = "batches.work"
LIVENESS = "workers.heard"
"""Liveness: a worker sends this to its own queue to check that it still receives messages."""

QUEUES = {
    APPLY: "intake",
    SUBMIT: "intake",
    DIAL: "dial",
    HEAR: "callbacks",
    # Its own queue and process: changed settings, e-mail and erasures must not delay settling and probes.
    SETTLE: "settle",
    # Its own process: only this one connects to partners.
    DELIVER: "webhooks",
    # So that a batch of ten thousand takes no time from the threads that apply single commands.
    BATCHES: "bulk",
    **dict.fromkeys(
        (RECOMPUTE, INVITE, PURGE, ERASE, ERASE_PEOPLE, POST_ALARMS, NUMBER_EVENTS, NOTIFY_OWNERS), "maintenance"
    ),
}
"""The queue of each task."""


class Hints(Protocol):
    """Sends hints, always after the commit. No method raises or blocks."""

    def send(self, task: str, ids: Sequence[UUID] = (), due_at: Mapping[UUID, datetime] | None = None) -> None:
        """Send a hint for these ids to a worker. `due_at`: the due times of attempts that are not due yet."""
        ...

    def send_again(self, task: str, ids: Sequence[UUID], after_s: float) -> None:
        """Send the hint for these ids after some time, because rows that they need are locked now."""
        ...

    def answered(self, command_id: UUID) -> None:
        """Notify the request that waits for this command that its answer is stored."""
        ...


# --- Turns: background work in batches, which lets the other tasks of its queue go first after some seconds


_TURN_S = 2.0


def take_turn(batch: Callable[[], bool], *, alone: "threading.Lock | None" = None, seconds: float = _TURN_S) -> bool:
    """Run batches until one finds no work, or until the turn is over. True: work may be left for another turn.

    With `alone`, one thread of the process has a turn at a time. Others leave at once, so that the work occupies no
    second place of the worker.
    """
    if alone is not None and not alone.acquire(blocking=False):
        return False
    try:
        ends_at = monotonic() + seconds
        while batch():
            if monotonic() >= ends_at:
                return True
        return False
    finally:
        if alone is not None:
            alone.release()
