"""The doorbell: how a worker is told to look. A ring is never a reason to act; losing every one costs seconds."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

APPLY = "commands.apply"
SUBMIT = "commands.submit"
"""The one message that is more than a hint: a command itself. Nobody here rings it."""
DIAL = "attempts.dial"
SETTLE = "attempts.settle"
HEAR = "carrier.hear"
RERESOLVE = "records.reresolve"
INVITE = "invitations.send"
PURGE = "records.purge"
ERASE = "companies.erase"
LIVENESS = "workers.heard"
"""A worker rings itself, by a queue of its own, to know whether it still hears."""

QUEUES = {
    APPLY: "intake",
    SUBMIT: "intake",
    DIAL: "dial",
    HEAR: "callbacks",
    # On its own queue, in a process of its own: no change of settings, mail or erasure holds up settling and probes.
    SETTLE: "settle",
    **dict.fromkeys((RERESOLVE, INVITE, PURGE, ERASE), "maintenance"),
}
"""Every task that is rung for by name and the queue that it waits in; a queue's name says who waits there."""


class Hints(Protocol):
    """Rings after the commit, never before it. Neither method raises, and neither keeps its caller waiting."""

    def send(self, task: str, ids: Sequence[UUID] = ()) -> None:
        """Tell a worker to look at these."""
        ...

    def answered(self, command_id: UUID) -> None:
        """Tell whoever waits for this command that its answer is there."""
        ...
