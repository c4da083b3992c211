"""Parser of requested times, with exact error messages."""

import re
import unicodedata
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NoReturn

from scheduler.domain.refusals import InvalidDateFormat, InvalidTimezone
from scheduler.timing.zone_names import check_zone, zone

MAX_LENGTH = 128
"""Characters. The longest zone name with offset, fraction and calendar tag is much shorter."""

MAX_OFFSET = timedelta(hours=18)
"""The limit of java.time; ISO 8601 has no limit. Current clocks are up to 14:00 from UTC, former ones up to 15:59."""

_TAG = re.compile(r"([a-z_][a-z0-9_-]*)=[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")
"""RFC 9557 section 4.1; a key is in lower case."""

EXAMPLES = "Write it like 2026-04-02T15:00:00 or 2026-04-02T15:00:00+02:00."
INSTANT_EXAMPLES = EXAMPLES.replace(" or", "Z or")
"""For texts that must name an instant."""
_SHOWN_LENGTH = 64
_FRACTION_DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class RequestedTime:
    """A parsed date-time. `call_windows.resolve` converts it to an instant on a clock."""

    text: str
    wall: datetime
    """Naive, as written; UTC for an instant. At least a day from either end of the calendar."""
    offset: timedelta | None
    """A numeric offset, including +00:00. None for Z, for -00:00 and without an offset."""
    zone: str | None
    """The canonical IANA name in brackets (RFC 9557)."""
    is_instant: bool
    """True for Z or -00:00, which name an instant but no local clock (RFC 9557 section 2)."""


def read(text: str, *, field: str = "scheduledAt") -> RequestedTime:
    """Parse an ISO 8601, RFC 3339 or RFC 9557 date-time, in time linear in its length.

    Seconds are optional. A fraction has 1 to 9 digits, of which six count. A space may replace the T. Both the extended
    and the basic form (without any dash or colon) are accepted, with offsets like +10:30, +1030 or +10. A zone in
    brackets takes precedence over an offset before it, which must be the zone's offset at that time. Dates without a
    time of day, week and ordinal dates, hour 24 and leap seconds are refused.

    Raises InvalidDateFormat with details field, value (at most 64 printable characters), reason and position (from 0).
    """
    return _Reader(text, field).date_time()


def read_bound(text: str, *, field: str) -> RequestedTime:
    """Parse one end of a period: a date-time as in `read`, or only a date, which means its midnight in UTC.

    A billed period belongs to no callee, so a text without an offset or zone also means UTC.
    """
    if "T" in text.upper() or " " in text.strip():
        return read(text, field=field)
    return _Reader(text, field).date_alone()


class _Reader:
    """A parser from left to right. `_at` is the position of the next character."""

    def __init__(self, text: str, field: str) -> None:
        self._text = text
        self._field = field
        self._at = 0

    def date_time(self) -> RequestedTime:
        if len(self._text) > MAX_LENGTH:
            self._refuse(f"at most {MAX_LENGTH} characters are accepted", MAX_LENGTH)
        if not self._text:
            self._refuse("the text is empty", 0)
        day, extended = self._date()
        wall = datetime(day.year, day.month, day.day) + self._time(extended=extended)  # noqa: DTZ001 - a wall time
        self._refuse_the_calendars_ends(wall.date())
        offset_starts = self._at
        offset, is_instant = self._offset()
        zone_name = self._suffixes()
        if zone_name is not None and offset is not None:
            self._check_offset(wall, offset, zone_name, offset_starts)
        return RequestedTime(text=self._text, wall=wall, offset=offset, zone=zone_name, is_instant=is_instant)

    def date_alone(self) -> RequestedTime:
        if not self._text:
            self._refuse("the text is empty", 0)
        day, _ = self._date()
        if self._next():
            self._refuse(f"expected the end, or 'T' and a time of day, got {self._shown()}")
        self._refuse_the_calendars_ends(day)
        midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - a wall time, as written
        return RequestedTime(text=self._text, wall=midnight, offset=None, zone=None, is_instant=True)

    # --- date

    def _refuse_the_calendars_ends(self, day: date) -> None:
        if day in (date.min, date.max):
            self._refuse("the year must be 0001..9999; the first and the last day of that range are not supported", 0)

    def _date(self) -> tuple[date, bool]:
        year = self._number("year", 4, 1, 9999)
        extended = self._next() == "-"
        self._refuse_other_dates(self._at + extended)
        if extended:
            self._at += 1
        elif not self._next().isdigit():
            self._expect("-", "after the year")
        month = self._number("month", 2, 1, 12)
        if extended:
            self._expect("-", "after the month")
        day = self._number("day", 2, 1, monthrange(year, month)[1], f" in {year:04}-{month:02}")
        return date(year, month, day), extended

    def _refuse_other_dates(self, at: int) -> None:
        """Refuse week dates, and ordinal dates with three digits instead of month and day."""
        if self._text[at : at + 1] in {"W", "w"}:
            self._refuse("week dates are not supported; write year, month and day", at)
        days = self._text[at : at + 4]
        if days[:3].isdigit() and len(days[:3]) == 3 and days[3:] in {"", "T", "t", " "}:  # noqa: PLR2004 - of 366
            self._refuse("ordinal dates are not supported; write year, month and day", at)

    # --- time of day

    def _time(self, *, extended: bool) -> timedelta:
        self._expect_time()
        hour = self._hour()
        minute, second, fraction = 0, 0, timedelta()
        if extended:
            self._expect(":", "and minutes after the hour")
        minute = self._number("minute", 2, 0, 59)
        if (extended and self._next() == ":") or (not extended and self._next().isdigit()):
            self._at += extended
            second = self._second()
            fraction = self._fraction()
        return timedelta(hours=hour, minutes=minute, seconds=second) + fraction

    def _expect_time(self) -> None:
        if not self._next():
            self._refuse("a time of day is missing")
        if self._next() not in {"T", "t", " "}:
            self._refuse(f"expected 'T' and a time of day, got {self._shown()}")
        self._at += 1
        if not self._next():
            self._refuse("a time of day is missing")

    def _hour(self) -> int:
        if self._text[self._at : self._at + 2] == "24":
            self._refuse("hour must be 0..23, got 24; midnight is 00:00 of the day that begins")
        return self._number("hour", 2, 0, 23)

    def _second(self) -> int:
        if self._text[self._at : self._at + 2] == "60":
            self._refuse("second must be 0..59, got 60; leap seconds are not supported")
        return self._number("second", 2, 0, 59)

    def _fraction(self) -> timedelta:
        if self._next() not in {".", ","}:
            return timedelta()
        self._at += 1
        start = self._at
        while self._is_digit():
            self._at += 1
            if self._at - start > _FRACTION_DIGITS:
                self._refuse(f"a fraction has at most {_FRACTION_DIGITS} digits", self._at - 1)
        digits = self._text[start : self._at]
        if not digits:
            self._refuse(f"expected the digits of a fraction, got {self._shown()}")
        return timedelta(microseconds=int(digits[:6].ljust(6, "0")))

    # --- offset

    def _offset(self) -> tuple[timedelta | None, bool]:
        """Read the numeric offset, and whether the text names an instant instead."""
        mark = self._next()
        if mark in {"Z", "z"}:
            self._at += 1
            return None, True
        if mark in {"", "["}:
            return None, False
        if mark not in {"+", "-"}:
            hint = "; a '+' in a URL is written %2B" if mark == " " else ""
            self._refuse(f"expected Z, an offset such as +10:30, or the end, got {self._shown()}{hint}")
        start = self._at
        self._at += 1
        hours = self._number("offset hour", 2, 0, 18)
        minutes = 0
        if self._next() == ":" or self._next().isdigit():
            self._at += self._next() == ":"
            minutes = self._number("offset minute", 2, 0, 59)
        offset = timedelta(hours=hours, minutes=minutes)
        if offset > MAX_OFFSET:
            self._refuse("an offset is at most 18:00", start)
        if mark == "-" and not offset:
            return None, True
        return (-offset if mark == "-" else offset), False

    # --- RFC 9557: a zone, then tags

    def _suffixes(self) -> str | None:
        zone_name = None
        first = True
        while self._next():
            zone_name = self._suffix(first=first) or zone_name
            first = False
        return zone_name

    def _suffix(self, *, first: bool) -> str | None:
        if self._next() != "[":
            self._refuse(f"expected the end, or a zone in brackets, got {self._shown()}")
        closes = self._text.find("]", self._at)
        if closes < 0:
            self._refuse("the bracket is not closed")
        starts = self._at + 1
        critical = self._text[starts : starts + 1] == "!"
        starts += critical
        content = self._text[starts:closes]
        self._at = closes + 1
        if "=" in content:
            self._check_tag(content, starts, critical=critical)
            return None
        if not first:
            self._refuse("a zone comes first and only once", starts)
        return self._zone(content, starts)

    def _check_tag(self, content: str, starts: int, *, critical: bool) -> None:
        tag = _TAG.fullmatch(content)
        if tag is None:
            self._refuse("a tag is written [key=value], in letters, digits and dashes", starts)
        if critical:
            self._refuse(f"the tag {tag[1]} is marked critical and is not supported", starts)

    def _zone(self, name: str, starts: int) -> str:
        if name[:1] in {"+", "-"}:
            self._refuse("an offset belongs before the brackets; the brackets hold an Area/City name", starts)
        try:
            return check_zone(name)
        except InvalidTimezone as unknown:
            self._refuse(f"not a time zone: {unknown.details['reason']}", starts)

    def _check_offset(self, wall: datetime, offset: timedelta, zone_name: str, position: int) -> None:
        """Refuse an offset that the zone does not have at that wall time."""
        first, second = (wall.replace(tzinfo=zone(zone_name), fold=fold).utcoffset() for fold in (0, 1))
        assert first is not None
        assert second is not None
        if first < second:
            self._refuse(
                f"{zone_name} has no such time: its clock goes from {_written(first)} to {_written(second)}",
                position,
            )
        if offset not in {first, second}:
            has = _written(first) if first == second else f"{_written(first)}, then {_written(second)}"
            self._refuse(f"{zone_name} has {has} then, not {_written(offset)}", position)

    # --- characters

    def _next(self) -> str:
        """Look at the next character. An empty text at the end."""
        return self._text[self._at : self._at + 1]

    def _is_digit(self) -> bool:
        return self._next().isascii() and self._next().isdigit()

    def _number(self, name: str, width: int, least: int, most: int, where: str = "") -> int:
        start = self._at
        for _ in range(width):
            if not self._is_digit():
                self._refuse(f"{name} must be {width} digits, got {self._shown()}")
            self._at += 1
        digits = self._text[start : self._at]
        if not least <= int(digits) <= most:
            floor = f"{least:04}" if name == "year" else str(least)
            self._refuse(f"{name} must be {floor}..{most}{where}, got {digits}", start)
        return int(digits)

    def _expect(self, character: str, where: str) -> None:
        if self._next() != character:
            self._refuse(f"expected {character!r} {where}, got {self._shown()}")
        self._at += 1

    def _shown(self) -> str:
        """Describe the next character, safely for logs and answers."""
        character = self._next()
        if not character:
            return "the end"
        if character.isascii() and character.isprintable():
            return f"{character!r}"
        named = f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
        if character.isdigit():
            return f"{named}; write the digits 0 to 9"
        if unicodedata.category(character) == "Pd" or character == "\N{MINUS SIGN}":
            return f"{named}; write '-'"
        return named

    def _refuse(self, reason: str, position: int | None = None) -> NoReturn:
        at = self._at if position is None else position
        # The text after the mistake may be a name or a number, and a refusal is stored for a month: do not quote it.
        until = min(at + 1, _SHOWN_LENGTH)
        # Unprintable characters are replaced, because PostgreSQL's JSON cannot store NUL, for example.
        shown = "".join(
            character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in self._text[:until]
        ) + ("\N{HORIZONTAL ELLIPSIS}" if len(self._text) > until else "")
        raise InvalidDateFormat(
            f"{self._field} is not a valid date-time: {reason} (position {at}). {EXAMPLES}",
            field=self._field,
            value=shown,
            reason=reason,
            position=at,
        )


def _written(offset: timedelta) -> str:
    sign = "-" if offset < timedelta() else "+"
    minutes, seconds = divmod(round(abs(offset).total_seconds()), 60)
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}" + (f":{seconds:02}" if seconds else "")
