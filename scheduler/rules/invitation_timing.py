"""The validity of an invitation, and the retries of its mail."""

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
"""Delays after the first failure, the second, ...; the last one repeats."""


def try_again_at(tries: int, now: datetime, expires_at: datetime) -> datetime | None:
    """Return when to send again after `tries` failures (at least 1), or None if the invitation expires before."""
    again = now + _AGAIN_AFTER[min(tries, len(_AGAIN_AFTER)) - 1]
    return again if again < expires_at else None


def latest_try(now: datetime) -> datetime:
    """Return the latest time at which a mail can be due. A wrong clock has set a later one."""
    return now + _AGAIN_AFTER[-1] + SLACK
