"""Facts in an attempt's row, compared with the sealed entries of its history that have set them.

The comparison happens when the evidence is read. Nothing more is written or hashed for it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from scheduler.domain import attempt as events
from scheduler.domain.attempt import Attempt, ConversationOutcome
from scheduler.domain.evidence import SealedEntry

_CREATIONS = frozenset({events.Created.name, events.CreatedAsTest.name})
_RETURNS = frozenset({events.Deferred.name, events.NotPlaced.name, events.NeverDialled.name})
"""The attempt is pending again, and nothing of the try is kept."""
_OF_CALL = frozenset({events.Placed.name, events.LegSeen.name, events.VerdictAwaited.name, events.Proven.name})
_OF_DURATION = frozenset({events.VerdictAwaited.name, events.Ended.name, events.Proven.name})
_UNREADABLE = object()
"""A value that cannot be read, because it was changed. It equals no fact."""


def facts_of(attempt: Attempt) -> dict[str, Any]:
    """List the facts of an attempt's row that entries of the history set."""
    return {
        "state": attempt.state.value,
        "reason": attempt.reason and attempt.reason.value,
        "due_at": attempt.due_at,
        "expires_at": attempt.expires_at,
        "call_sid": attempt.call_sid,
        "answered_by": attempt.answered_by and attempt.answered_by.value,
        "duration": attempt.duration,
        "outcome": attempt.outcome and attempt.outcome.value,
        "outcome_at": attempt.outcome_at,
        "call_back_at": None if attempt.call_back is None else attempt.call_back.due_at,
    }


def contradicted(
    entries: Sequence[SealedEntry], facts: Mapping[str, Any], schedule: Mapping[str, Any], unproven: Collection[int]
) -> list[int]:
    """List the numbers of entries that have set another value than the row has now.

    `unproven` are the numbers of entries whose content no seal proves. A fact that such an entry has set, and one that
    no entry names, contradicts nothing.
    """
    set_by: dict[str, tuple[SealedEntry, Any]] = {}
    for entry in entries:
        set_by.update({name: (entry, value) for name, value in _set_by(entry, schedule)})
    changed = {
        entry.number for name, (entry, value) in set_by.items() if entry.number not in unproven and facts[name] != value
    }
    return sorted(changed)


def _set_by(entry: SealedEntry, schedule: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the facts that an entry has set, as `lifecycle.state_machine` sets them."""
    detail, event = entry.detail, entry.event
    yield "state", entry.to_state
    yield "reason", entry.reason or None
    if event in _CREATIONS:
        yield "due_at", _instant(schedule.get("due_at"))
        for name in ("call_sid", "answered_by", "duration", "outcome", "outcome_at", "call_back_at"):
            yield name, None
    for name in ("due_at", "expires_at"):
        if name in detail:
            yield name, _instant(detail[name])
    if event in _RETURNS:
        yield "call_sid", None
    elif event in _OF_CALL:
        yield "call_sid", detail.get("call_sid")
    if event in _RETURNS or event == events.Proven.name or "answered_by" in detail:
        yield "answered_by", None if event in _RETURNS else detail.get("answered_by")
    if event in _OF_DURATION:
        yield "duration", _read(lambda seconds: timedelta(seconds=seconds), detail.get("duration"))
    yield from _outcome(entry)


def _outcome(entry: SealedEntry) -> Iterator[tuple[str, Any]]:
    if entry.event == events.Reported.name:
        yield "outcome", entry.detail.get("outcome")
        yield "call_back_at", _instant(entry.detail.get("call_back_at"))
    elif entry.event == events.NotReported.name:
        yield "outcome", ConversationOutcome.FINISHED.value
    else:
        return
    yield "outcome_at", entry.at


def _instant(value: Any) -> Any:  # noqa: ANN401 - JSON
    return _read(datetime.fromisoformat, value)


def _read(read: Callable[[Any], Any], value: Any) -> Any:  # noqa: ANN401 - JSON
    """Read a value that may have been changed. None: there is no value."""
    try:
        return None if value is None else read(value)
    except (TypeError, ValueError, OverflowError):
        return _UNREADABLE
