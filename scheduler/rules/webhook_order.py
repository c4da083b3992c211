"""Order of deliveries: those of one webhook and interview are sent by their sequence, others never wait.

An event waits for each earlier one until that is delivered or has failed for a minute. Without this limit a receiver
that refuses one event would get no other of its interview for three days.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WAITS_AT_MOST = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class QueuedDelivery:
    """A delivery of one webhook and interview, as far as the order of sending depends on it."""

    sequence: int
    is_waiting: bool = True
    """False once it was delivered, has failed or was dropped."""
    first_failed_at: datetime | None = None
    send_at: datetime
    lease_until: datetime | None = None
    """Another worker may be sending it until then."""
    is_replay: bool = False
    """A replay neither waits nor is waited for: its receiver had later events before."""


def sendable(deliveries: Sequence[QueuedDelivery], now: datetime) -> list[QueuedDelivery]:
    """Return the deliveries of one webhook and interview that may be sent now, by sequence."""
    return sorted(
        (each for each in deliveries if _is_due(each, now) and blocked_until(each, deliveries, now) is None),
        key=lambda each: each.sequence,
    )


def blocked_until(delivery: QueuedDelivery, deliveries: Sequence[QueuedDelivery], now: datetime) -> datetime | None:
    """Return when earlier deliveries stop blocking this one at the latest, as far as is known now.

    None: none blocks it. `datetime.max` in UTC: an earlier one has not failed yet, so there is no such time.
    """
    if delivery.is_replay:
        return None
    blocking = [_blocks_until(each) for each in deliveries if each.sequence < delivery.sequence]
    return max((until for until in blocking if until > now), default=None)


def _is_due(delivery: QueuedDelivery, now: datetime) -> bool:
    is_leased = delivery.lease_until is not None and delivery.lease_until > now
    return delivery.is_waiting and delivery.send_at <= now and not is_leased


def _blocks_until(delivery: QueuedDelivery) -> datetime:
    if not delivery.is_waiting or delivery.is_replay:
        return _NEVER_BLOCKS
    return _NO_END if delivery.first_failed_at is None else delivery.first_failed_at + WAITS_AT_MOST


_NEVER_BLOCKS = datetime.min.replace(tzinfo=UTC)
_NO_END = datetime.max.replace(tzinfo=UTC)
