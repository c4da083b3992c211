"""Failpoints: places where tests can kill a process as by kill -9, or freeze it, right after a durable step.

A failpoint is named after the step just taken; each tuple below lists its failpoints in order. A name that ends in -ing
lies inside an open transaction, which then never commits. An unarmed failpoint costs one string comparison.
"""

import signal
import threading
from collections.abc import Callable

OF_THE_INTAKE = (
    "submit.accepting",
    "submit.accepted",
    "submit.rung",
    "write.writing",
    "write.answering",
    "write.written",
    "message.authorised",
    "message.taken",
)
"""submit: the command is in the inbox, committed, its hint sent. write: the API has written a resource, stored the
answer, committed. message: its key is valid, its command stored but not acknowledged to the broker."""

OF_APPLYING = (
    "apply.locking",
    "apply.doing",
    "apply.answering",
    "apply.applied",
    "cancel.cancelling",
)
"""A worker has locked the command, applied it, stored the answer, committed. cancel: within a DELETE the attempt is
cancelled, but not yet deleted."""

OF_BATCHES = ("batch.storing", "batch.applying", "batch.answering", "batch.applied", "batch.cancelling")
"""The API has stored the items of a batch. A worker has locked some, stored their outcomes, committed. Calls of a
cancelled batch are cancelled."""

OF_THE_CLOCK = (
    "release.releasing",
    "release.reminding",
    "release.released",
    "release.rung",
)
"""Due attempts are marked as released, or unfinished work for a new hint. Then that is committed, hints are sent."""

OF_THE_DIAL = (
    "dial.taken",
    "dial.claiming",
    "dial.claimed",
    "dial.looked",
    "dial.permitted",
    "dial.sent",
    "dial.answered",
    "dial.recording",
    "dial.recorded",
    "dial.judged",
)
"""A worker has the hint, has written the claim, committed. The last look allowed the call, only the write to the socket
is left, the POST is sent, its answer has arrived or is late. The answer is recorded, committed, and the carrier's
breaker updated."""

OF_DEFERRING = ("dial.deferring", "dial.deferred")
"""After a last look that forbids the call, the attempt is put back, and that is committed."""

OF_HEARING = ("hear.storing", "hear.stored", "hear.rung", "hear.hearing", "hear.heard")
"""A callback is stored, committed, its hint sent, but the carrier has no answer yet. A worker has applied the callback
to its attempt, committed."""

OF_SETTLING = (
    "settle.expiring",
    "settle.expired",
    "settle.finishing",
    "settle.finished",
    "settle.lapsing",
    "settle.lapsed",
    "settle.taken",
    "settle.asked",
    "cancel.hung_up",
    "settle.proving",
    "settle.failing",
    "settle.settled",
)
"""An attempt is marked as expired, committed. The wait for a report is over, so that the conversation counts as
finished, committed. A lapsed lease is settled, committed. A worker has reserved attempts to poll, the carrier has
answered, an unwanted call is ended. The carrier's news is recorded (proving), or the lack of proof (failing), then
committed."""

OF_PROBING = ("settle.probe_begun", "settle.probe_answered", "settle.on_trial")
"""While the carrier is down, a worker is about to probe it, it has answered, one trial call is allowed."""

OF_ERASING = ("erase.stopping", "erase.batch")
"""An attempt of a deleted company is cancelled, or its call marked for hang-up. Then a batch is committed."""

OF_LEAVING = ("leave.cancelling", "leave.batch")
"""Interviews of an erased person are cancelled. Then a batch is committed."""

OF_DELIVERIES = (
    "events.numbering",
    "webhooks.claiming",
    "webhooks.claimed",
    "webhooks.sent",
    "webhooks.recording",
    "webhooks.recorded",
)
"""Events have their places and deliveries. A worker has claimed deliveries, committed, one is sent. Its result is
recorded, committed."""

FAILPOINTS = (
    *OF_THE_INTAKE,
    *OF_APPLYING,
    *OF_BATCHES,
    *OF_THE_CLOCK,
    *OF_THE_DIAL,
    *OF_DEFERRING,
    *OF_HEARING,
    *OF_SETTLING,
    *OF_PROBING,
    *OF_ERASING,
    *OF_LEAVING,
    *OF_DELIVERIES,
)

_STOP = ":stop"
_armed = ""
_signal = signal.SIGKILL


def arm(name: str) -> None:
    """Kill this process at failpoint `name`, or freeze it there if the name ends in `:stop`. Empty: disarm.

    Raises ValueError for an unknown name.
    """
    global _armed, _signal
    plain = name.removesuffix(_STOP)
    if plain and plain not in FAILPOINTS:
        raise ValueError(f"unknown failpoint {plain!r}; use one of {', '.join(FAILPOINTS)}")
    _armed, _signal = plain, signal.SIGSTOP if name.endswith(_STOP) else signal.SIGKILL


def do_instead(act: Callable[[], None]) -> None:
    """Call `act` at the armed failpoint and continue, instead of killing or freezing the process."""
    global _act  # noqa: PLW0603 - as `arm`: there is one process
    _act = act


def failpoint(name: str) -> None:
    """Kill or freeze the process here, without any clean-up, if this failpoint is armed."""
    if _armed == name:
        _act()


def _end_or_freeze() -> None:
    # Signal this thread: a signal to the process may be handled later by another thread while this one continues.
    signal.pthread_kill(threading.get_ident(), _signal)


_act = _end_or_freeze
