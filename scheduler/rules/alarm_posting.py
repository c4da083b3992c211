"""Times at which an alarm is posted again after its receiver did not accept it."""

from datetime import datetime, timedelta

from scheduler.lifecycle.bounds import SLACK

_AGAIN_AFTER = tuple(timedelta(seconds=seconds) for seconds in (10, 30, 120, 600, 1800, 3600))
"""Delays by the number of tries; the last one repeats."""
MOST_TRIES = 30
"""About a day. After that an operator has other means, or none."""


def try_again_at(tries: int, now: datetime) -> datetime | None:
    """Return when to post again after `tries` failures (at least 1), or None to give up."""
    return None if tries >= MOST_TRIES else now + _AGAIN_AFTER[min(tries, len(_AGAIN_AFTER)) - 1]


def latest_try(now: datetime) -> datetime:
    """Return the latest time at which a post or a notice can be due. A wrong clock has set a later one."""
    return now + _AGAIN_AFTER[-1] + SLACK
