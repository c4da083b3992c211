"""Evidence of calls, judged by the document alone: does it explain that this phone was allowed to ring at this time?

Reads the JSON of `GET /call-attempts/{id}/evidence` and the time of a ring, and nothing else.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_A_DAY = timedelta(days=1)
_LOOK_IS_GOOD_FOR = timedelta(seconds=2)
_NEVER_RUNG = frozenset({"PENDING", "CANCELLED"})
Document = Mapping[str, Any]


def is_recorded(document: Document) -> bool:
    """Check whether the document has the facts of the last look, which a process that was killed cannot record."""
    look = document["lastLook"]
    return look is not None and look["result"] != "NOT_RECORDED"


def faults(document: Document, rang_at: datetime, *, took: timedelta = timedelta()) -> list[str]:
    """List what the document does not explain about the ring. `took`: the carrier's time until the phone rang."""
    return [f"{document['callAttemptId']}: {each}" for each in _faults(document, rang_at, took)]


def _faults(document: Document, rang_at: datetime, took: timedelta) -> Iterator[str]:
    look = document["lastLook"]
    if look is None or look["result"] != "PASSED":
        yield "the phone rang, and no last look has permitted it"
        return
    if not look["rules"] or any(each["result"] != "PASSED" for each in look["rules"]):
        yield "a rule of the last look did not pass"
    facts = look["facts"]
    looked_at, leave_by = _instant(facts["at"]), _instant(facts["leaveBy"])
    asked_at = document["request"]["at"]
    if asked_at is not None and looked_at < _instant(asked_at):
        yield "the last look was before the request"
    latest = min(leave_by, looked_at + _LOOK_IS_GOOD_FOR) + took
    if not looked_at <= rang_at <= latest:
        yield f"the phone rang at {rang_at}, and the last look at {looked_at} permitted a ring until {latest}"
    if rang_at < _instant(look["claimedAt"]):
        yield "the phone rang before the call was claimed"
    if rang_at - took > _instant(document["expiresAt"]):
        yield "the interview had expired"
    if not facts["clocks"]:
        yield "no clock decided"
    for clock in facts["clocks"]:
        yield from _faults_of_clock(clock, facts, rang_at)
    yield from _faults_of_history(document)


def _faults_of_clock(clock: Document, facts: Document, rang_at: datetime) -> Iterator[str]:
    name, stated = clock["timezone"], _offset(clock["utcOffset"])
    if name[0] not in "+-" and rang_at.astimezone(ZoneInfo(name)).utcoffset() != stated:
        yield f"{name} is not {clock['utcOffset']} at {rang_at}"
    wall = (rang_at.astimezone(UTC) + stated).replace(tzinfo=None)
    closes = wall
    while (later := max((end for start, end in _spans(facts, wall) if start <= closes < end), default=closes)) > closes:
        closes = later
    if closes == wall:
        yield f"it was {wall} in {name}, outside the hours {facts['callTimeIntervals']}"
    elif closes - wall < timedelta(seconds=facts["roomSeconds"]) - _LOOK_IS_GOOD_FOR:
        yield f"it was {wall} in {name}, too late to ring until the hours ended at {closes}"
    if wall.date() > date.fromisoformat(facts["consentUntil"]):
        yield f"the consent ended on {facts['consentUntil']}"


def _spans(facts: Document, wall: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the hours that start on the day before, the day or the day after, on a wall clock."""
    for days in (-1, 0, 1):
        midnight = datetime.combine(wall.date() + days * _A_DAY, datetime.min.time())
        for hours in facts["callTimeIntervals"]:
            if _DAYS[midnight.weekday()] in hours["days"]:
                start, end = _span(hours["start"]), _span(hours["end"])
                yield midnight + start, midnight + (end if end > start else end + _A_DAY)


def _faults_of_history(document: Document) -> Iterator[str]:
    history = document["history"]
    if document["seals"]["state"] == "BROKEN":
        yield f"the history was changed: {document['seals']['faults']}"
    if [each["number"] for each in history] != list(range(len(history))):
        yield "the entries of the history are not numbered without gaps"
    if any(earlier["to"] != later["from"] for earlier, later in pairwise(history)):
        yield "an entry of the history does not begin where the one before it ends"
    if document["status"] in _NEVER_RUNG:
        yield f"the call is {document['status']}"


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _span(text: str) -> timedelta:
    hours, minutes = text.split(":")
    return timedelta(hours=int(hours), minutes=int(minutes))


def _offset(text: str) -> timedelta:
    return (-1 if text[0] == "-" else 1) * _span(text[1:])
