"""Gathering: how long a claim waits for attempts that become due soon, so that one claim serves several calls.

A claim, its last look and its record cost about the same for one call as for ten. All instants are seconds on the
monotonic clock. Nothing is claimed before it is due.
"""

from bisect import bisect_right
from collections.abc import Sequence

BUSY_PER_S = 40
"""From this rate on calls wait for each other. Below, few would come within `LONGEST_S`."""
LONGEST_S = 0.08
"""The longest wait of a call that is due, at a busy rate."""
SHORT_S = 0.005
"""The same at a lower rate: less than the claim of one call takes."""
ENOUGH = 20
"""A claim of this many calls is not worth waiting for more. The rate is measured over as many."""


def claim_at(due_at: Sequence[float]) -> float:
    """Return when to claim the first attempts: when the last one is due that is worth waiting for.

    `due_at`: the known due times of unclaimed attempts, at least one, sorted. Those after the first `ENOUGH` make no
    difference. Only attempts whose due times are known are waited for, so a call without company is claimed when it is
    due.
    """
    first = due_at[0]
    is_busy = len(due_at) >= ENOUGH and due_at[ENOUGH - 1] <= first + ENOUGH / BUSY_PER_S
    last = first + (LONGEST_S if is_busy else SHORT_S)
    return due_at[min(ENOUGH, bisect_right(due_at, last)) - 1]
