"""The evidence of a call: what is kept about its last look, and which later changes of its history are found."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from api_shim.schemas.evidence import EvidenceView
from api_shim.schemas.interview import ExplanationView
from scheduler.domain.attempt import (
    Attempt,
    Cancelled,
    ConversationOutcome,
    Ended,
    Placed,
    Progressed,
    Reason,
    Reported,
)
from scheduler.domain.call import Accepted, CallProgress
from scheduler.domain.evidence import Evidence, FaultKind, LookResult, RuleResult, SealState
from scheduler.domain.explanation import Rule
from scheduler.domain.refusals import NotFound
from scheduler.persistence import evidence
from scheduler.rules import retention
from scheduler.use_cases.explain import Explain
from scheduler.use_cases.operations.evidence import CallEvidence
from scheduler.use_cases.operations.pauses import Pauses
from tests.conftest import TestClock
from tests.support.builders import (
    Tenant,
    a_call_with_its_look,
    a_claimed_attempt,
    a_number,
    a_pending_attempt,
    a_placed_attempt,
    a_sid,
    last_look_of,
)

Read = Callable[[Attempt], Evidence]
A_CALL = (
    Progressed(rank=CallProgress.RINGING),
    Progressed(rank=CallProgress.ANSWERED),
    Ended(
        reason=Reason.ANSWERED,
        ended_at=datetime(2026, 4, 1, tzinfo=UTC),
        duration=timedelta(seconds=90, milliseconds=1),
    ),
)


@pytest.fixture
def read(tenant: Tenant) -> Read:
    """Read the evidence as an operator's command does."""
    of_calls = CallEvidence(tenant.context)
    return lambda attempt: of_calls.of_operator(attempt.id)


@pytest.fixture
def over(tenant: Tenant) -> Attempt:
    """A call with its last look, which has ended."""
    return tenant.take(a_call_with_its_look(tenant), *A_CALL)


# ---- the history


def test_history_of_a_call_is_whole(over: Attempt, read: Read) -> None:
    found = read(over)
    assert (found.seals.state, found.seals.faults) == (SealState.WHOLE, ())
    assert [each.number for each in found.entries] == list(range(6))
    assert all(each.is_sealed for each in found.entries)


@pytest.mark.parametrize(
    "change",
    [
        "at = at + interval '1 microsecond'",
        "actor = 'operator'",
        "actor = 'key:x'",
        "detail = '3'",
        "epoch = epoch + 10",
        'detail = detail || \'{"call_sid": "CA0"}\'',
        "detail = '{}'",
        "seal = NULL",
        "seal = decode('00', 'hex')",
        "(event, reason, from_state, to_state) = ('ended', 'BUSY', 'IN_PROGRESS', 'FAILED')",
        "attempt_id = :other",
    ],
)
@pytest.mark.parametrize("number", [0, 2, 5])
def test_changed_row_of_the_history_is_found(
    tenant: Tenant, over: Attempt, read: Read, change: str, number: int
) -> None:
    other = a_pending_attempt(tenant)
    before = read(over).entries[number].happening.detail
    changed = f"UPDATE attempt_history SET {change} WHERE attempt_id = :id AND epoch = :number"
    tenant.change(changed, id=over.id, number=number, **({"other": other.id} if ":other" in change else {}))
    assert change != "detail = '{}'" or before, "each of these entries has a detail"
    assert read(over).seals.state is SealState.BROKEN


ODD_VALUES: tuple[Any, ...] = ("yesterday", "2026-04-02T10:00:00", 77, 1e300, [], {})


@pytest.mark.parametrize(
    ("number", "detail"),
    [
        *((2, {name: each}) for name in ("due_at", "expires_at") for each in ODD_VALUES),
        *((2, {"cause": each}) for each in ODD_VALUES),
        *((3, {"rank": each}) for each in ODD_VALUES),
        *((5, {"duration": each}) for each in ODD_VALUES),
    ],
    ids=str,
)
def test_changed_value_that_cannot_be_read_is_found(
    tenant: Tenant, over: Attempt, read: Read, number: int, detail: dict[str, Any]
) -> None:
    change_detail(tenant, over, number, detail)
    found = read(over)
    assert found.seals.state is SealState.BROKEN
    assert EvidenceView.of(found).seals.state is SealState.BROKEN


def change_detail(tenant: Tenant, attempt: Attempt, number: int, detail: dict[str, Any]) -> None:
    tenant.change(
        "UPDATE attempt_history SET detail = detail || CAST(:detail AS jsonb)"
        " WHERE attempt_id = :id AND epoch = :number",
        id=attempt.id,
        number=number,
        detail=json.dumps(detail),
    )


DEEP = "[" * 300 + "]" * 300


@pytest.mark.parametrize("number", [0, 2, 5])
@pytest.mark.parametrize(
    "change",
    [
        *(f"at = '{each}'" for each in ("infinity", "-infinity", "20000-01-01", "4000-01-01 BC")),
        *(f"detail = detail || '{{\"x\": {each}}}'" for each in ("1e5000", f"{10**400}.5", DEEP)),
        "detail = '[1e5000]'",
        "detail = 'null'",
    ],
    ids=lambda change: change[:20],
)
def test_changed_entry_that_no_document_can_contain_is_found(
    tenant: Tenant, over: Attempt, read: Read, change: str, number: int
) -> None:
    tenant.change(
        f"UPDATE attempt_history SET {change} WHERE attempt_id = :id AND epoch = :number", id=over.id, number=number
    )
    shown = EvidenceView.of(read(over))
    assert (FaultKind.CHANGED, number) in [(each.kind, each.number) for each in shown.seals.faults]
    explained = ExplanationView.of(Explain(tenant.context).explanation_of(over.id))
    for view in (shown, explained):
        assert json.dumps(view.model_dump(mode="json", by_alias=True), allow_nan=False)


@pytest.mark.parametrize("number", range(6))
def test_deleted_row_of_the_history_is_found(tenant: Tenant, over: Attempt, read: Read, number: int) -> None:
    tenant.change("DELETE FROM attempt_history WHERE attempt_id = :id AND epoch = :number", id=over.id, number=number)
    assert FaultKind.REMOVED in {each.kind for each in read(over).seals.faults}


@pytest.mark.parametrize("deleted", ["epoch < 1", "epoch < 3", "true"])
def test_deleted_start_is_found_whatever_the_row_says_of_its_age(
    tenant: Tenant, over: Attempt, read: Read, deleted: str
) -> None:
    """The start of an old history is purged, and no seal covers the column."""
    tenant.change(f"DELETE FROM attempt_history WHERE attempt_id = :id AND {deleted}", id=over.id)
    aged = "UPDATE attempts SET created_at = created_at - :age WHERE id = :id"
    tenant.change(aged, id=over.id, age=2 * retention.HISTORY)
    assert read(over).seals.state is SealState.BROKEN


def test_inserted_row_of_the_history_is_found(tenant: Tenant, over: Attempt, read: Read) -> None:
    columns = "attempt_id, at, event, from_state, to_state, reason, epoch, actor, detail, seal"
    tenant.change(
        f"INSERT INTO attempt_history ({columns}) SELECT {columns} FROM attempt_history"
        " WHERE attempt_id = :id AND epoch = 3",
        id=over.id,
    )
    assert read(over).seals.state is SealState.BROKEN


@pytest.mark.parametrize(
    "change", ["history_seal = NULL", "epoch = epoch - 1", 'schedule = schedule || \'{"zones": ["Europe/Lisbon"]}\'']
)
def test_changed_row_of_the_attempt_is_found(tenant: Tenant, over: Attempt, read: Read, change: str) -> None:
    tenant.change(f"UPDATE attempts SET {change} WHERE id = :id", id=over.id)
    assert read(over).seals.state is SealState.BROKEN


@pytest.mark.parametrize(
    "change",
    [
        "(state, reason) = ('FAILED', 'NO_ANSWER')",
        "reason = 'TEST'",
        "due_at = due_at + interval '1 second'",
        "call_sid = 'CA0'",
        "answered_by = 'MACHINE'",
        "duration = interval '1 hour'",
        "outcome = 'FINISHED'",
        "outcome_at = outcome_at - interval '1 second'",
        "(outcome, call_back) = ('CALL_BACK', schedule)",
    ],
)
def test_changed_fact_of_the_attempt_is_found(tenant: Tenant, read: Read, change: str) -> None:
    reported = Reported(outcome=ConversationOutcome.OPTED_OUT)
    attempt = tenant.take(a_call_with_its_look(tenant), *A_CALL, reported)
    assert read(attempt).seals.state is SealState.WHOLE
    tenant.change(f"UPDATE attempts SET {change} WHERE id = :id", id=attempt.id)
    found = read(attempt).seals
    assert (found.state, {each.kind for each in found.faults}) == (SealState.BROKEN, {FaultKind.FACTS_CHANGED})


def test_rows_of_release_0_2_0_are_no_fault(tenant: Tenant, read: Read) -> None:
    """Its workers write rows without seals, before the upgrade and until they are replaced."""
    attempt = a_pending_attempt(tenant)
    tenant.change("UPDATE attempt_history SET seal = NULL, detail = '{}' WHERE attempt_id = :id", id=attempt.id)
    tenant.change("UPDATE attempts SET history_seal = NULL WHERE id = :id", id=attempt.id)
    assert read(attempt).seals.unsealed == (0,)
    claims = tenant.dial.claim([attempt.id])
    tenant.dial.record([(claims.claimed[0].attempt, Accepted(call_sid=a_sid()))])
    found = read(tenant.attempt(attempt.id))
    assert (found.seals.state, found.seals.faults, found.seals.unsealed) == (SealState.PARTLY_SEALED, (), (0,))


def test_purged_history_of_release_0_1_0_is_no_fault(tenant: Tenant, read: Read) -> None:
    """The ids of its attempts are random, so nothing tells how old they are."""
    attempt, old = tenant.take(a_pending_attempt(tenant), Cancelled(reason=Reason.CANCELLED_BY_USER)), uuid4()
    tenant.change("UPDATE attempt_history SET seal = NULL WHERE attempt_id = :id", id=attempt.id)
    tenant.change("DELETE FROM attempt_history WHERE attempt_id = :id AND epoch = 0", id=attempt.id)
    tenant.change(
        "WITH moved AS (UPDATE attempt_history SET attempt_id = :old WHERE attempt_id = :id)"
        " UPDATE attempts SET (id, chain_id, history_seal) = (:old, :old, NULL) WHERE id = :id",
        id=attempt.id,
        old=old,
    )
    found = CallEvidence(tenant.context).of_operator(old)
    assert (found.seals.state, found.seals.faults) == (SealState.PARTLY_SEALED, ())


@pytest.mark.parametrize(("most", "is_cut"), [(5, True), (6, False)])
def test_long_history_is_cut_to_its_newest_entries(
    over: Attempt, read: Read, monkeypatch: pytest.MonkeyPatch, most: int, *, is_cut: bool
) -> None:
    monkeypatch.setattr(evidence, "MOST_ENTRIES", most)
    found = read(over)
    assert (len(found.entries), found.entries[-1].number, found.is_cut) == (most, 5, is_cut)
    state, unsealed = (SealState.PARTLY_SEALED, (1,)) if is_cut else (SealState.WHOLE, ())
    assert (found.seals.state, found.seals.faults, found.seals.unsealed) == (state, (), unsealed)


def test_change_in_a_cut_history_is_found(
    tenant: Tenant, over: Attempt, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant.change("UPDATE attempt_history SET actor = 'a' WHERE attempt_id = :id AND epoch = 4", id=over.id)
    monkeypatch.setattr(evidence, "MOST_ENTRIES", 4)
    assert read(over).seals.state is SealState.BROKEN


def test_several_events_of_one_transaction_are_sealed(tenant: Tenant, read: Read) -> None:
    attempt = tenant.take(a_pending_attempt(tenant), Cancelled(reason=Reason.CANCELLED_BY_USER))
    assert read(attempt).seals.state is SealState.WHOLE
    claims = tenant.dial.claim([a_pending_attempt(tenant).id for _ in range(3)])
    tenant.dial.record([(each.attempt, Accepted(call_sid=a_sid())) for each in claims.claimed])
    assert {read(each.attempt).seals.state for each in claims.claimed} == {SealState.WHOLE}


# ---- the last look


def test_evidence_has_what_the_last_look_has_found(tenant: Tenant, read: Read, now: TestClock) -> None:
    attempt = a_call_with_its_look(tenant)
    look = read(attempt).last_look
    assert look is not None
    assert look.record is not None
    assert (look.result, look.cause, look.claimed_at) == (LookResult.PASSED, None, attempt.claimed_at)
    assert {result for _, result in look.rules} == {RuleResult.PASSED}
    assert [rule for rule, _ in look.rules] == list(Rule)
    assert look.record.at == now() < look.record.leave_by
    assert look.record.utc_offsets == {"Europe/Bratislava": timedelta(hours=2)}
    assert look.record.country == "SK"
    assert [(each.start, each.end) for each in look.record.hours] == [("08:00", "20:00")]
    assert look.record.tzdata_version == attempt.schedule.tzdata_version


def test_look_is_kept_when_the_carrier_reports_first(tenant: Tenant, read: Read) -> None:
    attempt, sid = a_claimed_attempt(tenant), a_sid()
    sent = last_look_of(tenant, attempt)
    heard = tenant.take(
        attempt, Placed(call_sid=sid, look_at=tenant.now()), Progressed(rank=CallProgress.RINGING), actor="carrier"
    )
    tenant.dial.record([(attempt, Accepted(call_sid=sid))], sent)
    found = read(attempt)
    assert found.last_look is not None
    assert (found.last_look.result, found.seals.state) == (LookResult.PASSED, SealState.WHOLE)
    assert tenant.attempt(attempt.id).heard_rank is heard.heard_rank


def test_look_of_a_call_that_has_ended_before_is_not_recorded(tenant: Tenant, read: Read) -> None:
    attempt, sid = a_claimed_attempt(tenant), a_sid()
    sent = last_look_of(tenant, attempt)
    tenant.take(attempt, Placed(call_sid=sid, look_at=tenant.now()), *A_CALL, actor="carrier")
    tenant.dial.record([(attempt, Accepted(call_sid=sid))], sent)
    found = read(attempt)
    assert found.last_look is not None
    assert (found.last_look.result, found.last_look.record) == (LookResult.NOT_RECORDED, None)
    assert found.seals.state is SealState.WHOLE


UNREADABLE_LOOKS: tuple[Any, ...] = ({}, 3, None, "look", {"form": 1})
UNREADABLE_PARTS: dict[str, tuple[Any, ...]] = {
    "at": (7, "now", "2026-04-02T10:00:00", "9999-12-31T23:00:00+00:00"),
    "offsets": ([], {"Europe/Bratislava": 1e300}, {"Europe/Bratislava": "2 h"}, {"Europe/Bratislava": 90_000}),
    "hours": (7, [[]], [[[7], "08:00", "20:00"]], [[["WED"], 8, 20]]),
    "form": ("1", []),
    **{name: ([], 1e300) for name in ("leave_by", "consent_until", "country", "tzdata")},
    "room_s": ("long", 1e300),
}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        *((None, each) for each in UNREADABLE_LOOKS),
        *((name, each) for name, values in UNREADABLE_PARTS.items() for each in values),
    ],
    ids=str,
)
def test_changed_look_that_cannot_be_read_is_not_recorded(
    tenant: Tenant, read: Read, name: str | None, changed: Any
) -> None:
    attempt = a_call_with_its_look(tenant)
    [[look]] = tenant.ask(
        "SELECT detail -> 'look' FROM attempt_history WHERE attempt_id = :id AND epoch = 2", id=attempt.id
    )
    change_detail(tenant, attempt, 2, {"look": changed if name is None else look | {name: changed}})
    found = read(attempt)
    assert found.last_look is not None
    assert (found.last_look.result, found.last_look.record) == (LookResult.NOT_RECORDED, None)
    assert EvidenceView.of(found).seals.state is SealState.BROKEN


@pytest.mark.parametrize("cause", [7, []], ids=str)
def test_changed_cause_that_cannot_be_read_is_not_recorded(
    tenant: Tenant, read: Read, pauses: Pauses, cause: object
) -> None:
    attempt = a_claimed_attempt(tenant)
    pauses.pause(tenant.company_id, "a test")
    assert tenant.dial.last_look(attempt) is None
    change_detail(tenant, attempt, 2, {"cause": cause})
    shown = EvidenceView.of(read(attempt))
    assert shown.last_look is not None
    assert (shown.last_look.result, shown.seals.state) == (LookResult.NOT_RECORDED, SealState.BROKEN)


def test_blocked_look_names_the_rule(tenant: Tenant, read: Read, pauses: Pauses) -> None:
    attempt = a_claimed_attempt(tenant)
    pauses.pause(tenant.company_id, "a test")
    assert tenant.dial.last_look(attempt) is None
    look = read(attempt).last_look
    assert look is not None
    results = dict(look.rules)
    assert (look.result, look.cause) == (LookResult.BLOCKED, "COMPANY_PAUSED")
    assert results[Rule.CARRIER_DOWN] is RuleResult.PASSED
    assert results[Rule.COMPANY_PAUSED] is RuleResult.BLOCKED
    assert results[Rule.WINDOW_CLOSED] is RuleResult.NOT_RECORDED
    assert results[Rule.COMPANY_LIMIT] is RuleResult.PASSED, "the claim has checked it"


def test_pending_attempt_has_no_last_look(tenant: Tenant, read: Read) -> None:
    assert read(a_pending_attempt(tenant)).last_look is None


def test_explanation_does_not_show_the_look(tenant: Tenant) -> None:
    explanation = Explain(tenant.context).explanation_of(a_call_with_its_look(tenant).id)
    shown = {name for each in explanation.happenings for name in each.detail}
    assert shown == {"lease_until", "machine_detection", "call_sid", "look_at"}


def test_unknown_attempt_has_no_evidence(tenant: Tenant) -> None:
    with pytest.raises(NotFound):
        CallEvidence(tenant.context).of_operator(uuid4())


def test_evidence_names_no_number(tenant: Tenant, read: Read) -> None:
    number = a_number()
    assert number.removeprefix("+421") not in repr(read(a_placed_attempt(tenant, number)))
