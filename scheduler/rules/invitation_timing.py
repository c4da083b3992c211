"""How long an invitation stands, and when its mail is tried again."""

from datetime import datetime, timedelta

from scheduler.lifecycle.bounds import SLACK

LIFE = timedelta(days=7)
_AGAIN_AFTER = (
    timedelta(seconds=10),
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=1),
)
"""After the first failure, the second ...; the last repeats."""


def try_again_at(tries: int, now: datetime, expires_at: datetime) -> datetime | None:
    """When to send it again after `tries` that failed, 1 at least; None: it would have expired."""
    again = now + _AGAIN_AFTER[min(tries, len(_AGAIN_AFTER)) - 1]
    return again if again < expires_at else None


def latest_try(now: datetime) -> datetime:
    """Return the latest instant at which a mail can be due to be sent; a later one was set by a wrong clock."""
    return now + _AGAIN_AFTER[-1] + SLACK
