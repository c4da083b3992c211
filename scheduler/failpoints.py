"""Where a process can be made to end as by kill -9, or to stand still: right after something became durable. For tests.

A failpoint is named after what has just become durable, or has just happened outside. One that ends in -ing stands
inside an open transaction, which then never commits. Off, one costs a comparison with an empty string.
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
"""A command is in the inbox; that is committed; it was rung for. What the API writes itself is done; its answer stands
beside it; both are committed. A message named a key that opens; what it asks for was taken in, and it is not yet
acknowledged to the broker."""

OF_APPLYING = (
    "apply.locking",
    "apply.doing",
    "apply.answering",
    "apply.applied",
    "cancel.cancelling",
)
"""The command is this worker's; it is done; its answer stands beside it; both are committed. And in the midst of a
DELETE: the attempt is cancelled, and not yet deleted."""

OF_THE_CLOCK = (
    "release.releasing",
    "release.reminding",
    "release.released",
    "release.rung",
)
"""What is due is released; what nobody has finished counts as rung for anew; either is committed; it was rung for."""

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
"""The steps of the dial, in their order: the hint is in the worker's hand; the claim is written; it is committed; the
last look said yes; nothing is left to do but the write itself; the POST is out; its answer is in, or surely late; what
it brought is written; it is committed; the carrier's breaker knows of it."""

OF_DEFERRING = ("dial.deferring", "dial.deferred")
"""Where the last look says no: the attempt is given back; that is committed."""

OF_HEARING = ("hear.storing", "hear.stored", "hear.rung", "hear.hearing", "hear.heard")
"""A callback is stored; that is committed; it was rung for, and the carrier has no answer yet. A worker has let it
change its attempt; that is committed."""

OF_SETTLING = (
    "settle.expiring",
    "settle.expired",
    "settle.lapsing",
    "settle.lapsed",
    "settle.taken",
    "settle.asked",
    "cancel.hung_up",
    "settle.proving",
    "settle.failing",
    "settle.settled",
)
"""An attempt has expired; that is committed. A lease is over; that is committed. Attempts are this worker's to ask
about; the carrier has answered; a call that must end was ended there; what the carrier said is written, or that nothing
proves anything; it is committed."""

OF_PROBING = ("settle.probe_begun", "settle.probe_answered", "settle.on_trial")
"""A carrier that is down: somebody is going to ask it; it has answered well; one call may be tried."""

OF_ERASING = ("erase.stopping", "erase.batch")
"""An attempt of a deleted company is cancelled, or its call's end is wanted; a batch is committed."""

FAILPOINTS = (
    *OF_THE_INTAKE,
    *OF_APPLYING,
    *OF_THE_CLOCK,
    *OF_THE_DIAL,
    *OF_DEFERRING,
    *OF_HEARING,
    *OF_SETTLING,
    *OF_PROBING,
    *OF_ERASING,
)

_STOP = ":stop"
_armed = ""
_signal = signal.SIGKILL


def arm(name: str) -> None:
    """End this process at failpoint `name`, or freeze it there if `:stop` follows the name. Empty: at none.

    Raises ValueError for an unknown name.
    """
    global _armed, _signal
    plain = name.removesuffix(_STOP)
    if plain and plain not in FAILPOINTS:
        raise ValueError(f"there is no failpoint {plain!r}; there are: {', '.join(FAILPOINTS)}")
    _armed, _signal = plain, signal.SIGSTOP if name.endswith(_STOP) else signal.SIGKILL


def do_instead(act: Callable[[], None]) -> None:
    """Call `act` at the armed failpoint, and go on there, instead of ending or freezing."""
    global _act  # noqa: PLW0603 - as `arm`: there is one process
    _act = act


def failpoint(name: str) -> None:
    """End or freeze here, without any clean-up, when this failpoint is armed."""
    if _armed == name:
        _act()


def _end_or_freeze() -> None:
    # To this thread: what is sent to the process may be taken by another one, later, and this one would go on.
    signal.pthread_kill(threading.get_ident(), _signal)


_act = _end_or_freeze
