"""Rules of operators: reasons of their acts, ceilings of limits, times of alarm posts, and clocks compared."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from scheduler.domain.company import ALARM, CallLimits, LimitCeiling
from scheduler.domain.refusals import InvalidFields, InvalidPauseReason
from scheduler.lifecycle.policy import MAX_CLOCK_SKEW, SLACK

# --- Times at which an alarm is posted again after its receiver did not accept it


_AGAIN_AFTER = tuple(timedelta(seconds=seconds) for seconds in (10, 30, 120, 600, 1800, 3600))
"""Delays by the number of tries; the last one repeats."""
MOST_TRIES = 30
"""About a day. After that an operator has other means, or none."""


def try_again_at(tries: int, now: datetime) -> datetime | None:
    """Decide when to post again after `tries` failures (at least 1), or None to give up."""
    return None if tries >= MOST_TRIES else now + _AGAIN_AFTER[min(tries, len(_AGAIN_AFTER)) - 1]


def latest_try(now: datetime) -> datetime:
    """Compute the latest time at which a post or a notice can be due. A wrong clock has set a later one."""
    return now + _AGAIN_AFTER[-1] + SLACK


# --- Comparison of this machine's clock with the database's


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The database's answer to a query of its time.

    `asked_at` and `answered_at` are seconds on this machine's monotonic clock, which steps of the wall clock do not
    affect.
    """

    database_clock: datetime
    asked_at: float
    answered_at: float

    def ahead(self, machine_clock: datetime, read_at: float) -> timedelta:
        """Compute how far the machine's clock is ahead (negative: behind), or zero if latency explains the difference.

        `machine_clock` was read at `read_at` on the monotonic clock, at the time of the answer or later.
        """
        earliest = self.database_clock + timedelta(seconds=read_at - self.answered_at)
        latest = self.database_clock + timedelta(seconds=read_at - self.asked_at)
        if machine_clock > latest:
            return machine_clock - latest
        return min(machine_clock - earliest, timedelta(0))


def is_wrong(ahead: timedelta) -> bool:
    """Return whether a clock with this difference must not write times."""
    return abs(ahead) > MAX_CLOCK_SKEW


# --- Ceilings: the highest limits that a company may set for itself


def check_limits(wanted: CallLimits, before: CallLimits, ceiling: LimitCeiling) -> None:
    """Raise InvalidFields if a limit is raised above the ceiling. A limit that stays or becomes lower is accepted."""
    above = list(_above(wanted, before, ceiling))
    if above:  # guard: limit_ceiling
        raise InvalidFields(
            f"Some limits are above the ceiling of this company: {', '.join(each['field'] for each in above)}.",
            fields=above,
        )


def _above(wanted: CallLimits, before: CallLimits, ceiling: LimitCeiling) -> Iterator[dict[str, str]]:
    for name, limit, former, most in (
        ("concurrentCalls", wanted.concurrent_calls, before.concurrent_calls, ceiling.concurrent_calls),
        ("callsPerSecond", wanted.calls_per_second, before.calls_per_second, ceiling.calls_per_second),
    ):
        if most is not None and limit > max(most, former):
            yield {
                "field": f"settings.limits.{name}",
                "code": "OUT_OF_RANGE",
                "message": f"This must be at most {most:g}, the ceiling of this company. Operators can raise it.",
            }


# --- Validation of the reasons of operators' acts, which other people read and the database keeps


LONGEST = 200
_NO_NUMBER = re.compile(
    r"(?<![\d+-])(?:19|20)\d\d-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?(?!\d)"
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    re.IGNORECASE,
)
"""ISO 8601 dates and UUIDs: many digits, but no phone number."""
_NUMBER = re.compile(r"\d(?:[\s()./\\_\u2010-\u2015-]*\d){6,}")
"""Seven or more digits with any separators: shorter numbers are local only."""
_ADDRESS = re.compile(r"\S@\S")


def optional(text: str | None) -> str | None:
    """Check a reason that may be left out. Raises InvalidPauseReason like `checked`."""
    return None if text is None else checked(text)


def checked(text: str) -> str:
    """Return the trimmed reason if it is one printable line without anything like a number or address of a person.

    Raises InvalidPauseReason, which says what to change and never quotes the text.
    """
    reason = text.strip()
    if not reason:
        raise InvalidPauseReason("The reason is empty. Write why the calls or the key are stopped.")
    for position, character in enumerate(reason, start=1):
        if not character.isprintable():
            raise InvalidPauseReason(
                f"The reason must be one line of printable text. Remove character {position}, U+{ord(character):04X}."
            )
    if len(reason) > LONGEST:
        raise InvalidPauseReason(f"The reason has {len(reason)} characters. Shorten it to {LONGEST}.")
    if reason.upper().startswith(ALARM.strip()):
        raise InvalidPauseReason(
            f"The prefix {ALARM.strip()} is reserved for alarms. Begin the reason with another word."
        )
    # Digits and signs of other scripts count like their ASCII equivalents.
    plain = unicodedata.normalize("NFKC", reason)
    if _ADDRESS.search(plain):
        raise InvalidPauseReason(f"The reason contains text like an e-mail address. {_INSTEAD}")
    if _NUMBER.search(_NO_NUMBER.sub("x", plain)):
        raise InvalidPauseReason(
            f"The reason contains text like a phone number. {_INSTEAD} Write dates like 2026-04-06."
        )
    return reason


_INSTEAD = (
    "Other people read the reason, so it must not identify a person. Remove that text, or use the id of an interview or"
    " a candidate."
)
