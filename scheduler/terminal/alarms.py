"""The page of alarms, and its JSON."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from pydantic.alias_generators import to_camel
from rich.console import Group, RenderableType
from rich.text import Text

from scheduler.domain.alarm import KeptAlarm
from scheduler.domain.alarm_meanings import meaning_of
from scheduler.terminal.json_text import as_json
from scheduler.terminal.text import from_now, utc


def alarms_page(alarms: Sequence[KeptAlarm], now: datetime) -> RenderableType:
    """Return each alarm with its count, ids and times."""
    return Group(*(_alarm(each, now) for each in alarms)) if alarms else Text("There are no open alarms.")


def _alarm(alarm: KeptAlarm, now: datetime) -> Text:
    text = Text(f"Alarm     {alarm.id}  ")
    text.append(alarm.kind, "bold red" if alarm.acknowledged_at is None else "green")
    text.append(f"\n  {meaning_of(alarm.kind)}")
    for name, value in _facts(alarm, now):
        text.append(f"\n  {name:<13} ", "dim").append(value)
    return text.append("\n")


def _facts(alarm: KeptAlarm, now: datetime) -> Iterator[tuple[str, str]]:
    for name, value in alarm.subjects.items():
        yield name.removesuffix("_id"), value
    yield "first seen", f"{utc(alarm.first_seen_at)}, {from_now(alarm.first_seen_at, now)}"
    if alarm.count > 1:
        yield "last seen", f"{utc(alarm.last_seen_at)}, {alarm.count} times in all"
    if alarm.acknowledged_at is not None:
        yield "acknowledged", f"{utc(alarm.acknowledged_at)} by {alarm.acknowledged_by}"
    if alarm.note is not None:
        yield "note", alarm.note
    if alarm.posted_at is not None:
        yield "posted", utc(alarm.posted_at)
    elif alarm.tries and alarm.post_at is not None:
        yield "not posted", f"tries: {alarm.tries}; next try {from_now(alarm.post_at, now)}"
    elif alarm.tries:
        yield "not posted", f"tries: {alarm.tries}"


def alarms_as_json(alarms: Sequence[KeptAlarm]) -> list[dict[str, Any]]:
    return [
        as_json(
            {
                "id": each.id,
                "kind": each.kind,
                "subjects": {to_camel(name): value for name, value in each.subjects.items()},
                "first_seen_at": each.first_seen_at,
                "last_seen_at": each.last_seen_at,
                "count": each.count,
                "acknowledged_at": each.acknowledged_at,
                "acknowledged_by": each.acknowledged_by,
                "note": each.note,
                "posted_at": each.posted_at,
                "tries": each.tries,
                "post_at": each.post_at,
            }
        )
        for each in alarms
    ]
