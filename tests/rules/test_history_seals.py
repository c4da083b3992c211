"""Seals of a history: every later change of an entry is found, and an entry of an earlier release is no fault."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from scheduler.domain.evidence import FaultKind, SealCheck, SealedEntry, SealState
from scheduler.rules import history_seals

KEY = b"k" * 32
ATTEMPT = UUID(int=7)
BEGAN = datetime(2026, 12, 1, 9, tzinfo=UTC)
SCHEDULE = {"requested": None, "due_at": "2026-12-01T09:00:00+00:00", "zones": ["Europe/Bratislava"], "country": "SK"}
FACTS = {
    "state": "IN_PROGRESS",
    "reason": None,
    "due_at": BEGAN,
    **dict.fromkeys(("call_sid", "answered_by", "duration", "outcome", "outcome_at", "call_back_at")),
}
EVENTS = ("created", "claimed", "placed", "progressed", "ended")


def a_history(*unsealed: int, key: bytes = KEY) -> list[SealedEntry]:
    """Build a history of five entries. Those with these numbers are of release 0.2.0."""
    entries: list[SealedEntry] = []
    closing: bytes | None = None
    for number, event in enumerate(EVENTS):
        detail: dict[str, Any] = {"lease_s": 30.0, "note": "ä"}
        if event == "created" and number not in unsealed:
            detail[history_seals.SCHEDULE_DIGEST] = history_seals.schedule_digest(SCHEDULE)
        entry = SealedEntry(
            attempt_id=ATTEMPT,
            number=number,
            at=BEGAN + timedelta(seconds=number),
            event=event,
            from_state="PENDING",
            to_state="IN_PROGRESS",
            reason="",
            actor="dial",
            detail=detail,
        )
        if number not in unsealed:
            entry = replace(entry, seal=history_seals.seal_of(key, closing, entry))
            closing = history_seals.closing_seal_of(key, entry.seal or b"")
        entries.append(entry)
    return entries


def closing_seal(entries: Sequence[SealedEntry], key: bytes = KEY) -> bytes | None:
    last = next((each.seal for each in reversed(entries) if each.seal is not None), None)
    return None if last is None else history_seals.closing_seal_of(key, last)


def checked(entries: Sequence[SealedEntry], *, of: Sequence[SealedEntry] | None = None, **given: Any) -> SealCheck:
    """Check the entries against the row of an attempt whose history was `of`."""
    row = {
        "last_number": 4,
        "closing_seal": closing_seal(of or a_history()),
        "schedule": SCHEDULE,
        "is_purged": False,
        "facts": FACTS,
    }
    return history_seals.check(KEY, entries, **{**row, **given})


def kinds(check: SealCheck) -> list[tuple[FaultKind, int]]:
    return [(each.kind, each.number) for each in check.faults]


def test_unchanged_history_is_whole() -> None:
    found = checked(a_history())
    assert (found.state, found.faults, found.unsealed) == (SealState.WHOLE, (), ())


def test_instant_of_another_zone_has_the_same_seal() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    assert checked([replace(each, at=each.at.astimezone(there)) for each in a_history()]).state is SealState.WHOLE


@pytest.mark.parametrize(
    "change",
    [
        {"at": BEGAN},
        {"event": "deferred"},
        {"actor": "key:1"},
        {"from_state": "FAILED"},
        {"to_state": "PENDING"},
        {"reason": "BUSY"},
        {"detail": {"lease_s": 31.0}},
        {"attempt_id": UUID(int=8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_changed_entry_is_found(change: dict[str, Any]) -> None:
    entries = a_history()
    entries[2] = replace(entries[2], **change)
    found = checked(entries)
    assert (found.state, kinds(found)) == (SealState.BROKEN, [(FaultKind.CHANGED, 2)])


@pytest.mark.parametrize("number", range(5))
def test_removed_entry_is_found(number: int) -> None:
    entries = a_history()
    del entries[number]
    found = checked(entries)
    assert found.state is SealState.BROKEN
    assert (FaultKind.REMOVED, number) in kinds(found)


@pytest.mark.parametrize("is_sealed", [True, False])
def test_added_entry_is_found(*, is_sealed: bool) -> None:
    entries = a_history()
    added = replace(entries[2], detail={}, seal=entries[2].seal if is_sealed else None)
    found = checked([*entries[:3], added, *entries[3:]])
    assert found.state is SealState.BROKEN
    assert (FaultKind.ADDED, 2) in kinds(found)


def test_entry_added_at_the_end_is_found() -> None:
    entries = a_history()
    added = replace(entries[-1], number=5, seal=None)
    assert kinds(checked([*entries, added])) == [(FaultKind.ADDED, 5)]


def test_number_that_leaves_a_wide_gap_is_one_of_few_faults() -> None:
    """The check must not list each missing number: one changed column would fill the memory of the process."""
    entries = a_history()
    changed = checked([*entries[:-1], replace(entries[-1], number=1_000_000)], last_number=1_000_000)
    of_row = checked(entries, last_number=1_000_000)
    for found in (changed, of_row):
        assert found.state is SealState.BROKEN
        assert len(found.faults) < history_seals.MOST_GAPS + 10


def test_entries_in_another_order_are_found() -> None:
    entries = a_history()
    entries[1], entries[2] = entries[2], entries[1]
    assert checked(entries).state is SealState.BROKEN


@pytest.mark.parametrize("number", range(5))
def test_removed_seal_does_not_pass_for_an_earlier_release(number: int) -> None:
    entries = a_history()
    entries[number] = replace(entries[number], actor="forged", seal=None)
    assert checked(entries).state is SealState.BROKEN


def test_seals_of_another_key_do_not_fit() -> None:
    forged = a_history(key=b"f" * 32)
    assert checked(forged, of=forged).state is SealState.BROKEN


def test_removed_tail_is_found_though_the_row_was_changed_too() -> None:
    """The row's number fits the shorter history, but only the key can close it."""
    entries = a_history()[:3]
    for closing in (None, entries[-1].seal, closing_seal(a_history()), closing_seal(entries, b"f" * 32)):
        assert checked(entries, last_number=2, closing_seal=closing).state is SealState.BROKEN


def test_tail_is_not_replaceable_by_entries_without_seals() -> None:
    entries = [replace(each, seal=None, actor="forged") if each.number > 2 else each for each in a_history()]
    for closing in (None, entries[2].seal, closing_seal(a_history())):
        assert checked(entries, closing_seal=closing).state is SealState.BROKEN


@pytest.mark.parametrize("unsealed", [(0,), (0, 1, 2), (1,), (2, 3), (4,), (3, 4), (0, 1, 2, 3, 4)])
def test_entries_of_an_earlier_release_are_no_fault(unsealed: tuple[int, ...]) -> None:
    """Workers of both releases write to one history during a rolling upgrade."""
    entries = a_history(*unsealed)
    found = checked(entries, of=entries)
    assert (found.state, found.faults, found.unsealed) == (SealState.PARTLY_SEALED, (), unsealed)


def test_entry_between_unsealed_ones_is_not_removable() -> None:
    entries = a_history(1, 3)
    del entries[2]
    assert checked(entries, of=a_history(1, 3)).state is SealState.BROKEN


def test_unsealed_history_is_not_whole() -> None:
    entries = a_history(0, 1, 2, 3, 4)
    assert checked(entries, of=entries).state is not SealState.WHOLE


def test_changed_schedule_is_found() -> None:
    found = checked(a_history(), schedule={**SCHEDULE, "zones": ["Europe/Lisbon"]})
    assert kinds(found) == [(FaultKind.SCHEDULE_CHANGED, 0)]


@pytest.mark.parametrize("change", [{"country": "CZ"}, {"tzdata_version": "2027a"}], ids=str)
def test_part_that_changes_without_an_event_is_not_sealed(change: dict[str, Any]) -> None:
    assert checked(a_history(), schedule={**SCHEDULE, **change}).state is SealState.WHOLE


def test_changed_fact_of_the_row_is_found() -> None:
    assert kinds(checked(a_history(), facts={**FACTS, "duration": timedelta(hours=1)})) == [
        (FaultKind.FACTS_CHANGED, 4)
    ]
    assert kinds(checked(a_history(), facts={**FACTS, "outcome": "FINISHED"})) == [(FaultKind.FACTS_CHANGED, 0)]


def test_fact_of_an_unsealed_entry_is_not_compared() -> None:
    entries = a_history(4)
    found = checked(entries, of=entries, facts={**FACTS, "state": "FAILED", "duration": timedelta(hours=1)})
    assert (found.state, found.faults, found.unsealed) == (SealState.PARTLY_SEALED, (), (4,))


def test_entries_deleted_after_their_retention_are_no_fault() -> None:
    found = checked(a_history()[2:], is_purged=True)
    assert (found.state, found.faults, found.unsealed) == (SealState.PARTLY_SEALED, (), (2,))
    assert checked([], is_purged=True).state is SealState.PARTLY_SEALED
