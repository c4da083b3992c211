"""Attempts as rows: their columns, the rows of their history, and the writes that add and save both."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from sqlalchemy import Row

from scheduler.domain.attempt import Attempt, Event, Reported
from scheduler.domain.call import Schedule, ScheduleWarning
from scheduler.domain.evidence import SealedEntry
from scheduler.lifecycle.state_machine import arrow_of, with_values
from scheduler.persistence.connection import Connection, update_all
from scheduler.persistence.json_columns import schedule_as_json, schedule_from_json
from scheduler.persistence.rows import from_row
from scheduler.persistence.store import Write, insertion
from scheduler.persistence.tables import attempt_history, attempts
from scheduler.rules import history_seals


def attempt_of(row: Row[Any]) -> Attempt:
    """Read the attempt in a row of `attempts`."""
    return from_row(
        Attempt,
        row,
        schedule=schedule_from_json(row.schedule),
        warnings=tuple(ScheduleWarning(warning) for warning in row.warnings),
        cause_is_lost=bool(row.cause_is_lost),
        instructions_failed=bool(row.instructions_failed),
        call_back=None if row.call_back is None else schedule_from_json(row.call_back),
    )


_NOT_IN_DETAIL = frozenset({"token", "number_hash", "schedule", "warnings", "call_back", "outcome_note"})
"""Not in `detail`: the token, with which a reader could forge callbacks, and values that have their own column. The
note of a report is personal data, and the history outlives the person."""


def _detail_of(event: Event) -> dict[str, Any]:
    schedule = getattr(event, "schedule", None)
    moved_to = {} if schedule is None else {"due_at": schedule.due_at.isoformat()}
    if isinstance(event, Reported) and event.call_back is not None:
        moved_to = {"call_back_at": event.call_back.due_at.isoformat()}
    return moved_to | {
        name: _plain(value) for name, value in vars(event).items() if name not in _NOT_IN_DETAIL and value is not None
    }


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def sealed(
    key: bytes | None, before: Attempt | None, after: Attempt, event: Event, actor: str
) -> tuple[Attempt, dict[str, Any]]:
    """Build the history row of an event that has moved an attempt, and the attempt with the closing seal.

    `before` is None for a new attempt. Without a `key` the row has no seal, as rows of release 0.2.0.
    """
    if before is None:
        arrow_of(None, event)
    detail = _detail_of(event)
    if event.name in history_seals.SET_THE_SCHEDULE:
        detail[history_seals.SCHEDULE_DIGEST] = history_seals.schedule_digest(schedule_as_json(after.schedule))
    entry = SealedEntry(
        attempt_id=after.id,
        number=after.epoch,
        at=after.updated_at,
        event=event.name,
        from_state=before.state.value if before else "",
        to_state=after.state.value,
        reason=after.reason.value if after.reason else "",
        actor=actor,
        detail=detail,
    )
    row = dict(vars(entry))
    row["epoch"] = row.pop("number")
    if key is None:
        return after, row
    row["seal"] = seal = history_seals.seal_of(key, after.history_seal, entry)
    return with_values(after, {"history_seal": history_seals.closing_seal_of(key, seal)}), row


_COLUMNS = tuple(each.name for each in fields(Attempt))


def columns_of(attempt: Attempt) -> dict[str, Any]:
    return {name: column_of(attempt, name) for name in _COLUMNS}


def column_of(attempt: Attempt, name: str) -> object:
    """Convert a field of an attempt to the value of its column."""
    match getattr(attempt, name):
        case Enum() as value:
            return value.value
        case Schedule() as schedule:
            return schedule_as_json(schedule)
        case tuple() as warnings:
            return [warning.value for warning in warnings]
        case value:
            return value


_MAY_END_A_HOLD = frozenset({"due_at", "number_hash"})
"""What has changed since the attempt was held may be the reason of the hold."""


def _save_all(connection: Connection, saved: Sequence[tuple[Attempt, Attempt]]) -> None:
    """Write the changed columns of attempts, before and after.

    A column that did not change is not written: another statement of the transaction may have changed it, and an
    update that changes no indexed column is cheap (HOT).
    """
    rows = []
    for before, after in saved:
        values = vars(before)
        names = [name for name, value in vars(after).items() if value is not values[name] and value != values[name]]
        row = {name: column_of(after, name) for name in ("id", *names)}
        if not _MAY_END_A_HOLD.isdisjoint(names):
            row["held_until"] = None  # guard: hold_of_a_moved_attempt
        rows.append(row)
    update_all(connection, attempts, "id", rows)


SAVE = Write(execute=_save_all, turn=1, merge=lambda first, second: (first[0], second[1]))
# After `SAVE`: a retry may be inserted only once its predecessor is not open any longer.
ADD = insertion(attempts, turn=2)
ADD_TO_HISTORY = insertion(attempt_history, turn=3)
