"""Turns of webhooks: which of them may have a message sent now, so that a dead or slow one delays no other.

Each webhook has few messages in flight in the whole installation, and a failing one has a single one. Webhooks whose
last answer was late share half of a process's threads, however many they are: the other half is never waiting for them.
The endpoints of one owner use at most half of the threads, too, slow or not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

MOST_IN_FLIGHT = 4
"""Messages of one webhook that are sent at the same time, by all processes together."""
SLOW_AFTER = timedelta(seconds=2)
"""A webhook whose last answer took longer is slow."""
_PART = 2
"""Slow webhooks together, and the webhooks of one owner, use one thread of this many."""


@dataclass(frozen=True, kw_only=True)
class WaitingEndpoint:
    """A webhook with messages that may be sent now, in the order of their claims: the last served come last."""

    id: UUID
    owner: UUID
    """The principal to which the webhook belongs."""
    in_flight: int
    sendable: int
    is_failing: bool = False
    is_slow: bool = False


@dataclass(frozen=True, kw_only=True)
class Room:
    """The threads of a process that may take a message now."""

    free: int
    free_for_slow: int
    """Those of the free threads that may take a message of a slow endpoint."""
    most_of_an_owner: int
    """Threads that send for one owner at the same time, those of `held` included."""
    held: Mapping[UUID, int] = field(default_factory=dict)
    """Threads that are sending, by owner."""

    @property
    def full_owners(self) -> list[UUID]:
        """Return the owners of which no message may be taken now."""
        return [owner for owner, count in self.held.items() if count >= self.most_of_an_owner]


def room(threads: int, sending: Sequence[tuple[UUID, bool]], unrecorded: int) -> Room:
    """Return the room of a process. `sending` has the owner of each message in flight, and if its endpoint is slow.

    Results that are not recorded yet take threads, too: without a database, messages are not sent again and again.
    """
    free = max(0, threads - len(sending) - unrecorded)
    part = max(1, threads // _PART)
    slow = sum(is_slow for _, is_slow in sending)
    return Room(
        free=free,
        free_for_slow=max(0, min(free, part - slow)),
        most_of_an_owner=part,
        held=Counter(owner for owner, _ in sending),
    )


def most_in_flight(*, is_failing: bool) -> int:
    return 1 if is_failing else MOST_IN_FLIGHT


def places(endpoints: Sequence[WaitingEndpoint], room: Room) -> dict[UUID, int]:
    """Return how many messages of each webhook are taken.

    The webhook with the fewest messages in flight comes first. Among equals, the one that was served longest ago.
    """
    taken = dict.fromkeys((each.id for each in endpoints), 0)
    free, free_for_slow, held = room.free, room.free_for_slow, Counter(room.held)
    while free > 0:
        able = [
            each
            for each in endpoints
            if _may_take(each, taken[each.id])
            and (free_for_slow > 0 or not each.is_slow)
            and held[each.owner] < room.most_of_an_owner
        ]
        if not able:
            break
        chosen = min(able, key=lambda each: each.in_flight + taken[each.id])
        taken[chosen.id] += 1
        held[chosen.owner] += 1
        free -= 1
        free_for_slow -= chosen.is_slow
    return {endpoint: count for endpoint, count in taken.items() if count}


def _may_take(endpoint: WaitingEndpoint, taken: int) -> bool:
    room = most_in_flight(is_failing=endpoint.is_failing) - endpoint.in_flight
    return taken < min(room, endpoint.sendable)
