"""Dry run: how requests for interviews would be answered, and when their calls would start. Nothing is created."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.domain.explanation import Rule


@dataclass(frozen=True, kw_only=True)
class RefusedItems:
    """Items that would be refused with the same code about the same field, in messages that differ in numbers only."""

    code: str
    field: str | None
    message: str
    """That of the first of them, without position and details. It quotes no personal data."""
    count: int
    first: tuple[int, ...]
    """The places of the first of them among all items, from 0."""


@dataclass(frozen=True, kw_only=True)
class DueHour:
    """Calls that would become due within one hour, on the same clock."""

    begins: datetime
    """Aware UTC, a whole hour."""
    zones: tuple[str, ...]
    offset: timedelta | None
    """In place of zones, if a request named an offset."""
    calls: int


@dataclass(frozen=True, kw_only=True)
class DryRun:
    total: int
    accepted: int
    """Items that would create an interview."""
    existing: int
    """Items whose external id and content an interview has already. They would create nothing."""
    calls: int
    """Accepted items with a call: those of phone agents that are no tests."""
    refused: tuple[RefusedItems, ...]
    """Most frequent first."""
    repeated_numbers: int
    """Calls to a number that an earlier item calls too. They start one after the other."""
    numbers_with_calls: int
    """Calls to a number with a call of the company that is pending or in progress now."""
    due: tuple[DueHour, ...]
    """In the order of time."""
    first_due_at: datetime | None
    last_due_at: datetime | None
    last_start_at: datetime | None
    """The start of the last call at the present paces, beside the calls that wait already. Without retries.

    None without a call that starts, while `waits_for` prevents all calls, and before the first worker has started.
    """
    expired: int
    """Calls that would expire before their turn."""
    waits_for: Rule | None
    """The pause or outage that prevents all calls now. Its end is unknown."""
    call_lasts: timedelta | None
    """The mean duration of calls. None if too few have ended: then `last_start_at` follows only from the paces."""
