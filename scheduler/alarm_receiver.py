"""The receiver of posted alarms, as the use cases see it."""

from typing import Protocol

from scheduler.domain.alarm import KeptAlarm

DEADLINE_S = 10.0
"""Limit for the whole exchange, so that a receiver that answers byte by byte cannot block a worker."""


class NotPosted(Exception):
    """The receiver did not accept the alarm. `status` is its HTTP status, or None if it sent none."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.status = status


class AlarmReceiver(Protocol):
    def post(self, alarm: KeptAlarm) -> None:
        """Post the alarm. Raises NotPosted."""
        ...
