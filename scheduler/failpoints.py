"""Where a process can be made to end as by kill -9: right after something has become durable. For tests.

A failpoint is named after what has just become durable. Off, one costs a comparison with an empty string.
"""

import os
import signal

OF_THE_DIAL = (
    "dial.taken",
    "dial.claimed",
    "dial.looked",
    "dial.sent",
    "dial.answered",
    "dial.recorded",
)
"""The durable steps of the dial, in their order: the hint is in the worker's hand; the claim is committed; the last
look said yes; the POST is out; its answer is in, or surely late; what it brought is committed."""

FAILPOINTS = (*OF_THE_DIAL, "erase.batch")
"""And after each batch of an erasure."""

_armed = ""


def arm(name: str) -> None:
    """End this process at failpoint `name`; empty: at none. Raises ValueError for a name that is none."""
    global _armed  # noqa: PLW0603 - one process, one failpoint
    if name and name not in FAILPOINTS:
        raise ValueError(f"there is no failpoint {name!r}; there are: {', '.join(FAILPOINTS)}")
    _armed = name


def failpoint(name: str) -> None:
    """End here, without any clean-up, when this failpoint is armed."""
    if _armed == name:
        os.kill(os.getpid(), signal.SIGKILL)
