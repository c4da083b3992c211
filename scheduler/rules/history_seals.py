"""Seals: keyed hashes by which a later change of an attempt's history is found.

The seal of an entry is a hash over the entry and the closing seal before it. The closing seal is a hash over the last
seal, and the attempt's row holds it: it is not in the history, so an earlier end of the history has no seal that fits.
The key is in no database.
"""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from itertools import islice
from typing import Any

from scheduler.domain.evidence import FaultKind, SealCheck, SealedEntry, SealFault, SealState
from scheduler.rules import sealed_facts

_BYTES = 16
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_FORM = b"1"
"""The form of the sealed content. Another form needs another value, and both are then checked."""
SCHEDULE_DIGEST = "schedule_digest"
"""The key in the detail of an entry that set the attempt's schedule. It seals the schedule, which its row holds."""
_ONLY_IN_EVIDENCE = frozenset({SCHEDULE_DIGEST, "look"})
SET_THE_SCHEDULE = frozenset({"created", "created_as_test", "rescheduled", "moved_by_settings"})
"""The events after which an attempt may have another schedule."""
_CHANGES_WITHOUT_EVENT = frozenset({"country", "never_called", "number_zones", "tzdata_version"})
"""The keys of a schedule that change without an event: facts about the number, and zone data that move nothing."""
MOST_GAPS = 1000
"""More missing or added entries are not listed: one changed number may stand for billions of them."""


def seal_of(key: bytes, closing: bytes | None, entry: SealedEntry) -> bytes:
    """Compute the seal of an entry that follows a history with this closing seal. None: no entry is sealed yet."""
    content = [
        *(str(entry.attempt_id), entry.number, entry.at.astimezone(UTC).isoformat(), entry.event),
        *(entry.from_state, entry.to_state, entry.reason, entry.actor, entry.detail),
    ]
    return hmac.digest(key, _FORM + (closing or bytes(_BYTES)) + _canonical(content), "sha256")[:_BYTES]


def closing_seal_of(key: bytes, seal: bytes) -> bytes:
    """Compute the closing seal of a history whose last seal is this one."""
    return hmac.digest(key, b"closing" + seal, "sha256")[:_BYTES]


def shown_detail(detail: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what only the evidence of a call shows, in parts of its own."""
    return {name: value for name, value in detail.items() if name not in _ONLY_IN_EVIDENCE}


def schedule_digest(form: Mapping[str, Any]) -> str:
    """Digest a schedule in its stored form, without the keys that change without an event."""
    sealed = {name: value for name, value in form.items() if name not in _CHANGES_WITHOUT_EVENT}
    return hashlib.sha256(_canonical(sealed)).hexdigest()[: 2 * _BYTES]


def check(
    key: bytes,
    entries: Sequence[SealedEntry],
    *,
    last_number: int,
    closing_seal: bytes | None,
    schedule: Mapping[str, Any],
    facts: Mapping[str, Any],
    is_purged: bool,
) -> SealCheck:
    """Check a history, oldest entry first, against the attempt's row.

    `last_number`, `closing_seal`, `schedule` and `facts` are those of the row. `is_purged`: the first entries may be
    missing, because they were deleted after their retention or not read.
    """
    faults = list(islice(_gaps(entries, last_number, is_purged=is_purged), MOST_GAPS))
    unsealed = []
    closing: bytes | None = None
    is_first_lost = is_purged and bool(entries) and entries[0].number > 0
    for place, entry in enumerate(entries):
        if entry.seal is None or (is_first_lost and place == 0):
            unsealed.append(entry.number)
        elif not hmac.compare_digest(entry.seal, seal_of(key, closing, entry)):
            faults.append(SealFault(kind=FaultKind.CHANGED, number=entry.number))
        if entry.seal is not None:
            closing = closing_seal_of(key, entry.seal)
    if closing != closing_seal and (entries or not is_purged):
        # The last sealed entry was removed, or its seal was.
        faults.append(SealFault(kind=FaultKind.CHANGED, number=last_number))
    faults += _schedule_faults(entries, schedule)
    unproven = {*unsealed, *(each.number for each in faults)}
    contradicted = sealed_facts.contradicted(entries, facts, schedule, unproven)
    faults += [SealFault(kind=FaultKind.FACTS_CHANGED, number=each) for each in contradicted]
    found = tuple(dict.fromkeys(sorted(faults, key=lambda each: each.number)))
    return SealCheck(state=_state(found, unsealed, entries), faults=found, unsealed=tuple(unsealed))


def _state(faults: Sequence[SealFault], unsealed: Sequence[int], entries: Sequence[SealedEntry]) -> SealState:
    if faults:
        return SealState.BROKEN
    return SealState.PARTLY_SEALED if unsealed or not entries else SealState.WHOLE


def _gaps(entries: Sequence[SealedEntry], last_number: int, *, is_purged: bool) -> Iterator[SealFault]:
    """Find numbers that are missing, repeated or out of order. Each event of an attempt has the next number."""
    awaited = entries[0].number if is_purged and entries else 0
    for entry in entries:
        if entry.number < awaited:
            yield SealFault(kind=FaultKind.ADDED, number=entry.number)
            continue
        yield from _removed(awaited, entry.number)
        awaited = entry.number + 1
    if awaited > last_number + 1:
        yield SealFault(kind=FaultKind.ADDED, number=last_number + 1)
    if not (is_purged and not entries):
        yield from _removed(awaited, last_number + 1)


def _removed(first: int, end: int) -> Iterator[SealFault]:
    return (SealFault(kind=FaultKind.REMOVED, number=each) for each in range(first, end))


def _schedule_faults(entries: Sequence[SealedEntry], schedule: Mapping[str, Any]) -> list[SealFault]:
    """Compare the schedule with the digest of the entry that set it. An entry of an earlier release lacks it."""
    setters = [each for each in entries if each.event in SET_THE_SCHEDULE]
    if not setters or SCHEDULE_DIGEST not in setters[-1].detail:
        return []
    if setters[-1].detail[SCHEDULE_DIGEST] == schedule_digest(schedule):
        return []
    return [SealFault(kind=FaultKind.SCHEDULE_CHANGED, number=setters[-1].number)]


def _canonical(content: object) -> bytes:
    """Encode JSON in one form, whatever the order in which PostgreSQL returns the keys."""
    return _ENCODER.encode(content).encode()
