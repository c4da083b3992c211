"""Turns of endpoints: which of them may have a message sent now, so that a dead or slow one delays no other.

Each endpoint has few messages in flight in the whole installation, and a failing one has a single one. Endpoints whose
last answer was late share half of a process's threads, however many they are: the other half is never waiting for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

MOST_IN_FLIGHT = 4
"""Messages of one endpoint that are sent at the same time, by all processes together."""
SLOW_AFTER = timedelta(seconds=2)
"""An endpoint whose last answer took longer is slow."""


@dataclass(frozen=True, kw_only=True)
class WaitingEndpoint:
    """An endpoint with messages that may be sent now, in the order of their claims: the last served come last."""

    id: UUID
    in_flight: int
    sendable: int
    is_failing: bool = False
    is_slow: bool = False


def most_in_flight(*, is_failing: bool) -> int:
    return 1 if is_failing else MOST_IN_FLIGHT


def places(endpoints: Sequence[WaitingEndpoint], free: int, free_for_slow: int) -> dict[UUID, int]:
    """Return how many messages of each endpoint are taken. `free` counts threads, `free_for_slow` is a part of them.

    The endpoint with the fewest messages in flight comes first. Among equals, the one that was served longest ago.
    """
    taken = dict.fromkeys((each.id for each in endpoints), 0)
    while free > 0:
        able = [
            each for each in endpoints if _may_take(each, taken[each.id]) and (free_for_slow > 0 or not each.is_slow)
        ]
        if not able:
            break
        chosen = min(able, key=lambda each: each.in_flight + taken[each.id])
        taken[chosen.id] += 1
        free -= 1
        free_for_slow -= chosen.is_slow
    return {endpoint: count for endpoint, count in taken.items() if count}


def _may_take(endpoint: WaitingEndpoint, taken: int) -> bool:
    room = most_in_flight(is_failing=endpoint.is_failing) - endpoint.in_flight
    return taken < min(room, endpoint.sendable)
