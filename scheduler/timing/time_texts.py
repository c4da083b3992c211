"""Texts of times: a company's calling hours in JSON, with error messages, instants, offsets, and spans in words."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from scheduler.domain.company import CallTimeInterval, Weekday
from scheduler.domain.refusals import InvalidInterval, NeverOpen

MAX_INTERVALS = 50
"""More than any week of calling hours needs, and few enough for fast computation."""

_FIELDS = ("days", "start", "end")
_TIME = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])")
_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)


def read_intervals(value: object) -> tuple[CallTimeInterval, ...]:
    """Parse JSON such as `[{"days": ["MON"], "start": "09:00", "end": "12:30"}, ...]`.

    An end before the start is on the next day. 24:00 is a valid end. Raises NeverOpen for an empty list, and
    InvalidInterval, with details field and reason, for overlaps and invalid values.
    """
    if not isinstance(value, list):
        raise _invalid("", "must be a list of intervals")
    if not value:
        raise NeverOpen(field="callTimeIntervals")
    if len(value) > MAX_INTERVALS:
        raise _invalid("", f"must have at most {MAX_INTERVALS} intervals, got {len(value)}")
    intervals = tuple(_interval(item, f"[{index}]") for index, item in enumerate(value))
    _check_apart(intervals)
    return intervals


def intervals_as_json(intervals: Sequence[CallTimeInterval]) -> list[dict[str, Any]]:
    """Build the JSON form that `read_intervals` parses, with the days in order from Monday."""
    return [
        {
            "days": [day.name for day in sorted(interval.days)],
            "start": _text(interval.start),
            "end": _text(interval.end if interval.end <= _DAY else interval.end - _DAY),
        }
        for interval in intervals
    ]


def _interval(item: object, where: str) -> CallTimeInterval:
    if not isinstance(item, dict):
        raise _invalid(where, "must be an object with days, start and end")
    for name in item:
        if name not in _FIELDS:
            raise _invalid(where, "must have no fields other than days, start and end")
    for name in _FIELDS:
        if name not in item:
            raise _invalid(f"{where}.{name}", "is missing")
    start = _span(item["start"], f"{where}.start")
    end = _span(item["end"], f"{where}.end")
    if start == _DAY:
        raise _invalid(f"{where}.start", "must be before 24:00; a day begins at 00:00")
    if start == end:
        raise _invalid(where, "must have different start and end; a whole day is 00:00 to 24:00")
    return CallTimeInterval(
        days=_days(item["days"], f"{where}.days"), start=start, end=end if end > start else end + _DAY
    )


def _days(value: object, where: str) -> frozenset[Weekday]:
    if not isinstance(value, list) or not value:
        raise _invalid(where, "must be a list of at least one day")
    names = ", ".join(day.name for day in Weekday)
    for name in value:
        if not isinstance(name, str) or name not in Weekday.__members__:
            raise _invalid(where, f"must only contain days of {names}")
    days = frozenset(Weekday[name] for name in value)
    if len(days) < len(value):
        raise _invalid(where, "must name each day only once")
    return days


def _span(value: object, where: str) -> timedelta:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _invalid(where, "must be a time from 00:00 to 24:00, written HH:MM")
    span = timedelta(hours=int(match[1]), minutes=int(match[2]))
    if span > _DAY:
        raise _invalid(where, "must not be later than 24:00")
    return span


def _check_apart(intervals: Sequence[CallTimeInterval]) -> None:
    """Raise InvalidInterval if two intervals overlap in the week. They may touch."""
    spans = sorted(_on_each_day(intervals))
    opens, closes, index = spans[0]
    for (_, former_closes, former), (later_opens, _, later) in pairwise(
        [*spans, (opens + _WEEK, closes + _WEEK, index)]
    ):
        if later_opens < former_closes:
            day = Weekday(later_opens // _DAY % 7).name
            raise _invalid(f"[{later}]", f"must not overlap [{former}] on {day}")


def _on_each_day(intervals: Sequence[CallTimeInterval]) -> Iterable[tuple[timedelta, timedelta, int]]:
    for index, interval in enumerate(intervals):
        for day in interval.days:
            yield day * _DAY + interval.start, day * _DAY + interval.end, index


def _text(span: timedelta) -> str:
    hours, rest = divmod(span, timedelta(hours=1))
    return f"{hours:02}:{rest // timedelta(minutes=1):02}"


def _invalid(where: str, reason: str) -> InvalidInterval:
    field = f"callTimeIntervals{where}"
    return InvalidInterval(f"{field} {reason}.", field=field, reason=reason)


# --- Instants, offsets and time spans


def utc_text(instant: datetime) -> str:
    """Write an instant in UTC, to the second, like `2026-04-02T12:00:00Z`."""
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def offset_text(offset: timedelta) -> str:
    """Format an offset like `+10:30`."""
    minutes = int(offset.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def together(texts: Sequence[str]) -> str:
    """Join the distinct texts in order, separated by commas."""
    return ", ".join(dict.fromkeys(texts))


def span_text(span: timedelta) -> str:
    """Write a span in its two largest units, for example "2 h 59 min"."""
    seconds = span.total_seconds()
    if seconds < 10:  # noqa: PLR2004 - tenths of a second matter below this
        return f"{seconds:.1f} s"
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds_left = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds_left, "s")]
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)
