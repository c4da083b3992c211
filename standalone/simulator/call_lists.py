"""Lists of calls: filters and pages."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from standalone.simulator.calls import Call, as_resource
from standalone.simulator.refusals import RefusedByTwilio

DEFAULT_PAGE_SIZE = 50
LARGEST_PAGE_SIZE = 1000

_AFTER = "PA"
_BEFORE = "PB"
_DAY = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(T.*)?")

Matches = Callable[[Call, str], bool]


def _day_of(text: str) -> date:
    """Parse a time filter. Twilio's filters compare UTC dates and ignore the time of day."""
    match = _DAY.fullmatch(text)
    if match is None:
        raise RefusedByTwilio(20001, message="Invalid parameter: a time filter is a date, YYYY-MM-DD")
    try:
        return date.fromisoformat(match[1])
    except ValueError as error:
        raise RefusedByTwilio(20001, message="Invalid parameter: no such date") from error


def _on(day: date, at: datetime | None) -> int | None:
    """Return if the instant is before (-1), on (0) or after (1) that day. None without an instant."""
    if at is None:
        return None
    own = at.astimezone(UTC).date()
    return (own > day) - (own < day)


FILTERS: dict[str, Matches] = {
    "To": lambda call, value: call.order.to == value,
    "From": lambda call, value: call.order.from_ == value,
    "Status": lambda call, value: call.shown_status == value,
    # Every call was placed by the API, so no call has a parent.
    "ParentCallSid": lambda _call, _value: False,
    "StartTime": lambda call, value: _on(_day_of(value), call.started_at) == 0,
    "StartTime<": lambda call, value: _on(_day_of(value), call.started_at) == -1,
    "StartTime>": lambda call, value: _on(_day_of(value), call.started_at) in {0, 1},
    "EndTime": lambda call, value: _on(_day_of(value), call.ended_at) == 0,
    "EndTime<": lambda call, value: _on(_day_of(value), call.ended_at) == -1,
    "EndTime>": lambda call, value: _on(_day_of(value), call.ended_at) in {0, 1},
}
"""By query parameter. A queued call has no start time, so every StartTime filter misses it, as at Twilio."""


class Calls:
    """The calls of a list, filtered lazily."""

    def __init__(self, oldest_first: Sequence[Call], filters: Mapping[str, str]) -> None:
        self._calls = oldest_first
        self._filters = [(FILTERS[name], value) for name, value in filters.items()]

    def newest_first(self) -> Iterator[Call]:
        return filter(self._match, reversed(self._calls))

    def older_than(self, ordinal: int) -> Iterator[Call]:
        """Iterate newest first."""
        end = bisect_left(self._calls, ordinal, key=_ordinal)
        return filter(self._match, (self._calls[place] for place in range(end - 1, -1, -1)))

    def newer_than(self, ordinal: int) -> Iterator[Call]:
        """Iterate oldest first."""
        start = bisect_right(self._calls, ordinal, key=_ordinal)
        return filter(self._match, (self._calls[place] for place in range(start, len(self._calls))))

    def _match(self, call: Call) -> bool:
        return call.listed and all(matches(call, value) for matches, value in self._filters)


def page(
    oldest_first: Sequence[Call], find: Callable[[str], Call | None], path: str, query: Mapping[str, str]
) -> dict[str, Any]:
    """Return a page of the matching calls, newest first, in Twilio's envelope.

    A page token names the call at the page's edge, which `find` returns, so calls that are accepted between two pages
    neither repeat nor hide a call.
    """
    filters = {name: query[name] for name in FILTERS if query.get(name)}
    for name, value in filters.items():
        if name.startswith(("StartTime", "EndTime")):
            _day_of(value)
    size = min(max(_whole(query, "PageSize", DEFAULT_PAGE_SIZE), 1), LARGEST_PAGE_SIZE)
    number = _whole(query, "Page", 0)
    calls = Calls(oldest_first, filters)
    shown = _shown(calls, find, query.get("PageToken"), number=number, size=size)

    def uri(to_page: int, token: str | None) -> str:
        place = {"PageSize": size, "Page": to_page} | ({"PageToken": token} if token else {})
        return f"{path}?{urlencode(filters | place)}"

    has_next = bool(shown) and any(calls.older_than(shown[-1].ordinal))
    has_previous = bool(shown) and any(calls.newer_than(shown[0].ordinal))
    start = number * size
    return {
        "first_page_uri": uri(0, None),
        "next_page_uri": uri(number + 1, _AFTER + shown[-1].sid) if has_next else None,
        "previous_page_uri": uri(max(number - 1, 0), _BEFORE + shown[0].sid) if has_previous else None,
        "page": number,
        "page_size": size,
        "uri": uri(number, query.get("PageToken")),
        "start": start,
        "end": start + max(len(shown) - 1, 0),
        "calls": [as_resource(call) for call in shown],
    }


def _shown(
    calls: Calls, find: Callable[[str], Call | None], token: str | None, *, number: int, size: int
) -> list[Call]:
    if not token:
        return list(islice(calls.newest_first(), number * size, (number + 1) * size))
    direction, edge = token[:2], find(token[2:])
    if direction not in {_AFTER, _BEFORE} or edge is None:
        raise RefusedByTwilio(20001, message="Invalid parameter: PageToken")
    if direction == _AFTER:
        return list(islice(calls.older_than(edge.ordinal), size))
    return list(islice(calls.newer_than(edge.ordinal), size))[::-1]


def _ordinal(call: Call) -> int:
    return call.ordinal


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()):
        raise RefusedByTwilio(20001, message=f"Invalid parameter: {name}")
    return int(text)
