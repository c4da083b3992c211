"""The times and bounds of the dial protocol, and the order among them without which it would not be safe."""

from dataclasses import dataclass
from datetime import timedelta

RELEASE_SPAN = timedelta(seconds=15)
"""How long a release stands before the attempt is released again."""
SEND_SPAN = timedelta(seconds=1)
"""No more is claimed at once than can be sent within this span."""
AT_MOST_A_TRANSACTION = 100
"""How many attempts one transaction claims or records at the most, whatever is in memory."""
RECORD_SPAN = timedelta(milliseconds=500)
"""A transaction that records answers is made no larger than fits into this span, by what the last ones took."""
LOOK_TO_SEND = timedelta(milliseconds=200)
"""A last look is good for so long."""
LOOK_TO_END = timedelta(seconds=2)
"""The kernel ends a process that still holds an unsent call so long after its last look."""
NOT_PLACED_DELAY = timedelta(seconds=5)
DEFERRED_DELAY = timedelta(seconds=5)
MAX_AHEAD = timedelta(days=30)
PAST_ALLOWANCE = timedelta(seconds=60)
DEFAULT_LIFE = timedelta(days=7)
"""How long after its first due time an interview expires."""
MAX_CLOCK_SKEW = timedelta(seconds=2)
RING_MARGIN = timedelta(seconds=5)
"""A carrier may ring so much longer than it was told."""
ASK_EVERY = timedelta(seconds=10)
"""How often the carrier is asked about an attempt whose answer was lost."""
POLL_AFTER_RING = timedelta(seconds=15)
POLLS = tuple(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10))
"""A placed call without an end is asked for at ring time + 15 s, then after these; the last repeats."""
MAX_QUEUE = timedelta(days=1)
"""No call waits longer in a carrier's queue: Twilio's holds what the account can start within a day."""
LIST_MARGIN = timedelta(seconds=5)
"""How far around claim and lease the carrier's list is searched: its times are whole seconds, and clocks differ."""

QUARANTINED_AFTER = 5
"""What has failed so often for no known reason is set aside until somebody has looked."""


class UnsafeTimes(Exception):
    """The times of the dial protocol contradict each other: `longer` must exceed `shorter`, by `by` at least."""

    def __init__(self, shorter: str, longer: str, by: timedelta, why: str) -> None:
        self.shorter, self.longer, self.by, self.why = shorter, longer, by, why
        super().__init__(f"{shorter} must be shorter than {longer}: {why}.")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The times that an operator may set. All are spans."""

    lease: timedelta = timedelta(seconds=60)
    settle: timedelta = timedelta(seconds=300)
    sweep: timedelta = timedelta(seconds=10)
    ring_timeout: timedelta = timedelta(seconds=30)
    line_gap: timedelta = timedelta(seconds=600)
    connect_timeout: timedelta = timedelta(seconds=3)
    total_timeout: timedelta = timedelta(seconds=13)
    max_call: timedelta = timedelta(seconds=11400)

    def __post_init__(self) -> None:
        """Raise UnsafeTimes, naming both settings, when the order among them would break the protocol."""
        none = timedelta()
        for shorter, longer, by, why in (
            ("connect_timeout", "total_timeout", none, "connecting is a part of the whole request"),
            (
                "total_timeout",
                "lease",
                SEND_SPAN,
                "a POST must be over before its lease is, wherever in a claim's second it is sent",
            ),
            ("lease", "settle", none, "a call must have had time to appear before its outcome is given up"),
        ):
            if getattr(self, shorter) >= getattr(self, longer) or getattr(self, shorter) + by > getattr(self, longer):
                raise UnsafeTimes(shorter, longer, by, why)

    @property
    def send_within(self) -> timedelta:
        """How long after its claim began a call may be sent; later it is given back.

        What remains of the lease is for the POST and for giving back what was not sent.
        """
        return min(self.lease / 2, max(self.lease - self.total_timeout, 1.5 * SEND_SPAN))

    @property
    def room(self) -> timedelta:
        """How long before closing a phone must start to ring at the latest."""
        return self.ring_timeout + RING_MARGIN
