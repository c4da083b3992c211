"""Records of last looks: the facts by which a call was permitted, kept with the history entry of its answer."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from operator import index
from typing import Any

from scheduler.domain.call import CalleeClock
from scheduler.domain.company import CallTimeInterval
from scheduler.domain.evidence import LastLook, LookHours, LookRecord, LookResult, RuleResult
from scheduler.domain.explanation import HistoryEntry, Rule
from scheduler.lifecycle.policy import Policy
from scheduler.lifecycle.scheduling import Callee
from scheduler.timing import call_windows, time_texts, zone_names
from scheduler.timing.time_texts import offset_text

_FORM = 1
_SINCE: Mapping[Rule, int] = {}
"""The first form whose looks check a rule. Form 1 if it is not listed. A release that adds a rule has a new form."""
_AT_THE_CLAIM = frozenset({Rule.COMPANY_LIMIT, Rule.ACCOUNT_LIMIT})
"""Rules about places. The claim checks them instead of the look: a claimed attempt has its place."""
_A_DAY = timedelta(days=1)


def record_of(
    clocks: Sequence[CalleeClock], callee: Callee, now: datetime, leave_by: datetime, policy: Policy
) -> dict[str, Any]:
    """Build the stored form of what a look at `now` has found. `clocks` are those that had to be open."""
    local = [each for clock in clocks for each in call_windows.local_times(clock, now)]
    near = frozenset((each + days * _A_DAY).weekday() for each in local for days in (-1, 0, 1))
    return {
        "form": _FORM,
        "at": now.isoformat(),
        "leave_by": leave_by.isoformat(),
        "offsets": {
            name: offset.total_seconds()
            for clock in clocks
            for name, offset in zip(_names(clock), call_windows.utc_offsets(clock, now), strict=True)
        },
        "hours": _hours(tuple(callee.settings.intervals), near),
        "room_s": policy.room.total_seconds(),
        "consent_until": callee.consent_until.isoformat(),
        "country": None if callee.number is None else callee.number.region,
        "tzdata": zone_names.TZDATA_VERSION,
    }


def _names(clock: CalleeClock) -> tuple[str, ...]:
    return clock.zones if clock.offset is None else (offset_text(clock.offset),)


@lru_cache(maxsize=1024)
def _hours(intervals: tuple[CallTimeInterval, ...], near: frozenset[int]) -> list[list[Any]]:
    """List the intervals that start on these days of the week, each as its days, start and end."""
    hours = []
    for interval, form in zip(intervals, time_texts.intervals_as_json(intervals), strict=True):
        days = [day.name for day in sorted(interval.days) if day.value in near]
        if days:
            hours.append([days, form["start"], form["end"]])
    return hours


def last_look(history: Sequence[HistoryEntry]) -> LastLook | None:
    """Find the last look in a history, oldest entry first. None: the history has no claim.

    A record or a cause that cannot be read is not recorded.
    """
    claims = [place for place, entry in enumerate(history) if entry.event == "claimed"]
    if not claims:
        return None
    claim, after = history[claims[-1]], history[claims[-1] + 1 :]
    record = next((_read(entry.detail["look"]) for entry in after if "look" in entry.detail), None)
    if record is not None:
        rules = tuple((rule, RuleResult.PASSED) for rule in _checked(record.form))
        return LastLook(claimed_at=claim.at, result=LookResult.PASSED, cause=None, rules=rules, record=record)
    cause = after[0].detail.get("cause") if after and after[0].event in {"deferred", "not_placed"} else None
    if not isinstance(cause, str):
        cause, result, rules = None, LookResult.NOT_RECORDED, ()
    elif cause in Rule.__members__:
        result, rules = LookResult.BLOCKED, tuple(_until_blocked(Rule(cause)))
    else:
        result, rules = LookResult.NOT_SENT, ()
    return LastLook(claimed_at=claim.at, result=result, cause=cause, rules=rules, record=None)


def _checked(form: int) -> tuple[Rule, ...]:
    return tuple(rule for rule in Rule if _SINCE.get(rule, 1) <= form)


def _until_blocked(blocked: Rule) -> Iterator[tuple[Rule, RuleResult]]:
    """Yield each rule with its result, if this is the first one that blocked the call."""
    result = RuleResult.PASSED
    for rule in _checked(_FORM):
        if rule is blocked:
            yield rule, RuleResult.BLOCKED
            result = RuleResult.NOT_RECORDED
        else:
            yield rule, RuleResult.PASSED if rule in _AT_THE_CLAIM else result


def _read(form: Any) -> LookRecord | None:  # noqa: ANN401 - JSON
    """Read a stored record. None: it was changed, and cannot be read."""
    try:
        return LookRecord(
            at=_instant(form["at"]),
            leave_by=_instant(form["leave_by"]),
            utc_offsets={name: _offset(seconds) for name, seconds in form["offsets"].items()},
            hours=tuple(
                LookHours(days=tuple(map(_text, days)), start=_text(start), end=_text(end))
                for days, start, end in form["hours"]
            ),
            room=timedelta(seconds=form["room_s"]),
            consent_until=date.fromisoformat(form["consent_until"]),
            country=None if form["country"] is None else _text(form["country"]),
            tzdata_version=_text(form["tzdata"]),
            form=index(form["form"]),
        )
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None


def _instant(text: str) -> datetime:
    """Read an aware instant that has a local time on each clock."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("naive")
    _ = at - _A_DAY, at + _A_DAY
    return at


def _offset(seconds: float) -> timedelta:
    """Read an offset of less than a day."""
    offset = timedelta(seconds=seconds)
    timezone(offset)
    return offset


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
