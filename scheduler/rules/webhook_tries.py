"""Times of the tries to deliver a message: ten in about three days, so that a receiver can be down over a weekend."""

from datetime import datetime, timedelta

from scheduler.rules.webhook_answers import LONGEST_RETRY_AFTER

DEADLINE_S = 15.0
"""Time for the answer of a receiver, from the first byte to the last."""
DELAYS = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14, 20, 24)),
)
"""The wait before each try, counted from the end of the try before it. The first one is sent at once."""
MOST_TRIES = len(DELAYS)
MOST_KEPT = 3 * MOST_TRIES
"""The newest tries of a delivery that are kept and shown. Each replay has tries of its own."""
JITTER = 0.1
"""Each wait is longer or shorter by up to this part, so that messages that failed together do not return together."""
LONGEST_WAIT = max(DELAYS[-1] * (1 + JITTER), LONGEST_RETRY_AFTER)
"""The longest wait between two tries."""


def try_again_at(tries: int, now: datetime, *, jitter: float, retry_after: timedelta | None = None) -> datetime | None:
    """Return the time of the next try after `tries` failed ones (at least 1). None: the delivery has failed.

    `jitter` is a random number from -1 to 1. The receiver's `retry_after` can delay the try, and never hasten it:
    otherwise a receiver could use up all tries within seconds.
    """
    if tries >= MOST_TRIES:
        return None
    return now + max(DELAYS[tries] * (1 + JITTER * jitter), retry_after or timedelta(0))
